"""The AWS adapters deploy a zone and lose one on the ramp, over real processes and a real load balancer, under load."""

from __future__ import annotations

import asyncio
import csv
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from test_aws_dataplane import Lab, lab

from orchestrator.clouds.aws.fleet import AwsFleet
from orchestrator.clouds.aws.session import AwsSession, Keys
from orchestrator.clouds.aws.traffic import AwsTraffic
from orchestrator.core.errors import Transient
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import OUT, STEADY, ZoneSeen, ZoneTraffic, matches, ramp
from orchestrator.lab.model import TICK_S
from orchestrator.lab.traffic.generator import Summary
from orchestrator.lab.traffic.record import OK

ZONE = "aws/us-east-1a"
POLL_S = 0.2
V2 = Image("aws/us-east-1", "sha256:2", {"image_id": "ami-0f000000000000002", "user_data": "VERSION=v2\n"})
# create a template version, start the refresh; detach; attach, three weights; attach, weight off, detach
WRITES_PER_ZONE = 11
CALLS_PER_ZONE_MAX = 300  # 147 when this was written; most are looks, five a second

T = TypeVar("T")


class Open:
    number = 1

    async def check(self) -> None:
        """The lease is ours."""


class Driver:
    """What a workflow does with the ports, without its gates."""

    def __init__(self, made: Lab) -> None:
        document: dict[str, Any] = made.region.topology
        zones = tuple(Zone(cloud="aws", region=document["id"], **zone) for zone in document["zones"])
        self.region = Region(**{**document, "zones": zones})
        self.zone = zones[0]
        self.session = AwsSession(Keys("lab", "lab"))
        self.traffic = AwsTraffic(self.session)
        self.fleet = AwsFleet(self.session, [self.region])

    async def move(self, wanted: ZoneTraffic, good: Callable[[ZoneSeen], bool] | None = None) -> ZoneSeen:
        desired = {zone.id: STEADY for zone in self.region.zones} | {ZONE: wanted}
        grain = self.traffic.grain(self.zone, 2)

        async def look() -> ZoneSeen | None:
            await self.traffic.apply(self.region, desired, Open())
            seen = (await self.traffic.read(self.region))[ZONE]
            return seen if (good(seen) if good else matches(seen, wanted, grain)) else None

        return await self.until(look)

    async def upgrade(self) -> None:
        await self.fleet.replace(self.zone, "v2", V2, Open())

        async def look() -> bool:
            return not (await self.fleet.replacement(self.zone)).running

        await self.until(look)

    async def until(self, look: Callable[[], Awaitable[T | None]]) -> T:
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            try:
                if seen := await look():
                    return seen
            except Transient:
                pass
            await asyncio.sleep(POLL_S)
        raise AssertionError("this did not come true in time")


def test_a_zone_is_upgraded_and_no_request_fails(tmp_path: Path) -> None:
    """Out, drained, replaced, ramped, steady: in strict mode, with every write in the order that the adapters chose."""

    async def deploy() -> tuple[Summary, Counter[str]]:
        async with lab(tmp_path) as made, made.traffic() as counted:
            driver = Driver(made)
            await driver.move(OUT, lambda seen: seen.taking == 0 and seen.draining == 0)
            await driver.upgrade()
            for wanted in (ramp(0.1), ramp(0.5), ramp(1.0)):
                await driver.move(wanted)
                await asyncio.sleep(0.3)
            assert (await driver.move(STEADY)).taking == 2
            seen = await driver.fleet.describe(driver.zone)
            assert [("v2", True)] * 2 == [(i.version, i.on_model) for i in seen.instances]
        return counted[0], driver.session.calls

    counted, calls = asyncio.run(deploy())
    assert counted.requests.sent > 300
    assert 0 == counted.requests.failed
    writes = {call: n for call, n in calls.items() if ".Describe" not in call}
    assert WRITES_PER_ZONE == sum(writes.values()), writes
    assert calls.total() <= CALLS_PER_ZONE_MAX


def test_a_zone_that_dies_on_the_ramp_costs_requests_until_its_weight_is_taken_off(tmp_path: Path) -> None:
    """The load balancer does not fail over between groups: nothing but the adapter ends the loss."""

    async def die() -> float:
        async with lab(tmp_path) as made:
            driver = Driver(made)
            await driver.move(OUT)
            await driver.move(ramp(1.0))
            async with made.traffic():
                made.ec2.terminate_instances(
                    InstanceIds=[i.id for i in made.aws.desired()[0].instances if i.zone == ZONE]
                )
                await driver.move(ramp(1.0), lambda seen: seen.taking == 0)
                safe = time.time()
                await asyncio.sleep(1.5)
        return safe

    safe = asyncio.run(die())
    with (tmp_path / "requests.csv").open(newline="") as log:
        failed = [float(row["t"]) for row in csv.DictReader(log) if row["outcome"] != OK]
    assert failed, "a lab that cannot hurt proves nothing"
    assert max(failed) < safe + 3 * TICK_S
