"""Starting a deploy and telling a running one what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from orchestrator.core.deploy import ORDERS, DeployPolicy, begin
from orchestrator.core.deploy_row import dump
from orchestrator.core.errors import NotFound, Refused, Rejected
from orchestrator.core.guards import order_of_zones
from orchestrator.core.machine import Json
from orchestrator.engine.glance import Glance
from orchestrator.engine.ledger import refuse_second_deploy
from orchestrator.engine.ports import EVERY_SERVICE, Run, Store, Switch
from orchestrator.operations.planning import require_release, require_way_back, versions_now
from orchestrator.workflows.world import World


async def start_deploy(
    store: Store, world: World, policy: DeployPolicy, version: str, *, run: str, author: str, reason: str, now: datetime
) -> Run:
    """Create the run of a deploy. Refused under a freeze (I14), without a way back (I12), or while another deploy runs."""
    service = world.topology.service
    refuse_switched_off(service, await store.switches())
    require_release(world, version)
    previous = require_way_back(world.releases, await versions_now(world))
    state = begin(service, version, previous, tuple(order_of_zones(world.topology)), policy, now)
    return await store.create_run(run, service, "deploy", dump(state), "active", author=author, reason=reason, now=now)


def refuse_switched_off(service: str, switches: Iterable[Switch]) -> None:
    """I14: a freeze or the kill switch starts nothing. Raises Refused with who set it, and why."""
    for switch in switches:
        if switch.on and switch.service in {service, EVERY_SERVICE}:
            why = f"{switch.name} is on for {switch.service}, set by {switch.author}: {switch.reason}"
            raise Refused("I14", why, next_command="failout status")


def require_free(rows: Glance, service: str) -> None:
    """No deploy of the service is unfinished, and nothing is frozen. Raises Refused. Writes nothing."""
    refuse_switched_off(service, rows.switches())
    for run in rows.runs(service):
        if run.kind == "deploy" and not run.finished:
            raise refuse_second_deploy(run)


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
    return await store.post_order(run, kind, author=author, reason=reason, now=now, args=args)


async def unfinished_deploy(store: Store, service: str) -> Run:
    """The one deploy of the service that has not ended. Raises NotFound."""
    for run in await store.runs(service):
        if run.kind == "deploy" and not run.finished:
            return run
    raise NotFound(f"no deploy of {service} is unfinished; start one with `failout deploy --to VERSION`")
