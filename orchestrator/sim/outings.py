"""People and drills that take one zone out and bring it back, beside the deploy of a simulated history.

What they say goes through `operations.outings`, and the outing machine carries it out, both as shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.machine import Json
from orchestrator.core.outing import Ask, Asker, Mode, OutingState
from orchestrator.core.outing_table import Stage
from orchestrator.core.policy import DeployPolicy, OnExpiry
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Run
from orchestrator.operations.outings import Person, order_outing, start_outing
from orchestrator.sim.checkers import Edges
from orchestrator.sim.coverage import WatchedOutings
from orchestrator.sim.scheduler import EPOCH, Process, at_once
from orchestrator.sim.truth import ZoneTruth
from orchestrator.sim.world import World

# An evacuation asks none of these (I10).
NOT_ASKED = frozenset({"I2", "I3", "I4"})
# Whoever carries more because one of these was not asked has a person to thank. Who is sick makes nobody carry too much.
OF_LOAD = frozenset({"I3", "I4"})
_SERVING = "serving "
WAITS = frozenset({"held", "paused", "out"})
LEAVING = frozenset(
    {Stage.WAITING, Stage.PREPARING, Stage.DRAINING, Stage.EVACUATING, Stage.RELIEVING, Stage.OUT, Stage.HELD_LEAVING}
)
EMPTIED = frozenset(
    {Stage.EVACUATING, Stage.RELIEVING, Stage.OUT, Stage.HELD_OUT, Stage.LENT, Stage.RETURNING, Stage.VERIFYING}
)


@dataclass(frozen=True, slots=True)
class ZoneOrder:
    """A person drains, evacuates, restores, releases or extends a zone, or pauses or aborts its outing.

    `drill`: that is to be a drill of half `lasts_s`; of kind `schedule` it is one every minute.
    """

    at_s: float
    kind: str
    zone: str
    lasts_s: float = 60.0
    on_expiry: OnExpiry = OnExpiry.HOLD
    overrides: tuple[str, ...] = ()
    drill: bool = False


@dataclass(slots=True)
class Clocks:
    """When it is what time by a carrier's clock, which may be wrong."""

    _skews: dict[str, tuple[float, float]] = field(default_factory=dict)  # run -> its carrier's skew, and since when
    _reached_s: dict[tuple[str, float], float] = field(default_factory=dict)  # run, time -> when that first was so

    def reaches_s(self, run: str, until_s: float, carrier: Process, now_s: float) -> tuple[float, float]:
        """In virtual time, and when that first was so: a clock that is put back later makes it no news."""
        skew_s, _ = self._skews.setdefault(run, (carrier.wall_skew_s, 0.0))
        if skew_s != carrier.wall_skew_s:
            self._skews[run] = (carrier.wall_skew_s, carrier.began_s)
        # A carrier with a wrong clock cannot tell before there is one.
        at_s = max(until_s - carrier.wall_skew_s, self._skews[run][1])
        if at_s <= now_s:
            self._reached_s.setdefault((run, until_s), at_s)
        return at_s, self._reached_s.get((run, until_s), at_s)


