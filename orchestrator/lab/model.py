"""What passes between the lab's emulated control planes and its real data plane.

A control plane (emulated AWS, ARM stand-in) is the only authority on what should exist: `desired()`. The data plane
makes it so with processes, load balancers and a DNS server, and reports what it sees: `observe()`. Both sides run in
one daemon; `desired` must return in a few milliseconds because the data plane asks for it every `TICK_S`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

TICK_S = 0.05
SERVICE_PORT = 8080  # every instance, on its own address
FRONT_PORT = 8000  # every load balancer node, on its own address
AGENT_PORT = 7070


@dataclass(frozen=True, slots=True)
class DesiredInstance:
    """A machine that the cloud runs. `incarnation` changes when the cloud reimages it: the process is then replaced.

    `address` is private: 127.x.y.z. `version` comes from user data or image reference; its behaviour from the catalogue.
    """

    id: str
    zone: str  # "aws/us-east-1a"
    address: str
    version: str
    incarnation: int = 1


class Admin(StrEnum):
    """Azure's backend admin state. On AWS always NONE."""

    NONE = "None"  # The probe decides.
    UP = "Up"  # Takes new connections whatever the probe says.
    DOWN = "Down"  # No new connections; established ones stay.


@dataclass(frozen=True, slots=True)
class Member:
    """An instance in a pool. `draining` (AWS deregistration): no new requests, old ones may finish; gone when left out."""

    instance: str
    address: str
    zone: str
    admin: Admin = Admin.NONE
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """A target group or backend pool."""

    name: str
    members: tuple[Member, ...]
    probe_path: str = "/admit"
    probe_interval_s: float = 0.2
    healthy_after: int = 2
    unhealthy_after: int = 2


class FrontKind(StrEnum):
    ALB = "alb"  # HTTP, a node per zone, weighted pools, never fails over between pools, fails open
    TCP = "tcp"  # connections, one zone-redundant address, one pool


@dataclass(frozen=True, slots=True)
class Front:
    """One regional load balancer. `nodes`: zone -> address (ALB), or {"": address} (TCP). `weights`: pool -> 0..999.

    `away`: zones under a zonal shift; their node leaves DNS and their targets get nothing.
    """

    name: str
    kind: FrontKind
    nodes: Mapping[str, str]
    pools: tuple[Pool, ...]
    weights: Mapping[str, int]
    away: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DesiredRegion:
    """`id` is "aws/us-east-1". `instances` includes those that are booting."""

    id: str
    instances: tuple[DesiredInstance, ...]
    fronts: tuple[Front, ...]


@dataclass(frozen=True, slots=True)
class DnsHealthCheck:
    """A data-plane health check of a record: HTTP GET by the DNS's own checkers. Unhealthy records are not answered."""

    id: str
    address: str  # a front's address, or "" when `front` names an ALB whose nodes are all asked
    front: str
    path: str
    interval_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """One weighted record. `front`: the load balancer whose node addresses it answers with (alias A), or `addresses`."""

    name: str
    set_id: str
    weight: int
    ttl_s: float
    front: str = ""
    addresses: tuple[str, ...] = ()
    health_check: str | None = None


@dataclass(frozen=True, slots=True)
class DesiredDns:
    records: tuple[DnsRecord, ...] = ()
    checks: tuple[DnsHealthCheck, ...] = ()


class Process(StrEnum):
    BOOTING = "booting"  # the process runs, does not listen yet
    RUNNING = "running"  # it listens
    DEAD = "dead"  # it exited or was killed


class TargetHealth(StrEnum):
    INITIAL = "initial"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class SeenRegion:
    """`processes` per instance id; `healthz` per instance id: last answer of /healthz; `targets` per (pool, instance).

    `incarnations` says which incarnation `processes` and `healthz` speak of: without it, a control plane that has just
    asked for a new process cannot tell whether "running" still means the old one.
    """

    id: str
    processes: Mapping[str, Process]
    healthz: Mapping[str, bool]
    targets: Mapping[tuple[str, str], TargetHealth]
    in_flight: Mapping[str, int] = field(default_factory=dict)
    incarnations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScaledFleet:
    """A zone's fleet as its cloud's autoscaler has it. `there`: instances that exist. `frozen`: the autoscaler may not act.

    `refused`: why the cloud gives no more of the `desired` instances; "" while nothing is known to stand in the way.
    """

    zone: str
    desired: int
    there: int
    minimum: int
    maximum: int
    frozen: bool
    refused: str = ""


class ControlPlane(Protocol):
    """An emulated cloud. Thread-safe: its API runs on other threads than the data plane."""

    def desired(self) -> Sequence[DesiredRegion]: ...

    def desired_dns(self) -> DesiredDns: ...

    def observe(self, seen: SeenRegion) -> None: ...
