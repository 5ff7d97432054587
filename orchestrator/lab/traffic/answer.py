"""What counts as a correct answer of the service: pure parsing of HTTP/1.1 responses that state their length."""

from __future__ import annotations

import json
from dataclasses import dataclass

from orchestrator.lab.traffic.record import OK

HEAD_MAX = 16_384
BODY_MAX = 65_536
WRONG_BODY = "wrong-body"
TOLD = ("zone", "instance", "version")


@dataclass(frozen=True, slots=True)
class Answer:
    """`reusable`: the far side keeps the connection open and all of the response has been read."""

    outcome: str
    zone: str
    instance: str
    version: str
    reusable: bool


_GARBAGE = Answer(WRONG_BODY, "", "", "", reusable=False)


def parse(received: bytes | bytearray) -> Answer | None:
    """Judge what came on a connection so far; None while the answer is not whole.

    A 200 must carry the JSON `{"zone", "instance", "version"}` that its headers X-Zone, X-Instance, X-Version state.
    Bytes beyond the answer, no Content-Length on a 200, or sizes beyond the bounds make it a wrong body.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return _GARBAGE if len(received) > HEAD_MAX else None
    try:
        status, headers = _head(bytes(received[:head_end]))
        length = int(headers["content-length"]) if "content-length" in headers else None
    except ValueError:
        return _GARBAGE
    body = bytes(received[head_end + 4 :])
    if length is not None and len(body) < length <= BODY_MAX:
        return None
    zone, instance, version = (headers.get(f"x-{name}", "") for name in TOLD)
    whole = length == len(body)
    outcome = f"status-{status}"  # without a length an error is told by its status, and the connection is given up
    if status == 200:
        outcome = OK if whole and _states(body, [zone, instance, version]) else WRONG_BODY
    reusable = whole and headers.get("connection", "").lower() != "close"
    return Answer(outcome, zone, instance, version, reusable)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    start, *lines = head.decode("latin-1").split("\r\n")
    protocol, status, *_ = start.split(" ", 2)
    if not protocol.startswith("HTTP/1."):
        raise ValueError(protocol)
    headers = {"connection": "close"} if protocol == "HTTP/1.0" else {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(status), headers


def _states(body: bytes, told: list[str]) -> bool:
    try:
        said = json.loads(body)
    except ValueError:
        return False
    return isinstance(said, dict) and all(told) and [said.get(key) for key in TOLD] == told
