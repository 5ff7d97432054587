"""Moving the users of whole regions elsewhere and back: starting it, and telling a run that is under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, cast

from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.machine import Json
from orchestrator.core.outing import Asker
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region import TRANSITIONS, M, Phase, begin, way_back
from orchestrator.core.region_row import dump, parse
from orchestrator.core.topology import Topology
from orchestrator.engine.ports import Run, Store
from orchestrator.operations.audit import recorded
from orchestrator.operations.switches import refuse_switched_off

OVERRIDABLE: Final = ("I1", "I2", "I3")
# What is on its way out need not be told again. One that asks is: it may be held by the time it hears of it.
_ON_ITS_WAY: Final = frozenset({Phase.PREPARING, Phase.LEAVING, Phase.EMPTYING, Phase.OUT})


def regions_of(topology: Topology, region: str | None, cloud: str | None) -> tuple[str, ...]:
    """One region, or all of a cloud. Raises NotFound, or Rejected when neither or both are named."""
    if (region is None) is (cloud is None):
        raise Rejected("name either a REGION or --cloud CLOUD")
    if region is not None:
        return (topology.region(region).id,)
    found = tuple(r.id for r in topology.regions if r.cloud == cloud)
    if not found:
        known = ", ".join(sorted({r.cloud for r in topology.regions}))
        raise NotFound(f"no cloud {cloud!r} in service {topology.service}; its clouds are {known}")
    return found


async def start_evacuation(
    store: Store,
    topology: Topology,
    policy: DeployPolicy,
    regions: Sequence[str],
    *,
    run: str,
    author: str,
    reason: str,
    now: datetime,
    overrides: Sequence[str] = (),
    asker: Asker = Asker.PERSON,
) -> Run:
    """Create the run that takes the regions out, or tell the one that is bringing them back to take them out again.

    A freeze does not stop it; under the kill switch nothing would carry it out, so that is said (I14). A deploy that has
    a zone out is suspended, a drill ends: its zone comes back first (I1). Raises Refused while other regions are on the
    move; for a drill, while anything is out.
    """
    wrong = [rule for rule in overrides if rule not in OVERRIDABLE]
    if wrong:
        raise Rejected(f"{wrong[0]!r} cannot be overridden here; known: {', '.join(OVERRIDABLE)}")
    service, act = topology.service, f"region evacuate {' '.join(regions)}"
    act += f", overriding {', '.join(overrides)}" if overrides else ""
    async with recorded(store, act, author=author, reason=reason, now=now) as doing:
        refuse_switched_off(service, await store.switches(), frozenset({"kill"}))
        moves = await unfinished_moves(store, service)
        await _require_way(store, service, moves, regions, asker)
        made = _move_of(moves, regions)
        if made is not None:
            doing.result = f"run {made.id} told"
            inside = await _taken_inside(store, topology, regions)
            args: dict[str, Json] = {"behind": await _waits(store, service, made.id), "inside": [*inside]}
            args |= {"overrides": [*overrides]} if overrides else {}
            await _again(store, made, args, author=author, reason=reason, now=now)
        else:
            doing.result = f"run {run} started"
            state = begin(run, service, tuple(regions), policy, tuple(overrides), now)
            if asker is Asker.PERSON:
                behind, inside = await _waits(store, service, run), await _taken_inside(store, topology, regions)
                state = replace(state, behind=behind, inside=inside)
            row = dump(replace(state, asker=str(asker)))
            made = await store.create_run(run, service, "region", row, "active", author=author, reason=reason, now=now)
        if asker is Asker.PERSON:  # Again too: a crash may have come between the row and the orders.
            await make_way(store, service, made.id, author=author, reason=reason, now=now)
    return made


async def _require_way(store: Store, service: str, moves: Sequence[Run], regions: Sequence[str], asker: Asker) -> None:
    """I1: a drill goes last. What a person has on the move stays so; a drill of other regions makes way."""
    if asker is Asker.DRILL:
        await _require_nothing_out(store, service)
        for other in moves:
            raise Refused("I1", f"run {other.id} of {other.author} moves {parse(other.state).place}; a drill goes last")
    elif _move_of(moves, regions) is None:
        for other in moves:
            if not of_drill(other):
                state = parse(other.state)
                why = f"{state.place} is on the move already ({state.phase}, run {other.id}, by {other.author})"
                raise Refused("I1", why, next_command=way_back(state.regions))


async def _again(store: Store, run: Run, args: Mapping[str, Json], *, author: str, reason: str, now: datetime) -> None:
    """It is this person's from now on, and hears of it where that changes something."""
    state = parse(run.state)
    if of_drill(run):
        await store.post_order(run.id, M.TAKE_OVER, author=author, reason=reason, now=now)
    if "overrides" in args or state.paused or state.phase not in _ON_ITS_WAY:
        await store.post_order(run.id, M.EVACUATE, author=author, reason=reason, now=now, args=args)


