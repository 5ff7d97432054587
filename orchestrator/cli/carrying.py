"""Starting a run and waiting for it: carried in this process, or by `failout serve` where that has the state."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.cli.common import seconds

if TYPE_CHECKING:
    from orchestrator.config import Settings
    from orchestrator.core.topology import Topology
    from orchestrator.engine.carry import Log
    from orchestrator.engine.ports import Run, Store

Begin = Callable[["Store", "Topology"], Awaitable["Run"]]
Check = Callable[["Topology"], object]
Enough = Callable[["Run", bool], bool]  # the run, and whether an order waits for it
SILENCE_S = 2.0
NAMED = re.compile(r"\bI\d+\b")
# By which rule each effect waits, where what it waits for names none (docs/ARCHITECTURE.md).
RULES = {
    "triage": "I1: one zone out at a time",
    "admit": "I1, I2, I3",
    "prepare": "I3: the others are ready first",
    "relieve": "I3: the others are ready",
    "drain": "I13: drained is nothing in flight",
    "evacuate": "I10",
    "upgrade": "I13",
    "plan-return": "I2, I3",
    "verify": "I2",
    "ramp": "I9",
    "join": "I2",
    "bake": "I2",
    "settle": "I3",
    "admit-region": "I1, I2, I3",
    "prepare-region": "I3: the others are ready first",
    "leave-region": "I3: answers of before live for the DNS TTL",
    "empty-region": "I13: empty is nothing in flight",
    "stay-out": "I8",
    "verify-region": "I2",
    "return-region": "I9",
    "settle-region": "I3",
}
GONE_S = 1.0  # How often a follower looks whether it has to carry the run itself.


def run_name(kind: str) -> str:
    return f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


async def carry_until(
    settings: Settings, log: Log, begin: Begin, enough: Enough, *, quiet: bool, check: Check | None = None
) -> Run:
    """Begin a run (or find it), see to it that it is carried, and return it once it is over or `enough`.

    `check` raises what is wrong with the arguments: before a state is opened and a cloud is asked.
    """
    from orchestrator.bootstrap import open_orchestrator, place_of  # noqa: PLC0415
    from orchestrator.config import read_topology  # noqa: PLC0415
    from orchestrator.engine.place import InUse  # noqa: PLC0415
    from orchestrator.engine.store import SqlStore  # noqa: PLC0415

    topology = read_topology(settings.topology, settings.service)
    if check is not None:
        check(topology)
    begun: Run | None = None
    while True:
        try:
            async with open_orchestrator(settings, log) as (engine, world):
                run = begun or await begin(engine.store, world.topology)
                await engine.start_run(run.id)
                log("carrying", run=run.id, evidence=run.reason)
                ending = asyncio.create_task(engine.await_run(run.id))
                try:
                    waits = world.waits
                    return await _wait(engine.store, run.id, enough, log, ending, quiet=quiet, waits=waits)
                finally:
                    ending.cancel()
                    await asyncio.gather(ending, return_exceptions=True)
        except InUse as busy:
            log("following", evidence=str(busy))
            store = SqlStore(place_of(settings))
            try:
                begun = begun or await begin(store, topology)
                return await _wait(store, begun.id, enough, log, None, quiet=quiet, gone=place_of(settings).is_free)
            except _Gone:
                continue  # Whoever carried it has ended: it is ours to carry.
            finally:
                store.close()


class _Gone(Exception):
    """Nobody holds the state any more."""


async def _wait(
    store: Store,
    run_id: str,
    enough: Enough,
    log: Log,
    ending: asyncio.Task[Run] | None,
    *,
    quiet: bool,
    gone: Callable[[], bool] | None = None,
    waits: Mapping[str, str] | None = None,
) -> Run:
    told = time.monotonic()
    asked = told
    while True:
        run = await store.load(run_id)
        ordered = bool((await store.pending(run_id)).orders)
        if run.finished or enough(run, ordered):
            return run
        if ending is not None and ending.done():
            return ending.result()  # What its carrier gave up with is raised here.
        if not quiet and time.monotonic() - told >= SILENCE_S:
            told = time.monotonic()
            await progress(store, run, log, waits)
        if gone is not None and time.monotonic() - asked >= GONE_S:
            asked = time.monotonic()
            if gone():
                raise _Gone
        await asyncio.sleep(0.1)


async def progress(store: Store, run: Run, log: Log, waits: Mapping[str, str] | None, late: str = "") -> None:
    """One line of what is waited for: on what evidence, by which rule, and the command to run next.

    `waits`: what this process sees (World.waits); None: another one carries the run.
    """
    from orchestrator.operations.halted import halted  # noqa: PLC0415
    from orchestrator.operations.status import describe_run  # noqa: PLC0415

    described = describe_run(run, {}, datetime.now(UTC), switches := await store.switches())
    following = described["next_command"]
    if halted(run, switches) is not None:
        log("stands", run=run.id, evidence=described["reason"], next=following)
        return
    if run.effect is None:
        why = f": {described['reason']}" if described["reason"] else ""
        log("waiting", run=run.id, evidence=f"the run is {run.status}{why}", next=following)
        return
    took = (datetime.now(UTC) - run.updated_at).total_seconds()
    why, told = (waits or {}).get(run.effect.zone or run.id, ""), f"for {seconds(took)}{late}"
    if waits is None:
        told += "; the process that carries it knows what it waits for"
    rule = RULES.get(run.effect.kind)
    by = f" (rule {rule})" if rule and not NAMED.search(why) else ""
    log(
        f"{run.effect.kind}…",
        run=run.id,
        zone=run.effect.zone,
        evidence=f"{told}{'; ' if why else ''}{why}{by}",
        next=following,
    )


async def with_store(settings: Settings, act: Callable[[Store], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what `act` gives
    """Do one small thing on the rows, whoever carries the runs."""
    from orchestrator.bootstrap import place_of  # noqa: PLC0415
    from orchestrator.engine.store import SqlStore  # noqa: PLC0415

    store = SqlStore(place_of(settings))
    try:
        return await act(store)
    finally:
        store.close()
