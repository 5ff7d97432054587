"""The only place that picks adapters: from settings and topology to a world that workflows can act on.

A region whose `api` names an endpoint is the lab's: it gets the lab's credentials, never a person's. Everything else uses
each cloud's own chain of credentials. SDKs are imported by the adapters when they are first used.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from orchestrator.agent.client import HttpAgent
from orchestrator.agent.main import read_token
from orchestrator.config import ReleaseFolder, Settings, read_topology
from orchestrator.core.deploy_row import DeployMachine
from orchestrator.core.drill_row import DrillMachine
from orchestrator.core.errors import Bug, NotFound, Rejected
from orchestrator.core.outing_row import OutingMachine
from orchestrator.core.region_row import RegionMachine
from orchestrator.core.runbook_row import RunbookMachine
from orchestrator.core.signal import AzureAlert, CloudWatchAlarm, SignalSpec
from orchestrator.core.topology import Topology
from orchestrator.core.traffic import DesiredTraffic
from orchestrator.engine.carry import Log
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.glance import Glance, glance_at
from orchestrator.engine.place import Place
from orchestrator.engine.ports import Lease, Run, Store, Switch
from orchestrator.engine.store import SqlStore
from orchestrator.notify.log import LogNotifier
from orchestrator.operations.checks import Checks
from orchestrator.operations.drill_steps import DrillSteps
from orchestrator.operations.drills import BoundDrills, NamedSignals, RowsAndDoctor
from orchestrator.operations.expiry import Expiries
from orchestrator.operations.halted import Halts
from orchestrator.operations.lasting import lasting
from orchestrator.operations.recording import recording, reporting
from orchestrator.operations.runbooks import BoundOperations, Operation
from orchestrator.operations.schedules import DrillSchedules
from orchestrator.ports import Agent, Fleet, GlobalTraffic, Inspector, Peer, Signal, Traffic
from orchestrator.signals import open_signal
from orchestrator.workflows.deploy import DeployPerformer
from orchestrator.workflows.drill import DrillPerformer
from orchestrator.workflows.drill_checks import DrillChecks
from orchestrator.workflows.looking import Looker, Rows
from orchestrator.workflows.outing import OutingPerformer
from orchestrator.workflows.reconcile import OneAtATime, Reconciler
from orchestrator.workflows.region import RegionPerformer
from orchestrator.workflows.runbook import RunbookPerformer
from orchestrator.workflows.world import TrafficBook, World

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from orchestrator.clouds.aws.session import AwsSession
    from orchestrator.engine.runtime import Carried, Engine

LAB_CREDENTIAL: Final = "lab"
T = TypeVar("T")


class StoredTraffic:
    """The desired-traffic document of one service, in the store."""

    def __init__(self, store: Store, service: str) -> None:
        self._store, self._service = store, service

    async def load(self) -> DesiredTraffic | None:
        return await self._store.load_traffic(self._service)

    async def save(self, document: DesiredTraffic, expected_version: int) -> None:
        await self._store.save_traffic(self._service, document, expected_version)


class StoredPeers:
    """Where the instances of one service were seen last, in the store."""

    def __init__(self, store: Store, service: str) -> None:
        self._store, self._service = store, service

    async def load(self, zone: str) -> Sequence[Peer]:
        return await self._store.peers(self._service, zone)

    async def save(self, zone: str, peers: Sequence[Peer]) -> None:
        await self._store.save_peers(self._service, zone, peers)


class StoredOperations:
    """The long-running operations of one service, in the store."""

    def __init__(self, store: Store, service: str) -> None:
        self._store, self._service = store, service

    async def load(self, key: str) -> str | None:
        return await self._store.operation(self._service, key)

    async def save(self, key: str, token: str | None) -> None:
        await self._store.keep_operation(self._service, key, token)


def _world(settings: Settings, book: TrafficBook, log: Log, store: Store | None = None) -> World:
    """Connect nothing yet: adapters make their clients at the first call. Raises Rejected for a cloud without adapter."""
    topology = read_topology(settings.topology, settings.service)
    token = read_token(settings.agent_token_file)
    agents: dict[str, Agent] = {region.id: HttpAgent(region.agent_url, token) for region in topology.regions}
    operations = StoredOperations(store, settings.service) if store else None
    fleets, traffics = _adapters(topology, agents, operations)
    return World(
        topology=topology,
        fleets=fleets,
        traffics={cloud: OneAtATime(traffic) for cloud, traffic in traffics.items()},
        global_tier=_global_tier(topology),
        agents=agents,
        clock=SystemClock(),
        notifier=LogNotifier(log),
        book=book,
        releases=ReleaseFolder(settings.releases),
        peers=StoredPeers(store, settings.service) if store else None,
    )


def _adapters(
    topology: Topology, agents: Mapping[str, Agent], operations: StoredOperations | None
) -> tuple[dict[str, Fleet], dict[str, Traffic]]:
    fleets: dict[str, Fleet] = {}
    traffics: dict[str, Traffic] = {}
    for cloud in sorted({region.cloud for region in topology.regions}):
        regions = [region for region in topology.regions if region.cloud == cloud]
        emulated = _emulated(cloud, [r.api for r in regions])
        if cloud == "aws":
            from orchestrator.clouds.aws.fleet import AwsFleet  # noqa: PLC0415
            from orchestrator.clouds.aws.traffic import AwsTraffic  # noqa: PLC0415

            session = _aws_session(emulated=emulated)
            fleets[cloud], traffics[cloud] = AwsFleet(session, regions), AwsTraffic(session)
        elif cloud == "azure":
            from orchestrator.clouds.azure.arm import Azure  # noqa: PLC0415
            from orchestrator.clouds.azure.fleet import AzureFleet  # noqa: PLC0415
            from orchestrator.clouds.azure.traffic import AzureTraffic  # noqa: PLC0415

            azure = Azure(_lab_token() if emulated else None)
            fleets[cloud], traffics[cloud] = AzureFleet(azure, regions, operations), AzureTraffic(azure, agents)
        else:
            raise Rejected(f"no adapter for cloud {cloud!r}; there are aws and azure")
    return fleets, traffics


def _aws_session(*, emulated: bool) -> AwsSession:
    from orchestrator.clouds.aws.session import AwsSession, Keys  # noqa: PLC0415

    return AwsSession(Keys(LAB_CREDENTIAL, LAB_CREDENTIAL) if emulated else None)


def _lab_token() -> TokenCredential:
    from orchestrator.lab.credential import LabCredential  # noqa: PLC0415 - only where the lab is installed

    return LabCredential()


def inspectors(topology: Topology) -> dict[str, Inspector]:
    """What `doctor` asks of each cloud, with the credentials that the adapters would use."""
    found: dict[str, Inspector] = {}
    tier = topology.global_tier
    for cloud in sorted({region.cloud for region in topology.regions}):
        emulated = _emulated(cloud, [r.api for r in topology.regions if r.cloud == cloud])
        if cloud == "aws":
            from orchestrator.clouds.aws.inspect import AwsInspector  # noqa: PLC0415

            zone = tier.attributes.get("hosted_zone_id") if tier.kind == "route53" else None
            found[cloud] = AwsInspector(_aws_session(emulated=emulated), zone)
        elif cloud == "azure":
            from orchestrator.clouds.azure.arm import Azure  # noqa: PLC0415
            from orchestrator.clouds.azure.inspect import AzureInspector  # noqa: PLC0415

            found[cloud] = AzureInspector(Azure(_lab_token() if emulated else None))
    return found


def _emulated(cloud: str, apis: list[Mapping[str, str]]) -> bool:
    """All regions of a cloud are the lab's, or none is: a mix would send a person's credentials to an emulator."""
    named = {"endpoint_url" in api for api in apis}
    if len(named) > 1:
        raise Rejected(f"some regions of {cloud} name an endpoint_url and some do not: a lab and a cloud do not mix")
    return named == {True}


def _global_tier(topology: Topology) -> GlobalTraffic:
    tier = topology.global_tier
    if tier.kind != "route53":
        raise Rejected(f"no adapter for global tier {tier.kind!r}; there is route53")
    from orchestrator.clouds.aws.route53 import Route53  # noqa: PLC0415

    return Route53(_aws_session(emulated="endpoint_url" in tier.api), tier)


def place_of(settings: Settings) -> Place:
    return Place.of(settings.database or settings.state)


@asynccontextmanager
async def open_orchestrator(
    settings: Settings, log: Log, *, serving: bool = False, executor: str | None = None
) -> AsyncIterator[tuple[Engine, World]]:
    """Open the state, carry on what was interrupted, and hand out the engine and the world it acts on.

    Meanwhile traffic is kept as its document says, and zones that stay out for too long are told (I8). `serving` and
    `executor` are open_engine's.
    """
    from orchestrator.engine.runtime import Carried, open_engine  # noqa: PLC0415 - DBOS: 0.4 s that readers need not wait

    read_topology(settings.topology, settings.service)  # Without it nothing can begin: no state is made either.
    worlds: list[World] = []
    launcher = Launcher()

    def assemble(store: SqlStore) -> Mapping[str, Carried]:
        world = _world(settings, StoredTraffic(store, settings.service), log, store)
        worlds.append(world)
        checks = _checks(settings, world)
        drills = BoundDrills(world, store, settings.policy, launcher.launch)
        steps = DrillSteps(world, store, settings.drills, signal_names(settings))
        more: dict[str, Operation] = {**checks.bound(), **steps.bound()}
        operations = BoundOperations(world, store, settings.policy, launcher.launch, more)
        return {
            "deploy": Carried(DeployMachine(), DeployPerformer(world)),
            "outing": Carried(OutingMachine(), OutingPerformer(world)),
            "region": Carried(RegionMachine(), RegionPerformer(world)),
            "runbook": Carried(RunbookMachine(), RunbookPerformer(world, store, settings.policy, operations)),
            "drill": Carried(
                DrillMachine(), DrillPerformer(world, store, _drill_checks(settings, world, store), drills)
            ),
        }

    opened = open_engine(
        place_of(settings),
        assemble,
        log=log,
        executor=executor,
        service=settings.service,
        serving=serving,
        out_expires_s=settings.policy.out_expires_s,
    )
    async with opened as engine:
        launcher.engine.set_result(engine)
        ended = reporting(engine.store.glance, settings.state)
        async with (
            recording(engine.store, worlds[0], settings.objective, log, ended),
            _keeping(engine, worlds[0], settings, log, serving=serving),
        ):
            yield engine, worlds[0]


def _checks(settings: Settings, world: World) -> Checks:
    versions = ReleaseFolder(settings.releases).versions
    return Checks(world, place_of(settings), settings.objective, inspectors, versions)


def _drill_checks(settings: Settings, world: World, rows: Rows) -> DrillChecks:
    obstacles = RowsAndDoctor(world, rows, _checks(settings, world).findings)
    return DrillChecks(world, settings.policy, NamedSignals(signals_of(settings)), obstacles)


def drill_checks(settings: Settings, log: Log) -> DrillChecks:
    """For a rehearsal: reads only, and opens no state."""
    return _drill_checks(settings, reading_world(settings, log), ReadOnlyRows(place_of(settings)))


@asynccontextmanager
async def _keeping(engine: Engine, world: World, settings: Settings, log: Log, *, serving: bool) -> AsyncIterator[None]:
    """A process that stays (`serving`) fires the schedules of drills too."""
    store, service = engine.store, settings.service
    reconciler = Reconciler(world, store, lambda: store.unfinished(service), engine.carrier, engine.counts)
    expiries = Expiries(store, world.notifier, service, settings.policy, engine.carrier)
    halts = Halts(store, world.notifier, service, engine.carrier)
    keepers: dict[str, Callable[[], Awaitable[None]]] = {
        "reconciler": reconciler.forever,
        "halts": partial(halts.forever, world.clock),
        "expiries": partial(expiries.forever, world.clock),
    }
    if serving:
        schedules = DrillSchedules(store, world.topology, settings.objective, log)
        keepers["schedules"] = partial(schedules.forever, world.clock)
    tasks = [
        asyncio.create_task(lasting(what, forever, world.clock, log, engine.counts))
        for what, forever in keepers.items()
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def looker(settings: Settings, log: Log) -> Looker:
    """Answers a runbook's conditions by hand. Reads only; where there is no state yet, it has no rows."""
    return Looker(reading_world(settings, log), ReadOnlyRows(place_of(settings)), settings.policy)


