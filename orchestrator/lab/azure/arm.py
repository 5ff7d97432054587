"""The shape of Azure Resource Manager: requests, replies, errors and a router. Pure; no clock, no socket."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias

from orchestrator.lab.azure.faults import Fault

# ARM bodies are JSON whose shape the SDK's own models define; schema.py checks them on the way in and on the way out.
Body: TypeAlias = dict[str, Any]
Params: TypeAlias = Mapping[str, str]

SUBSCRIPTION = "/subscriptions/{sub}"
GROUP = SUBSCRIPTION + "/resourceGroups/{group}"
NETWORK = GROUP + "/providers/Microsoft.Network"
COMPUTE = GROUP + "/providers/Microsoft.Compute"


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` keys are lower case. `base` is the URL that the client used, for links. `fault` spoils an operation."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    base: str
    now: float
    fault: Fault | None = None

    def expands(self, what: str) -> bool:
        return self.query.get("$expand", "").lower() == what.lower()


@dataclass(slots=True)
class Reply:
    status: int
    body: Body | None = None
    headers: dict[str, str] = field(default_factory=dict)


class ArmError(Exception):
    """An error as ARM words it: `{"error": {"code", "message", "details"}}`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = dict(headers or {})

    def reply(self) -> Reply:
        error: Body = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = [{"code": code, "message": message} for code, message in self.details]
        return Reply(self.status, {"error": error}, self.headers)


def retry_after(seconds: float) -> dict[str, str]:
    """Tell the client to wait. Azure says whole seconds; the lab, being faster, says `retry-after-ms` below one.

    Never both: azure-core looks at Retry-After first.
    """
    if seconds >= 1:
        return {"Retry-After": str(ceil(seconds))}
    return {"retry-after-ms": str(max(1, ceil(seconds * 1000)))}


Handler: TypeAlias = Callable[[Request, Params], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """`call` is the operation's name in Azure's REST specification. `takes`/`gives` name SDK models (see schema.py)."""

    method: str
    template: str
    call: str
    handler: Handler
    takes: str | None = None
    gives: str | None = None

    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template), re.IGNORECASE)


class Router:
    """Finds the route of a request; paths are case-insensitive, as in ARM."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(route, route.pattern()) for route in routes]

    def find(self, method: str, path: str) -> tuple[Route, Params]:
        """Return the route and its path parameters. Raises ArmError 404 or 405 in ARM's words."""
        allowed = []
        for route, pattern in self._routes:
            match = pattern.fullmatch(path)
            if match and route.method == method:
                return route, match.groupdict()
            if match:
                allowed.append(route.method)
        if allowed:
            message = f"The HTTP method '{method}' is not supported at '{path}'; supported: {', '.join(allowed)}."
            raise ArmError(405, "MethodNotAllowed", message, headers={"Allow": ", ".join(allowed)})
        raise ArmError(404, "InvalidResourceType", f"The resource type could not be found for '{path}'.")


def not_found(kind: str, name: str, group: str) -> ArmError:
    message = f"The Resource '{kind}/{name}' under resource group '{group}' was not found."
    return ArmError(404, "ResourceNotFound", message)


def check_match(request: Request, etag: str | None, what: str) -> None:
    """Honour If-Match and If-None-Match against the resource's etag (None: it does not exist). Raises ArmError 412."""
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted is not None and (etag is None or wanted not in ("*", etag)):
        message = f"Etag provided in if-match header {wanted} does not match etag {etag} of resource {what}."
        details = [("PreconditionFailedEtagMismatch", message)]
        raise ArmError(412, "PreconditionFailed", "Precondition failed.", details=details)
    if unwanted is not None and etag is not None and unwanted in ("*", etag):
        raise ArmError(412, "PreconditionFailed", f"Resource {what} exists with etag {etag}.")


def merged(old: Body, new: Body) -> Body:
    """Return `old` with `new` laid over it as PATCH does: objects merge, everything else is replaced."""
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result