@dataclass(slots=True)
class Outings:
    """All outings of a history. `carry` starts a process for a run; `heard` tells the checkers that a person acted."""

    world: World
    store: MemoryStore
    policy: DeployPolicy
    carry: Callable[[str, int], Process]
    machine: WatchedOutings = field(default_factory=WatchedOutings)
    carriers: dict[str, list[Process]] = field(default_factory=dict)
    _states: dict[str, tuple[int, OutingState]] = field(default_factory=dict)  # run -> its last commit
    _clocks: Clocks = field(default_factory=Clocks)

    def __post_init__(self) -> None:
        self.machine.on_evacuation = self._disturbed

    def _disturbed(self, zone: str) -> None:
        """An evacuation asks nobody, whoever is overloaded while instance after instance leaves."""
        disturb_by_leaving(self.world, self.world.zones[zone])

    def order(self, order: ZoneOrder) -> None:
        """Say it as the command line does; what is refused is noted, and changes nothing."""
        self.world.note(
            "order", f"{order.kind} {order.zone}", **({"overrides": order.overrides} if order.overrides else {})
        )
        try:
            self._take_out(order) if order.kind in {"drain", "evacuate"} else self._tell(order)
        except (Refused, Rejected, NotFound) as refused:
            self.world.note("order refused", str(refused))

    def _take_out(self, order: ZoneOrder) -> None:
        now = EPOCH + timedelta(seconds=self.world.now_s)
        until, mode = now + timedelta(seconds=order.lasts_s), Mode(order.kind)
        ask = Ask(order.zone, mode, Asker.PERSON, "person", "sim", until, order.on_expiry, None, order.overrides)
        run = f"outing-{len(self.carriers) + 1}"
        self.adopt(at_once(start_outing(self.store, self.world.topology, self.policy, ask, run, now)).id)

    def adopt(self, run: str) -> None:
        """Carry the run, unless it is carried already."""
        if run not in self.carriers:
            self.carriers[run] = [self.carry(run, 1)]

    def _tell(self, order: ZoneOrder) -> None:
        now = EPOCH + timedelta(seconds=self.world.now_s)
        until = (now + timedelta(seconds=order.lasts_s)).isoformat()
        args: dict[str, Json] = {"expires_at": until} if order.kind == "extend" else {}
        args |= {"overrides": [*order.overrides]} if order.overrides else {}
        who = Person("person", "sim", now)
        at_once(order_outing(self.store, self.world.topology, order.zone, order.kind, who, args))

    def supervise(self, failed: Callable[[Process], None]) -> None:
        """Start the carrier of each unfinished outing anew when it has died, and a second one when it hangs."""
        if self.carriers:
            keep_carried(self.unfinished(), self.carriers, self.carry, failed, self.world.now_s)

    def bring_back(self, *, again: bool = False, deploying: bool = False) -> None:
        """What people do once all is healed: every zone that is out on purpose comes back.

        `again`: they have tried. Where nobody can tell how it does with so few users, they decide; what cannot come back as
        it is, they leave to the deploy.
        """
        for run in self.unfinished():
            state = self.state(run)
            if deploying and state.stage is Stage.LENT:
                continue
            waived = ("I2",) if again and state.stage is Stage.HELD_SERVING else ()
            kind = "release" if again and state.stage is Stage.HELD_OUT else "restore"
            self.order(ZoneOrder(0.0, kind, state.zone, overrides=waived))

    def unfinished(self) -> list[Run]:
        rows = (self.run(name) for name in self.carriers)
        return [row for row in rows if not row.finished]

    def run(self, name: str) -> Run:
        return at_once(self.store.load(name))

    def state(self, run: Run) -> OutingState:
        """Parsed once for every commit: checkers ask every second."""
        kept = self._states.get(run.id)
        if kept is None or kept[0] != run.seq:
            kept = self._states[run.id] = (run.seq, self.machine.parse(run.state))
        return kept[1]

    # What checkers ask

    def of(self, zone: str) -> Iterator[OutingState]:
        if self.carriers:
            yield from (state for run in self.unfinished() if (state := self.state(run)).zone == zone)

    def waives(self, rule: str, zone: str) -> bool:
        """A person has overridden the rule for this zone, or evacuates it and asks no rule (I4, I10)."""
        if self._neighbour_is_evacuated(zone):
            return True
        for state in self.of(zone):
            evacuates = state.ask.mode is Mode.EVACUATE
            if rule in state.ask.overrides or (
                evacuates and (rule in NOT_ASKED or (rule == "I1" and self._alone(zone)))
            ):
                return True
        return False

    def overrides(self, rule: str, zone: str) -> bool:
        return any(rule in state.ask.overrides for state in self.of(zone))

    def later(self, zone: str) -> frozenset[str]:
        """Zones that other runs have taken out after a run had taken this one."""
        leases = at_once(self.store.leases(self.world.topology.service))
        own = next((lease.fence for lease in leases if lease.zone == zone), None)
        return frozenset(lease.zone for lease in leases if own is not None and lease.fence > own)

    def _neighbour_is_evacuated(self, zone: str) -> bool:
        """While a zone is emptied from the ramp, the part of those that are dismissed goes to its last instance."""
        region = self.world.topology.region_of(zone)
        emptied = self.evacuated() - {zone}
        return any(neighbour.id in emptied for neighbour in region.zones)

    def evacuated(self) -> set[str]:
        """Zones that are being emptied now."""
        unfinished = self.unfinished() if self.carriers else ()
        return {state.zone for run in unfinished if (state := self.state(run)).stage is Stage.EVACUATING}

    def emptied(self) -> set[str]:
        """Zones that are evacuated and not yet on their way back."""
        evacuations = (s for s in map(self.state, self.unfinished()) if s.ask.mode is Mode.EVACUATE)
        return {state.zone for state in evacuations if state.stage in EMPTIED} if self.carriers else set()

    def unrelieved(self) -> set[str]:
        """Evacuated zones whose outing a person paused before the survivors were made larger."""
        paused = (s for s in map(self.state, self.unfinished()) if s.paused and s.ask.mode is Mode.EVACUATE)
        return {s.zone for s in paused if s.stage in {Stage.EVACUATING, Stage.RELIEVING}} if self.carriers else set()

    def _alone(self, zone: str) -> bool:
        """No run has another zone out. What somebody did by hand, an evacuation does not ask about."""
        lent = any(s.stage is Stage.LENT and s.zone != zone for s in map(self.state, self.unfinished()))
        return not lent and all(lease.zone == zone for lease in at_once(self.store.leases(self.world.topology.service)))

    def expires_s(self, zone: str) -> tuple[float, float] | None:
        """When the zone should be back by its carrier's clock, and when that first was so; None when nobody has it out on purpose."""
        for run in self.unfinished():
            state = self.state(run)
            if self.machine.leased_zone(state) == zone:
                until_s = (state.ask.expires_at - EPOCH).total_seconds()
                return self._clocks.reaches_s(run.id, until_s, self.carriers[run.id][-1], self.world.now_s)
        return None

    def by_person(self, run: str) -> bool:
        return run in self.carriers and self.state(self.run(run)).ask.asker is Asker.PERSON

    def unasked(self, zone: str) -> bool:
        """A person has evacuated it, it is out, and I3 is not overridden."""
        asked = [s.ask for s in self.of(zone) if s.stage is Stage.OUT]
        return any(ask.mode is Mode.EVACUATE and "I3" not in ask.overrides for ask in asked)

    def drilled(self, zone: str) -> bool:
        """A drill takes it out or has it out, and nobody has called it back or taken it over."""
        for run in self.unfinished() if self.carriers else ():
            state = self.state(run)
            if state.zone == zone and state.ask.asker is Asker.DRILL and state.stage in LEAVING and not state.sick:
                return not at_once(self.store.pending(run.id)).orders
        return False


