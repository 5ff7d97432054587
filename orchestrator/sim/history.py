"""One simulated history: the code that ships (core, workflows, engine) in a world that is against it, and its judge.

A history has three parts: trouble, then healing, then convergence is demanded. The same scenario and seed give the
same trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any, cast

from msgspec import structs

from orchestrator.core.deploy import DeployState, begin
from orchestrator.core.deploy_table import RunStatus
from orchestrator.core.errors import Bug, Refused, Rejected, Transient
from orchestrator.core.machine import Json, Machine
from orchestrator.engine.carry import Performer, carry
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Lease, Run, Store
from orchestrator.operations.deploys import behind_drills, order_behind, refuse_taken
from orchestrator.operations.regions import make_way
from orchestrator.ports import Notice
from orchestrator.sim.adapters import SimNotifier
from orchestrator.sim.checkers import Checker, Violation, watch
from orchestrator.sim.converged import unconverged
from orchestrator.sim.coverage import WatchedMachine
from orchestrator.sim.deeds import Deed, DeedChecker
from orchestrator.sim.drills import Drills
from orchestrator.sim.faults import Fault, Faults, Wire
from orchestrator.sim.judges import all_checkers
from orchestrator.sim.keeper import in_turns, reconciler
from orchestrator.sim.moves import Moves, RegionOrder
from orchestrator.sim.outings import WAITS, Outings, PersonsDoing, ZoneOrder
from orchestrator.sim.people import LAST_ORDERS, LAST_ORDERS_SICK, Watchers, accepted
from orchestrator.sim.result import Result
from orchestrator.sim.scenario import Command, Cut, Hand, Scenario, Strike, Switching
from orchestrator.sim.scheduler import EPOCH, Process, Scheduler, SimClock
from orchestrator.sim.scheduler import at_once as _now
from orchestrator.sim.signals import Outlook, SignalTurn
from orchestrator.sim.stores import SimStore, ports_of
from orchestrator.sim.truth import WELL, healed
from orchestrator.sim.world import World, build
from orchestrator.workflows.deploy import DeployPerformer
from orchestrator.workflows.outing import OutingPerformer
from orchestrator.workflows.region import RegionPerformer
from orchestrator.workflows.world import Sighting
from orchestrator.workflows.world import World as Ports

RUN = "run-1"
LONGEST_S = 6_000.0
PATIENCE_S = 600.0  # a person looks after this long at what waits for them, though something else still tries
SUPERVISE_S = 1.0
LAST_TURNS = 10
_TOLD = ("zone", "step", "evidence", "status")  # of a log line, in a trace


@dataclass(slots=True)
class History:
    """One simulated history: the world, the store, and the processes that carry the run, one after the other."""

    seed: int
    scenario: Scenario
    scheduler: Scheduler = field(default_factory=Scheduler)
    store: MemoryStore = field(default_factory=MemoryStore)
    machine: WatchedMachine = field(default_factory=WatchedMachine)
    carriers: list[Process] = field(default_factory=list)
    keepers: list[Process] = field(default_factory=list)  # beside the carriers, where there are reconcilers
    wall_skew_s: float = 0.0
    carried: dict[str, tuple[str | None, float]] = field(default_factory=dict)  # run -> its carrier, seen since when
    raised: list[Violation] = field(default_factory=list)
    world: World = field(init=False)
    faults: Faults = field(init=False)
    checkers: list[Checker] = field(init=False)
    deeds: list[DeedChecker] = field(init=False)
    passing: list[DeedChecker] = field(init=False)  # those that look every second
    logged: list[DeedChecker] = field(init=False)  # those that read the log
    writing: list[DeedChecker] = field(init=False)  # those that judge writes
    outings: Outings = field(init=False)
    drills: Drills = field(init=False)
    moves: Moves = field(init=False)
    outlook: Outlook = field(init=False)
    watchers: Watchers = field(init=False)
    runs: dict[str, str] = field(default_factory=dict)  # process -> the run that it carries

    def __post_init__(self) -> None:
        scene = self.scenario
        versions = {"v2": scene.target, "v3": WELL}
        self.world = build(
            scene.topology,
            self.scheduler,
            version="v1",
            users_rps=scene.users_rps,
            versions=versions,
            physics=scene.physics,
        )
        self.faults = Faults(Random(f"{self.seed} faults"), scene.rates, scene.plan)
        self.outings = Outings(self.world, self.store, scene.policy, self._carry_outing)
        self.moves = Moves(self.world, self.store, scene.policy, self._carry_move)
        self.outlook = Outlook(self.world)
        self.drills = Drills(self.outings, self.moves, self.outlook, scene.policy, self._carry_drill, self._log)
        chance = Random(f"{self.seed} people")
        self.watchers = Watchers(chance, scene.attention, self.scheduler, self._order_unless_healed, self._order_zone)
        for watched in (self.machine, self.outings.machine, self.drills.machine):
            watched.on_move = self.watchers.moved
        self.checkers = all_checkers(
            scene.policy,
            self._leases,
            self.outings,
            self.moves,
            calm=scene.calm,
            wrong_for_s=self.outlook.wrong_for_s,
            slowed_s=self.faults.slowed_s,
            cuts=self.faults.cuts,
        )
        self.deeds = [checker for checker in self.checkers if isinstance(checker, DeedChecker)]
        self.passing = [checker for checker in self.deeds if type(checker).passes is not DeedChecker.passes]
        self.logged = [checker for checker in self.deeds if type(checker).logged is not DeedChecker.logged]
        self.writing = [checker for checker in self.deeds if type(checker).wrote is not DeedChecker.wrote]
        persons = [PersonsDoing(outings=self.outings, cuts=self.faults.cuts)] if scene.zone_orders else []
        watch(self.world, [*persons, *self.checkers])

    # The orchestrator's side

    def start_run(self) -> None:
        """As `operations.deploys.start_deploy` does: drills make way, and what they have out goes last. Raises Refused (I1)."""
        scene, topology, now = self.scenario, self.scenario.topology, self._wall()
        leases, runs = self._leases(), {run.id: run for run in _now(self.store.runs(topology.service, 500))}
        refuse_taken(leases, runs)
        behind = behind_drills(leases, runs)
        previous, order = dict.fromkeys(self.world.zones, "v1"), order_behind(topology, behind)
        state = begin(topology.service, "v2", previous, order, scene.policy, now)
        state = structs.replace(state, behind=behind)
        row, who = self.machine.dump(state), {"author": "sim", "reason": ""}
        _now(self.store.create_run(RUN, topology.service, "deploy", row, self.machine.status(state), **who, now=now))
        _now(make_way(self.store, topology.service, RUN, **who, now=now, evacuating=False))

    def _wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.scheduler.now_s)

    def start_carrier(self) -> Process:
        name = f"carrier-{len(self.carriers) + 1}"
        process = self._carry(RUN, name, self.machine, lambda ports, *_: DeployPerformer(ports))
        self.carriers.append(process)
        return process

    def _carry_outing(self, run: str, number: int) -> Process:
        machine = self.outings.machine
        return self._carry(run, f"{run} carrier-{number}", machine, lambda ports, *_: OutingPerformer(ports))

    def _carry_move(self, run: str, number: int) -> Process:
        return self._carry(run, f"{run} carrier-{number}", self.moves.machine, lambda ports, *_: RegionPerformer(ports))

    def _carry_drill(self, run: str, number: int) -> Process:
        return self._carry(run, f"{run} carrier-{number}", self.drills.machine, self.drills.performer)

    def _carry(
        self, run: str, name: str, machine: Machine[Any], performer: Callable[[Ports, Store, Wire], Performer[Any]]
    ) -> Process:
        process = Process(name, wall_skew_s=self.wall_skew_s)
        self.runs[name] = run
        wire = Wire(process, self.scheduler, self.faults, on_call=self._called, on_write=self._wrote)
        store = cast("Store", SimStore(self.store, wire))
        clock = SimClock(self.scheduler, process)
        ports = ports_of(self.world, wire, store, clock, SimNotifier(wire, on_notice=self._told))
        if self.scenario.reconciles:
            busy = set[str]()
            ports = in_turns(ports, busy, ports.sightings)
            self._keep(process, busy, ports.sightings)
        body = carry(run, machine, performer(ports, store, wire), store, clock, process.name, self._log)
        self.world.note("carrier starts", process.name)
        return self.scheduler.spawn(process, body)

    def _keep(self, process: Process, busy: set[str], sightings: dict[str, Sighting]) -> None:
        """Beside the carrier, and for as long as it lives, the clouds are kept as the traffic document says."""
        task = Process(f"{process.name}'s reconciler", beside=process)
        process.beside = task
        wire = Wire(task, self.scheduler, self.faults, on_call=self._called, on_write=self._put_back)
        store, clock = cast("Store", SimStore(self.store, wire)), SimClock(self.scheduler, task)
        ports = ports_of(self.world, wire, store, clock, SimNotifier(wire, on_notice=self._told))
        ports = in_turns(ports, busy, sightings)
        self.scheduler.spawn(task, reconciler(ports, store, process.name).forever())
        self.keepers.append(task)

    def _put_back(self, process: Process, name: str, about: str) -> None:
        if name != "notify":
            self.world.note("puts back", about)
            for checker in self.writing:
                checker.wrote(self.world, Deed.of_nobody(process.name, name, about, process.stalled_until_s))

    def _called(self, name: str, about: str, fault: Fault | None) -> None:
        if fault is not None:
            self.world.note("injected", f"{fault} in {name}", about=about)

    def _wrote(self, process: Process, name: str, about: str) -> None:
        if name == "notify":
            return
        run = self.outings.run(self.runs[process.name])
        carrier, since_s = self.carried.get(run.id, (None, 0.0))
        if carrier != run.carrier:
            since_s = self.world.now_s
            self.carried[run.id] = (run.carrier, since_s)
        woke_s = process.stalled_until_s
        deed = Deed(process.name, name, about, run.effect is not None, run.carrier, since_s, woke_s, run.id)
        for checker in self.writing:
            checker.wrote(self.world, deed)

    def _told(self, notice: Notice) -> None:
        self.world.note("told", f"{notice.level} {notice.what}", zone=notice.zone)
        for checker in self.deeds:
            checker.told(self.world)

    def _leases(self) -> Sequence[Lease]:
        return _now(self.store.leases(self.scenario.topology.service))

    def _log(self, event: str, /, **fields: object) -> None:
        self.world.note("log", event, **{key: fields[key] for key in _TOLD if key in fields})
        if event == "unhealthy":
            self.world.found_sick_s[str(fields.get("zone"))] = self.world.now_s
        for checker in self.logged:
            checker.logged(self.world, event, str(fields.get("zone")))

    def supervise(self) -> None:
        """Start the run's carrier anew when it has died, and a second one when it hangs (it may wake up a zombie)."""
        for checker in self.passing:
            checker.passes(self.world)
        for keeper in self.keepers:
            self._blame(keeper)
        dead = False
        if self.carriers:
            last = self.carriers[-1]
            dead = not last.alive
            if last.done and last.failure is not None:
                self._blame(last)
            hangs = last.stalled_until_s > self.scheduler.now_s + 3.0
            if (not last.running or hangs) and not self.run().finished:
                self.start_carrier()
        self.outings.supervise(self._blame)
        self.moves.supervise(self._blame)
        if self.drills.asked:
            self.drills.supervise(self._wall() + timedelta(seconds=self.wall_skew_s), self._blame)
        self.scheduler.after(self.scenario.restart_s if dead else SUPERVISE_S, self.supervise)

    def _blame(self, process: Process) -> None:
        failure = process.failure
        if failure is not None and not isinstance(failure, Transient):
            told = f"{process.name} died of {failure!r}"
            self.raised.append(Violation(self.scheduler.now_s, "I11", "", told))
        process.failure = None

    def run(self) -> Run:
        return _now(self.store.load(RUN))

    def state(self) -> DeployState:
        return self.machine.parse(self.run().state)

    def finished(self) -> bool:
        """The deploy has ended, and every outing that has been asked for by now."""
        scene = self.scenario
        last_s = [*(o.at_s for o in scene.zone_orders[-1:]), *(o.at_s for o in scene.region_orders[-1:])]
        to_come = not self.faults.healed and any(self.scheduler.now_s <= at_s for at_s in last_s)
        return self.run().finished and not to_come and not self.beside() and not self.drills.unfinished()

    def beside(self) -> list[Run]:
        """What people have out beside the deploy: zones, and regions."""
        return [*self.outings.unfinished(), *self.moves.unfinished()]

    def waiting(self) -> bool:
        """Nothing goes on before a person says so."""
        run = self.run()
        waits = run.finished or run.status in {RunStatus.HELD, RunStatus.PAUSED}
        if not waits or self.drills.unfinished():
            return False
        return all(run.status in WAITS for run in self.beside())

    def waits_in_part(self) -> bool:
        """The deploy or an outing waits for a person; others may go on asking for the lease that it keeps."""
        runs = (self.run(), *self.beside())
        return any(run.status in {RunStatus.HELD, RunStatus.PAUSED, *WAITS} for run in runs)

    # Trouble, healing, convergence

    def arrange(self) -> None:
        if self.scenario.away:
            zone = self.world.zones[self.scenario.away]
            self.world.take_by_hand(zone, out=True)
            self.scheduler.at(self.scenario.away_until_s, partial(self.world.take_by_hand, zone, out=False))
        scene = self.scenario
        timed: tuple[tuple[Sequence[Any], Callable[[Any], None]], ...] = (
            (scene.strikes, self._strike),
            (scene.hands, self._by_hand),
            (scene.commands, self.order),
            (scene.zone_orders, self._order_zone),
            (scene.region_orders, self._order_region),
            (scene.switches, self.switch),
            (scene.signals, self._turn),
            (scene.cuts, self._cut),
        )
        for things, act in timed:
            for thing in things:
                self.scheduler.at(thing.at_s, partial(act, thing))
        for at_s, skew_s in scene.jumps:
            self.scheduler.at(at_s, partial(self._jump, skew_s))
        for at_s, fault in scene.deaths:
            self.scheduler.at(at_s, partial(self._befall, fault))
        for zone_id in scene.full:
            self.world.zones[zone_id].no_capacity = True
        for at_s, users_rps in scene.loads:
            self.scheduler.at(at_s, partial(self.world.set_load, users_rps))

    def _strike(self, strike: Strike) -> None:
        if self.faults.healed:
            return
        zone = self.world.zones[strike.zone]
        self.world.strike(zone, strike.blow, strike.hard)
        self.scheduler.after(strike.seconds, lambda: self.world.heal(zone))

    def _by_hand(self, hand: Hand) -> None:
        if not self.faults.healed:
            self.world.take_by_hand(self.world.zones[hand.zone], out=False)

    def _turn(self, turn: SignalTurn) -> None:
        if self.faults.healed:
            return
        self.world.note("signal", f"{turn.name} is {turn.state}")
        self.outlook.turned[turn.name] = turn.state

        def over() -> None:
            self.outlook.turned.pop(turn.name, None)

        self.scheduler.after(turn.seconds, over)

    def _cut(self, cut: Cut) -> None:
        if self.faults.healed:
            return
        fault = Fault.ONE_WAY if cut.one_way else Fault.CUT_OFF
        self.world.note("fault", cut.region, blow=fault.value)
        self.faults.cuts[cut.region] = fault

        def over() -> None:
            if self.faults.cuts.pop(cut.region, None) is not None:
                self.world.note("healed", cut.region)

        self.scheduler.after(cut.seconds, over)

    def _jump(self, skew_s: float) -> None:
        """The wall clock of the orchestrator's machine jumps; that of its successors is as wrong."""
        if self.faults.healed:
            return
        self.wall_skew_s = skew_s
        self.world.note("clock jumps", f"{skew_s:+.0f} s")
        self.faults.count(Fault.CLOCK_JUMP)
        for process in self.carriers:
            process.wall_skew_s = skew_s

    def _befall(self, fault: Fault) -> None:
        """The present carrier is killed or stopped, wherever it is."""
        if not self.carriers or not self.carriers[-1].running or self.faults.healed:
            return
        process = self.carriers[-1]
        self.world.note("injected", f"{fault} of {process.name}")
        self.faults.count(fault)
        if fault is Fault.STALL:
            self.scheduler.stall(process, self.faults.stall_s)
        else:
            self.scheduler.kill(process)

    def switch(self, switching: Switching) -> None:
        name, on = switching.name, switching.on
        self.world.note("order", f"{name} {'on' if on else 'off'}")
        service = self.scenario.topology.service
        _now(self.store.set_switch(service, name, on=on, author="person", reason="sim", now=EPOCH))
        for checker in self.deeds:
            checker.switched(self.world, name, on=on)

    def _order_zone(self, order: ZoneOrder) -> None:
        if self.faults.healed:
            return
        for checker in self.deeds:
            checker.told(self.world)
        if order.drill:
            self.drills.order(order, self._wall())
        elif order.kind != "abort" or not self.drills.abort(order.zone, self._wall()):
            self.outings.order(order)

    def _order_region(self, order: RegionOrder) -> None:
        if not self.faults.healed:
            for checker in self.deeds:
                checker.told(self.world)
            if order.kind == "drill":
                self.drills.order_region(order, self._wall())
            else:
                self.moves.order(order)

    def _order_unless_healed(self, command: Command) -> None:
        if not self.faults.healed:
            self.order(command)

    def order(self, command: Command) -> None:
        if not self.carriers or self.run().finished:
            return
        self.world.note("order", command.kind, target=command.target)
        args: dict[str, Json] = {"target": command.target, "overrides": [*command.overrides]}
        for checker in self.deeds:
            checker.ordered(self.world, command.kind)
        try:
            _now(self.store.post_order(RUN, command.kind, author="person", reason="sim", now=EPOCH, args=args))
        except Rejected as refused:
            self.world.note("order refused", str(refused))

    def heal(self) -> None:
        self.faults.healed = self.drills.over = True
        self.faults.cuts.clear()
        self.outlook.turned.clear()
        self.world.physics = healed(self.world.physics)
        self.world.note("all healed", "")
        for name in {switching.name: None for switching in self.scenario.switches}:
            self.switch(Switching(0.0, name, on=False))
        for zone in self.world.zones.values():
            zone.no_capacity = False
            if zone.blows or any(box.lost_to_fault for box in zone.boxes):
                self.world.heal(zone)
        if self.world.users_rps != self.scenario.users_rps:
            self.world.set_load(self.scenario.users_rps)

    def go(self) -> Result:
        self.arrange()
        self.scheduler.after(SUPERVISE_S, self.supervise)
        if self.scenario.deploy_at_s:
            self.scheduler.run(self.scenario.deploy_at_s)
        self._start_when_free()
        self._until(self.scenario.trouble_ends_s)
        if not self.faults.healed:
            self.heal()
        self._until(self.scheduler.now_s + LONGEST_S)
        for turn, order in enumerate(LAST_ORDERS if self.scenario.target == WELL else LAST_ORDERS_SICK):
            if self.finished():
                break
            self.outings.bring_back(again=turn > 0, deploying=not self.run().finished)
            self.moves.bring_back()
            self.order(Command(0.0, order, overrides=accepted(self.state(), turn)))
            self._until(self.scheduler.now_s + LONGEST_S)
        self.scheduler.run(self.scheduler.now_s + 60.0)
        return self._judge()

    def _start_when_free(self) -> None:
        """A person asks for the deploy until it is let; what others have out is brought back for it after a while."""
        patient_s, turns = self.scenario.trouble_ends_s, 0
        while not self.carriers:
            try:
                self.start_run()
                self.start_carrier()
            except Refused as refused:
                self.world.note("deploy refused", str(refused))
                if self.scheduler.now_s >= patient_s:
                    self.heal()
                    self.outings.bring_back(again=turns > 0)
                    self.moves.bring_back()
                    patient_s, turns = patient_s + PATIENCE_S, turns + 1
                    if turns > LAST_TURNS:
                        raise Bug(f"seed {self.seed}: no deploy is let, whatever people do: {refused}") from refused
                self.scheduler.run(self.scheduler.now_s + 5.0)

    def _until(self, until_s: float) -> None:
        """Go on to the end of the run, or of the time, or until it waits for a person."""
        healed, patient_s = self.faults.healed, self.scheduler.now_s + PATIENCE_S
        while self.scheduler.now_s < until_s and not self.finished():
            self.scheduler.run(min(until_s, self.scheduler.now_s + 5.0))
            if healed and (self.waiting() or (self.scheduler.now_s >= patient_s and self.waits_in_part())):
                return

    def _judge(self) -> Result:
        for region in self.world.regions.values():
            self.world.count(region)
        violations = [*self.raised, *unconverged(self.state(), self.scenario, self.world, self.drills, self.moves)]
        for checker in self.checkers:
            violations += checker.violations
        return Result(
            self.seed,
            self.run().status,
            self.scheduler.now_s,
            tuple(sorted(violations, key=lambda v: (v.at_s, v.rule))),
            {checker.rule: checker.exercised for checker in self.checkers},
            {str(fault): count for fault, count in sorted(self.faults.injected.items())},
            dict(self.world.ledger.harmed),
            Counter(
                (record.effect.kind if record.effect else "", record.event.kind)
                for record in _now(self.store.events(RUN))
            ),
            tuple(self.world.trace),
            self.machine.taken + self.outings.machine.taken + self.drills.machine.taken + self.moves.machine.taken,
            self.faults.placed,
            tuple(self.watchers.said),
            tuple(self.watchers.said_of_zones),
        )
