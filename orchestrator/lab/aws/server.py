"""The HTTP endpoint: moto behind one lock, every call in the timeline, and room for fault middleware in front."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from moto.core.responses import BaseResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from orchestrator.lab.aws.graft import override
from orchestrator.lab.aws.world import World

Middleware = Callable[[WSGIApplication], WSGIApplication]
_READS = ("Describe", "List", "Get")


class QuietHandler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"  # boto3 keeps its connections

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The timeline has every call."""


class Calls:
    """WSGI application: one call at a time, for moto's models are not made for threads; then tell what was called."""

    current = threading.local()

    def __init__(self, app: WSGIApplication, world: World, changed: Callable[[], None]) -> None:
        self._app, self._world, self._changed = app, world, changed

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status = "500"

        def started(line: str, *rest: Any) -> Any:
            nonlocal status
            status = line.split(" ", 1)[0]
            return start_response(line, *rest)

        begun = time.monotonic()
        self.current.name = "unknown"
        with self._world.lock:
            body = list(self._app(environ, started))
            name = self.current.name
            if not name.partition(".")[2].startswith(_READS):
                self._changed()
        ms = round((time.monotonic() - begun) * 1000, 1)
        self._world.record("api", cloud="aws", call=name, status=int(status), ms=ms)
        return body


def _call_action(self: BaseResponse) -> Any:
    Calls.current.name = f"{self.boto3_service_name}.{self._get_action()}"
    return _moto_call_action(self)


_moto_call_action = BaseResponse.call_action


def install() -> None:
    override(BaseResponse, "call_action", _call_action)


class Server:
    """`middlewares` wrap the application from the inside out, before the lock: a fault there holds up nobody else."""

    def __init__(self, port: int, world: World, changed: Callable[[], None], middlewares: Sequence[Middleware]) -> None:
        app: WSGIApplication = Calls(DomainDispatcherApplication(create_backend_app), world, changed)
        for middleware in middlewares:
            app = middleware(app)
        self._server: BaseWSGIServer = make_server("127.0.0.1", port, app, threaded=True, request_handler=QuietHandler)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="aws-api", daemon=True
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
