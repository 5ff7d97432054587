"""AWS's errors become ours here, split by what the caller should do.

Codes: the "common errors" page and the error pages of EC2, Auto Scaling, Elastic Load Balancing v2 and Route 53.
"""

from __future__ import annotations

import re

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from orchestrator.core.errors import Bug, Denied, FailoutError, NoCapacity, NotFound, Rejected, Transient

THROTTLED = re.compile(r"Throttl|RequestLimitExceeded|TooManyRequests|SlowDown|PriorRequestNotComplete")
DENIED = re.compile(
    r"AccessDenied|UnauthorizedOperation|NotAuthorized|ExpiredToken|RequestExpired|InvalidClientTokenId"
    r"|UnrecognizedClient|AuthFailure|SignatureDoesNotMatch|MissingAuthenticationToken|OptInRequired"
)
NO_CAPACITY = re.compile(r"Insufficient\w*Capacity|InsufficientFreeAddresses|InstanceLimitExceeded|VcpuLimitExceeded")
NOT_FOUND = re.compile(r"NotFound|NoSuch")
# The cloud is busy with something that ends by itself, or its own fault.
BUSY = re.compile(
    r"InProgress|ResourceContention|ResourceInUse|InternalFailure|InternalError|Unavailable|RequestTimeout"
)

NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.TokenRetrievalError,
    aws.SSOError,
    aws.ProfileNotFound,
)
# No answer, or one that was cut: nobody knows whether the call took effect, so it is read back and asked again.
UNANSWERED = (
    aws.HTTPClientError,
    aws.ConnectionError,
    aws.IncompleteReadError,
    ResponseParserError,
)


# All that a call through botocore may raise on purpose.
AWS_ERRORS = (aws.ClientError, aws.BotoCoreError, ResponseParserError)


def translate(error: Exception, call: str, where: str) -> FailoutError:
    """Return our error for `error`: one line that names the call and the zone or region, and no secret."""
    told = f"{where}: {call}"
    if isinstance(error, aws.ClientError):
        return _from_answer(error, told)
    if isinstance(error, NO_CREDENTIALS):
        return Denied(f"{told}: no usable AWS credentials ({type(error).__name__})")
    if isinstance(error, aws.ParamValidationError):
        # Its text repeats the values that were sent (user data among them): the parameters' names must do.
        names = sorted(set(re.findall(r"parameter:? ?\"?([\w.\[\]]+)", str(error))))
        return Rejected(f"{told}: malformed parameters {', '.join(names)}")
    if isinstance(error, UNANSWERED):
        return Transient(f"{told}: no answer ({type(error).__name__})")
    return Bug(f"{told}: {type(error).__name__}")


def _from_answer(error: aws.ClientError, told: str) -> FailoutError:
    details, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, status = str(details.get("Code", "")), int(metadata.get("HTTPStatusCode", 0))
    line = f"{told}: {code}: {_one_line(str(details.get('Message', '')))}"
    if THROTTLED.search(code) or status == 429:  # noqa: PLR2004
        return Transient(line, retry_after_s=_retry_after_s(metadata.get("HTTPHeaders", {})))
    if DENIED.search(code):
        return Denied(line)
    if NO_CAPACITY.search(code):
        return NoCapacity(line)
    if NOT_FOUND.search(code):
        return NotFound(line)
    if BUSY.search(code) or status >= 500:  # noqa: PLR2004
        return Transient(line, retry_after_s=_retry_after_s(metadata.get("HTTPHeaders", {})))
    return Rejected(line)


def _one_line(message: str) -> str:
    """Cut what is not for a log: EC2 appends an encoded authorization message of 1 KB."""
    return " ".join(message.split("Encoded authorization failure message", maxsplit=1)[0].split())[:200]


def _retry_after_s(headers: dict[str, str]) -> float | None:
    try:
        return float(headers["retry-after"])
    except (KeyError, ValueError):
        return None
