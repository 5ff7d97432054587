"""The HTTP endpoint: moto behind one lock, every call in the timeline, and room for fault middleware between the two."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.exceptions import NotFound
from werkzeug.serving import BaseWSGIServer, make_server

from orchestrator.lab.aws.world import World

Middleware = Callable[[WSGIApplication], WSGIApplication]
_READS = ("Describe", "List", "Get")
_CLIENTS = {
    "elasticloadbalancing": "elbv2",
    "monitoring": "cloudwatch",
}  # boto3's name of a service where its signing name differs


def called(environ: WSGIEnvironment) -> str:
    """Return which call this is, as "elbv2.ModifyListener"; leaves the body to be read again."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0].split("/")
    service = scope[3] if len(scope) > 3 else "unsigned"
    service = _CLIENTS.get(service, service)
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        return f"{service}.{parse_qs(body.decode()).get('Action', ['?'])[0]}"
    try:
        operation, _ = get_service_router(service).match(Request(environ.copy()))
    except (NotFound, NotImplementedError, ValueError):
        return f"{service}.?"
    return f"{service}.{operation.name}"


class Serial:
    """Let one call at a time into moto, whose models are not made for threads, and tell when one may have changed them."""

    def __init__(self, app: WSGIApplication, lock: threading.RLock, changed: Callable[[], None]) -> None:
        self._app, self._lock, self._changed = app, lock, changed

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with self._lock:
            body = list(self._app(environ, start_response))
            if not environ["failout.call"].partition(".")[2].startswith(_READS):
                self._changed()
        return body


class Logged:
    """Write every call to the timeline with its status and how long it took, faults included."""

    def __init__(self, app: WSGIApplication, world: World) -> None:
        self._app, self._world = app, world

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, begun = 500, time.monotonic()
        environ["failout.call"] = called(environ)

        def started(line: str, *rest: Any) -> Any:
            nonlocal status
            status = int(line.split(" ", 1)[0])
            return start_response(line, *rest)

        try:
            return list(self._app(environ, started))
        finally:
            ms = round((time.monotonic() - begun) * 1000, 1)
            self._world.record("api", cloud="aws", call=environ["failout.call"], status=status, ms=ms)


class QuietHandler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The timeline has every call."""


class Server:
    """`middlewares` wrap moto from the inside out, outside the lock: a call that hangs there holds up no other."""

    def __init__(self, port: int, world: World, changed: Callable[[], None], middlewares: Sequence[Middleware]) -> None:
        app: WSGIApplication = Serial(DomainDispatcherApplication(create_backend_app), world.lock, changed)
        for middleware in middlewares:
            app = middleware(app)
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", port, Logged(app, world), threaded=True, request_handler=QuietHandler
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="aws-api", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
