"""A simulated service, and any number of runs carried over it as they ship, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, TypeVar, cast

from orchestrator.core.deploy import begin
from orchestrator.core.deploy_row import DeployMachine
from orchestrator.core.errors import Transient
from orchestrator.core.guards import order_of_zones
from orchestrator.core.outing import Ask, Asker, Mode, OutingState
from orchestrator.core.outing_row import OutingMachine, parse
from orchestrator.core.outing_table import Stage
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import ZoneSeen, ZoneTraffic
from orchestrator.engine.carry import carry
from orchestrator.engine.memory import MemoryStore
from orchestrator.engine.ports import Run
from orchestrator.operations.outings import Person, order_outing, start_outing
from orchestrator.ports import Fence, FleetSeen, Notice, Peer
from orchestrator.sim.adapters import AwsTraffic, AzureTraffic, SimAgent, SimDns, SimFleet
from orchestrator.sim.faults import Fault, Faults, Wire
from orchestrator.sim.scenario import good_deploy
from orchestrator.sim.scheduler import EPOCH, Process, Scheduler, SimClock
from orchestrator.sim.stores import Book, Releases
from orchestrator.sim.truth import WELL
from orchestrator.sim.world import build
from orchestrator.workflows.deploy import DeployPerformer
from orchestrator.workflows.outing import OutingPerformer
from orchestrator.workflows.world import World

AWS, AWS_B, AZURE = "aws/us-east-1a", "aws/us-east-1b", "azure/eastus-1"
T = TypeVar("T")


def now_(call: Coroutine[Any, Any, T]) -> T:
    """Run a call that never suspends: the memory store's."""
    try:
        call.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("it suspended")


@dataclass
class Clouds:
    """Which clouds' management APIs answer."""

    down: set[str] = field(default_factory=set)

    def check(self, cloud: str) -> None:
        if cloud in self.down:
            raise Transient(f"{cloud}: connection refused")


@dataclass(frozen=True)
class Fleets(SimFleet):
    clouds: Clouds = field(default_factory=Clouds)

    async def describe(self, zone: Zone) -> FleetSeen:
        self.clouds.check(zone.cloud)
        return await SimFleet.describe(self, zone)

    async def set_autoscaling(self, zone: Zone, *, enabled: bool, fence: Fence, repairs: bool | None = None) -> None:
        self.clouds.check(zone.cloud)
        await SimFleet.set_autoscaling(self, zone, enabled=enabled, fence=fence, repairs=repairs)


@dataclass(frozen=True)
class Fronts:
    inner: Any
    clouds: Clouds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        self.clouds.check(region.cloud)
        return cast("Mapping[str, ZoneSeen]", await self.inner.read(region))

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        self.clouds.check(region.cloud)
        await self.inner.apply(region, desired, fence)


@dataclass(frozen=True)
class Peers:
    store: MemoryStore
    service: str

    async def load(self, zone: str) -> Sequence[Peer]:
        return await self.store.peers(self.service, zone)

    async def save(self, zone: str, peers: Sequence[Peer]) -> None:
        await self.store.save_peers(self.service, zone, peers)


class Notices(list[Notice]):
    async def notify(self, notice: Notice) -> None:
        self.append(notice)


