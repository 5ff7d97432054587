"""The glue to DBOS: it starts each run's `carry` exactly once and starts it again after a crash. Nothing else.

A run has one DBOS workflow, `RUN/EPOCH` of the carrier that it will be, whose body is `carry`. It has no steps, so nothing
is replayed and code may change under a run that is on hold: a workflow that starts again begins from the run's row. The
workflow of an executor that died is worth nothing: whoever notices first starts the run's next one, and since its id says
which epoch it is for, all who notice start the same one. No DBOS queue guards anything: a queue's slot is not a lock (I1
is the lease's).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID, WorkflowStatus

from orchestrator.core.errors import Bug, StaleCarrier, Transient
from orchestrator.core.machine import Machine
from orchestrator.engine.carry import Log, Performer, carry, silent
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.place import EXECUTOR, SERVER, Place, Served, key_of
from orchestrator.engine.ports import Run
from orchestrator.engine.serializer import JsonOnly, forbid_pickle
from orchestrator.engine.store import SqlStore
from orchestrator.ports import Clock

if TYPE_CHECKING:
    from orchestrator.engine.liveness import Liveness

QUEUE: Final = "failout-runs"
QUEUE_POLL_S: Final = 0.05  # DBOS's own queue polls once a second: that much of every resume would be waiting.
WAIT_POLL_S: Final = 0.1
WATCH_S: Final = 0.5  # How often an executor looks for runs that nobody carries.
GRACE_S: Final = (
    3.0  # How long a lock must be free: a restarted PostgreSQL has freed all, and the living take theirs again.
)
RETRY_S: Final = (1.0, 60.0)  # A run whose carrier gave up is tried again, ever more slowly.
EMBEDDED: Final = "embedded"  # One executor id for ever: whoever holds the lock file recovers all that is pending.
# Never a hash of the source, as is DBOS's default: an edit would strand every unfinished run.
APPLICATION_VERSION: Final = "failout-1"
SETTLE_S: Final = 2.0  # How long a stop waits for DBOS to record what has ended: its database may be away.
_ALIVE: Final = ["PENDING", "ENQUEUED", "DELAYED"]


@dataclass(frozen=True, slots=True)
class Carried:
    """What carries one kind of run: its machine decides, its performer does."""

    machine: Machine[Any]
    performer: Performer[Any]


Assemble = Callable[[SqlStore], Mapping[str, Carried]]


class Engine:
    """Durable runs in this process. Make one with `open_engine`; there is one at a time, as DBOS is a singleton."""

    def __init__(
        self,
        store: SqlStore,
        kinds: Mapping[str, Carried],
        clock: Clock,
        log: Log,
        service: str | None,
        *,
        shared: bool,
        retries: bool,
    ) -> None:
        """Carry runs of `service` (None: of all). `shared`: other executors use the same database.

        Without `retries`, whoever waits here for a run whose carrier gave up is told, and decides.
        """
        self.store = store
        self.service = service
        self.carrier = f"{socket.gethostname()}:{os.getpid()}"
        self.queue = QUEUE if service is None else f"{QUEUE}-{service}"
        self._kinds = kinds
        self._clock = clock
        self._log = log
        self._shared = shared
        self._retries = retries
        self._started: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()  # DBOS's own, each around one of ours:
        self._carriers: set[asyncio.Task[str]] = set()
        self._failures: dict[str, Exception] = {}
        self.counts: Counter[str] = Counter()  # What happened since this process began: takeovers, carriers given up.
        self.looked_at = time.monotonic()  # When the watch last saw the rows.
        self._usurped = False
        self._free_since: dict[str, float] = {}
        self._again: dict[str, tuple[float, float]] = {}  # run -> (not before, how long the wait was)
        self._workflow = DBOS.workflow(name="carry", max_recovery_attempts=None)(self._body())

    async def start_run(self, run_id: str) -> None:
        """See to it that the run is carried: start it, or start it again. Does nothing while it is being carried."""
        epoch = (await self.store.load(run_id)).epoch
        if not await self._alive(f"{run_id}/"):
            await self._start(run_id, epoch)

    async def resume_all(self) -> list[Run]:
        """Carry on every unfinished run, also those whose carrier gave up; return them, oldest first."""
        unfinished = list(await self.store.unfinished(self.service))
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
            self.check()
            await self._clock.sleep(WAIT_POLL_S)

    def check(self) -> None:
        """Raise StaleCarrier when another process has this executor's name: this one was thought dead, and must end."""
        if self._usurped:
            raise StaleCarrier("another process has this executor's name: it was silent for too long")

    def usurp(self) -> None:
        self._usurped = True

    async def watch(self) -> None:
        """Start what nobody carries, for ever: new runs of clients, those of the dead, those whose carrier gave up."""
        while not self._usurped:
            try:
                await self._look()
                self.looked_at = time.monotonic()
            except Transient as error:
                self._log("watch-blind", reason=str(error))
            except Exception as error:  # noqa: BLE001 - DBOS's own errors too: whatever it is, runs must not be left alone
                self._log("watch-failed", error=repr(error))
            await asyncio.sleep(WATCH_S)

    async def _look(self) -> None:
        epochs = await self.store.open_runs(self.service)
        carried = await self._alive(None)
        dead = await self._dead({str(w.executor_id) for w in carried if w.status == "PENDING" and w.executor_id})
        lost = [w for w in carried if w.status == "PENDING" and w.executor_id in dead]
        for workflow in lost:
            self.counts["takeovers"] += 1
            self._log("taking-over", run=_run_of(workflow), reason=f"executor {workflow.executor_id} is dead")
            await DBOS.delete_workflow_async(workflow.workflow_id)
        taken = {_run_of(w) for w in lost}
        owned = {_run_of(w) for w in carried} - taken
        for run_id in [r for r in epochs if r not in owned]:
            if run_id in taken or self._may_try(run_id):
                await self._start(run_id, epochs[run_id])
        self._again = {run: when for run, when in self._again.items() if run in epochs}

    def _may_try(self, run_id: str) -> bool:
        """At once the first time, then ever more slowly."""
        if run_id in self._started and not self._retries:
            return False
        now, (not_before, waited_s) = time.monotonic(), self._again.get(run_id, (0.0, RETRY_S[0] / 2))
        if now < not_before:
            return False
        wait_s = min(2 * waited_s, RETRY_S[1])
        self._again[run_id] = (now + wait_s, wait_s)
        return True

    async def _dead(self, executors: set[str]) -> set[str]:
        """Of these, the ones whose lock has been free for the grace."""
        if not self._shared:
            return set()
        live, now = await self.store.executors(EXECUTOR), time.monotonic()
        free = {name for name in executors if key_of(name) not in live}
        self._free_since = {name: self._free_since.get(name, now) for name in free}
        return {name for name, since in self._free_since.items() if now - since >= GRACE_S}

    async def _alive(self, prefix: str | None) -> list[WorkflowStatus]:
        return await DBOS.list_workflows_async(
            workflow_id_prefix=prefix, queue_name=self.queue, status=_ALIVE, load_input=False, load_output=False
        )

    async def _start(self, run_id: str, epoch: int) -> None:
        """Enqueue the carrier that follows `epoch`. Whoever else does so too does the same thing."""
        name = f"{run_id}/{epoch + 1}"
        known = await DBOS.list_workflows_async(workflow_ids=[name], load_input=False, load_output=False)
        if known and known[0].status not in _ALIVE:
            await DBOS.delete_workflow_async(name)  # It ended before it could claim the run.
        self._failures.pop(run_id, None)
        self._started.add(run_id)
        with SetWorkflowID(name):
            await DBOS.enqueue_workflow_async(self.queue, self._workflow, run_id)

    def _body(self) -> Callable[[str], Any]:
        async def carry_run(run_id: str) -> str:
            task = asyncio.current_task()
            if task:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            carrier = asyncio.create_task(self._carry(run_id))
            self._carriers.add(carrier)
            carrier.add_done_callback(self._carriers.discard)
            try:
                return await carrier
            except Exception as error:
                self._failures[run_id] = error
                self.counts["carriers_gave_up"] += 1
                raise

        return carry_run

    async def _carry(self, run_id: str) -> str:
        run = await self.store.load(run_id)
        if run.kind not in self._kinds:
            raise Bug(f"run {run_id} is a {run.kind}, which nothing here can carry")
        kind = self._kinds[run.kind]
        ended = await carry(run_id, kind.machine, kind.performer, self.store, self._clock, self.carrier, self._log)
        return "ended" if ended else "taken over"

    async def forget_ended(self) -> None:
        """Delete the workflows that have ended; DBOS keeps them for ever, and our own rows have the history."""
        found = await DBOS.list_workflows_async(queue_name=self.queue, load_input=False, load_output=False)
        ended = [workflow.workflow_id for workflow in found if workflow.status not in _ALIVE]
        if ended:
            await DBOS.delete_workflows_async(ended)

    async def stop(self) -> None:
        """Stop carrying, as a crash would but quicker: rows are whole at every moment.

        A run that has just ended is left the time that DBOS needs to write so down.
        """
        for carrier in self._carriers:
            carrier.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=SETTLE_S)
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
    executor: str | None = None,
    service: str | None = None,
    serving: bool = False,
    max_zones_out: int = 1,
    out_expires_s: float | None = None,
) -> AsyncIterator[Engine]:
    """Open the state, and carry on at once what a crash interrupted. `assemble` builds machines and performers on the store.

    On PostgreSQL `executor` is this process's own name (a lasting one resumes without the grace). `serving`: new runs of
    other processes are carried here. Raise Served when another process serves this state, Rejected when one carries it,
    has the name, or when the state cannot be used.
    """
    forbid_pickle()
    with place.exclusively(serving=serving), _logging(log):
        store = SqlStore(place, max_zones_out, out_expires_s)
        try:
            async with _launched(
                place, store, assemble, clock or SystemClock(), log, executor, service, serving
            ) as engine:
                yield engine
        finally:
            store.close()


