"""Runbooks: finding and starting them, answering them, and the use case behind each operation that a step may call."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import orchestrator
from orchestrator.core.errors import Bug, NotFound, Rejected
from orchestrator.core.outing import Ask, Asker, Mode
from orchestrator.core.outing_row import parse as parse_outing
from orchestrator.core.outing_table import Stage
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import Phase
from orchestrator.core.region_row import parse as parse_region
from orchestrator.core.runbook import ORDERS, begin
from orchestrator.core.runbook_row import dump
from orchestrator.core.script import Runbook, duration_s
from orchestrator.core.topology import Topology
from orchestrator.documents import Document, known_places, read_document, reason_value_is_wrong
from orchestrator.engine.ports import Run, Store
from orchestrator.operations.deploys import order, start_deploy
from orchestrator.operations.drill_steps import outcome_of_drill
from orchestrator.operations.kinds import require_kind
from orchestrator.operations.outings import Person, order_outing, start_outing
from orchestrator.operations.planning import make_plan, require_release
from orchestrator.operations.regions import make_way, order_return, regions_of, start_evacuation
from orchestrator.operations.switches import still_on, turn, whose
from orchestrator.workflows.runbook import Call, Outcome
from orchestrator.workflows.world import World

SHIPPED: Final = Path(orchestrator.__file__).parent / "runbooks"
# What each order ends a deploy as; a deploy that was retargeted succeeds.
_DEPLOY_ORDERS: Final = {"pause": "", "resume": "", "abort": "aborted", "rollback": "rolled-back", "retarget": ""}


def find_runbooks(own: Path | None, topology: Topology | None) -> dict[str, Document]:
    """Every runbook by id: those that come with Failout, and those in the folder `own`, which come first."""
    found: dict[str, Document] = {}
    for folder in (SHIPPED, own):
        if folder is None or not folder.is_dir():
            continue
        for path in sorted(folder.glob("*.md")):
            if path.name != "README.md":
                found[path.stem] = read_document(path, topology)
    return found


def find_runbook(name: str, own: Path | None, topology: Topology | None) -> Document:
    """By id, or by the path of a file. Raises NotFound with the nearest one."""
    if name.endswith(".md") or "/" in name:
        return read_document(Path(name), topology)
    known = find_runbooks(own, topology)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        raise NotFound(f"there is no runbook {name!r}; {hint}")
    return known[name]


def require_values(runbook: Runbook, given: Mapping[str, str], topology: Topology) -> None:
    """Every value is of its type, and every place is there. Raises Rejected."""
    known = known_places(topology)
    for parameter in runbook.parameters:
        if parameter.name not in given:
            continue
        why = reason_value_is_wrong(parameter.type, given[parameter.name], known)
        if why:
            raise Rejected(f"--param {parameter.name}: {why}")


async def start_runbook(
    store: Store,
    topology: Topology,
    document: Document,
    given: Mapping[str, str],
    *,
    run: str,
    author: str,
    reason: str,
    now: datetime,
) -> Run:
    """Create the run. Raises Rejected when the document or a parameter is wrong; preconditions are its first steps."""
    runbook = document.require()
    require_values(runbook, given, topology)
    state = begin(runbook, run, topology.service, given, now)
    made = await store.create_run(
        run, topology.service, "runbook", dump(state), str(state.status), author=author, reason=reason, now=now
    )
    told = " ".join(f"{k}={v}" for k, v in state.parameters.items())
    await store.append_audit(author, f"runbook run {runbook.id} {told}".rstrip(), reason, f"run {run} started", now)
    return made


async def order_runbook(store: Store, run: str, kind: str, *, author: str, reason: str, now: datetime) -> int:
    """approve, deny, pause, resume, skip, abort. Raises Rejected when the run is none of a runbook, or has ended."""
    if kind not in ORDERS:
        near = difflib.get_close_matches(kind, [str(o) for o in ORDERS], n=1)
        raise Rejected(f"{kind!r} is no order" + (f"; did you mean {near[0]!r}?" if near else ""))
    found = await store.load(run)
    require_kind(found, "runbook", kind)
    number = await store.post_order(run, kind, author=author, reason=reason, now=now)
    await store.append_audit(author, f"runbook {kind} {run}", reason, f"order {number}", now)
    return number


async def unfinished_runbook(store: Store, service: str) -> Run:
    """The newest one that has not ended. Raises NotFound."""
    for run in reversed(await store.unfinished(service)):
        if run.kind == "runbook":
            return run
    raise NotFound(f"no runbook of {service} is unfinished; start one with `failout runbook run NAME`")


Launch = Callable[[str], Awaitable[None]]
Operation = Callable[[Call], Awaitable[Run | Outcome]]


class BoundOperations:
    """core.script.OPERATIONS, each bound to its use case. `launch` sees to it that a run that was begun is carried.

    `more`: those that need more than world, rows and policy (operations.checks, operations.drill_steps).
    """

    def __init__(
        self, world: World, store: Store, policy: DeployPolicy, launch: Launch, more: Mapping[str, Operation]
    ) -> None:
        self._world, self._store, self._policy, self._launch = world, store, policy, launch
        self._bound: Mapping[str, Operation] = {
            "status": self._status,
            **more,
            "plan": self._plan,
            "deploy": self._deploy,
            **{f"deployments {kind}": self._deployments for kind in _DEPLOY_ORDERS},
            "freeze": self._switch,
            "unfreeze": self._switch,
            "zone drain": self._zone_out,
            "zone evacuate": self._zone_out,
            "zone restore": self._zone_back,
            "region evacuate": self._evacuate,
            "region evacuate --cloud": self._evacuate,
            "region return": self._return,
            "region return --cloud": self._return,
        }

    @property
    def bound(self) -> frozenset[str]:
        return frozenset(self._bound)

    async def begin(self, call: Call) -> Run | Outcome:
        try:
            operation = self._bound[call.step.text]
        except KeyError:
            raise Bug(f"nothing performs the operation {call.step.text!r}") from None
        came = await operation(call)
        if isinstance(came, Run) and not came.finished:
            await self._launch(came.id)
        return came

    async def judge(self, call: Call, run: Run) -> Outcome | None:
        """The end of the run that was begun, or the rest that the operation asks for."""
        verb = call.step.text.split()[1] if " " in call.step.text else ""
        if run.kind == "drill":
            return outcome_of_drill(run)
        if run.kind in {"region", "outing"}:
            if (await self._store.pending(run.id)).orders:
                return None
            return (_of_region if run.kind == "region" else _of_outing)(run, leaving=verb in {"evacuate", "drain"})
        if verb in {"pause", "resume"}:
            pending = await self._store.pending(run.id)
            told = Outcome(run.status != "held", f"deploy {run.id} is {run.status}")
            return None if any(o.kind == verb for o in pending.orders) else told
        if run.finished:
            wanted = _DEPLOY_ORDERS.get(verb) or "succeeded"
            return Outcome(run.status == wanted, f"deploy {run.id}: {run.status}{_why(run)}")
        held = run.status == "held" and not (await self._store.pending(run.id)).orders
        return Outcome(False, f"deploy {run.id} is held for a person{_why(run)}") if held else None

    async def _begun(self, call: Call) -> Run | None:
        """What an earlier try of this step began: unfinished, or begun under this very marker."""
        try:
            return await self._store.load(call.marker)
        except NotFound:
            pass
        for visit in range(call.visit - 1, 0, -1):
            earlier = replace(call, visit=visit)
            try:
                run = await self._store.load(earlier.marker)
            except NotFound:
                continue
            return None if run.finished else run
        return None

    async def _deploy(self, call: Call) -> Run:
        begun = await self._begun(call)
        return begun or await start_deploy(
            self._store,
            self._world,
            self._policy,
            call.step.args["version"],
            run=call.marker,
            author=call.author,
            reason=call.reason,
            now=self._world.clock.now(),
        )

    async def _deployments(self, call: Call) -> Run | Outcome:
        kind, service = call.step.text.split()[1], self._world.topology.service
        deploys = await self._runs("deploy")
        named = call.step.args.get("run")
        run = next((r for r in deploys if (r.id == named if named else not r.finished)), None)
        for candidate in [run] if run else deploys[:1]:
            if await self._ordered(candidate, call):
                return candidate  # Ordered before a crash; it may even have ended meanwhile.
        if run is None:
            return Outcome(False, f"no deploy of {service} is unfinished")
        now = self._world.clock.now()
        version = call.step.args.get("version")
        args = {"target": require_release(self._world, version).version} if version else None
        await order(self._store, run.id, kind, author=call.author, reason=call.reason, now=now, args=args)
        return run

    async def _runs(self, kind: str) -> list[Run]:
        """Those that have not ended, however many began since, then the newest: a step's own may have ended meanwhile."""
        service = self._world.topology.service
        return [r for r in (*await self._store.unfinished(service), *await self._store.runs(service)) if r.kind == kind]

    async def _ordered(self, run: Run, call: Call) -> bool:
        pending = (await self._store.pending(run.id)).orders
        events = await self._store.events(run.id)
        return any(call.marker in o.reason for o in pending) or any(call.marker in e.event.evidence for e in events)

    async def _switch(self, call: Call) -> Outcome:
        on, now = call.step.text == "freeze", self._world.clock.now()
        await turn(
            self._store,
            self._world.topology.service,
            "freeze",
            on=on,
            author=call.author,
            reason=call.reason,
            now=now,
        )
        if on:
            return Outcome(True, "deploys and drills start no more")
        left = await still_on(self._store, self._world.topology.service, "freeze")
        told = "; ".join(f"still on for {whose(s.service)}, set by {s.author}: {s.reason}" for s in left)
        ours = f"freeze is off for {self._world.topology.service}"
        return Outcome(True, f"{ours}, but {told} (I14)" if left else "deploys and drills may start")

    async def _zone_out(self, call: Call) -> Run:
        begun = await self._begun(call)
        if begun is not None:
            return await self._with_way(begun, call, evacuating=call.step.text.endswith("evacuate"))
        now, args = self._world.clock.now(), call.step.args
        lasts_s = duration_s(args["expires"]) if "expires" in args else self._policy.out_expires_s
        ask = Ask(
            args["zone"],
            Mode(call.step.text.split()[1]),
            Asker.PERSON,
            call.author,
            call.reason,
            now + timedelta(seconds=lasts_s),
        )
        return await start_outing(self._store, self._world.topology, self._policy, ask, call.marker, now)

    async def _with_way(self, run: Run, call: Call, *, evacuating: bool) -> Run:
        """A crash may have come between its row and the orders to those who make way for it (I1, I11)."""
        if not run.finished and run.zone is None:
            who, now = {"author": call.author, "reason": call.reason}, self._world.clock.now()
            await make_way(self._store, run.service, run.id, **who, now=now, evacuating=evacuating)
        return run

    async def _zone_back(self, call: Call) -> Run:
        for run in await self._runs("outing"):
            if await self._ordered(run, call):
                return run
        who = Person(call.author, call.reason, self._world.clock.now())
        return await order_outing(self._store, self._world.topology, call.step.args["zone"], "restore", who)

    def _regions(self, call: Call) -> Sequence[str]:
        return regions_of(self._world.topology, call.step.args.get("region"), call.step.args.get("cloud"))

    async def _evacuate(self, call: Call) -> Run:
        begun = await self._begun(call)
        if begun is not None:
            return await self._with_way(begun, call, evacuating=True)
        return await start_evacuation(
            self._store,
            self._world.topology,
            self._policy,
            self._regions(call),
            run=call.marker,
            author=call.author,
            reason=call.reason,
            now=self._world.clock.now(),
            overrides=[o for o in call.step.args.get("override", "").split(",") if o],
        )

    async def _return(self, call: Call) -> Run | Outcome:
        for run in await self._runs("region"):
            if await self._ordered(run, call):
                return run
        return await order_return(
            self._store,
            self._world.topology,
            self._regions(call),
            author=call.author,
            reason=call.reason,
            now=self._world.clock.now(),
        )

    async def _status(self, _: Call) -> Outcome:
        service = self._world.topology.service
        runs = [r for r in await self._store.unfinished(service) if r.kind != "runbook"]
        told = [f"{r.kind} {r.id} is {r.status}" for r in runs]
        told += [f"{x.zone} is out since {x.since:%H:%M:%S} UTC" for x in await self._store.leases(service)]
        told += [f"{s.name} is on: {s.reason}" for s in await self._store.switches() if s.on]
        return Outcome(True, "; ".join(told) or "nothing is going on")

    async def _plan(self, call: Call) -> Outcome:
        usual = await self._store.usual(self._world.topology.service)
        plan = await make_plan(self._world, self._policy, call.step.args["version"], usual)
        told = "; ".join(plan.refusals) or f"nothing speaks against it; about {plan.estimate_s:.0f} s"
        return Outcome(not plan.refusals, told)


def _why(run: Run) -> str:
    row = run.state
    reason = row.get("reason") if isinstance(row, dict) else None
    return f": {reason}" if reason else ""


def _of_outing(run: Run, *, leaving: bool) -> Outcome | None:
    state = parse_outing(run.state)
    told = f"{state.zone} is {state.stage}: {(state.reason if run.status == 'held' else state.note) or run.reason}"
    if run.status == "held":
        return Outcome(False, told)
    if leaving:
        return Outcome(state.stage is Stage.OUT, told) if state.stage is Stage.OUT or run.finished else None
    return Outcome(state.stage is not Stage.REFUSED, told) if run.finished else None


def _of_region(run: Run, *, leaving: bool) -> Outcome | None:
    state = parse_region(run.state)
    told = f"{state.place} is {state.phase}: {state.reason if run.status == 'held' else state.note}"
    if run.status == "held":
        return Outcome(False, told)
    if leaving:
        return Outcome(state.phase is Phase.OUT, told) if state.phase is Phase.OUT or run.finished else None
    if run.finished:
        return Outcome(state.phase in {Phase.RETURNED, Phase.CALLED_OFF}, told)
    # A region that proved sick on its way back went out again by itself.
    return Outcome(False, told) if state.phase is Phase.OUT else None
