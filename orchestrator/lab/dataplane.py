"""The lab's data plane: every tick, what the emulated clouds want becomes processes, load balancers and DNS answers.

Runs on an event loop of its own and never waits for an instance or a node within a tick.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.errors import NotFound, Rejected
from orchestrator.lab.addresses import DNS_PORT, region_of
from orchestrator.lab.ask import ask
from orchestrator.lab.balancer import Balancer, Key
from orchestrator.lab.dns import Dns, DnsServer
from orchestrator.lab.faults import Faults, Mode
from orchestrator.lab.haproxy import Tally
from orchestrator.lab.model import (
    SERVICE_PORT,
    TICK_S,
    ControlPlane,
    DesiredDns,
    DesiredRegion,
    Process,
    SeenRegion,
    TargetHealth,
)
from orchestrator.lab.prober import Checks, fleet_checks, target_checks
from orchestrator.lab.supervisor import Running, Supervisor
from orchestrator.lab.timeline import Timeline

FAULT_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    id: str
    zone: str
    address: str
    version: str
    process: Process
    in_flight: int


@dataclass(frozen=True, slots=True)
class LabStatus:
    """What the data plane does at this moment; `faults` per broken zone, `balancing` summed since the lab came up."""

    instances: tuple[InstanceStatus, ...] = ()
    faults: Mapping[str, Mode] = field(default_factory=dict)
    balancing: Tally = field(default_factory=Tally)


class DataPlane:
    """`run` it on a loop; `fail`, `heal`, `status` and `stop` may be called from any thread.

    `folder` must exist; logs, sockets and HAProxy's configuration go there. `dns_address` is the DNS server's.
    """

    def __init__(
        self,
        planes: Sequence[ControlPlane],
        timeline: Timeline,
        folder: Path,
        *,
        dns_address: str,
        dns_port: int = DNS_PORT,
        strict: bool = True,
        seed: int = 0,
    ) -> None:
        self._planes, self._timeline, self._folder = planes, timeline, folder
        self._dns_at, self._strict, self._seed = (dns_address, dns_port), strict, seed
        self._faults = Faults()
        self._told_faults: Mapping[str, Mode] = {}
        self._zones: frozenset[str] = frozenset()
        self._status = LabStatus()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def fail(self, zone: str, mode: str) -> None:
        """Break a zone within a tick, until healed. Raises NotFound for an unknown zone, Rejected for an unknown mode."""
        if zone not in self._zones:
            raise NotFound(f"no zone {zone!r} in this lab; its zones are {', '.join(sorted(self._zones))}")
        if mode not in list(Mode):
            raise Rejected(f"no fault mode {mode!r}; the modes are {', '.join(Mode)}")
        self._faults.fail(zone, Mode(mode))

    def heal(self, zone: str) -> None:
        """End a zone's fault within a tick; what was killed starts again."""
        self._faults.heal(zone)

    def status(self) -> LabStatus:
        return self._status

    def stop(self) -> None:
        """Make `run` end its processes and return within a tick or two."""
        self._stopping = True

    async def run(self) -> None:
        """Follow the control planes until `stop` or cancellation; leave no process behind."""
        server = DnsServer(*self._dns_at, seed=self._seed)
        self._dns = Dns(self._timeline, server)
        self._supervisor = Supervisor(self._timeline, self._folder, self._faults, seed=self._seed)
        self._balancer = Balancer(self._timeline, self._folder, self._faults, strict=self._strict)
        self._targets: Checks[Key] = Checks(self._balancer.health_changed)
        self._fleet: Checks[tuple[str, int]] = Checks()
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while not self._stopping:
                self._tick(loop.time())
                due = max(due + TICK_S, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            for task in self._tasks:
                task.cancel()
            self._supervisor.close()
            await asyncio.gather(self._targets.close(), self._fleet.close(), self._dns.close(), self._balancer.close())

    def _tick(self, now: float) -> None:
        owned = [(plane, region) for plane in self._planes for region in plane.desired()]
        regions = [region for _, region in owned]
        instances = [instance for region in regions for instance in region.instances]
        self._zones = frozenset(
            [i.zone for i in instances] + [zone for r in regions for f in r.fronts for zone in f.nodes if zone]
        )
        self._tell_faults()
        self._supervisor.reconcile(instances, now)
        self._fault_instances()
        processes = self._supervisor.processes()
        self._targets.reconcile(target_checks(regions))
        self._fleet.reconcile(fleet_checks(regions, processes))
        self._balancer.reconcile(regions, self._targets.health)
        self._dns.reconcile(self._desired_dns(), regions)
        in_flight = self._balancer.sessions()
        for plane, region in owned:
            plane.observe(self._seen(region, processes, in_flight))
        self._status = LabStatus(
            tuple(
                InstanceStatus(
                    i.id, i.zone, i.address, i.version, processes.get(i.id, Process.BOOTING), in_flight.get(i.id, 0)
                )
                for i in instances
            ),
            self._told_faults,
            self._balancer.tally(),
        )

    def _desired_dns(self) -> DesiredDns:
        wanted = [plane.desired_dns() for plane in self._planes]
        return DesiredDns(
            tuple(record for dns in wanted for record in dns.records),
            tuple(check for dns in wanted for check in dns.checks),
        )

    def _seen(
        self, region: DesiredRegion, processes: Mapping[str, Process], in_flight: Mapping[str, int]
    ) -> SeenRegion:
        answered = self._fleet.all()
        healthz = {
            i.id: processes.get(i.id) is Process.RUNNING and health is TargetHealth.HEALTHY
            for i in region.instances
            if (health := answered.get((i.id, i.incarnation), TargetHealth.INITIAL)) is not TargetHealth.INITIAL
            or processes.get(i.id) is Process.DEAD
        }
        targets = {
            (pool.name, m.instance): self._targets.health((front.name, pool.name, m.instance))
            for front in region.fronts
            for pool in front.pools
            for m in pool.members
        }
        return SeenRegion(
            region.id,
            {i.id: processes.get(i.id, Process.BOOTING) for i in region.instances},
            healthz,
            targets,
            {i.id: in_flight.get(i.id, 0) for i in region.instances},
            {i.id: i.incarnation for i in region.instances},
        )

    def _tell_faults(self) -> None:
        modes = self._faults.modes()
        for zone in sorted(modes.keys() | self._told_faults.keys()):
            if modes.get(zone) is not self._told_faults.get(zone):
                self._timeline.write("fault", zone=zone, mode=modes[zone].value if zone in modes else None)
        self._told_faults = modes

    def _fault_instances(self) -> None:
        """Tell instances their zone's fault until they have heard it; those that start are born with it."""
        for running in self._supervisor.running():
            wanted = self._faults.in_instances(running.wanted.zone, running.wanted.address)
            if running.fault != wanted and running.state is Process.RUNNING and not running.telling_fault:
                running.telling_fault = True
                task = asyncio.get_running_loop().create_task(self._tell_instance(running, wanted))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _tell_instance(self, running: Running, fault: dict[str, object]) -> None:
        address, body = running.wanted.address, json.dumps(fault).encode()
        hand = region_of(address).hand
        status = await ask(hand, address, SERVICE_PORT, "/fault", FAULT_TIMEOUT_S, method="PUT", body=body)
        running.telling_fault = False
        if status == 200:
            running.fault = fault