async def _require_nothing_out(store: Store, service: str) -> None:
    for lease in await store.leases(service):
        raise Refused("I1", f"run {lease.run} has {lease.zone} out; a drill goes last", zone=lease.zone)


def of_drill(run: Run) -> bool:
    """Whoever else wants a zone out goes before this run."""
    row = cast("Mapping[str, Any]", run.state)
    return "drill" in (row.get("asker"), row.get("ask", {}).get("asker"))


async def make_way(
    store: Store, service: str, run: str, *, author: str, reason: str, now: datetime, evacuating: bool = True
) -> None:
    """Precedence (I1): a deploy or a drill that has a zone out brings it back first; a person's outing is left alone."""
    for holder in await in_the_way(store, service, run, evacuating=evacuating):
        if not _comes_back(holder):
            kind = "suspend" if holder.kind == "deploy" else "restore"
            await store.post_order(holder.id, kind, author=author, reason=f"{reason} (run {run})", now=now)


async def in_the_way(store: Store, service: str, run: str, *, evacuating: bool = True) -> list[Run]:
    """Runs that make way for this one. Not only those that hold the lease: a deploy between two zones would take it back."""
    held = [lease.run for lease in await store.leases(service)]
    found = [await store.load(holder) for holder in held if holder != run]
    if evacuating and run not in held:
        others = [other for other in await store.unfinished(service) if other.id not in {run, *held}]
        found += [other for other in others if other.kind != "deploy" or other.status == "active"]
    deploys = [holder for holder in found if holder.kind == "deploy" and evacuating]
    return deploys + [holder for holder in found if holder.kind in {"outing", "region"} and of_drill(holder)]


def _comes_back(holder: Run) -> bool:
    """It was told before. Told again, it would begin the step anew that it is at."""
    row = cast("Mapping[str, Any]", holder.state)
    return holder.kind == "deploy" and holder.status == "active" and bool(row.get("suspended"))


async def _waits(store: Store, service: str, run: str) -> bool:
    """Something is in the way that comes back by itself. A deploy that is held does not: it waits for a person."""
    return any(holder.status != "held" or of_drill(holder) for holder in await in_the_way(store, service, run))


async def _taken_inside(store: Store, topology: Topology, regions: Sequence[str]) -> tuple[str, ...]:
    """Zones of the regions that people have out. What a deploy or a drill has out there comes back first, under users."""
    own = {zone.id for region in regions for zone in topology.region(region).zones}
    here = [lease for lease in await store.leases(topology.service) if lease.zone in own]
    holders = [(lease.zone, await store.load(lease.run)) for lease in here]
    return tuple(sorted(zone for zone, holder in holders if holder.kind == "outing" and not of_drill(holder)))


async def order_return(
    store: Store, topology: Topology, regions: Sequence[str], *, author: str, reason: str, now: datetime
) -> Run:
    """Tell the run that has these regions out to bring them back. Raises NotFound when none has."""
    act = f"region return {' '.join(regions)}"
    async with recorded(store, act, author=author, reason=reason, now=now) as doing:
        run = _move_of(await unfinished_moves(store, topology.service), regions)
        if run is None:
            raise NotFound(f"{' and '.join(regions)} is not out: no run has evacuated it")
        state = parse(run.state)
        goes_on = state.paused and M.RETURN not in TRANSITIONS[state.phase]  # It was on its way back.
        kind = M.RESUME if goes_on or state.phase is Phase.HELD_SETTLING else M.RETURN
        await store.post_order(run.id, kind, author=author, reason=reason, now=now)
        doing.result = f"run {run.id} told"
    return run


def _move_of(moves: Sequence[Run], regions: Sequence[str]) -> Run | None:
    """The run that has just these regions out or on the move."""
    return next((run for run in moves if set(parse(run.state).regions) == set(regions)), None)


async def unfinished_moves(store: Store, service: str) -> list[Run]:
    """Runs that have regions out or on the move, newest first: a person's, and a drill's that could not come back."""
    return [run for run in reversed(await store.unfinished(service)) if run.kind == "region"]


async def unfinished_move(store: Store, service: str) -> Run | None:
    """The newest of them."""
    return next(iter(await unfinished_moves(store, service)), None)
