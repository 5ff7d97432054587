"""What every Traffic (region tier) promises, told by what `read` says after each `apply`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import pytest
from contract_rig import OpenFence, StaleFence, TrafficRig, until

from orchestrator.core.errors import StaleCarrier
from orchestrator.core.traffic import OUT, STEADY, Placement, ZoneSeen, ZoneTraffic, matches, ramp
from orchestrator.ports import Fence


def first(rig: TrafficRig) -> str:
    return rig.region.zones[0].id


def others_steady(rig: TrafficRig, wanted: ZoneTraffic) -> dict[str, ZoneTraffic]:
    """Ask `wanted` for the first zone and steady for the rest."""
    return {zone.id: STEADY for zone in rig.region.zones} | {first(rig): wanted}


async def step(rig: TrafficRig, wanted: ZoneTraffic, fence: Fence | None = None) -> Mapping[str, ZoneSeen]:
    await rig.traffic.apply(rig.region, others_steady(rig, wanted), fence or OpenFence())
    return await rig.traffic.read(rig.region)


async def reach(rig: TrafficRig, wanted: ZoneTraffic) -> ZoneSeen:
    """Apply until the first zone is as wanted; at every look the survivors take all of their traffic."""
    zone = rig.region.zones[0]
    grain = rig.traffic.grain(zone, zone.instances)

    async def look() -> ZoneSeen:
        seen = await step(rig, wanted)
        for survivor in rig.region.zones[1:]:
            assert matches(seen[survivor.id], STEADY, grain), f"{survivor.id} suffers: {seen[survivor.id]}"
        return seen[zone.id]

    return await until(rig, look, lambda s: matches(s, wanted, grain), f"{zone.id} is at {wanted}")


class TrafficContract:
    open_rig: Callable[[], AbstractContextManager[TrafficRig]]

    @pytest.fixture
    def rig(self) -> Iterator[TrafficRig]:
        with self.open_rig() as rig:
            yield rig

    async def test_all_zones_start_steady_and_are_not_written_to(self, rig: TrafficRig) -> None:
        before = rig.writes()
        seen = await step(rig, STEADY)
        assert {zone.id for zone in rig.region.zones} == set(seen)
        for zone in rig.region.zones:
            here = seen[zone.id]
            assert here.placement is Placement.STEADY
            assert here.taking == here.healthy == here.total == zone.instances
            assert here.draining == 0
        assert rig.writes() == before

    async def test_a_zone_that_goes_out_takes_nothing_and_drains(self, rig: TrafficRig) -> None:
        assert (await reach(rig, OUT)).taking == 0
        await until(rig, lambda: step(rig, OUT), lambda seen: seen[first(rig)].draining == 0, "the zone has drained")

    async def test_a_zone_that_is_already_out_is_not_written_to(self, rig: TrafficRig) -> None:
        await reach(rig, OUT)
        before = rig.writes()
        await step(rig, OUT)
        assert rig.writes() == before

    @pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
    async def test_a_share_is_read_back_as_asked_within_the_grain(self, rig: TrafficRig, share: float) -> None:
        zone = rig.region.zones[0]
        grain = rig.traffic.grain(zone, zone.instances)
        await reach(rig, OUT)
        seen = await reach(rig, ramp(share))
        assert seen.share == pytest.approx(share, abs=float(grain))
        assert 0 < seen.taking <= seen.total
        assert rig.traffic.whole_instances() or grain < 1 / zone.instances
        before = rig.writes()
        await step(rig, ramp(share))
        assert rig.writes() == before

    async def test_a_zone_returns_in_steps_and_the_survivors_never_lose_an_instance(self, rig: TrafficRig) -> None:
        for wanted in (OUT, ramp(0.1), ramp(0.5), ramp(1.0), STEADY):
            seen = await reach(rig, wanted)
        assert seen.taking == seen.total == rig.region.zones[0].instances

    async def test_a_zone_that_joins_never_stops_taking(self, rig: TrafficRig) -> None:
        zone = rig.region.zones[0]
        await reach(rig, OUT)
        await reach(rig, ramp(1.0))

        async def look() -> ZoneSeen:
            seen = (await step(rig, STEADY))[zone.id]
            assert seen.taking > 0, f"the survivors carry it all again: {seen}"
            return seen

        await until(rig, look, lambda s: matches(s, STEADY, rig.traffic.grain(zone, zone.instances)), "it has joined")

    async def test_a_zone_may_return_at_once(self, rig: TrafficRig) -> None:
        await reach(rig, OUT)
        await reach(rig, STEADY)

    async def test_a_zone_goes_out_again_from_the_ramp(self, rig: TrafficRig) -> None:
        for wanted in (OUT, ramp(0.5), OUT):
            await reach(rig, wanted)

    async def test_a_share_can_be_lowered(self, rig: TrafficRig) -> None:
        for wanted in (OUT, ramp(1.0), ramp(0.5)):
            await reach(rig, wanted)

    @pytest.mark.parametrize("wanted", [ramp(0.5), STEADY], ids=["ramp", "steady"])
    async def test_no_zone_takes_traffic_before_its_targets_are_healthy(
        self, rig: TrafficRig, wanted: ZoneTraffic
    ) -> None:
        await reach(rig, OUT)
        await rig.set_healthy(first(rig), healthy=False)
        for _ in range(10):
            assert (await step(rig, wanted))[first(rig)].taking == 0
            await rig.sleep(rig.poll_s)
        await rig.set_healthy(first(rig), healthy=True)
        assert (await reach(rig, wanted)).taking > 0

    async def test_a_zone_that_dies_on_the_ramp_takes_nothing(self, rig: TrafficRig) -> None:
        await reach(rig, OUT)
        await reach(rig, ramp(0.5))
        await rig.set_healthy(first(rig), healthy=False)
        await until(
            rig, lambda: step(rig, ramp(0.5)), lambda seen: seen[first(rig)].taking == 0, "the dead zone takes nothing"
        )

    async def test_a_dead_zone_goes_out(self, rig: TrafficRig) -> None:
        await rig.set_healthy(first(rig), healthy=False)
        await reach(rig, OUT)

    async def test_zero_instances_do_not_match_steady(self, rig: TrafficRig) -> None:
        await rig.resize(first(rig), 0)
        seen = await until(
            rig, lambda: step(rig, STEADY), lambda seen: seen[first(rig)].total == 0, "the zone has no instance"
        )
        assert not matches(seen[first(rig)], STEADY, rig.traffic.grain(rig.region.zones[0], 0))

    async def test_a_zone_that_is_not_named_is_left_alone(self, rig: TrafficRig) -> None:
        await reach(rig, OUT)
        before = rig.writes()
        rest = {zone.id: STEADY for zone in rig.region.zones[1:]}
        await rig.traffic.apply(rig.region, rest, OpenFence())
        assert rig.writes() == before
        assert (await rig.traffic.read(rig.region))[first(rig)].placement is Placement.OUT

    async def test_reading_writes_nothing(self, rig: TrafficRig) -> None:
        before = rig.writes()
        await rig.traffic.read(rig.region)
        assert rig.writes() == before

    @pytest.mark.parametrize(
        ("path", "wanted"),
        [((), OUT), ((OUT,), ramp(0.5)), ((OUT,), STEADY), ((OUT, ramp(0.5)), ramp(1.0)), ((OUT, ramp(0.5)), OUT)],
        ids=["out", "ramp", "return", "raise", "out-again"],
    )
    async def test_a_stale_fence_stops_every_write(
        self, rig: TrafficRig, path: tuple[ZoneTraffic, ...], wanted: ZoneTraffic
    ) -> None:
        for past in path:
            await reach(rig, past)
        before = rig.writes()
        with pytest.raises(StaleCarrier):
            await step(rig, wanted, StaleFence())
        assert rig.writes() == before

    async def test_the_fence_is_asked_for_each_write(self, rig: TrafficRig) -> None:
        fence, before = OpenFence(), rig.writes()
        await step(rig, OUT, fence)
        assert fence.checks >= rig.writes() - before > 0
