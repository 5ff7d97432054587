"""The simulated world: clouds that act with delay, and users who do not wait.

Every change goes through a method here. `settle` recomputes rates and tells the watchers; it runs before time moves
and before anybody reads, so no state that lasts is ever missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from orchestrator.core.topology import Topology
from orchestrator.sim import load
from orchestrator.sim.scheduler import Scheduler
from orchestrator.sim.truth import (
    BACKEND_POOL,
    RAMP_POOL,
    STEADY_POOL,
    WELL,
    Admin,
    Behaviour,
    Blow,
    Box,
    Happening,
    Ledger,
    Life,
    Physics,
    RegionTruth,
    Swap,
    Target,
    ZoneTruth,
)

DNS_STEPS = 4  # answers run out of resolvers' caches in this many equal parts of the TTL


@dataclass(slots=True, eq=False)
class World:
    topology: Topology
    scheduler: Scheduler
    versions: dict[str, Behaviour]
    physics: Physics
    users_rps: float
    regions: dict[str, RegionTruth] = field(default_factory=dict)
    zones: dict[str, ZoneTruth] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    dns_weights: dict[str, int] = field(default_factory=dict)
    dns_synced: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    trace: list[Happening] = field(default_factory=list)
    watchers: list[Callable[[World], None]] = field(default_factory=list)
    on_replaced: list[Callable[[World, Box], None]] = field(default_factory=list)
    on_upgrade: list[Callable[[World, ZoneTruth, str], None]] = field(default_factory=list)
    sent: list[tuple[float, Mapping[str, float]]] = field(
        default_factory=list
    )  # when users were sent elsewhere: the shares before
    rose_s: float = float("-inf")  # when users last asked for more
    found_sick_s: dict[str, float] = field(default_factory=dict)  # zone -> when a run found that it must leave at once
    _dirty: bool = True
    _dns_changes: int = 0

    @property
    def now_s(self) -> float:
        return self.scheduler.now_s

    def note(self, kind: str, what: str, **args: object) -> None:
        self.trace.append(Happening(self.now_s, kind, what, args))

    def disturb(self, *regions: RegionTruth) -> None:
        """A fault, a healing or a rise of load befalls the regions: nobody can have seen it yet."""
        for region in regions:
            region.struck_at_s = region.disturbed_at_s = self.now_s

    def touch(self, region: RegionTruth) -> None:
        region.dirty = self._dirty = True

    def settle(self) -> None:
        """Bring every rate up to date and let the watchers look. Cheap when nothing has changed."""
        if not self._dirty:
            return
        self._dirty = False
        for region in self.regions.values():
            if region.dirty:
                self.count(region)
                load.spread(region, self.users_rps, self.now_s, self.physics, self.versions)
                self._wake_when_tails_end(region)
        for watch in self.watchers:
            watch(self)

    def count(self, region: RegionTruth) -> None:
        """Bring the region's counters up to this moment."""
        load.account(region, self.now_s, self.ledger)

    def _wake_when_tails_end(self, region: RegionTruth) -> None:
        ends = {box.tail_until_s for zone in region.zones for box in zone.boxes if box.tail_until_s > self.now_s}
        for end_s in sorted(ends):
            self.scheduler.at(end_s, lambda: self.touch(region))

    # Users and DNS --------------------------------------------------------------------------------------------------

    def set_load(self, users_rps: float) -> None:
        if users_rps > self.users_rps:
            self.rose_s = self.now_s
            self.disturb(*self.regions.values())
        self.note("load", f"{users_rps:.0f} rps")
        self.users_rps = users_rps
        for region in self.regions.values():
            self.touch(region)

    def set_dns(self, weights: Mapping[str, int]) -> None:
        """Change the records. Users follow as their resolvers' answers run out."""
        weights = self.dns_weights | dict(weights)
        if weights == self.dns_weights:
            return
        self.dns_weights = weights
        self.dns_synced = False
        self._dns_changes += 1
        change, total = self._dns_changes, sum(weights.values())
        self.note("dns", " ".join(f"{region}={weight}" for region, weight in sorted(weights.items())))
        before = {region_id: region.share for region_id, region in self.regions.items()}
        self.sent.append((self.now_s, before))
        after = {region_id: weights.get(region_id, 0) / total if total else 0.0 for region_id in self.regions}

        def move(step: int) -> None:
            if change != self._dns_changes:
                return
            self.dns_synced = True
            for region_id, region in self.regions.items():
                region.share = before[region_id] + (after[region_id] - before[region_id]) * step / DNS_STEPS
                self.touch(region)

        ttl_s = self.topology.global_tier.ttl_s
        for step in range(DNS_STEPS + 1):
            self.scheduler.after(self.physics.dns_sync_s + ttl_s * step / DNS_STEPS, partial(move, step))

    # Load balancers -------------------------------------------------------------------------------------------------

    def attach(self, zone: ZoneTruth, pool: str) -> None:
        """AWS: the zone's Auto Scaling group joins a target group; its instances are probed before they count."""
        region = zone.region
        if zone.zone.id in region.attached[pool]:
            return
        region.attached[pool].add(zone.zone.id)
        self.note("attach", zone.zone.id, pool=pool)
        for box in zone.boxes:
            self.register(box, pool)

    def register(self, box: Box, pool: str) -> None:
        box.targets[pool] = Target()
        self.probe(box)
        self.touch(box.zone.region)

    def detach(self, zone: ZoneTruth, pool: str) -> None:
        """AWS: the group leaves; its targets drain for the deregistration delay, then are gone."""
        region = zone.region
        if zone.zone.id not in region.attached[pool]:
            return
        region.attached[pool].discard(zone.zone.id)
        zone.by_hand = zone.by_hand and pool != STEADY_POOL
        self.note("detach", zone.zone.id, pool=pool)
        for box in zone.boxes:
            self.deregister(box, pool)

    def deregister(self, box: Box, pool: str) -> None:
        target = box.targets.get(pool)
        if target is None or target.draining:
            return
        self._withdraw(box)
        target.draining, target.drains_since_s = True, self.now_s
        self.touch(box.zone.region)

        def gone() -> None:
            if box.targets.get(pool) is target:
                del box.targets[pool]
                self.touch(box.zone.region)

        self.scheduler.after(self.physics.deregistration_s, gone)

    def _withdraw(self, box: Box) -> None:
        """Somebody may take the instance from the users whom it serves well: remember when it last did."""
        if box in box.zone.region.shares and load.fails(box, self.versions[box.version]) < 1.0:
            box.zone.region.withdrawn[box] = self.now_s

    def set_weights(self, region: RegionTruth, weights: Mapping[str, int]) -> None:
        if region.weights != dict(weights):
            region.weights = dict(weights)
            self.note("weights", region.region.id, **weights)
            self.touch(region)

    def take_by_hand(self, zone: ZoneTruth, *, out: bool) -> None:
        """Somebody uses the cloud's console: the zone leaves traffic at once, or comes back."""
        self.disturb(zone.region)
        self.note("by hand", zone.zone.id, out=out)
        zone.by_hand = not out
        if not out:
            zone.by_hand_s = self.now_s
        if zone.region.aws:
            (self.detach if out else self.attach)(zone, STEADY_POOL)
            return
        for box in zone.boxes:
            self.set_admin(box, Admin.DOWN if out else Admin.NONE)

    def set_admin(self, box: Box, admin: Admin) -> None:
        if box.admin is not admin:
            self._withdraw(box)
            box.admin = admin
            box.zone.by_hand = box.zone.by_hand and admin is not Admin.DOWN
            self.note("admin", box.id, state=admin.value)
            self.touch(box.zone.region)

    def set_admitted(self, box: Box, *, admitted: bool) -> None:
        if box.admitted is not admitted:
            self._withdraw(box)
            box.admitted = admitted
            self.note("admitted" if admitted else "refused admission", box.id)
            self.probe(box)
            self.touch(box.zone.region)

    def probe(self, box: Box) -> None:
        """Something that /admit depends on may have changed: the prober notices after its two probes."""
        passes = load.passes_probe(box, self.versions[box.version])
        for target in box.targets.values():
            if target.draining:
                continue
            if passes is target.healthy:
                target.changing = None
                target.proven = target.proven or passes  # it came back faster than the prober could notice
            elif target.changing is not passes:
                target.changing = passes
                delay_s = self.physics.health_pass_s if passes else self.physics.health_fail_s
                self.scheduler.after(delay_s, partial(self._seen, box, target, passes))

    def _seen(self, box: Box, target: Target, healthy: bool) -> None:
        if target.changing is healthy and not target.draining:
            target.healthy, target.changing = healthy, None
            target.proven = target.proven or healthy
            self._recovers(box)
            box.lost_to_fault = box.lost_to_fault and not healthy
            self.touch(box.zone.region)

    def _recovers(self, box: Box) -> None:
        """What a fault took comes back by itself: nobody is to blame for what that changes."""
        if box.lost_to_fault:
            self.disturb(box.zone.region)

    # Instances ------------------------------------------------------------------------------------------------------

    def launch(self, zone: ZoneTruth, version: str) -> Box:
        """A new machine at `version`; it registers with whatever its fleet is attached to."""
        zone.born += 1
        box = Box(f"{zone.zone.id}/i{zone.born}", f"{zone.zone.id}:{zone.born}", zone, version)
        zone.boxes.append(box)
        self.boxes[box.id] = box
        pools = [BACKEND_POOL] if not zone.region.aws else [STEADY_POOL, RAMP_POOL]
        self.boot(box)
        for pool in pools:
            if not zone.region.aws or zone.zone.id in zone.region.attached[pool]:
                self.register(box, pool)
        return box

    def boot(self, box: Box) -> None:
        """The machine starts: a new incarnation, admitted, not yet listening."""
        self.count(box.zone.region)
        box.life, box.listening, box.ready, box.admitted = Life.BOOTING, False, False, True
        box.incarnation += 1
        box.requests = box.slow_requests = box.errors = 0.0
        self.probe(box)
        self.touch(box.zone.region)
        incarnation = box.incarnation
        self.scheduler.after(self.physics.boot_s, lambda: self._booted(box, incarnation))

    def _booted(self, box: Box, incarnation: int) -> None:
        if box.incarnation != incarnation or box.life is not Life.BOOTING:
            return
        behaviour = self.versions[box.version]
        box.life, box.listening = Life.RUNNING, behaviour.boots
        self.note("booted", box.id, version=box.version)
        self._recovers(box)
        self.probe(box)
        self.touch(box.zone.region)
        self.scheduler.after(self.physics.ready_s, lambda: self._ready(box, incarnation))

    def _ready(self, box: Box, incarnation: int) -> None:
        behaviour = self.versions[box.version]
        if box.incarnation != incarnation or not box.listening:
            return
        box.ready = behaviour.ready
        self.probe(box)
        self.touch(box.zone.region)
        if behaviour.dies_after_s is not None:
            self.scheduler.after(behaviour.dies_after_s, lambda: self._crashed(box, incarnation))

    def _crashed(self, box: Box, incarnation: int) -> None:
        if box.incarnation == incarnation:
            self.stop(box, life=Life.RUNNING)
            self.disturb(box.zone.region)

    def stop(self, box: Box, *, life: Life) -> None:
        """The process is gone. What was in flight is harmed; the prober finds out later."""
        if box.listening and (box.rps > 0.0 or box.busy_until_s > self.now_s):
            lost = max(box.rps, 1.0) * self.physics.mean_request_s
            self.ledger.harmed[load.cause(box, self.versions[box.version])] += lost
        box.life, box.listening, box.ready = life, False, False
        box.tail_rps = box.tail_until_s = 0.0
        self.probe(box)
        self.touch(box.zone.region)

    def end(self, box: Box) -> None:
        """The machine is terminated and forgotten."""
        self.stop(box, life=Life.DEAD)
        box.incarnation += 1
        box.zone.boxes.remove(box)
        del self.boxes[box.id]
        box.targets.clear()

    def lose(self, box: Box) -> None:
        """A machine breaks. Its cloud repairs it later, unless repairs are frozen."""
        self.disturb(box.zone.region)
        self.note("lost", box.id)
        self.stop(box, life=Life.DEAD)
        box.incarnation += 1
        box.lost_to_fault = True
        self.scheduler.after(self.physics.repair_s, lambda: self._repair(box))

    def _repair(self, box: Box) -> None:
        zone = box.zone
        if box in zone.boxes and box.life is Life.DEAD and zone.repairs and Blow.DEAD not in zone.blows:
            box.version = zone.model
            self.boot(box)

    # Fleets ---------------------------------------------------------------------------------------------------------

    def stage(self, zone: ZoneTruth, version: str) -> None:
        zone.model = version

    def replace(self, zone: ZoneTruth, version: str) -> None:
        """Start the cloud's own upgrade of the zone to the staged model. Asking twice is asking once."""
        swap = zone.swap
        if swap is not None and swap.running:
            if swap.version == version:
                return
            swap.running, swap.failure = False, "cancelled"
        staying = [box for box in zone.boxes if not box.surplus]
        todo = [box for box in staying if box.version != version or box.life is Life.DEAD]
        zone.swaps += 1
        zone.swap = Swap(version, total=len(staying), done=len(staying) - len(todo), generation=zone.swaps)
        self.note("replace", zone.zone.id, version=version)
        for watch in self.on_upgrade:
            watch(self, zone, version)
        generation = zone.swaps
        self.scheduler.after(self.physics.replace_start_s, lambda: self._replace_now(zone, generation, todo))
        self.scheduler.after(self.physics.replace_give_up_s, lambda: self._give_up(zone, generation))

    def _current(self, zone: ZoneTruth, generation: int) -> Swap | None:
        swap = zone.swap
        return swap if swap is not None and swap.running and swap.generation == generation else None

    def _give_up(self, zone: ZoneTruth, generation: int) -> None:
        swap = self._current(zone, generation)
        if swap is not None:
            swap.running, swap.failure = False, "the cloud gave up: instances did not come up in time"

    def _replace_now(self, zone: ZoneTruth, generation: int, todo: list[Box]) -> None:
        if self._current(zone, generation) is None:
            return
        for box in todo:
            self.replace_one(zone, box, generation)
        self._check_replaced(zone, generation)

    def replace_one(self, zone: ZoneTruth, box: Box, generation: int) -> None:
        """End one instance for the model's version: an ALB's targets are drained first, Azure's are cut."""
        if box not in zone.boxes:
            return
        self.settle()
        for watch in self.on_replaced:
            watch(self, box)
        if zone.region.aws:
            box.leaving = True
            drains = bool(box.targets)
            for pool in list(box.targets):
                self.deregister(box, pool)
            delay_s = self.physics.deregistration_s if drains else 0.0
            self.scheduler.after(delay_s, lambda: self._relaunch(zone, box, generation))
            return
        self.stop(box, life=Life.DEAD)
        box.version, box.lost_to_fault = zone.model, False
        box.targets[BACKEND_POOL].proven = False
        self.boot(box)
        self.scheduler.after(self.physics.boot_s, lambda: self._check_replaced(zone, generation))

    def _relaunch(self, zone: ZoneTruth, box: Box, generation: int) -> None:
        if box in zone.boxes:
            self.end(box)
            self.launch(zone, zone.model)
        self.scheduler.after(self.physics.boot_s, lambda: self._check_replaced(zone, generation))

    def _check_replaced(self, zone: ZoneTruth, generation: int) -> None:
        swap = self._current(zone, generation)
        if swap is None:
            return
        staying = [box for box in zone.boxes if not box.surplus]
        swap.total = len(staying)
        swap.done = sum(box.version == swap.version and box.life is Life.RUNNING for box in staying)
        if swap.done == swap.total == zone.desired and swap.total:
            swap.running = False
            self.note("replaced", zone.zone.id, version=swap.version)

    def set_repairs(self, zone: ZoneTruth, enabled: bool) -> None:
        if zone.repairs is not enabled:
            zone.repairs = enabled
            self.note("repairs on" if enabled else "repairs off", zone.zone.id)
            for box in zone.boxes if enabled else ():  # What died while it was frozen.
                self.scheduler.after(self.physics.repair_s, partial(self._repair, box))

    def scale(self, zone: ZoneTruth, instances: int) -> None:
        """Set the size: more are launched at the fleet's model, fewer lets the newest go (drained where it can be)."""
        if instances == zone.desired:
            return
        self.note("scale", zone.zone.id, instances=instances)
        zone.desired = zone.minimum = instances
        staying = [box for box in zone.boxes if not box.surplus]
        for _ in range(len(staying), instances):
            self.launch(zone, zone.model)
        for box in staying[instances:]:
            box.leaving = box.surplus = True
            for pool in list(box.targets):
                self.deregister(box, pool)
            self.scheduler.after(self.physics.deregistration_s, partial(self._let_go, box))

    def _let_go(self, box: Box) -> None:
        if box in box.zone.boxes:
            self.end(box)

    # Faults ---------------------------------------------------------------------------------------------------------

    def strike(self, zone: ZoneTruth, blow: Blow, hard: float = 1.0) -> None:
        self.disturb(zone.region)
        self.note("fault", zone.zone.id, blow=blow.value, hard=hard)
        if blow is Blow.ONE:
            lost = next((box for box in zone.boxes if box.life is Life.RUNNING and not box.leaving), None)
            if lost is not None:
                self.lose(lost)
            return
        zone.blows[blow] = hard
        if blow is Blow.DEAD:
            for box in zone.boxes:
                self.stop(box, life=Life.DEAD)
                box.incarnation += 1
                box.lost_to_fault = True
        for box in zone.boxes:
            self.probe(box)
        self.touch(zone.region)

    def heal(self, zone: ZoneTruth) -> None:
        """End every blow; lost machines boot again at the version they ran."""
        self.disturb(zone.region)
        self.note("healed", zone.zone.id)
        zone.lit_s = self.now_s if zone.dark else zone.lit_s
        zone.blows.clear()
        for box in zone.boxes:
            if box.lost_to_fault and box.life is Life.DEAD:
                self.boot(box)
            self.probe(box)
        self.touch(zone.region)


