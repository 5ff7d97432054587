"""What every Fleet promises, told by what `describe` and `replacement` read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from contract_rig import FleetRig, OpenFence, StaleFence, until

from orchestrator.core.errors import FailoutError, StaleCarrier
from orchestrator.ports import Autoscaler, FleetSeen, Replacement


async def replaced(rig: FleetRig, version: str) -> FleetSeen:
    """Ask for `version` until the cloud has taken the order, then wait until it is done."""

    async def order() -> bool:
        await rig.fleet.replace(rig.zone, version, rig.image(version), OpenFence())
        return True

    async def look() -> tuple[Replacement, FleetSeen]:
        return await rig.fleet.replacement(rig.zone), await rig.fleet.describe(rig.zone)

    def done(seen: tuple[Replacement, FleetSeen]) -> bool:
        return not seen[0].running and runs(seen[1], version, rig.zone.instances)

    await until(rig, order, bool, f"the order to run {version} is taken")
    return (await until(rig, look, done, f"all instances run {version}"))[1]


def runs(seen: FleetSeen, version: str, instances: int) -> bool:
    good = [i for i in seen.instances if i.running and i.on_model and i.version == version]
    return len(good) == len(seen.instances) == instances and seen.model_version == version


class FleetContract:
    open_rig: Callable[[], AbstractContextManager[FleetRig]]

    @pytest.fixture
    def rig(self) -> Iterator[FleetRig]:
        with self.open_rig() as rig:
            yield rig

    async def test_every_instance_is_described_with_its_address_and_version(self, rig: FleetRig) -> None:
        seen = await rig.fleet.describe(rig.zone)
        assert runs(seen, "v1", rig.zone.instances)
        assert seen.desired == rig.zone.instances
        assert len({i.address for i in seen.instances if i.address}) == rig.zone.instances
        assert seen.autoscaling

    async def test_describing_writes_nothing(self, rig: FleetRig) -> None:
        before = rig.writes()
        await rig.fleet.describe(rig.zone)
        await rig.fleet.replacement(rig.zone)
        assert rig.writes() == before

    async def test_a_replaced_fleet_runs_the_new_version_and_says_so(self, rig: FleetRig) -> None:
        await replaced(rig, "v2")
        assert await rig.fleet.replacement(rig.zone) == Replacement(False, "v2", rig.zone.instances, rig.zone.instances)

    async def test_replace_returns_while_the_cloud_still_works(self, rig: FleetRig) -> None:
        await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
        begun = await rig.fleet.replacement(rig.zone)
        assert begun.running
        assert begun.version == "v2"
        assert begun.done < begun.total

    async def test_replacing_twice_is_replacing_once(self, rig: FleetRig) -> None:
        await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
        before = rig.writes()
        await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
        assert rig.writes() == before
        first = await replaced(rig, "v2")
        before = rig.writes()
        await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
        assert rig.writes() == before
        assert await rig.fleet.describe(rig.zone) == first

    async def test_replacing_with_the_version_that_runs_changes_nothing(self, rig: FleetRig) -> None:
        first = await rig.fleet.describe(rig.zone)
        before = rig.writes()
        await rig.fleet.replace(rig.zone, "v1", rig.image("v1"), OpenFence())
        assert rig.writes() == before
        assert await rig.fleet.describe(rig.zone) == first

    async def test_an_upgrade_that_still_runs_gives_way_to_another_version(self, rig: FleetRig) -> None:
        await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), OpenFence())
        await replaced(rig, "v1")

    async def test_instances_added_later_run_the_new_version(self, rig: FleetRig) -> None:
        await replaced(rig, "v2")
        wanted = rig.zone.instances + 1
        await rig.fleet.scale(rig.zone, wanted, OpenFence())
        await until(rig, lambda: rig.fleet.describe(rig.zone), lambda s: runs(s, "v2", wanted), "one more runs v2")

    async def test_scaling_twice_is_scaling_once(self, rig: FleetRig) -> None:
        wanted = rig.zone.instances + 1
        await rig.fleet.scale(rig.zone, wanted, OpenFence())
        before = rig.writes()
        await rig.fleet.scale(rig.zone, wanted, OpenFence())
        assert rig.writes() == before
        seen = await until(rig, lambda: rig.fleet.describe(rig.zone), lambda s: runs(s, "v1", wanted), "one more runs")
        assert seen.desired == wanted

    async def test_a_fleet_is_scaled_back(self, rig: FleetRig) -> None:
        for wanted in (rig.zone.instances + 1, rig.zone.instances):
            await rig.fleet.scale(rig.zone, wanted, OpenFence())
            await until(
                rig, lambda: rig.fleet.describe(rig.zone), lambda s, n=wanted: runs(s, "v1", n), f"{wanted} run"
            )

    async def test_no_fleet_grows_beyond_its_bound(self, rig: FleetRig) -> None:
        before = rig.writes()
        with pytest.raises(FailoutError):
            await rig.fleet.scale(rig.zone, rig.zone.instances_max + 1, OpenFence())
        assert rig.writes() == before

    async def test_autoscaling_is_frozen_and_thawed_once(self, rig: FleetRig) -> None:
        for enabled in (False, True):
            await rig.fleet.set_autoscaling(rig.zone, enabled=enabled, fence=OpenFence())
            seen = await rig.fleet.describe(rig.zone)
            assert seen.autoscaling is enabled
            assert seen.autoscaler is not None
            assert seen.autoscaler.enabled is enabled
            before = rig.writes()
            await rig.fleet.set_autoscaling(rig.zone, enabled=enabled, fence=OpenFence())
            assert rig.writes() == before

    async def test_repairs_go_on_where_nothing_is_to_be_replaced_meanwhile(self, rig: FleetRig) -> None:
        await rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=OpenFence())
        await rig.fleet.set_autoscaling(rig.zone, enabled=False, repairs=True, fence=OpenFence())
        assert (await rig.fleet.describe(rig.zone)).autoscaling, "repairs change the fleet too"
        before = rig.writes()
        await rig.fleet.set_autoscaling(rig.zone, enabled=False, repairs=True, fence=OpenFence())
        assert rig.writes() == before

    async def test_the_clouds_autoscaler_may_not_take_away_what_was_asked_for(self, rig: FleetRig) -> None:
        for wanted in (rig.zone.instances + 1, rig.zone.instances):

            def held(seen: FleetSeen, wanted: int = wanted) -> bool:
                bounds = seen.autoscaler
                return bounds is not None and runs(seen, "v1", wanted) and bounds.minimum == wanted

            async def ask(wanted: int = wanted) -> FleetSeen:
                await rig.fleet.scale(rig.zone, wanted, OpenFence())
                return await rig.fleet.describe(rig.zone)

            seen = await until(rig, ask, held, f"{wanted} run, and no fewer may")
            assert seen.autoscaler == Autoscaler(wanted, rig.zone.instances_max, enabled=True)

    async def test_a_lower_minimum_takes_nothing_away(self, rig: FleetRig) -> None:
        wanted = rig.zone.instances + 1

        async def ask() -> FleetSeen:
            await rig.fleet.scale(rig.zone, wanted, OpenFence())
            return await rig.fleet.describe(rig.zone)

        def held(seen: FleetSeen) -> bool:
            return runs(seen, "v1", wanted) and seen.autoscaler is not None and seen.autoscaler.minimum == wanted

        await until(rig, ask, held, f"{wanted} run, and no fewer may")
        await rig.fleet.set_minimum(rig.zone, rig.zone.instances, OpenFence())
        seen, before = await rig.fleet.describe(rig.zone), rig.writes()
        assert runs(seen, "v1", wanted)
        assert seen.desired == wanted
        assert seen.autoscaler == Autoscaler(rig.zone.instances, rig.zone.instances_max, enabled=True)
        await rig.fleet.set_minimum(rig.zone, rig.zone.instances, OpenFence())
        assert rig.writes() == before

    async def test_a_frozen_fleet_can_still_be_replaced(self, rig: FleetRig) -> None:
        await rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=OpenFence())
        assert not (await replaced(rig, "v2")).autoscaling

    async def test_a_stale_fence_stops_every_write(self, rig: FleetRig) -> None:
        first = await rig.fleet.describe(rig.zone)
        before = rig.writes()
        with pytest.raises(StaleCarrier):
            await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), StaleFence())
        with pytest.raises(StaleCarrier):
            await rig.fleet.scale(rig.zone, rig.zone.instances + 1, StaleFence())
        with pytest.raises(StaleCarrier):
            await rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=StaleFence())
        with pytest.raises(StaleCarrier):
            await rig.fleet.set_minimum(rig.zone, rig.zone.instances - 1, StaleFence())
        assert rig.writes() == before
        assert await rig.fleet.describe(rig.zone) == first

    async def test_a_fence_is_asked_at_least_once_for_each_write(self, rig: FleetRig) -> None:
        fence, before = OpenFence(), rig.writes()
        await rig.fleet.set_autoscaling(rig.zone, enabled=False, fence=fence)
        await rig.fleet.scale(rig.zone, rig.zone.instances + 1, fence)
        await rig.fleet.replace(rig.zone, "v2", rig.image("v2"), fence)
        assert fence.checks >= rig.writes() - before > 0