@asynccontextmanager
async def _launched(
    place: Place,
    store: SqlStore,
    assemble: Assemble,
    clock: Clock,
    log: Log,
    executor: str | None,
    service: str | None,
    serving: bool,
) -> AsyncIterator[Engine]:
    url = f"sqlite:///{place.folder / 'dbos.db'}" if place.folder else place.url
    if not place.folder and not serving and await store.executors(SERVER):
        raise Served("`failout serve` carries the runs of this database")
    name = EMBEDDED if place.folder else executor or f"{socket.gethostname()}:{os.getpid()}"
    DBOS(config=_config(url, name))
    engine = Engine(
        store, assemble(store), clock, log, service, shared=not place.folder, retries=serving or not place.folder
    )
    DBOS.listen_queues([engine.queue])
    with contextlib.ExitStack() as stack:
        if not place.folder:
            stack.callback(_hold(place.url, name, serving, log, engine).end)
        watching: asyncio.Task[None] | None = None
        try:
            await asyncio.to_thread(_ensure_queue, url, engine.queue, store)
            DBOS.launch()  # From within the running loop: DBOS then runs every `carry` on this loop.
            await engine.forget_ended()
            await engine.resume_all()
            watching = asyncio.create_task(engine.watch())
            yield engine
        finally:
            if watching:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            await engine.stop()
            await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
            # DBOS made its own threads the loop's, and has just ended them.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


