"""I2, I3 on the way back of a region: it is sound, and carries what a step gives it, made larger first where it must be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from orchestrator.core.guards import ZoneLoad, carrying
from orchestrator.core.machine import Event, Json
from orchestrator.core.region import M
from orchestrator.core.region_plan import gets_less, refuse_return, sizes_on_return
from orchestrator.core.traffic import Placement, ZoneSeen
from orchestrator.workflows.capacity import Capacity, Prepared, Scaled
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.polling import NotYet
from orchestrator.workflows.region_move import Move, scaled_by
from orchestrator.workflows.steering import Steering, told
from orchestrator.workflows.world import World


class RegionFit:
    """What is asked before a region gets users."""

    def __init__(self, world: World, gauge: Gauge, steering: Steering, capacity: Capacity) -> None:
        self._world = world
        self._gauge, self._steering, self._capacity = gauge, steering, capacity

    async def sound(self, move: Move, waived: Collection[str] = (), growing: Collection[str] = ()) -> str | NotYet:
        """I2: each zone steady and each instance ready, but for the zones that are `waived`.

        Of those that are `growing` some are ready: what has not booted yet is missing in the capacity (I3), not sick.
        """
        seen = await self._steering.seen([z.region for z in move.others])
        for zone in (z for z in move.zones if z.id not in waived):
            fleet = await self._gauge.fleet(zone, anew=True)
            ready = sum(p.reachable and p.ready for p in await self._gauge.probe(zone))
            grows = zone.id in growing
            if not 0 < (min(1, fleet.desired) if grows else fleet.desired) <= ready:
                return NotYet(f"{zone.id}: {ready} of {fleet.desired} ready")
            there = seen.get(zone.id)
            if (
                there is None
                or there.placement is not Placement.STEADY
                or there.healthy < (1 if grows else there.total)
            ):
                return NotYet(f"{zone.id}: {told(there) if there else 'nobody can say where it stands'}")
        return f"every instance of {len(move.zones)} zones ready"

    async def until_fit(
        self, move: Move, weights: Mapping[str, int], unless: Callable[[], Awaitable[Event | None]]
    ) -> Event | None:
        """I2, I3 before each step: a sick region goes out again; one that cannot carry the step waits, then for a person."""
        growing = [z.id for z in move.zones if z.id in scaled_by(move.state)]

        async def sound() -> Event | str | NotYet:
            return await unless() or await self.sound(move, await self._away(move), growing)

        async def fit() -> Event | bool | NotYet:
            seen = await self._away(move)
            sick = await self.sound(move, seen, growing)
            if isinstance(sick, NotYet):
                return Event(M.INTERRUPTED, evidence=sick.why)  # That is asked first, once more.
            if "I3" in move.state.overrides or not gets_less(
                move.state.regions, (await self._world.global_tier.read()).weights, weights
            ):
                return True
            measured = await self._gauge.loads(move.policy.load_window_s)
            loads, limit = carrying(measured, seen, ()), move.policy.max_utilisation
            refusal = refuse_return(move.state.regions, weights, loads, move.topology, max_utilisation=limit)
            if refusal is None:
                return True
            why = f"refused by {refusal.rule}: {refusal.reason}"
            if await self.sizes(move, measured) != Prepared(scaled_by(move.state), {}).row()["scale"]:
                return Event(M.STALE, evidence=f"{why}; it is verified again, and made larger")
            for zone in (z for z in move.zones if z.id in growing):
                await self._capacity.grow(move.job(zone), zone, scaled_by(move.state)[zone.id].now)
            return NotYet(f"{why}; it takes more instances, or fewer users")

        timeout_s = move.policy.verify_timeout_s
        ready = await move.until(sound, timeout_s, late=M.UNHEALTHY, doing="being fit to return")
        if isinstance(ready, Event):
            return ready
        done = await move.until(fit, move.policy.prepare_timeout_s, late=M.INCONCLUSIVE, doing="being welcome back")
        return done if isinstance(done, Event) else None

    async def _away(self, move: Move) -> Mapping[str, ZoneSeen]:
        """Its zones that somebody has out: they make it no sicker, and carry nothing."""
        seen = await self._steering.seen([z.region for z in move.others])
        return {z: s for z, s in seen.items() if s.placement in {Placement.OUT, Placement.RAMP}}

    async def sizes(self, move: Move, loads: Mapping[str, ZoneLoad]) -> Mapping[str, Json]:
        """What the row is to say is scaled: also the zones that come back, where they are too small for their usual users.

        They keep that size, and get their minimum back: their own autoscalers know best what to do with it.
        """
        sizes = scaled_by(move.state)
        if move.policy.scale_survivors and "I3" not in move.state.overrides:
            limit = move.policy.max_utilisation
            for zone, wanted in sizes_on_return(
                move.state.regions, loads, move.topology, max_utilisation=limit
            ).items():
                own = (await self._gauge.fleet(move.topology.zone(zone), anew=True)).autoscaler
                had = sizes.get(zone) or Scaled(0, 0, own.minimum if own else loads[zone].instances)
                size = max(wanted, had.now)
                sizes = {**sizes, zone: Scaled(size, size, had.minimum)}
        scale = Prepared(sizes, {}).row()["scale"]
        assert isinstance(scale, dict)
        return scale
