"""AWS's errors arrive as ours, in one line that names the call and the place and holds no secret."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from orchestrator.clouds.aws.errors import translate
from orchestrator.clouds.aws.session import CONNECT_S, READ_S, AwsSession, Keys
from orchestrator.core.errors import Denied, FailoutError, NoCapacity, NotFound, Rejected, Transient

TAKEOVER_GRACE_S = 3.0


def answered(code: str, message: str = "as it is", status: int = 400, **headers: str) -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {k.replace("_", "-"): v for k, v in headers.items()}}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "ModifyListener")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (Transient, answered("Throttling")),
        (Transient, answered("RequestLimitExceeded", status=503)),
        (Transient, answered("PriorRequestNotComplete")),
        (Transient, answered("InstanceRefreshInProgress")),
        (Transient, answered("ScalingActivityInProgress")),
        (Transient, answered("InternalFailure", status=500)),
        (Transient, answered("500", status=500)),
        (Transient, ReadTimeoutError(endpoint_url="http://127.0.0.1")),
        (Transient, ConnectTimeoutError(endpoint_url="http://127.0.0.1")),
        (Transient, EndpointConnectionError(endpoint_url="http://127.0.0.1")),
        (Transient, ResponseParserError("a page of HTML")),
        (Denied, answered("AccessDenied", status=403)),
        (Denied, answered("UnauthorizedOperation", status=403)),
        (Denied, answered("ExpiredToken")),
        (Denied, answered("InvalidClientTokenId")),
        (Denied, NoCredentialsError()),
        (NoCapacity, answered("InsufficientInstanceCapacity", status=500)),
        (NoCapacity, answered("VcpuLimitExceeded")),
        (NotFound, answered("TargetGroupNotFound")),
        (NotFound, answered("NoSuchHostedZone")),
        (NotFound, answered("InvalidLaunchTemplateId.NotFound")),
        (Rejected, answered("ValidationError")),
        (Rejected, answered("InvalidParameterValue")),
        (Rejected, ParamValidationError(report="Invalid type for parameter UserData, value: hunter2, type: int")),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:60]),
)
def test_an_error_becomes_what_the_caller_should_do(expected: type[FailoutError], error: Exception) -> None:
    told = translate(error, "ModifyListener", "aws/us-east-1a")
    assert expected is type(told)
    assert str(told).startswith("aws/us-east-1a: ModifyListener")
    assert "\n" not in str(told)
    assert "hunter2" not in str(told)


def test_the_far_sides_wish_to_wait_is_kept() -> None:
    told = translate(answered("Throttling", retry_after="7"), "ModifyListener", "aws/us-east-1a")
    assert isinstance(told, Transient)
    assert told.retry_after_s == 7


def test_an_encoded_authorization_message_is_cut_off() -> None:
    message = "You are not authorized.\nEncoded authorization failure message: c2VjcmV0"
    told = translate(answered("UnauthorizedOperation", message), "CreateLaunchTemplateVersion", "aws/us-east-1a")
    assert str(told).endswith("You are not authorized.")


class OpenFence:
    number = 1

    async def check(self) -> None:
        """The lease is ours."""


def test_a_write_that_gets_no_answer_ends_before_another_process_may_take_over() -> None:
    """One attempt only: a second one would be sent later than the fence was read."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        session = AwsSession(Keys("test", "test"))
        at = session.endpoint("us-east-1", {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"})

        # A read of the service comes before any write, and makes its clients.
        asyncio.run(at.read("aws/us-east-1a", "nothing", lambda aws: aws.autoscaling))
        write = at.write(
            "aws/us-east-1a",
            "SuspendProcesses",
            OpenFence(),
            lambda aws: aws.autoscaling.suspend_processes(AutoScalingGroupName="gates"),
        )
        begun = time.monotonic()
        with pytest.raises(Transient, match="no answer"):
            asyncio.run(write)
        assert time.monotonic() - begun < TAKEOVER_GRACE_S
        assert session.calls == {"auto-scaling.SuspendProcesses": 1}
        session.close()


def test_the_time_of_a_write_is_bounded_below_the_takeover_grace() -> None:
    assert CONNECT_S + READ_S < TAKEOVER_GRACE_S


def test_keys_do_not_show_their_secret() -> None:
    assert "hunter2" not in repr(Keys("AKIAEXAMPLE", "hunter2"))
