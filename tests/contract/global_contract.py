"""What every GlobalTraffic promises: weights read back exactly, and the DNS says when it has spread them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from contract_rig import GlobalRig, OpenFence, StaleFence, until

from orchestrator.core.errors import Rejected, StaleCarrier


class GlobalContract:
    open_rig: Callable[[], AbstractContextManager[GlobalRig]]

    @pytest.fixture
    def rig(self) -> Iterator[GlobalRig]:
        with self.open_rig() as rig:
            yield rig

    async def test_the_standing_weights_are_read(self, rig: GlobalRig) -> None:
        before = rig.writes()
        assert (await rig.global_traffic.read()).weights == rig.standing
        assert rig.writes() == before

    async def test_weights_are_read_back_exactly(self, rig: GlobalRig) -> None:
        empty, *full = rig.standing
        for wanted in ({empty: 0} | dict.fromkeys(full, 37), dict(rig.standing)):
            await rig.global_traffic.apply(wanted, OpenFence())
            assert (await rig.global_traffic.read()).weights == wanted
            await until(rig, rig.global_traffic.read, lambda seen: seen.in_sync, "the DNS has spread the change")

    async def test_one_region_is_moved_and_the_others_stay(self, rig: GlobalRig) -> None:
        moved = next(iter(rig.standing))
        await rig.global_traffic.apply({moved: 1}, OpenFence())
        assert (await rig.global_traffic.read()).weights == rig.standing | {moved: 1}

    async def test_asking_twice_is_asking_once(self, rig: GlobalRig) -> None:
        wanted = rig.standing | {next(iter(rig.standing)): 0}
        await rig.global_traffic.apply(wanted, OpenFence())
        before = rig.writes()
        await rig.global_traffic.apply(wanted, OpenFence())
        assert rig.writes() == before

    async def test_all_weights_zero_are_refused(self, rig: GlobalRig) -> None:
        """DNS services answer with every record then: the opposite of what was meant."""
        before = rig.writes()
        with pytest.raises(Rejected):
            await rig.global_traffic.apply(dict.fromkeys(rig.standing, 0), OpenFence())
        assert rig.writes() == before
        assert (await rig.global_traffic.read()).weights == rig.standing

    async def test_a_region_without_a_record_is_refused(self, rig: GlobalRig) -> None:
        before = rig.writes()
        with pytest.raises(Rejected):
            await rig.global_traffic.apply(rig.standing | {"nowhere/at-all": 1}, OpenFence())
        assert rig.writes() == before

    async def test_a_stale_fence_stops_every_write(self, rig: GlobalRig) -> None:
        before = rig.writes()
        with pytest.raises(StaleCarrier):
            await rig.global_traffic.apply(rig.standing | {next(iter(rig.standing)): 0}, StaleFence())
        assert rig.writes() == before
        assert (await rig.global_traffic.read()).weights == rig.standing
