"""What was prepared before a zone left is put back once it has returned: weights, autoscalers, the survivors' sizes (I3)."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.deploy_table import E
from orchestrator.core.guards import carrying, refuse_scaling_back, refuse_usual_weights
from orchestrator.core.machine import Event
from orchestrator.core.region_plan import gets_less, usual_weights
from orchestrator.core.topology import Zone
from orchestrator.core.traffic import STEADY, without_surplus
from orchestrator.ports import FleetSeen
from orchestrator.workflows.capacity import Capacity, Prepared, Scaled
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.job import Job
from orchestrator.workflows.polling import NotYet
from orchestrator.workflows.steering import Steering


class Settling:
    """The effect after a zone is back: settle."""

    def __init__(self, gauge: Gauge, steering: Steering, capacity: Capacity) -> None:
        self._gauge = gauge
        self._steering = steering
        self._capacity = capacity

    async def settle(self, job: Job) -> Event:
        """Put back what was prepared: the regions' weights, the zone's own scaling, the survivors' size."""
        prepared = Prepared.of(job.progress.undo)
        if prepared.weights and not await self._kept_away(job, prepared.weights):
            usual = usual_weights(job.world.topology)
            moved = await self._until_usual(job) or await self._capacity.move_weights(job, usual, E.STUCK)
            if moved is not None:
                return moved

        async def thaw() -> None:
            await job.world.fleet(job.zone).set_autoscaling(job.zone, enabled=True, fence=job.fence)

        stopped = await job.do(thaw, late=E.STUCK, doing="thawing the zone's own scaling")
        for zone_id, scaled in prepared.scale.items():
            stopped = stopped or await self.give_back(job, job.world.topology.zone(zone_id), scaled)
        return stopped or job.event(E.SETTLED, "what was prepared is undone")

    async def _kept_away(self, job: Job, moved: Mapping[str, int]) -> bool:
        """Somebody else keeps users from a region, which a person has taken out, say: it gives them back, in steps (I2, I9)."""
        usual = usual_weights(job.world.topology)
        now = (await self._steering.document()).region_weights or usual
        return any(gets_less([region], now, usual) and gets_less([region], now, moved) for region in usual)

    async def give_back(self, job: Job, survivor: Zone, scaled: Scaled) -> Event | None:
        """The size that the survivor had. Where its own autoscaler has made more of it than was asked, that is its business.

        Its minimum is what was raised, and is put back either way.
        """

        async def look() -> FleetSeen:
            return await self._gauge.fleet(survivor, anew=True)

        doing = f"looking at {survivor.id}"
        fleet = await job.until(look, job.policy.prepare_timeout_s, late=E.STUCK, doing=doing)
        if isinstance(fleet, Event):
            return fleet
        minimum = min(scaled.minimum, fleet.desired)
        if fleet.desired <= scaled.now:
            before = min(scaled.before, fleet.desired)  # Whoever else had scaled it may have put that back already.
            stopped = await self._until_spare(job, survivor, before)
            stopped = stopped or await self.scale_back(job, survivor, before)
            if stopped is not None or minimum == before:
                return stopped

        async def release() -> None:
            await job.world.fleet(survivor).set_minimum(survivor, minimum, job.fence)

        doing = f"giving {survivor.id} its minimum of {minimum} back"
        stopped = await job.do(release, late=E.STUCK, doing=doing)
        wanted = await self._steering.wanted(survivor)
        if stopped is None and wanted != STEADY:  # A scaling back was cut short, and a part of it is out of traffic.
            return await self._rejoin(job, survivor)
        return stopped

    async def _until_usual(self, job: Job) -> Event | None:
        """I3: a zone that left beside this one, or was lost meanwhile, may be what the weights stay moved for."""

        async def look() -> bool | NotYet:
            loads, seen = await self._gauge.loads(job.policy.load_window_s), await self._steering.seen()
            refusal = refuse_usual_weights(
                job.zone.id, seen, loads, job.world.topology, max_utilisation=job.policy.max_utilisation
            )
            if refusal is None or refusal.rule in job.overrides:
                return True
            return NotYet(f"refused by {refusal.rule}: {refusal.reason}")

        doing = "giving the regions their usual weights"
        done = await job.until(look, job.policy.prepare_timeout_s, late=E.STUCK, doing=doing)
        return done if isinstance(done, Event) else None

    async def _until_spare(self, job: Job, survivor: Zone, wanted: int) -> Event | None:
        """I3: another zone may have been lost meanwhile; then what was scaled stays, and a person hears of it."""

        async def look() -> bool | NotYet:
            measured, seen = await self._gauge.loads(job.policy.load_window_s), await self._steering.seen()
            loads = carrying(measured, seen, {job.zone.id, survivor.id})
            refusal = refuse_scaling_back(
                survivor.id, wanted, loads, job.world.topology, max_utilisation=job.policy.max_utilisation
            )
            if refusal is None or refusal.rule in job.overrides:
                return True
            return NotYet(f"refused by {refusal.rule}: {refusal.reason}")

        doing = f"scaling {survivor.id} back to {wanted}"
        done = await job.until(look, job.policy.prepare_timeout_s, late=E.STUCK, doing=doing)
        return done if isinstance(done, Event) else None

    async def scale_back(self, job: Job, survivor: Zone, wanted: int) -> Event | None:
        """Make a survivor smaller without cutting a user's connection.

        Where the cloud drains what it ends (AWS), asking is enough. Where it just ends machines (Azure), those that go
        are taken out of traffic first.
        """
        if job.world.traffic(job.world.topology.region_of(survivor.id)).whole_instances() and wanted > 0:
            emptied = await self._empty_surplus(job, survivor, wanted)
            if emptied is not None:
                return emptied
        had: set[str] = set()

        async def ask() -> None:
            had.update(i.id for i in (await self._gauge.fleet(survivor, anew=True)).instances)
            await job.world.fleet(survivor).scale(survivor, wanted, job.fence)

        stopped = await job.do(ask, late=E.STUCK, doing=f"scaling {survivor.id} back to {wanted}")
        self._gauge.forget(survivor)

        async def look() -> bool | NotYet:
            fleet = await self._gauge.fleet(survivor, anew=True)
            left = sum(i.id in had for i in fleet.instances)  # What its own autoscaler adds is none of ours.
            return True if left <= wanted else NotYet(f"{survivor.id} has {left} instances, {wanted} wanted")

        if stopped is None:
            gone = await job.until(
                look, job.policy.prepare_timeout_s, late=E.STUCK, doing=f"scaling {survivor.id} back to {wanted}"
            )
            stopped = gone if isinstance(gone, Event) else None
        return stopped or await self._rejoin(job, survivor)

    async def _rejoin(self, job: Job, survivor: Zone) -> Event | None:
        async def steady() -> object:
            await self._steering.want_survivor(survivor, STEADY, job.fence)
            return await self._steering.until_zone(survivor, job.fence)

        doing = f"making {survivor.id} steady again"
        done = await job.until(steady, job.policy.drain_timeout_s, late=E.STUCK, doing=doing)
        return done if isinstance(done, Event) else None

    async def _empty_surplus(self, job: Job, survivor: Zone, wanted: int) -> Event | None:
        """Take those out of traffic that `scale` will end, of as many as there are then: it may grow meanwhile."""

        async def look() -> object:
            fleet = await self._gauge.fleet(survivor, anew=True)
            now = len(fleet.instances)
            if min(now, fleet.desired) <= wanted:  # It was asked for already: those that go are on their way out.
                return True
            await self._steering.want_survivor(survivor, without_surplus(wanted, now), job.fence)
            return await self._steering.until_drained(survivor, job.fence)

        done = await job.until(look, job.policy.drain_timeout_s, late=E.STUCK, doing=f"making {survivor.id} smaller")
        return done if isinstance(done, Event) else None
