"""Long-running operations as ARM reports them: Azure-AsyncOperation, Location, Retry-After, and an end that is a status."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.lab.azure.arm import SUBSCRIPTION, ArmError, Body, Params, Reply, Request, Route, retry_after
from orchestrator.lab.azure.faults import FaultKind

POLL_S = 0.1  # How often a client is told to poll; without a word from us the SDK waits 30 s.


@dataclass(frozen=True, slots=True)
class Ended:
    """How an operation ended: Succeeded, Failed or Canceled, and why."""

    status: str = "Succeeded"
    code: str = ""
    message: str = ""
    details: tuple[tuple[str, str], ...] = ()


SUCCEEDED = Ended()
Judge: TypeAlias = Callable[[float], Ended | None]  # asked with the time; None while the work goes on
OnEnd: TypeAlias = Callable[[Ended], None]


def superseded(old: str, new: str) -> Ended:
    """Word the end of a network write that a later one overtook, as the real network provider does."""
    message = f"Operation {old} was canceled and superseded by operation {new}."
    details = (("CanceledAndSupersededDueToAnotherOperation", message),)
    return Ended("Canceled", "Canceled", "Operation was canceled.", details)


PREEMPTED = Ended("Failed", "OperationPreempted", "Operation execution has been preempted by a more recent operation.")


@dataclass(slots=True)
class Operation:
    id: str
    provider: str
    location: str
    what: str  # the operation's name in Azure's REST specification
    started: float
    judge: Judge
    on_end: OnEnd | None = None
    hangs: bool = False
    ended: Ended | None = None
    ended_at: float = 0.0

    def end(self, ended: Ended, now: float) -> None:
        if self.ended is None:
            self.ended, self.ended_at = ended, now
            if self.on_end is not None:
                self.on_end(ended)


def timestamp(t: float) -> str:
    return dt.datetime.fromtimestamp(t, dt.UTC).isoformat().replace("+00:00", "Z")


class Operations:
    """All operations of a stand-in. `advance` is called often; nothing here waits."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._operations: dict[str, Operation] = {}
        self._running: list[Operation] = []

    def start(self, request: Request, location: str, what: str, judge: Judge, on_end: OnEnd | None = None) -> Operation:
        """Register work that has begun. `judge` is asked for its end; `on_end` runs once, however it ends."""
        provider = "Microsoft.Network" if "Microsoft.Network" in request.path else "Microsoft.Compute"
        operation = Operation(self._new_id(), provider, location, what, request.now, judge, on_end)
        operation.hangs = request.fault is not None and request.fault.kind is FaultKind.HANG
        self._operations[operation.id] = operation
        self._running.append(operation)
        return operation

    def start_failed(self, request: Request, location: str, what: str, on_end: OnEnd | None = None) -> Operation:
        """Register an operation that a fault lets fail without any work done; it is Failed at the first poll."""
        assert request.fault is not None
        _, code, message = request.fault.words()
        return self.start(request, location, what, lambda _now: Ended("Failed", code, message), on_end)

    def advance(self, now: float) -> None:
        for operation in list(self._running):
            if operation.ended is None and (ended := operation.judge(now)) is not None:
                if operation.hangs:
                    operation.judge = lambda _now: None
                    if operation.on_end is not None:
                        operation.on_end(ended)
                        operation.on_end = None
                else:
                    operation.end(ended, now)
            if operation.ended is not None:
                self._running.remove(operation)

    def headers(self, operation: Operation, request: Request, *, location: bool) -> dict[str, str]:
        """Return the headers of the first answer; `location` as well for POST and DELETE (202)."""
        subscription = request.path.split("/")[2]
        url = (
            f"{request.base}/subscriptions/{subscription}/providers/{operation.provider}/locations/"
            f"{operation.location}/operations/{operation.id}?api-version={request.query.get('api-version', '')}"
        )
        headers = {"Azure-AsyncOperation": url, **retry_after(POLL_S)}
        if location:
            headers["Location"] = url + "&monitor=true"
        return headers

    def routes(self) -> list[Route]:
        path = SUBSCRIPTION + "/providers/{provider}/locations/{location}/operations/{operation}"
        return [Route("GET", path, "Operations_Get", self._get)]

    def _get(self, request: Request, params: Params) -> Reply:
        operation = self._operations.get(params["operation"])
        if operation is None:
            raise ArmError(404, "NotFound", f"Operation '{params['operation']}' was not found.")
        if request.query.get("monitor") == "true":
            return self._monitor(operation)
        body: Body = {"name": operation.id, "startTime": timestamp(operation.started), "status": "InProgress"}
        if operation.ended is None:
            return Reply(200, body, retry_after(POLL_S))
        body |= {"status": operation.ended.status, "endTime": timestamp(operation.ended_at)}
        if operation.ended.status != "Succeeded":
            body["error"] = _error(operation.ended)
        return Reply(200, body)

    def _monitor(self, operation: Operation) -> Reply:
        """Answer the Location URL: 202 while at work, then the result (these operations have none: 204) or the error."""
        if operation.ended is None:
            return Reply(202, None, retry_after(POLL_S))
        if operation.ended.status == "Succeeded":
            return Reply(204)
        return Reply(409, {"error": _error(operation.ended)})


def _error(ended: Ended) -> Body:
    error: Body = {"code": ended.code, "message": ended.message}
    if ended.details:
        error["details"] = [{"code": code, "message": message} for code, message in ended.details]
    return error