class ReadOnlyRows:
    """The rows for commands that change nothing; none before the first run."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def unfinished(self, service: str) -> Sequence[Run]:
        return self._rows(lambda rows: rows.unfinished(service))

    async def leases(self, service: str) -> Sequence[Lease]:
        return self._rows(lambda rows: rows.leases(service))

    async def switches(self) -> Sequence[Switch]:
        return self._rows(lambda rows: rows.switches())

    def _rows(self, read: Callable[[Glance], Sequence[T]]) -> Sequence[T]:
        try:
            with glance_at(self._place) as rows:
                return read(rows)
        except NotFound:
            return ()


class Launcher:
    """Lets a runbook's step start a run in the engine that carries the runbook; waits while that is still opening."""

    def __init__(self) -> None:
        self.engine: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self._outside = contextvars.copy_context()

    async def launch(self, run: str) -> None:
        engine = await asyncio.shield(self.engine)
        # In a context of its own: within a workflow's, DBOS would take what is asked of it for steps of that workflow.
        await asyncio.get_running_loop().create_task(engine.start_run(run), context=self._outside.copy())


class ReadOnlyTraffic:
    """The desired-traffic document for commands that change nothing; None before the first deploy."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def load(self) -> DesiredTraffic | None:
        try:
            with glance_at(place_of(self._settings)) as glance:
                return glance.load_traffic(self._settings.service)
        except NotFound:
            return None

    async def save(self, document: DesiredTraffic, expected_version: int) -> None:
        raise Bug(
            f"a command that only reads tried to write traffic version {document.version} over {expected_version}"
        )


def reading_world(settings: Settings, log: Log) -> World:
    """A world for `plan` and its like: no state is opened for writing, no lock is taken."""
    return _world(settings, ReadOnlyTraffic(settings), log)


def signals_of(settings: Settings) -> Mapping[str, Signal]:
    """Each signal that failout.yaml configures, by name."""
    return {name: _signal(spec) for name, spec in settings.signals.items()}


def _signal(spec: SignalSpec) -> Signal:
    """Alarms of clouds are asked with the credentials that their adapters use."""
    if isinstance(spec, CloudWatchAlarm):
        from orchestrator.clouds.aws.alarm import AwsAlarm  # noqa: PLC0415

        return AwsAlarm(_aws_session(emulated=_is_lab(spec.endpoint_url)), spec)
    if isinstance(spec, AzureAlert):
        from orchestrator.clouds.azure.alarm import AzureAlarm  # noqa: PLC0415
        from orchestrator.clouds.azure.arm import Azure  # noqa: PLC0415

        return AzureAlarm(Azure(_lab_token() if _is_lab(spec.endpoint_url) else None), spec)
    return open_signal(spec)


def _is_lab(endpoint_url: str) -> bool:
    return endpoint_url.startswith("http://127.")


def signal_names(settings: Settings) -> Sequence[str]:
    return tuple(settings.signals)
