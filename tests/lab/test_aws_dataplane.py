"""The lab's AWS over real processes and a real load balancer, driven by raw boto3 while users send requests."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dataplane_world import free_octets, until

from orchestrator.lab.addresses import RegionAddresses
from orchestrator.lab.aws import EmulatedAws, Record, Region, RegionPlan, provision_dns, provision_region
from orchestrator.lab.aws.provision import client, forward
from orchestrator.lab.dataplane import DataPlane
from orchestrator.lab.model import FRONT_PORT
from orchestrator.lab.timeline import Timeline
from orchestrator.lab.traffic.generator import Settings, Summary, generate
from orchestrator.lab.traffic.plan import constant

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
GROUP = "gates-us-east-1a"
LONGEST_REQUEST_S = 0.3
DELAY_S = 1


@dataclass
class Lab:
    aws: EmulatedAws
    region: Region
    dns: tuple[str, int]
    folder: Path

    def __post_init__(self) -> None:
        self.asg, self.elb, self.ec2 = (
            client(service, self.aws.endpoint, "us-east-1") for service in ("autoscaling", "elbv2", "ec2")
        )
        front = self.region.topology["front"]
        self.listener = front["listener_arn"]
        self.arns = {pool: front[f"{pool}_target_group_arn"] for pool in ("steady", "ramp")}

    def states(self, pool: str, zone: str = "") -> list[str]:
        """Return the target health of a pool, as the API tells it; `zone` picks the targets that run there."""
        here = {i.id for i in self.aws.desired()[0].instances if i.zone.endswith(zone)}
        told = self.elb.describe_target_health(TargetGroupArn=self.arns[pool])["TargetHealthDescriptions"]
        return [t["TargetHealth"]["State"] for t in told if t["Target"]["Id"] in here]

    async def healthy(self, pool: str, count: int) -> None:
        await until(lambda: ["healthy"] * count == self.states(pool))

    def detach(self, pool: str) -> None:
        self.asg.detach_load_balancer_target_groups(AutoScalingGroupName=GROUP, TargetGroupARNs=[self.arns[pool]])

    def attach(self, pool: str) -> None:
        self.asg.attach_load_balancer_target_groups(AutoScalingGroupName=GROUP, TargetGroupARNs=[self.arns[pool]])

    def weigh(self, steady: int, ramp: int) -> None:
        action = forward({self.arns["steady"]: steady, self.arns["ramp"]: ramp})
        self.elb.modify_listener(ListenerArn=self.listener, DefaultActions=[action])

    def refresh(self, version: str) -> None:
        template = self.region.topology["zones"][0]["fleet"]["launch_template_id"]
        data = {"UserData": base64.b64encode(f"VERSION={version}\n".encode()).decode()}
        made = self.ec2.create_launch_template_version(
            LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData=data
        )
        number = str(made["LaunchTemplateVersion"]["VersionNumber"])
        self.asg.start_instance_refresh(
            AutoScalingGroupName=GROUP,
            DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateId": template, "Version": number}},
            Preferences={"MinHealthyPercentage": 0, "SkipMatching": True, "InstanceWarmup": 0},
        )

    def last_refresh(self) -> dict[str, Any]:
        return self.asg.describe_instance_refreshes(AutoScalingGroupName=GROUP)["InstanceRefreshes"][0]

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[list[Summary]]:
        """Users send requests while the block runs; the list holds their counts after it."""
        stop, counted = asyncio.Event(), []
        settings = Settings(
            self.dns, "gates.lab.", FRONT_PORT, self.folder / "requests.csv", constant(100), clients=20, long_share=0.2
        )
        task = asyncio.get_running_loop().create_task(generate(settings, stop))
        await asyncio.sleep(0.5)  # users are there before anything happens
        yield counted
        await asyncio.sleep(0.5)
        stop.set()
        counted.append(await task)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """Raise gates v1 with 2 instances in each of three zones, all healthy in `steady` and named by the DNS."""
    block, timeline = free_octets(1)[0], Timeline(folder / "timeline.jsonl")
    dns = (RegionAddresses(block).dns, 5353)
    with EmulatedAws(["us-east-1"], timeline=timeline) as aws:
        plan = RegionPlan("gates", "us-east-1", block, ZONES, "v1", instances=2, deregistration_delay_s=DELAY_S)
        region = provision_region(aws.endpoint, plan)
        provision_dns(aws.endpoint, "gates", [Record("aws/us-east-1", 100, region)], ttl_s=1)
        plane = DataPlane([aws], timeline, folder, dns_address=dns[0], dns_port=dns[1])
        thread = threading.Thread(target=lambda: asyncio.run(plane.run()))
        thread.start()
        try:
            made = Lab(aws, region, dns, folder)
            await made.healthy("steady", 6)
            await until(lambda: aws.desired_dns().records)
            yield made
        finally:
            plane.stop()
            await asyncio.to_thread(thread.join, 10)


@pytest.mark.soak  # by hand what test_aws_adapters_lab does with the adapters
def test_a_zone_is_drained_refreshed_and_ramped_and_no_request_fails(tmp_path: Path) -> None:
    async def deploy() -> Summary:
        async with lab(tmp_path) as made:
            async with made.traffic() as counted:
                made.detach("steady")
                await until(lambda: [] == made.states("steady", "1a"))
                made.refresh("v2")
                await until(lambda: made.last_refresh()["Status"] not in ("Pending", "InProgress"))
                assert "Successful" == made.last_refresh()["Status"]
                made.attach("ramp")
                await made.healthy("ramp", 2)
                for ramp in (10, 50):
                    made.weigh(100, ramp)
                    await asyncio.sleep(0.5)
                made.attach("steady")
                await made.healthy("steady", 6)
                made.weigh(100, 0)
                made.detach("ramp")
                await until(lambda: [] == made.states("ramp"))
            assert ["v2", "v2"] == [i.version for i in made.aws.desired()[0].instances if i.zone == "aws/us-east-1a"]
        return counted[0]

    counted = asyncio.run(deploy())
    assert counted.requests.sent > 300
    assert 0 == counted.requests.failed


def test_terminating_instances_that_have_not_drained_costs_requests(tmp_path: Path) -> None:
    async def sabotage() -> Summary:
        async with lab(tmp_path) as made, made.traffic() as counted:
            made.ec2.terminate_instances(
                InstanceIds=[i.id for i in made.aws.desired()[0].instances if i.zone == "aws/us-east-1a"]
            )
            await asyncio.sleep(1)
        return counted[0]

    assert asyncio.run(sabotage()).requests.failed > 0