class Service:
    def __init__(self, users_rps: float = 300.0, plan: dict[int, Fault] | None = None, **policy: Any) -> None:
        scenario = good_deploy()
        self.policy: DeployPolicy = replace(scenario.policy, **policy)
        self.topology = scenario.topology
        self.scheduler, self.store, self.clouds, self.notices = Scheduler(), MemoryStore(), Clouds(), Notices()
        self.world = build(self.topology, self.scheduler, version="v1", users_rps=users_rps, versions={"v2": WELL})
        self.faults = Faults(Random(1), plan=plan or {})
        self._numbers = 0
        self.carriers: list[tuple[str, Process]] = []
        self.wait(5.0)

    # ---- acting

    def take_out(self, zone: str, mode: Mode = Mode.DRAIN, **more: Any) -> str:
        """Ask for it, as the command line does, and have it carried."""
        self._numbers += 1
        now = self.now()
        ask = Ask(zone, mode, more.pop("asker", Asker.PERSON), "ada", "a test", now + timedelta(hours=1), **more)
        run = now_(start_outing(self.store, self.topology, self.policy, ask, f"outing-{self._numbers}", now))
        self.carry(run.id)
        return run.id

    def restore(self, zone: str) -> None:
        now_(order_outing(self.store, self.topology, zone, "restore", Person("ada", "well again", self.now())))

    def deploy(self, order: tuple[str, ...] | None = None) -> str:
        previous = dict.fromkeys(self.world.zones, "v1")
        state = begin("gates", "v2", previous, order or tuple(order_of_zones(self.topology)), self.policy, EPOCH)
        service = self.topology.service
        create = self.store.create_run(
            "deploy-1",
            service,
            "deploy",
            DeployMachine().dump(state),
            "active",
            author="eve",
            reason="",
            now=self.now(),
        )
        now_(create)
        self.carry("deploy-1")
        return "deploy-1"

    def carry(self, run_id: str) -> None:
        process = Process(f"carrier-{len(self.carriers) + 1}")
        ports, kind = self.ports(process), self.run(run_id).kind
        machine, performer = self.carried(kind, ports)
        body = carry(run_id, machine, performer, self.store, ports.clock, process.name)
        self.carriers.append((run_id, self.scheduler.spawn(process, body)))

    def carried(self, kind: str, ports: World) -> tuple[Any, Any]:
        """The machine and the performer of a kind of run."""
        if kind == "deploy":
            return DeployMachine(), DeployPerformer(ports)
        return OutingMachine(), OutingPerformer(ports)

    def ports(self, process: Process) -> World:
        wire = Wire(process, self.scheduler, self.faults)
        clock, fleet = SimClock(self.scheduler, process), Fleets(self.world, wire, self.clouds)
        regions = tuple(region.id for region in self.topology.regions)
        return World(
            self.topology,
            {"aws": fleet, "azure": fleet},
            {
                "aws": Fronts(AwsTraffic(self.world, wire), self.clouds),
                "azure": Fronts(AzureTraffic(self.world, wire), self.clouds),
            },
            SimDns(self.world, wire),
            {region: SimAgent(self.world, wire, region) for region in regions},
            clock,
            self.notices,
            Book(self.store, self.topology.service),
            Releases(regions),
            Peers(self.store, self.topology.service),
        )

    def wait(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now_s + seconds)

    def until(self, so: Callable[[], bool], within_s: float = 900.0) -> None:
        """Go on until it is so; what has been killed is carried anew."""
        deadline_s = self.scheduler.now_s + within_s
        while not so():
            assert self.scheduler.now_s < deadline_s, self.told()
            self.wait(0.5)
            for run_id, process in self.carriers:
                last = [p for r, p in self.carriers if r == run_id][-1]
                if process is last and (not process.running) and not self.run(run_id).finished:
                    self.carry(run_id)

    def until_status(self, run_id: str, *statuses: str, within_s: float = 900.0) -> Run:
        self.until(lambda: self.run(run_id).status in statuses, within_s)
        return self.run(run_id)

    # ---- looking

    def now(self) -> Any:
        return EPOCH + timedelta(seconds=self.scheduler.now_s)

    def run(self, run_id: str) -> Run:
        return now_(self.store.load(run_id))

    def outing(self, run_id: str) -> OutingState:
        return parse(self.run(run_id).state)

    def stage(self, run_id: str) -> Stage:
        return self.outing(run_id).stage

    def kinds(self, run_id: str) -> list[str]:
        return [record.event.kind for record in now_(self.store.events(run_id))]

    def audit(self) -> list[tuple[str, str]]:
        return [(entry.act, entry.result) for entry in now_(self.store.audit())]

    def harmed(self) -> float:
        for region in self.world.regions.values():
            self.world.count(region)
        return float(sum(self.world.ledger.harmed.values()))

    def presence(self, zone: str) -> float:
        return self.world.zones[zone].presence

    def told(self) -> str:
        return "; ".join(f"{r} {self.run(r).status} {self.kinds(r)[-4:]}" for r, _ in self.carriers)
