"""What the emulated services share: the lab's time scale, capacity, and what the data plane last saw."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.lab.model import Process, SeenRegion, TargetHealth
from orchestrator.lab.timeline import Timeline

ACCOUNT = "123456789012"


@dataclass(frozen=True, slots=True)
class Times:
    """How the lab's time differs from AWS's; all in seconds but the two scales. What is not here is taken literally:

    deregistration delay, instance warm-up and health-check grace period last as many seconds as the API was told.
    AWS's own values: an instance is pending 10-40 s; a status check takes 2 min to fail; a refresh without progress
    fails after 1 h; an alias record to a load balancer is cached for 60 s; Route 53 is in sync within 60 s.
    """

    tick_s: float = 0.05
    health_scale: float = 0.02  # a target group's 10 s health interval becomes 0.2 s
    dns_check_scale: float = 0.05  # a Route 53 health check's 10 s interval becomes 0.5 s
    ec2_pending_s: float = 0.2
    ec2_shutting_down_s: float = 0.2
    terminated_kept_s: float = 60.0
    status_check_s: float = 5.0
    refresh_start_s: float = 0.1
    refresh_stalled_s: float = 60.0
    launch_retry_s: float = 2.0
    dns_in_sync_s: float = 0.3
    alias_ttl_s: float = 5.0


@dataclass(slots=True)
class World:
    """`capacity` maps a zone name to the number of instances it has room for; zones that are not in it have no limit."""

    times: Times = field(default_factory=Times)
    timeline: Timeline | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    seen: dict[str, SeenRegion] = field(default_factory=dict)
    capacity: dict[str, int] = field(default_factory=dict)
    dns_changes: dict[str, tuple[float, datetime]] = field(default_factory=dict)  # id -> made at: monotonic, UTC

    def well(self, region: str, instance: str) -> bool | None:
        """Say what a status check of the instance finds; None when no data plane has ever reported from its region."""
        seen = self.seen.get(region)
        if seen is None:
            return None
        return seen.processes.get(instance) is Process.RUNNING and seen.healthz.get(instance, False)

    def target(self, region: str, pool: str, instance: str) -> TargetHealth | None:
        seen = self.seen.get(region)
        return None if seen is None else seen.targets.get((pool, instance))

    def dead(self, region: str, instance: str) -> bool:
        seen = self.seen.get(region)
        return seen is not None and seen.processes.get(instance) is not Process.RUNNING

    def record(self, kind: str, **fields: object) -> None:
        if self.timeline is not None:
            self.timeline.write(kind, **fields)


class _Here:
    """moto builds its models itself, so they reach the world through the process. One emulated AWS runs at a time."""

    world = World()


def here() -> World:
    return _Here.world


def enter(world: World) -> None:
    _Here.world = world


def now() -> float:
    return time.monotonic()
