"""I13 in practice: a zone is emptied, and only then are its instances replaced."""

from __future__ import annotations

from orchestrator.core.deploy_table import E
from orchestrator.core.errors import Refused
from orchestrator.core.guards import refuse_replacing
from orchestrator.core.machine import Event
from orchestrator.core.traffic import OUT, STEADY, Placement
from orchestrator.workflows.capacity import Capacity
from orchestrator.workflows.gauge import Gauge, window_of
from orchestrator.workflows.job import STALE_S, Job
from orchestrator.workflows.polling import NotYet
from orchestrator.workflows.steering import Steering, told


class Leaving:
    """The effects while a zone leaves and is out: drain, upgrade."""

    def __init__(self, gauge: Gauge, steering: Steering, capacity: Capacity) -> None:
        self._gauge = gauge
        self._steering = steering
        self._capacity = capacity

    async def drain(self, job: Job) -> Event:
        """Stop new traffic to the zone and wait until nothing is in flight."""
        stale = await self._unknown(job)
        if stale is not None:
            return stale
        if not job.neighbours:
            # The only zone of its region: its users go elsewhere first, and live on in resolvers for the TTL.
            weights = (await self._steering.document()).region_weights
            moved = await self._capacity.move_weights(job, {**weights, job.region.id: 0}, E.DRAIN_TIMED_OUT)
            # Azure's balancer lets connections live on, and instances that are not admitted close them one by one; an ALB
            # without targets answers 503 on those that clients keep.
            if moved is None and not job.world.traffic(job.region).whole_instances():
                moved = await self._until_deserted(job)
            if moved is not None:
                return moved
        await self._steering.want_zone(job.zone, OUT, job.fence)
        asked_s, heard = job.clock.monotonic(), False

        async def look() -> Event | str | NotYet:
            nonlocal heard
            silent = not heard and job.progress.as_it_left and job.clock.monotonic() - asked_s > STALE_S
            late = await self._put_back(job) if silent else None
            if late is not None:
                return late  # Its cloud has done nothing of what was asked.
            seen = await self._steering.until_drained(job.zone, job.fence)
            heard = True
            if isinstance(seen, NotYet):
                return seen
            in_flight = sum(p.in_flight for p in await self._gauge.probe(job.zone) if p.reachable)
            return told(seen) if in_flight == 0 else NotYet(f"{in_flight} requests in flight")

        drained: Event | str = await job.until(
            look, job.policy.drain_timeout_s, late=E.DRAIN_TIMED_OUT, doing="draining"
        )
        return job.event(E.DRAINED, drained) if isinstance(drained, str) else drained

    async def _unknown(self, job: Job) -> Event | None:
        """I4: the guards have judged another state than the one that this would change now. None: they have not.

        Too much time has passed, or somebody else has moved traffic. What left already leaves on, unless a hand has put
        it back and users have come with it.
        """
        document = await self._steering.document()
        wanted = document.zones.get(job.zone.id, STEADY)
        if wanted == OUT:
            return await self._put_back(job)
        if (wanted != STEADY) if job.progress.as_it_left else not job.progress.sound:
            return None  # It is on its way already, or sick: that leaves at once, however old.
        if job.progress.undo.get("document", document.version) != document.version:
            return job.event(E.STALE, "other traffic was moved since the guards were asked: they are asked anew (I4)")
        return job.stale()

    async def _put_back(self, job: Job) -> Event | None:
        """Say so where the zone is to be out, has stood still, and takes all of its users: until the guards agree, it keeps them.

        A hand has put it back, or nothing of what was asked has been done. One that had left before, and is not sick, need
        not have stood still for that: an order may send it to drain again a moment after it was held (I4).
        """
        stale = job.stale()
        if stale is None and (job.progress.as_it_left or not job.progress.sound):
            return None

        async def look() -> bool | NotYet:
            seen = await self._steering.seen_zone(job.zone)
            return seen.placement is Placement.STEADY if seen else NotYet(f"{job.region.id} says nothing of it")

        back = await job.until(look, job.policy.drain_timeout_s, late=E.STUCK, doing="looking where its users go")
        if isinstance(back, Event):
            return back
        if not back:
            return None
        await self._steering.want_zone(job.zone, STEADY, job.fence)
        return stale or job.event(E.STALE, "somebody has put it back: its guards are asked anew (I3, I4)")

    async def _until_deserted(self, job: Job) -> Event | None:
        """Kept connections outlive the TTL: wait until users have sent nothing for as long as it lasts."""
        quiet_s = max(job.world.topology.global_tier.ttl_s, job.policy.load_window_s)

        async def look() -> Event | NotYet | None:
            before = await self._gauge.tick()
            stopped = await job.wait(quiet_s, "waiting for the region's last users")
            if stopped is not None:
                return stopped
            served = window_of(before, await self._gauge.tick(), job.zone.id).requests
            return NotYet(f"users sent {served} requests in {quiet_s:.0f} s, after the DNS TTL") if served else None

        doing = f"emptying {job.region.id}"
        return await job.until(look, job.policy.drain_timeout_s, late=E.DRAIN_TIMED_OUT, doing=doing)

    async def upgrade(self, job: Job) -> Event:
        """Bring every instance of the zone to the goal. I13 is checked right before, from what the cloud says."""
        version = job.progress.goal
        image = job.world.releases.get(version).image_for(job.region.id)
        fleet = job.world.fleet(job.zone)

        async def begin() -> bool:
            seen = await self._steering.seen_zone(job.zone)
            probes = await self._gauge.probe(job.zone, anew=True)
            refusal = refuse_replacing(job.zone.id, seen, sum(p.in_flight for p in probes if p.reachable))
            if refusal is not None:
                raise Refused(refusal.rule, refusal.reason, zone=job.zone.id)
            await self._gauge.start_afresh(job.zone)
            await fleet.replace(job.zone, version, image, job.fence)
            return True

        begun = await job.until(begin, job.policy.upgrade_timeout_s, late=E.STUCK, doing=f"asking for {version}")
        if isinstance(begun, Event):
            return begun

        async def look() -> Event | NotYet:
            progress = await fleet.replacement(job.zone)
            if progress.running:
                return NotYet(f"{progress.done} of {progress.total} replaced")
            if progress.failure:
                return job.event(E.UNHEALTHY, f"the upgrade to {version} failed: {progress.failure}")
            seen = await self._gauge.fleet(job.zone, anew=True)
            right = [i for i in seen.instances if i.version == version and i.running]
            if len(right) == len(seen.instances) == seen.desired and seen.desired > 0:
                return job.event(E.UPGRADED, f"all {seen.desired} instances run {version}")
            return NotYet(f"{len(right)} of {seen.desired} instances run {version}")

        doing = f"the upgrade to {version}"
        return await job.until(look, job.policy.upgrade_timeout_s, late=E.UNHEALTHY, doing=doing)
