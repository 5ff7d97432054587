"""The glue to DBOS: it starts each run's `carry` exactly once and starts it again after a crash. Nothing else.

A run has one DBOS workflow of the same id, whose body is `carry`. It has no steps, so nothing is replayed and code may
change under a run that is on hold: a workflow that starts again begins from the run's row. A workflow that has ended is
worth nothing; it is deleted, and a run that still is unfinished gets a new one. No DBOS queue guards anything: a queue's
slot is not a lock (I1 is the lease's).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID

from orchestrator.core.errors import Bug
from orchestrator.core.machine import Machine
from orchestrator.engine.carry import Log, Performer, carry, silent
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Run
from orchestrator.engine.serializer import JsonOnly, forbid_pickle
from orchestrator.engine.store import SqlStore
from orchestrator.ports import Clock

QUEUE: Final = "failout-runs"
QUEUE_POLL_S: Final = 0.05  # DBOS's own queue polls once a second: that much of every resume would be waiting.
WAIT_POLL_S: Final = 0.1
EMBEDDED: Final = "embedded"  # One executor id for ever: whoever holds the lock file recovers all that is pending.
# Never a hash of the source, as is DBOS's default: an edit would strand every unfinished run.
APPLICATION_VERSION: Final = "failout-1"
_ALIVE: Final = ["PENDING", "ENQUEUED", "DELAYED"]


@dataclass(frozen=True, slots=True)
class Carried:
    """What carries one kind of run: its machine decides, its performer does."""

    machine: Machine[Any]
    performer: Performer[Any]


Assemble = Callable[[SqlStore], Mapping[str, Carried]]


class Engine:
    """Durable runs in this process. Make one with `open_engine`; there is one at a time, as DBOS is a singleton."""

    def __init__(self, store: SqlStore, kinds: Mapping[str, Carried], clock: Clock, log: Log) -> None:
        self.store = store
        self._kinds = kinds
        self._clock = clock
        self._log = log
        self._carrier = f"{socket.gethostname()}:{os.getpid()}"
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: dict[str, Exception] = {}
        self._workflow = DBOS.workflow(name="carry", max_recovery_attempts=None)(self._body())

    async def start_run(self, run_id: str) -> None:
        """See to it that the run is carried: start it, or start it again. Does nothing while it is being carried."""
        known = await DBOS.list_workflows_async(workflow_ids=[run_id], load_input=False, load_output=False)
        if known and known[0].status in _ALIVE:
            return
        if known:
            await DBOS.delete_workflow_async(run_id)
        self._failures.pop(run_id, None)
        with SetWorkflowID(run_id):
            await DBOS.enqueue_workflow_async(QUEUE, self._workflow, run_id)

    async def resume_all(self) -> list[Run]:
        """Carry on every unfinished run, also those whose carrier gave up; return them, oldest first."""
        unfinished = list(await self.store.unfinished())
        for run in unfinished:
            await self.start_run(run.id)
        return unfinished

    async def await_run(self, run_id: str) -> Run:
        """Return the run when it has finished. Raise what its carrier in this process gave up with."""
        while True:
            run = await self.store.load(run_id)
            if run.finished:
                return run
            if run_id in self._failures:
                raise self._failures[run_id]
            await self._clock.sleep(WAIT_POLL_S)

    def _body(self) -> Callable[[str], Any]:
        async def carry_run(run_id: str) -> str:
            task = asyncio.current_task()
            if task:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            try:
                return await self._carry(run_id)
            except Exception as error:
                self._failures[run_id] = error
                raise

        return carry_run

    async def _carry(self, run_id: str) -> str:
        run = await self.store.load(run_id)
        if run.kind not in self._kinds:
            raise Bug(f"run {run_id} is a {run.kind}, which nothing here can carry")
        kind = self._kinds[run.kind]
        ended = await carry(run_id, kind.machine, kind.performer, self.store, self._clock, self._carrier, self._log)
        return "ended" if ended else "taken over"

    async def stop(self) -> None:
        """Stop carrying, as a crash would but quicker: rows are whole at every moment."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def open_engine(
    place: Place,
    assemble: Assemble,
    *,
    clock: Clock | None = None,
    log: Log = silent,
    executor: str = EMBEDDED,
    max_zones_out: int = 1,
) -> AsyncIterator[Engine]:
    """Open the state, and carry on at once what a crash interrupted. `assemble` builds machines and performers on the store.

    Raise Rejected when another process carries this state, or when the state cannot be used. On PostgreSQL, `executor`
    is this process's own lasting name; runs of another executor that died are not taken over yet.
    """
    forbid_pickle()
    with place.exclusively(), _logging(log):
        store = SqlStore(place, max_zones_out)
        try:
            with store.as_executor(executor):
                url = f"sqlite:///{place.folder / 'dbos.db'}" if place.folder else place.url
                DBOS(config=_config(url, executor))
                engine = Engine(store, assemble(store), clock or SystemClock(), log)
                try:
                    await asyncio.to_thread(_ensure_queue, url)
                    DBOS.launch()  # From within the running loop: DBOS then runs every `carry` on this loop.
                    await _forget_ended()
                    await engine.resume_all()
                    yield engine
                finally:
                    await engine.stop()
                    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
                    # DBOS made its own threads the loop's, and has just ended them.
                    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        finally:
            store.close()


def _config(url: str, executor: str) -> DBOSConfig:
    return {
        "name": "failout",
        "system_database_url": url,
        "application_version": APPLICATION_VERSION,
        "executor_id": executor,
        "serializer": JsonOnly(),
        # Nothing here listens to DBOS's notifications, but closing waits for one tick of it: a second, by default.
        "notification_listener_polling_interval_sec": 0.1,
        "log_level": "WARNING",
        "enable_otlp": False,
    }


def _ensure_queue(url: str) -> None:
    """Create DBOS's tables and our queue before the launch: a queue that comes later is noticed up to a second later."""
    DBOS.migrate(url)
    client = DBOSClient(system_database_url=url, serializer=JsonOnly(), application_name="failout")
    try:
        client.register_queue(QUEUE, polling_interval_sec=QUEUE_POLL_S)
    finally:
        client.destroy()


async def _forget_ended() -> None:
    """Delete the workflows that have ended; DBOS keeps them for ever, and our own rows have the history."""
    found = await DBOS.list_workflows_async(load_input=False, load_output=False)
    ended = [workflow.workflow_id for workflow in found if workflow.status not in _ALIVE]
    if ended:
        await DBOS.delete_workflows_async(ended)


@contextmanager
def _logging(log: Log) -> Iterator[None]:
    """Send DBOS's warnings to our log. It has to be there first, or DBOS attaches a console of its own."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log("dbos", level=record.levelname.lower(), message=record.getMessage())

    handler, logger = Forward(), logging.getLogger("dbos")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
