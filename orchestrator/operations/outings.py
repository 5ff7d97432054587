"""Taking one zone out and bringing it back, for a person or a drill: who may, and who makes way for whom (I1, I4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.machine import Json
from orchestrator.core.outing import Ask, Asker, Mode, begin
from orchestrator.core.outing_row import dump, parse
from orchestrator.core.outing_table import TRANSITIONS, OutingEvent, Stage
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.topology import Topology
from orchestrator.engine.ports import Lease, Run, Store
from orchestrator.operations.audit import recorded
from orchestrator.operations.kinds import command_for
from orchestrator.operations.regions import make_way, of_drill
from orchestrator.operations.switches import refuse_switched_off

OVERRIDABLE: Final = ("I1", "I2", "I3", "I14")
LONGEST_S: Final = 30 * 86400.0
_STAYS: Final = frozenset(
    {Stage.WAITING, Stage.PREPARING, Stage.DRAINING, Stage.EVACUATING, Stage.RELIEVING, Stage.OUT}
    | {Stage.HELD_LEAVING, Stage.HELD_OUT, Stage.LENT}
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who acts, why, and when: what the audit log needs of every act."""

    author: str
    reason: str
    now: datetime


def require_overridable(overrides: Sequence[str], known: Sequence[str] = OVERRIDABLE) -> None:
    wrong = [rule for rule in overrides if rule not in known]
    if wrong:
        raise Rejected(f"{wrong[0]!r} cannot be overridden here; what can be: {', '.join(known)}")


async def start_outing(
    store: Store, topology: Topology, policy: DeployPolicy, ask: Ask, run: str, now: datetime
) -> Run:
    """Create the run that takes the zone out. An evacuation of a zone whose drain is under way speeds that one up.

    Refused while another zone is out, naming who has it (I1); under a freeze, unless it is an evacuation (I14). A drill
    makes way for a person, a deploy for an evacuation; a person who wants the very zone that a drill has out takes it over.
    """
    overriding = f", overriding {', '.join(ask.overrides)}" if ask.overrides else ""
    act = f"zone {ask.mode} {ask.zone} until {ask.expires_at:%Y-%m-%d %H:%M} UTC{overriding}"
    async with recorded(store, act, author=ask.author, reason=ask.reason, now=now) as doing:
        require_overridable(ask.overrides)
        _require_other_zones(topology, ask.zone)
        _require_time(ask.expires_at, now)
        same = await outing_of(store, topology.service, ask.zone)
        if same is not None:
            doing.result = f"run {same.id} told"
            made = await _again(store, same, ask, now)
        else:
            doing.result = f"run {run} started"
            made = await _create(store, topology.service, policy, ask, run, now)
        if "I1" not in ask.overrides:  # Again too: a crash may have come between the row and the orders.
            evacuates = _evacuates(ask)
            await make_way(
                store, topology.service, made.id, author=ask.author, reason=ask.reason, now=now, evacuating=evacuates
            )
    return made


async def _create(store: Store, service: str, policy: DeployPolicy, ask: Ask, run: str, now: datetime) -> Run:
    await _require_way(store, service, ask)
    state = dump(begin(service, ask, policy, now))
    return await store.create_run(
        run, service, "outing", state, "active", author=ask.author, reason=ask.reason, now=now
    )


def _evacuates(ask: Ask) -> bool:
    return ask.mode is Mode.EVACUATE


def _require_other_zones(topology: Topology, zone: str) -> None:
    topology.zone(zone)
    if sum(1 for _ in topology.zones()) == 1:
        raise Refused("I3", f"{zone} is the only zone of {topology.service}: nobody would serve its users", zone=zone)


def _require_time(expires_at: datetime, now: datetime) -> None:
    if not 0 < (expires_at - now).total_seconds() <= LONGEST_S:
        raise Rejected("an outing ends within 30 days, and not before it begins: give --expires such as 90m or 2h")


async def _require_way(store: Store, service: str, ask: Ask) -> None:
    if not _evacuates(ask) and "I14" not in ask.overrides:
        minds = {"freeze"} if ask.asker is Asker.PERSON else {"freeze", "kill"}
        refuse_switched_off(service, await store.switches(), frozenset(minds))
    for lease in await store.leases(service):
        holder = await store.load(lease.run)
        if lease.zone == ask.zone:
            raise taken(lease, holder)
        makes_way = ask.asker is Asker.PERSON and (_evacuates(ask) or of_drill(holder))
        if not makes_way and "I1" not in ask.overrides:
            raise taken(lease, holder, ask.zone)


