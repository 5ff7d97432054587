"""Starting drills, by a person or by a schedule, and what a drill may do: begin one outing, and send it back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.core.drill import AUTHOR, DrillState, Wish, begin
from orchestrator.core.drill_row import dump
from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.outing import Ask, Asker
from orchestrator.core.policy import DeployPolicy, OnExpiry
from orchestrator.core.topology import Topology
from orchestrator.engine.ports import EVERY_SERVICE, Run, Store
from orchestrator.operations.audit import recorded
from orchestrator.operations.outings import LONGEST_S, start_outing
from orchestrator.operations.regions import start_evacuation
from orchestrator.ports import Finding, Reading, Signal
from orchestrator.workflows.looking import Rows
from orchestrator.workflows.world import World

Launch = Callable[[str], Awaitable[None]]
Doctor = Callable[[], Awaitable[Sequence[Finding]]]


def require_wish(topology: Topology, wish: Wish, known: Sequence[str], command: str = "drill run") -> None:
    """The place is there, its time is bounded, and there is a known outcome signal. Raises NotFound, Rejected, Refused (I15).

    `command`: what was asked, to which --signal is to be added.
    """
    topology.zone(wish.place) if wish.tier == "zone" else topology.region(wish.place)
    for name in (*wish.policy.outcome_signals, *wish.policy.blocking_signals):
        if name not in known:
            raise NotFound(f"there is no signal {name!r}; failout.yaml has {', '.join(known) or 'none'}")
    if not wish.policy.outcome_signals:
        why = "a drill needs an outcome signal: somebody outside who says how the service is"
        raise Refused("I15", why, next_command=f"failout {command} ... --signal NAME   (or drills.outcome_signals)")
    if not 0 < wish.policy.duration_s <= LONGEST_S / 2:
        raise Rejected("a drill lasts up to 15 days: give --duration such as 30m")


async def start_drill(
    store: Store, topology: Topology, wish: Wish, known: Sequence[str], run: str, now: datetime
) -> Run:
    """Create the run of a drill; what speaks against it is its first step, so that a refusal is on record."""
    act = f"drill {wish.mode} {wish.place} for {wish.policy.duration_s:.0f} s"
    async with recorded(store, act, author=wish.author, reason=wish.reason, now=now) as doing:
        require_wish(topology, wish, known)
        state = dump(begin(run, topology.service, wish, now))
        made = await store.create_run(
            run, topology.service, "drill", state, "active", author=wish.author, reason=wish.reason, now=now
        )
        doing.result = f"run {run} started"
    return made


@dataclass(frozen=True, slots=True)
class NamedSignals:
    """The signals of failout.yaml, asked all at once, since one may be slow (workflows.drill_checks.Signals)."""

    known: Mapping[str, Signal]

    async def read(self, names: Sequence[str]) -> Mapping[str, Reading]:
        async def read(name: str) -> Reading:
            if name not in self.known:
                return Reading("unknown", f"failout.yaml has no signal {name!r} any more")
            return await self.known[name].read()

        return dict(zip(names, await asyncio.gather(*map(read, names)), strict=True))


@dataclass(frozen=True, slots=True)
class RowsAndDoctor:
    """What our own rows and `doctor` say against a drill (workflows.drill_checks.Obstacles). Reads only."""

    world: World
    rows: Rows
    doctor: Doctor

    async def __call__(self, run: str | None) -> Sequence[Finding]:
        return [await self._switches(), await self._others(run), await self._doctor()]

    async def _switches(self) -> Finding:
        mine = {self.world.topology.service, EVERY_SERVICE}
        on = [s for s in await self.rows.switches() if s.on and s.service in mine]
        told = "; ".join(f"I14: {s.name} is on, set by {s.author}: {s.reason}" for s in on)
        return Finding("switches", "failed" if on else "ok", told or "no freeze, no kill switch")

    async def _others(self, run: str | None) -> Finding:
        """I1: one at a time, and whoever has a deploy under way goes first."""
        service = self.world.topology.service
        leases = [f"run {x.run} has {x.zone} out" for x in await self.rows.leases(service)]
        busy = [
            f"{r.kind} {r.id} of {r.author} is {r.status}"
            for r in await self.rows.unfinished(service)
            if r.id != run and r.kind in {"deploy", "drill", "outing", "region"}
        ]
        told = "; ".join([*leases, *busy])
        return Finding("other runs", "failed" if told else "ok", f"I1: {told}" if told else "nothing else is under way")

    async def _doctor(self) -> Finding:
        """Unchecked is not wrong, as by hand, but it is told (I2)."""
        found = await self.doctor()
        wrong = [f"{f.what}: {f.evidence}" for f in found if f.verdict == "failed"]
        unchecked = [f.what for f in found if f.verdict == "unchecked"]
        told = f"{len(found)} findings, {len(unchecked)} could not be made"
        return Finding("doctor", "failed" if wrong else "ok", "; ".join(wrong) or told)


@dataclass(frozen=True, slots=True)
class BoundDrills:
    """What the drill's performer calls (workflows.drill.Operations)."""

    world: World
    store: Store
    policy: DeployPolicy
    launch: Launch

    async def begin(self, state: DrillState) -> Run:
        """Begin the outing under the drill's own id, so that a crash begins nothing twice (I11)."""
        try:
            run = await self.store.load(state.outing)
        except NotFound:
            run = await self._begin(state)
        if not run.finished:
            await self.launch(run.id)
        return run

    async def _begin(self, state: DrillState) -> Run:
        wish, topology, now = state.wish, self.world.topology, self.world.clock.now()
        if wish.tier == "region":
            return await start_evacuation(
                self.store,
                topology,
                self.policy,
                [wish.place],
                run=state.outing,
                author=wish.author,
                reason=wish.reason,
                now=now,
                asker=Asker.DRILL,
            )
        # The drill sends it back; should nobody carry the drill, the outing itself knows when it is over (I8).
        slack_s = self.policy.admit_timeout_s + self.policy.prepare_timeout_s + self.policy.drain_timeout_s
        due = now + timedelta(seconds=wish.policy.duration_s + slack_s)
        ask = Ask(
            wish.place,
            wish.mode,
            Asker.DRILL,
            wish.author,
            wish.reason,
            due + timedelta(seconds=self.policy.out_expires_s),
            OnExpiry.RESTORE,
            due_at=due,
        )
        return await start_outing(self.store, topology, self.policy, ask, state.outing, now)

    async def send_back(self, state: DrillState, why: str) -> None:
        kind = "return" if state.wish.tier == "region" else "restore"
        await self.store.post_order(state.outing, kind, author=AUTHOR, reason=why, now=self.world.clock.now())
