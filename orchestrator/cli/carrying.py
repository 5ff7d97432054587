"""Starting a run and waiting for it: carried in this process, or by `failout serve` where that has the state."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
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
                    return await _wait(engine.store, run.id, enough, log, ending, quiet=quiet)
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
) -> Run:
    told = time.monotonic()
    asked = told
    while True:
        run = await store.load(run_id)
        waits = bool((await store.pending(run_id)).orders)
        if run.finished or enough(run, waits):
            return run
        if ending is not None and ending.done():
            return ending.result()  # What its carrier gave up with is raised here.
        if not quiet and time.monotonic() - told >= SILENCE_S:
            told = time.monotonic()
            await _progress(store, run, log)
        if gone is not None and time.monotonic() - asked >= GONE_S:
            asked = time.monotonic()
            if gone():
                raise _Gone
        await asyncio.sleep(0.1)


async def _progress(store: Store, run: Run, log: Log) -> None:
    from orchestrator.operations.halted import halted  # noqa: PLC0415

    halt = halted(run, await store.switches())
    if halt is not None:
        log("stands", run=run.id, evidence=halt.evidence, next=halt.next_command)
        return
    if run.effect is None:
        log("waiting", run=run.id, evidence=f"the run is {run.status}")
        return
    took = (datetime.now(UTC) - run.updated_at).total_seconds()
    log(f"{run.effect.kind}…", run=run.id, zone=run.effect.zone, evidence=f"for {seconds(took)}")


async def with_store(settings: Settings, act: Callable[[Store], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what `act` gives
    """Do one small thing on the rows, whoever carries the runs."""
    from orchestrator.bootstrap import place_of  # noqa: PLC0415
    from orchestrator.engine.store import SqlStore  # noqa: PLC0415

    store = SqlStore(place_of(settings))
    try:
        return await act(store)
    finally:
        store.close()