def build(
    topology: Topology,
    scheduler: Scheduler,
    *,
    version: str,
    users_rps: float,
    versions: Mapping[str, Behaviour] | None = None,
    physics: Physics | None = None,
) -> World:
    """Make a world in which every zone serves `version`, steady, with as many instances as the topology says."""
    world = World(topology, scheduler, {version: WELL, **(versions or {})}, physics or Physics(), users_rps)
    world.dns_weights = {region.id: region.weight for region in topology.regions}
    total = sum(world.dns_weights.values())
    for region in topology.regions:
        truth = RegionTruth(region, share=region.weight / total)
        truth.weights = {STEADY_POOL: 100, RAMP_POOL: 0} if truth.aws else {}
        truth.attached = {STEADY_POOL: {zone.id for zone in region.zones}, RAMP_POOL: set()} if truth.aws else {}
        world.regions[region.id] = truth
        for zone in region.zones:
            place = ZoneTruth(zone, truth, desired=zone.instances, minimum=zone.instances, model=version)
            truth.zones.append(place)
            world.zones[zone.id] = place
            for born in range(1, zone.instances + 1):
                pool = STEADY_POOL if truth.aws else BACKEND_POOL
                box = Box(f"{zone.id}/i{born}", f"{zone.id}:{born}", place, version)
                box.targets[pool] = Target(healthy=True, proven=True)
                place.boxes.append(box)
                world.boxes[box.id] = box
            place.born = zone.instances
    scheduler.on_advance = world.settle
    world.settle()
    return world
