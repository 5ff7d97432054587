"""Faults on order: what happens to calls of the emulated AWS before, instead of or after moto answers them.

The words and kinds are those of the ARM stand-in's deck; a call is named "elbv2.ModifyListener". Errors come in the wire
format of the called service's protocol, since SDKs decide by the code in the body whether to try again.
"""

from __future__ import annotations

import io
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from orchestrator.core.errors import Rejected
from orchestrator.lab.aws.refresh import spoiled_by
from orchestrator.lab.azure.faults import ANSWERS, SPOILS, Fault, FaultDeck, FaultKind

REFRESH: Final = "StartInstanceRefresh"
REMEMBERED: Final = 512  # answers that a stale read may repeat
# Status, code and message; EC2 throttles in words of its own.
WORDS: Final = {
    FaultKind.THROTTLE: (400, "Throttling", "Rate exceeded"),
    FaultKind.CONFLICT: (400, "ResourceContention", "You already have a pending update to this resource."),
    FaultKind.ERROR: (503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."),
    FaultKind.DENY: (403, "AccessDenied", "User is not authorized to perform this action."),
}
EC2_THROTTLE: Final = (503, "RequestLimitExceeded", "Request limit exceeded.")


class Faulty:
    """The middleware. Add to `deck` from any thread; `method` of a fault does not matter here."""

    def __init__(self) -> None:
        self.deck = FaultDeck()
        self._last: OrderedDict[tuple[str, bytes], _Reply] = OrderedDict()

    def order(self, fault: Fault) -> None:
        """FAIL and HANG spoil an instance refresh: it replaces nothing. Raises Rejected where another call is named."""
        if fault.kind in SPOILS and REFRESH not in fault.path:
            raise Rejected(f"on AWS {fault.kind} is for {REFRESH} alone: no other call works on after its answer")
        self.deck.add(fault)

    def wrap(self, app: WSGIApplication) -> WSGIApplication:
        def faulty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return self._call(app, environ, start_response)

        return faulty

    def _call(self, app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = str(environ["failout.call"])
        fault = self.deck.take("*", call)
        if fault is not None and fault.delay_s:
            time.sleep(fault.delay_s)
        if fault is not None and fault.kind in ANSWERS:
            return _refusal(call, fault).say(start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        asked = (f"{call} {environ.get('PATH_INFO')}?{environ.get('QUERY_STRING')}", body)
        if fault is not None and fault.kind is FaultKind.STALE and asked in self._last:
            return self._last[asked].say(start_response)
        spoils = spoiled_by.set(fault if fault is not None and fault.kind in SPOILS else None)
        try:
            reply = _Reply.of(app, environ)
        finally:
            spoiled_by.reset(spoils)
        if fault is not None and fault.kind in (FaultKind.RESET, FaultKind.CUT):
            _break(environ, reply if fault.kind is FaultKind.CUT else None)
        if not self.deck.stale(call):
            self._last[asked] = reply
            while len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
        return reply.say(start_response)


class _Reply:
    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @classmethod
    def of(cls, app: WSGIApplication, environ: WSGIEnvironment) -> _Reply:
        head: list[Any] = []

        def started(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            head[:] = [status, headers]
            return lambda _: None

        body = b"".join(app(environ, started))
        return cls(head[0], head[1], body)

    def say(self, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers)
        return [self.body]


def _refusal(call: str, fault: Fault) -> _Reply:
    assert fault.kind is not None
    service = call.partition(".")[0]
    status, code, message = WORDS[fault.kind]
    if service == "ec2" and fault.kind is FaultKind.THROTTLE:
        status, code, message = EC2_THROTTLE
    status, code, message = fault.status or status, fault.code or code, escape(fault.message or message)
    error = f"<Code>{code}</Code><Message>{message}</Message>"
    if service == "ec2":
        text = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>fault</RequestID></Response>"
    else:
        text = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>fault</RequestId></ErrorResponse>"
    headers = [("Content-Type", "text/xml"), ("Content-Length", str(len(text)))]
    if fault.retry_after_s is not None:
        headers.append(("Retry-After", f"{fault.retry_after_s:g}"))
    return _Reply(f"{status} {code}", headers, text.encode())


def _break(environ: WSGIEnvironment, half: _Reply | None) -> None:
    """End the connection with nothing said, or in the middle of the reply; moto has acted already."""
    connection: socket.socket = environ["werkzeug.socket"]
    if half is not None:
        head = f"HTTP/1.1 {half.status}\r\nContent-Type: text/xml\r\nContent-Length: {len(half.body)}\r\n\r\n"
        connection.sendall(head.encode() + half.body[: len(half.body) // 2])
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("a fault on order")