def taken(lease: Lease, holder: Run, zone: str | None = None) -> Refused:
    """Name who has which zone out, since when, and what to do about it."""
    since = f"{lease.since:%Y-%m-%d %H:%M:%S} UTC"
    has = f"{holder.kind} {holder.id} of {holder.author} has {lease.zone} since {since} ({holder.status})"
    command = (
        f"{command_for(holder, 'show')}   (or: abort)" if holder.kind == "deploy" else command_for(holder, "restore")
    )
    why = f"{zone} may not leave: {has}; one zone may be out at a time" if zone else has
    return Refused("I1", why, zone=zone or lease.zone, next_command=command)


async def _again(store: Store, run: Run, ask: Ask, now: datetime) -> Run:
    has = parse(run.state)
    drills = has.ask.asker is Asker.DRILL and ask.asker is Asker.PERSON
    takes_over = drills and (has.stage in _STAYS or _evacuates(ask))
    # A drill has no say in what others have begun, were it to evacuate what a person drains.
    speeds_up = _evacuates(ask) and ask.asker is Asker.PERSON and OutingEvent.EVACUATE in TRANSITIONS[has.stage]
    if takes_over:
        until: dict[str, Json] = {"expires_at": ask.expires_at.isoformat(), "on_expiry": str(ask.on_expiry)}
        await store.post_order(run.id, OutingEvent.TAKE_OVER, author=ask.author, reason=ask.reason, now=now, args=until)
    if speeds_up:
        named: dict[str, Json] = {"overrides": list(ask.overrides)} if ask.overrides else {}
        await store.post_order(run.id, OutingEvent.EVACUATE, author=ask.author, reason=ask.reason, now=now, args=named)
    if takes_over or speeds_up:
        return run
    why = f"{ask.zone} is {has.stage} already: {run.kind} {run.id} of {run.author}, {run.reason}"
    raise Refused("I1", why, zone=ask.zone, next_command=f"failout zone restore {ask.zone} --reason ...")


async def order_outing(
    store: Store,
    topology: Topology,
    zone: str,
    kind: str,
    who: Person,
    args: Mapping[str, Json] | None = None,
) -> Run:
    """Tell the run that has the zone out. Raises NotFound when none has, naming a deploy that may have it."""
    args = args or {}
    overrides = cast("list[str]", args.get("overrides", []))
    told = f" until {args['expires_at']}" if "expires_at" in args else ""
    told += f", overriding {', '.join(overrides)}" if overrides else ""
    async with recorded(store, f"zone {kind} {zone}{told}", author=who.author, reason=who.reason, now=who.now) as doing:
        topology.zone(zone)
        require_overridable(overrides)
        if "expires_at" in args:
            _require_time(datetime.fromisoformat(str(args["expires_at"])), who.now)
        run = await outing_of(store, topology.service, zone)
        if run is None:
            raise await _not_out(store, topology.service, zone)
        if kind == OutingEvent.RESTORE:
            await _take_over_if_halted(store, run, who)
        number = await store.post_order(run.id, kind, author=who.author, reason=who.reason, now=who.now, args=args)
        doing.result = f"order {number} for run {run.id}"
    return run


async def _take_over_if_halted(store: Store, run: Run, who: Person) -> None:
    """I14: a person's restore goes on under the kill switch, also of what a drill has out: it is theirs from then on."""
    ask = parse(run.state).ask
    if ask.asker is Asker.DRILL and (await store.pending(run.id)).killed:
        mine: dict[str, Json] = {"expires_at": ask.expires_at.isoformat(), "on_expiry": str(ask.on_expiry)}
        await store.post_order(
            run.id, OutingEvent.TAKE_OVER, author=who.author, reason=who.reason, now=who.now, args=mine
        )


async def _not_out(store: Store, service: str, zone: str) -> NotFound:
    for lease in await store.leases(service):
        if lease.zone == zone:
            return NotFound(f"{zone} is in the hands of run {lease.run}: failout report show {lease.run}")
    return NotFound(f"{zone} is not out: no drain or evacuation of it is under way")


async def outing_of(store: Store, service: str, zone: str) -> Run | None:
    """The unfinished run that takes this zone out, has it out, or brings it back."""
    for run in reversed(await store.unfinished(service)):
        if run.kind == "outing" and parse(run.state).zone == zone:
            return run
    return None
