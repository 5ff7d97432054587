"""Faults on order in front of the emulated AWS: boto3 takes them for AWS's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import boto3
import pytest
from aws_world import FAST, GROUP, eventually, provisioned
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from orchestrator.core.errors import Rejected
from orchestrator.lab.aws import EmulatedAws
from orchestrator.lab.aws.faults import Faulty
from orchestrator.lab.azure.faults import Fault, FaultKind

READ = {
    "elbv2": "describe_load_balancers",
    "autoscaling": "describe_auto_scaling_groups",
    "ec2": "describe_instances",
    "route53": "list_hosted_zones",
}


@contextmanager
def faulty() -> Iterator[tuple[Faulty, Any]]:
    faults = Faulty()
    with EmulatedAws(middlewares=[faults.wrap]) as aws:

        def client(service: str, attempts: int = 1, timeout_s: float = 10.0) -> Any:
            config = Config(retries={"mode": "standard", "total_max_attempts": attempts}, read_timeout=timeout_s)
            keys = {"aws_access_key_id": "lab", "aws_secret_access_key": "lab"}
            return boto3.client(service, "us-east-1", endpoint_url=aws.endpoint, config=config, **keys)

        yield faults, client


@pytest.mark.parametrize("service", READ)
def test_every_protocol_throttles_in_words_that_boto3_tries_again_upon(service: str) -> None:
    with faulty() as (faults, client):
        faults.order(Fault(FaultKind.THROTTLE, path=service, count=1))
        with pytest.raises(ClientError, match=r"Throttling|RequestLimitExceeded"):
            getattr(client(service), READ[service])()
        faults.order(Fault(FaultKind.THROTTLE, path=service, count=2))
        assert 2 == getattr(client(service, 3), READ[service])()["ResponseMetadata"]["RetryAttempts"]


def test_a_denial_can_be_an_expired_token_and_says_so() -> None:
    with faulty() as (faults, client):
        faults.order(Fault(FaultKind.DENY, path="elbv2", code="ExpiredToken", message="it <expired>"))
        with pytest.raises(ClientError) as caught:
            client("elbv2").describe_load_balancers()
        assert ("ExpiredToken", "it <expired>") == tuple(
            caught.value.response["Error"][key] for key in ("Code", "Message")
        )


def test_a_reset_and_a_cut_reply_come_after_aws_has_acted() -> None:
    with faulty() as (faults, client):
        ec2 = client("ec2")
        for kind, block in ((FaultKind.RESET, "10.1.0.0/16"), (FaultKind.CUT, "10.2.0.0/16")):
            faults.order(Fault(kind, path="ec2.CreateVpc"))
            with pytest.raises((ConnectionClosedError, ResponseParserError)):
                ec2.create_vpc(CidrBlock=block)
            assert block in {v["CidrBlock"] for v in ec2.describe_vpcs()["Vpcs"]}


def test_a_slow_call_times_out_and_happens_all_the_same() -> None:
    with faulty() as (faults, client):
        ec2 = client("ec2")
        ec2.describe_vpcs()  # moto's first call to EC2 takes seconds
        faults.order(Fault(None, path="ec2.CreateVpc", delay_s=1.3))
        with pytest.raises(ReadTimeoutError):
            client("ec2", timeout_s=1).create_vpc(CidrBlock="10.1.0.0/16")
        time.sleep(0.6)
        assert "10.1.0.0/16" in {v["CidrBlock"] for v in ec2.describe_vpcs()["Vpcs"]}


def test_a_stale_read_answers_as_before() -> None:
    with faulty() as (faults, client):
        ec2 = client("ec2")
        before = len(ec2.describe_vpcs()["Vpcs"])
        faults.order(Fault(FaultKind.STALE, path="ec2.DescribeVpcs", count=2))
        ec2.create_vpc(CidrBlock="10.1.0.0/16")
        assert [before, before, before + 1] == [len(ec2.describe_vpcs()["Vpcs"]) for _ in range(3)]


@pytest.mark.parametrize("path", [".*", "ModifyListener"])
def test_no_call_but_a_refresh_works_on_after_its_answer_and_can_be_spoilt(path: str) -> None:
    with pytest.raises(Rejected, match="StartInstanceRefresh alone"):
        Faulty().order(Fault(FaultKind.HANG, path=path))


def test_a_refresh_on_order_fails_or_hangs_until_it_is_cancelled_and_replaces_nothing() -> None:
    faults = Faulty()
    with provisioned(replace(FAST, refresh_stalled_s=60.0), [faults.wrap]) as world:
        before, version = world.desired("1a"), world.new_version("v2")
        faults.order(Fault(FaultKind.FAIL, path="StartInstanceRefresh", message="Not today."))
        world.refresh(version)
        failed = world.refreshed()
        assert ("Failed", "Not today.", 2) == (failed["Status"], failed["StatusReason"], failed["InstancesToUpdate"])
        faults.order(Fault(FaultKind.HANG, path="StartInstanceRefresh"))
        world.refresh(version)
        eventually(lambda: world.last_refresh()["Status"] == "InProgress")
        time.sleep(0.2)
        assert ("InProgress", 2) == (world.last_refresh()["Status"], world.last_refresh()["InstancesToUpdate"])
        assert before == world.desired("1a")
        world.autoscaling.cancel_instance_refresh(AutoScalingGroupName=GROUP)
        assert "Cancelled" == world.refreshed()["Status"]
        world.refresh(version)
        assert ("Successful", 2) == (world.refreshed()["Status"], [i.version for i in world.desired("1a")].count("v2"))
