"""Starting a deploy and telling a running one what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from orchestrator.core.deploy import begin
from orchestrator.core.deploy_row import dump
from orchestrator.core.deploy_table import ORDERS
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.guards import order_of_zones
from orchestrator.core.machine import Json
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.topology import Topology
from orchestrator.engine.glance import Glance
from orchestrator.engine.ledger import refuse_second_deploy
from orchestrator.engine.ports import Lease, Run, Store
from orchestrator.operations.audit import recorded
from orchestrator.operations.outings import require_overridable, taken
from orchestrator.operations.planning import require_release, require_way_back, versions_now
from orchestrator.operations.regions import make_way, of_drill
from orchestrator.operations.switches import refuse_switched_off
from orchestrator.workflows.polling import Patience
from orchestrator.workflows.world import World

OVERRIDABLE: Final = ("I2", "I3", "I14")


async def start_deploy(
    store: Store,
    world: World,
    policy: DeployPolicy,
    version: str,
    *,
    run: str,
    author: str,
    reason: str,
    now: datetime,
    overrides: tuple[str, ...] = (),
    patience: Patience | None = None,
) -> Run:
    """Create the run of a deploy. Refused under a freeze (I14), without a way back (I12), or while another deploy runs.

    `overrides`: rules that this run skips by name (I4); each one stands in its row and in the audit log. `patience`:
    for clouds that do not answer yet; none is asked twice without it.
    """
    service = world.topology.service
    act = f"deploy {version}" + (f", overriding {', '.join(overrides)}" if overrides else "")
    async with recorded(store, act, author=author, reason=reason, now=now) as doing:
        require_overridable(overrides, OVERRIDABLE)
        if "I14" not in overrides:
            refuse_switched_off(service, await store.switches())
        leases, runs = await store.leases(service), {r.id: r for r in await store.unfinished(service)}
        refuse_taken(leases, runs)
        require_release(world, version)
        previous = require_way_back(world.releases, await versions_now(world, patience))
        behind = behind_drills(leases, runs)
        order = order_behind(world.topology, behind)
        begun = begin(service, version, previous, order, policy, now)
        state = dump(replace(begun, overrides=overrides, behind=behind))
        made = await store.create_run(run, service, "deploy", state, "active", author=author, reason=reason, now=now)
        await make_way(store, service, run, author=author, reason=reason, now=now, evacuating=False)
        doing.result = f"run {run} started"
    return made


def refuse_taken(leases: Iterable[Lease], runs: Mapping[str, Run]) -> None:
    """I1: a zone that a person has out is brought back before a deploy begins. A drill makes way by itself."""
    for lease in leases:
        holder = runs.get(lease.run)
        if holder is not None and holder.kind != "deploy" and not of_drill(holder):
            raise taken(lease, holder)


def behind_drills(leases: Iterable[Lease], runs: Mapping[str, Run]) -> tuple[str, ...]:
    """Places that drills have out: they bring them back, and the deploy waits for that."""
    return tuple(lease.zone for lease in leases if lease.run in runs and of_drill(runs[lease.run]))


def order_behind(topology: Topology, behind: Iterable[str]) -> tuple[str, ...]:
    """What a drill has out goes last: it has just been proven."""
    out = {z.id for place in behind for z in topology.zones_at(place)}
    return tuple(sorted(order_of_zones(topology), key=lambda zone: zone in out))


def require_free(rows: Glance, service: str, overrides: tuple[str, ...] = ()) -> None:
    """No deploy of the service is unfinished, no zone is out, and nothing is frozen. Raises Refused. Writes nothing."""
    require_overridable(overrides, OVERRIDABLE)
    if "I14" not in overrides:
        refuse_switched_off(service, rows.switches())
    runs = rows.unfinished(service)
    for run in runs:
        if run.kind == "deploy":
            raise refuse_second_deploy(run)
    refuse_taken(rows.leases(service), {run.id: run for run in runs})


async def order(
    store: Store,
    run: str,
    kind: str,
    *,
    author: str,
    reason: str,
    now: datetime,
    args: Mapping[str, Json] | None = None,
) -> int:
    """Post an order; it takes effect between two effects, or interrupts the one that is being performed."""
    if kind not in ORDERS:
        raise Rejected(f"{kind!r} is no order; known: {', '.join(sorted(ORDERS))}")
    act = f"{kind} of {run}" + (f" {dict(args)}" if args else "")
    async with recorded(store, act, author=author, reason=reason, now=now) as doing:
        number = await store.post_order(run, kind, author=author, reason=reason, now=now, args=args)
        doing.result = f"order {number}"
    return number


async def unfinished_deploy(store: Store, service: str) -> Run:
    """The one deploy of the service that has not ended. Raises NotFound."""
    for run in await store.unfinished(service):
        if run.kind == "deploy":
            return run
    raise NotFound(f"no deploy of {service} is unfinished; start one with `failout deploy --to VERSION`")
