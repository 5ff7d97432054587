"""Azure's refusals in Failout's words: one line that names the call and the zone, never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.core.errors import Denied, FailoutError, NoCapacity, NotFound, Rejected, Transient

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError, HttpResponseError

# https://learn.microsoft.com/azure/virtual-machines/troubleshooting/error-messages and .../allocation-failure
NO_CAPACITY_CODES = frozenset(
    {
        "AllocationFailed",
        "ZonalAllocationFailed",
        "OverconstrainedAllocationRequest",
        "OverconstrainedZonalAllocationRequest",
        "SkuNotAvailable",
        "QuotaExceeded",
    }
)
MESSAGE_MAX = 300  # characters; ARM likes to append help text


def translate(error: AzureError, call: str, where: str) -> FailoutError:
    """Return what to raise `from` an SDK error of `call` on `where` (a zone or region id)."""
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError  # noqa: PLC0415

    told = f"azure {call} for {where}"
    if isinstance(error, HttpResponseError) and (error.status_code or 0) >= 400:  # noqa: PLR2004  (else: a spoilt answer)
        code, message = _code_and_message(error)
        return from_status(error.status_code or 0, code, message, getattr(error.response, "headers", {}), told)
    if isinstance(error, ClientAuthenticationError):
        return Denied(f"{told}: no usable credential ({type(error).__name__})")
    return Transient(f"{told}: no answer ({type(error).__name__})")


def from_status(status: int, code: str, message: str, headers: Mapping[str, str], told: str) -> FailoutError:
    """Sort an ARM error by what the caller should do. `headers` may carry how long to wait."""
    line = f"{told}: {status} {one_line(code, message)}"
    if is_no_capacity(code, message):
        return NoCapacity(line)
    if status in {401, 403}:
        return Denied(line)
    if status == 404:  # noqa: PLR2004
        return NotFound(line)
    if status in {408, 409, 412, 429} or status >= 500:  # noqa: PLR2004
        return Transient(line, retry_after_s=retry_after_s(headers))
    return Rejected(line)


def is_no_capacity(code: str, message: str) -> bool:
    return code in NO_CAPACITY_CODES or (code == "OperationNotAllowed" and "quota" in message.lower())


def one_line(code: str, message: str) -> str:
    return " ".join(f"{code}: {message}".split())[:MESSAGE_MAX]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the far side asks to wait, seconds; milliseconds headers win. Dates are not sent by ARM and ignored."""
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("Retry-After", 1.0)):
        try:
            return float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
    return None


def _code_and_message(error: HttpResponseError) -> tuple[str, str]:
    detail = error.error
    code = getattr(detail, "code", None) or error.reason or "Error"
    return str(code), str(getattr(detail, "message", None) or error.message)
