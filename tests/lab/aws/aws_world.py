"""A provisioned emulated AWS and a stand-in for the data plane, for tests that speak boto3 over HTTP."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from orchestrator.lab.aws import EmulatedAws, Record, Region, RegionPlan, Times, provision_dns, provision_region
from orchestrator.lab.aws.provision import client
from orchestrator.lab.aws.server import Middleware
from orchestrator.lab.model import DesiredInstance, DesiredRegion, Member, Process, SeenRegion, TargetHealth

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
GROUP = "gates-us-east-1a"
FAST = Times(
    tick_s=0.02,
    ec2_pending_s=0.06,
    ec2_shutting_down_s=0.06,
    status_check_s=0.2,
    refresh_start_s=0.05,
    refresh_stalled_s=1.0,
    launch_retry_s=0.1,
    dns_in_sync_s=0.2,
)


def eventually(what: Callable[[], Any], within_s: float = 8.0) -> Any:
    """Poll until `what` is true and return it."""
    deadline = time.monotonic() + within_s
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
    return value


class Machines(threading.Thread):
    """Reports every desired machine as running and well, and every member healthy, but those whose version or id is sick."""

    def __init__(self, aws: EmulatedAws) -> None:
        super().__init__(daemon=True)
        self.sick: set[str] = set()
        self.unadmitted: set[str] = set()
        self._aws, self._ending = aws, threading.Event()

    def run(self) -> None:
        while not self._ending.wait(0.02):
            for region in self._aws.desired():
                self._aws.observe(self._seen(region))

    def stop(self) -> None:
        self._ending.set()
        self.join()

    def _seen(self, region: DesiredRegion) -> SeenRegion:
        well = {i.id: not ({i.id, i.version} & self.sick) for i in region.instances}
        targets = {
            (pool.name, m.instance): TargetHealth.HEALTHY
            if well.get(m.instance) and m.instance not in self.unadmitted
            else TargetHealth.UNHEALTHY
            for front in region.fronts
            for pool in front.pools
            for m in pool.members
        }
        return SeenRegion(region.id, dict.fromkeys(well, Process.RUNNING), well, targets)


@dataclass
class AwsWorld:
    aws: EmulatedAws
    machines: Machines
    region: Region
    dns: dict[str, Any]
    clients: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, service: str) -> Any:
        if service not in ("ec2", "elbv2", "autoscaling", "route53", "arc_zonal_shift", "sts"):
            raise AttributeError(service)
        name = service.replace("_", "-")
        if name not in self.clients:
            self.clients[name] = client(name, self.aws.endpoint, "us-east-1")
        return self.clients[name]

    @property
    def front(self) -> dict[str, str]:
        return self.region.topology["front"]

    @property
    def template(self) -> str:
        return self.region.topology["zones"][0]["fleet"]["launch_template_id"]

    def desired(self, zone: str = "") -> list[DesiredInstance]:
        return [i for i in self.aws.desired()[0].instances if i.zone.endswith(zone)]

    def members(self, pool: str, zone: str = "") -> list[Member]:
        pools = {p.name: p for p in self.aws.desired()[0].fronts[0].pools}
        return [m for m in pools[f"gates-{pool}"].members if m.zone.endswith(zone)]

    def group(self, name: str = GROUP) -> dict[str, Any]:
        return self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]

    def lifecycle(self, name: str = GROUP) -> list[str]:
        return sorted(i["LifecycleState"] for i in self.group(name)["Instances"])

    def health(self, pool: str = "steady") -> dict[str, str]:
        arn = self.front[f"{pool}_target_group_arn"]
        found = self.elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return {t["Target"]["Id"]: t["TargetHealth"]["State"] for t in found}

    def new_version(self, version: str, **request: Any) -> str:
        data = {"UserData": base64.b64encode(f"VERSION={version}\n".encode()).decode()}
        made = self.ec2.create_launch_template_version(
            LaunchTemplateId=self.template,
            SourceVersion="1",
            VersionDescription=f"failout {version} sha256:{version}",
            LaunchTemplateData=data,
            **request,
        )
        return str(made["LaunchTemplateVersion"]["VersionNumber"])

    def refresh(self, version: str, **preferences: Any) -> str:
        """Start an instance refresh of GROUP as Failout does; `preferences` replace its own."""
        return self.autoscaling.start_instance_refresh(
            AutoScalingGroupName=GROUP,
            DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateId": self.template, "Version": version}},
            Preferences={"MinHealthyPercentage": 0, "SkipMatching": True, "InstanceWarmup": 0, **preferences},
        )["InstanceRefreshId"]

    def last_refresh(self) -> dict[str, Any]:
        return self.autoscaling.describe_instance_refreshes(AutoScalingGroupName=GROUP)["InstanceRefreshes"][0]

    def refreshed(self) -> dict[str, Any]:
        ends = ("Successful", "Failed", "Cancelled", "RollbackSuccessful", "RollbackFailed")
        return eventually(lambda: (r := self.last_refresh())["Status"] in ends and r)


@contextmanager
def provisioned(times: Times = FAST, middlewares: Sequence[Middleware] = (), **plan: Any) -> Iterator[AwsWorld]:
    """Raise gates v1 in three zones with 2 instances each, all healthy in `steady`."""
    settings = {"instances": 2, "deregistration_delay_s": 0, "health_check_grace_s": 0, **plan}
    with EmulatedAws(["us-east-1"], times=times, middlewares=middlewares) as aws:
        machines = Machines(aws)
        machines.start()
        region = provision_region(aws.endpoint, RegionPlan("gates", "us-east-1", 21, ZONES, "v1", **settings))
        dns = provision_dns(
            aws.endpoint,
            "gates",
            [Record("aws/us-east-1", 100, region), Record("azure/eastus", 50, address="127.22.0.20")],
        )
        world = AwsWorld(aws, machines, region, dns)
        count = settings["instances"] * len(ZONES)
        eventually(lambda: list(world.health().values()) == ["healthy"] * count)
        yield world
        machines.stop()
