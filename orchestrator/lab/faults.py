"""What `lab fail` breaks in a zone until `lab heal`; instances that start meanwhile are broken too.

kill       every instance and the zone's load balancer node die and stay dead
blackhole  they are suspended: connections open, nothing answers
slow       work takes `SLOW_MS` longer; health checks notice nothing
errors     `ERROR_SHARE` of work answers 500; health checks notice nothing
partition  the region agent cannot reach the instances; users, load balancer and its prober can (I6: that is not failed)
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum

from orchestrator.core.errors import NotFound
from orchestrator.lab.addresses import region_of

SLOW_MS = 400.0
ERROR_SHARE = 0.3


class Mode(StrEnum):
    KILL = "kill"
    BLACKHOLE = "blackhole"
    SLOW = "slow"
    ERRORS = "errors"
    PARTITION = "partition"


class Faults:
    """The faults of each zone. Thread-safe: the lab's API writes, the data plane reads and obeys within a tick."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._modes: dict[str, Mode] = {}

    def fail(self, zone: str, mode: Mode) -> None:
        with self._lock:
            self._modes[zone] = mode

    def heal(self, zone: str) -> None:
        with self._lock:
            if self._modes.pop(zone, None) is None:
                raise NotFound(f"zone {zone} has no fault to heal")

    def modes(self) -> Mapping[str, Mode]:
        with self._lock:
            return dict(self._modes)

    def dead(self, zone: str) -> bool:
        return self._modes.get(zone) is Mode.KILL

    def suspended(self, zone: str) -> bool:
        return self._modes.get(zone) is Mode.BLACKHOLE

    def in_instances(self, zone: str, address: str) -> dict[str, object]:
        """Return what PUT /fault must say to the instance at `address`; {} is health."""
        mode = self._modes.get(zone)
        if mode is Mode.SLOW:
            return {"added_ms": SLOW_MS}
        if mode is Mode.ERRORS:
            return {"error_share": ERROR_SHARE}
        if mode is Mode.PARTITION:
            return {"deaf_to": [region_of(address).agent]}
        return {}