def disturb_by_leaving(world: World, zone: ZoneTruth) -> None:
    """Its users fall to its region, and where it is all of that, to every other one."""
    for region in [zone.region] if len(zone.region.zones) > 1 else world.regions.values():
        region.disturbed_at_s = world.now_s


def keep_carried(
    runs: list[Run],
    carriers: dict[str, list[Process]],
    carry: Callable[[str, int], Process],
    failed: Callable[[Process], None],
    now_s: float,
) -> None:
    for run in runs:
        last = carriers[run.id][-1]
        if last.done and last.failure is not None:
            failed(last)
        if not last.running or last.stalled_until_s > now_s + 3.0:
            carriers[run.id].append(carry(run.id, len(carriers[run.id]) + 1))


@dataclass(slots=True, eq=False)
class PersonsDoing(Edges):
    """Judges nothing: a zone that leaves by an evacuation or against a rule is a person's doing, as a fault is nobody's.

    It looks before the others do, so that I2, I3 and I4 blame no run for what follows within their 12 s.
    """

    outings: Outings = field(default=cast("Outings", None))
    cuts: Mapping[str, object] = field(default_factory=dict)  # regions whose cloud cannot be reached now
    _gets: dict[str, float] = field(
        default_factory=dict
    )  # at the last look: evacuated zones -> requests/s, and who serves

    def look(self, world: World) -> None:
        """An evacuation acts when its cloud lets it, kept connections end later yet, and a zone on the ramp leaves no more."""
        emptied, unrelieved = self.outings.emptied(), self.outings.unrelieved()
        gets, told = {zone: world.zones[zone].rps for zone in emptied}, set(emptied)
        for zone in emptied:
            region = world.topology.region_of(zone)
            serving = {_SERVING + z.id: float(world.zones[z.id].serving) for z in region.zones}
            gets |= serving
            if region.id in self.cuts or zone in unrelieved:  # Nobody gives back what was taken before.
                told |= set(serving)
        for key in told:
            if gets[key] < self._gets.get(key, 0.0):
                disturb_by_leaving(world, world.zones[key.removeprefix(_SERVING)])
        self._gets = gets

    def left(self, world: World, zone: ZoneTruth) -> None:
        if any(self.outings.waives(rule, zone.zone.id) for rule in OF_LOAD):
            disturb_by_leaving(world, zone)