def _hold(url: str, name: str, serving: bool, log: Log, engine: Engine) -> Liveness:
    from orchestrator.engine.liveness import Liveness  # noqa: PLC0415 - psycopg is an extra

    liveness = Liveness(url, name, serving=serving, log=log, usurped=engine.usurp)
    liveness.start()
    return liveness


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


def _run_of(workflow: WorkflowStatus) -> str:
    return workflow.workflow_id.rpartition("/")[0] or workflow.workflow_id


def _ensure_queue(url: str, queue: str, store: SqlStore) -> None:
    """Create DBOS's tables and our queue before the launch: a queue that comes later is noticed up to a second later."""
    with store.alone():
        DBOS.migrate(url)
        client = DBOSClient(system_database_url=url, serializer=JsonOnly(), application_name="failout")
        try:
            client.register_queue(queue, polling_interval_sec=QUEUE_POLL_S)
        finally:
            client.destroy()


@contextmanager
def _logging(log: Log) -> Iterator[None]:
    """Send DBOS's warnings to our log. It has to be there first, or DBOS attaches a console of its own."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Asyncio task cancelled"):
                return  # By `Engine.stop`: its caller says that it stops, and the rows say where.
            log("dbos", level=record.levelname.lower(), message=record.getMessage())

    handler, logger = Forward(), logging.getLogger("dbos")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
