"""HTTP for the stand-in: uvicorn in a thread with its own loop, around one handler that never blocks."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.lab.azure.faults import FaultKind

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from orchestrator.lab.azure.plane import Answer, EmulatedAzure

START_TIMEOUT_S = 10.0


class Server:
    def __init__(self, azure: EmulatedAzure, port: int) -> None:
        self._azure = azure
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="emulated-azure", daemon=True)
        self._ready = threading.Event()

    def start(self) -> str:
        """Return the URL once connections are accepted (the socket listens before the thread runs)."""
        self._socket.listen(128)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise RuntimeError("the emulated Azure did not start in time")
        return self.url

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(START_TIMEOUT_S)
        self._socket.close()

    def _run(self) -> None:
        async def serve() -> None:
            self._ready.set()
            await self._uvicorn.serve(sockets=[self._socket])

        asyncio.run(serve())

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        fault = self._azure.faults.take(request.method, request.url.path)
        if fault is not None and fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        answer = self._azure.handle(
            request.method,
            request.url.path,
            dict(request.query_params),
            {key.lower(): value for key, value in request.headers.items()},
            await request.body(),
            self.url,
            fault,
        )
        if answer.broken is not None:
            _break(answer, send)
            return
        await Response(answer.body, answer.status, dict(answer.headers))(scope, receive, send)


def _break(answer: Answer, send: Any) -> None:  # noqa: ANN401
    """End the connection with nothing said (RESET), or in the middle of the reply (CUT). ASGI has no word for either."""
    cycle = send.__self__
    if answer.broken is FaultKind.CUT:
        head = f"HTTP/1.1 {answer.status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer.body)}\r\n\r\n"
        cycle.transport.write(head.encode() + answer.body[: len(answer.body) // 2])
        cycle.transport.close()
    else:
        cycle.transport.abort()
    cycle.disconnected = True
