"""The AWS adapters on the lab's emulated AWS, with instances that are told rather than run: a round is 50 ms."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.clouds.aws.fleet import AwsFleet
from orchestrator.clouds.aws.route53 import Route53
from orchestrator.clouds.aws.session import AwsSession, Keys
from orchestrator.clouds.aws.traffic import AwsTraffic
from orchestrator.core.release import Image
from orchestrator.core.topology import GlobalTier, Region, Zone
from orchestrator.lab.aws import EmulatedAws, Record, RegionPlan, Times, provision_dns, provision_region
from orchestrator.lab.model import DesiredRegion, Process, SeenRegion, TargetHealth

FAST = Times(tick_s=0.02, ec2_pending_s=0.05, ec2_shutting_down_s=0.05, refresh_start_s=0.05, dns_in_sync_s=0.1)
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
BLOCK = 41
KEYS = Keys("lab", "lab")
PATIENCE_S = 30.0
PROBES = 3  # rounds until a target that was just registered is judged


class Machines(threading.Thread):
    """Reports what a healthy data plane would: every instance runs, every target is healthy unless its zone is `sick`."""

    def __init__(self, aws: EmulatedAws) -> None:
        super().__init__(name="machines", daemon=True)
        self.sick: set[str] = set()
        self._round = threading.Lock()
        self._probed: dict[tuple[str, str], int] = {}  # (pool, instance) -> rounds since it was registered
        self._aws = aws
        self._over = threading.Event()

    def run(self) -> None:
        booting: set[str] = set()
        while not self._over.wait(0.05):
            with self._round:
                for region in self._aws.desired():
                    self._aws.observe(self._seen(region, booting))

    def finish_round(self) -> None:
        """Returns when a round that may be under way has reported what it saw."""
        with self._round:
            pass

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _seen(self, region: DesiredRegion, known: set[str]) -> SeenRegion:
        processes = {i.id: Process.RUNNING if i.id in known else Process.BOOTING for i in region.instances}
        known.update(processes)
        members = {(pool.name, m.instance): m for front in region.fronts for pool in front.pools for m in pool.members}
        self._probed = {key: self._probed.get(key, 0) + 1 for key, m in members.items() if not m.draining}
        targets = {
            key: self._health(m.zone, processes.get(m.instance), self._probed.get(key, 0)) for key, m in members.items()
        }
        return SeenRegion(region.id, processes, {i: p is Process.RUNNING for i, p in processes.items()}, targets)

    def _health(self, zone: str, process: Process | None, rounds: int) -> TargetHealth:
        if process is not Process.RUNNING or rounds < PROBES:
            return TargetHealth.INITIAL
        return TargetHealth.UNHEALTHY if zone in self.sick else TargetHealth.HEALTHY


class AwsRig:
    """All three rigs in one: emulated AWS, one process's adapters."""

    poll_s = 0.05
    patience_s = PATIENCE_S

    def __init__(self, aws: EmulatedAws, machines: Machines) -> None:
        self.aws, self.machines = aws, machines
        plan = RegionPlan("gates", "us-east-1", BLOCK, ZONES, "v1", instances_max=4, deregistration_delay_s=1)
        provisioned = provision_region(aws.endpoint, plan)
        elsewhere = Record("azure/eastus", 60, address="127.42.0.20")
        tier = provision_dns(aws.endpoint, "gates", [Record("aws/us-east-1", 100, alias=provisioned), elsewhere])
        self.region = region_of(provisioned.topology)
        self.zone = self.region.zones[0]
        self.standing = {"aws/us-east-1": 100, "azure/eastus": 60}
        self.tier = GlobalTier("route53", tier["ttl_s"], tier["record"], tier["attributes"], tier["api"])
        self.session = AwsSession(KEYS)
        self.fleet = AwsFleet(self.session, [self.region])
        self.traffic = AwsTraffic(self.session)
        self.global_traffic = Route53(self.session, self.tier)

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        asyncio.run(test)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def writes(self) -> int:
        return sum(n for call, n in self.session.calls.items() if not is_read(call))

    def image(self, version: str) -> Image:
        return image(version)

    async def set_healthy(self, zone: str, *, healthy: bool) -> None:
        """A round that began before saw another health, and must not tell of it after."""
        (self.machines.sick.discard if healthy else self.machines.sick.add)(zone)
        await asyncio.to_thread(self.machines.finish_round)

    async def resize(self, zone: str, instances: int) -> None:
        group = self.region.zones[[z.id for z in self.region.zones].index(zone)].fleet["auto_scaling_group"]
        client = self.session.make_client("autoscaling", self.region.name, self.aws.endpoint, 1)
        await asyncio.to_thread(
            client.update_auto_scaling_group, AutoScalingGroupName=group, MinSize=instances, DesiredCapacity=instances
        )


def is_read(call: str) -> bool:
    return call.partition(".")[2].startswith(("Describe", "List", "Get"))


def image(version: str) -> Image:
    # v1's digest is the one that the lab provisioned its first template version with.
    digest = {"v1": "sha256:0"}.get(version, f"sha256:{version}")
    data = {"image_id": "ami-0f000000000000001", "user_data": f"VERSION={version}\n"}
    return Image("aws/us-east-1", digest, data)


def region_of(document: dict[str, Any]) -> Region:
    """Read one region of a topology document."""
    region = {key: document[key] for key in ("id", "cloud", "name", "weight", "agent_url", "front", "api")}
    zones = tuple(Zone(cloud=document["cloud"], region=document["id"], **zone) for zone in document["zones"])
    return Region(zones=zones, **region)


@contextmanager
def aws_rig() -> Iterator[AwsRig]:
    """Open a region of three zones, three instances each, all steady."""
    with EmulatedAws(["us-east-1"], times=FAST) as aws:
        machines = Machines(aws)
        machines.start()
        rig = AwsRig(aws, machines)
        try:
            asyncio.run(_settled(rig))
            yield rig
        finally:
            machines.stop()
            rig.session.close()


async def _settled(rig: AwsRig) -> None:
    for _ in range(int(rig.patience_s / rig.poll_s)):
        seen = await rig.traffic.read(rig.region)
        if all(zone.taking == zone.healthy == zone.total == 3 for zone in seen.values()):
            return
        await rig.sleep(rig.poll_s)
    raise AssertionError(f"the region did not come up: {seen}")
