"""What a contract suite needs of the world behind a port: a real emulated cloud, or a fake under virtual time.

To put an adapter or a fake under a suite, subclass the suite in a `test_*.py` beside this file:

    class TestAzureFleet(FleetContract):
        open_rig = staticmethod(azure_rig)     # a context manager that yields a FleetRig
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from orchestrator.core.errors import StaleCarrier, Transient
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.ports import Fleet, GlobalTraffic, Traffic

T = TypeVar("T")


class Rig(Protocol):
    """`patience_s` bounds every wait of a suite, `poll_s` is the pause between two looks, both in the world's own time."""

    poll_s: float
    patience_s: float

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Drive one test to its end: asyncio.run in a lab, the virtual clock's loop in a simulator."""

    async def sleep(self, seconds: float) -> None: ...

    def writes(self) -> int:
        """Count the requests that the cloud was asked to change something with, since the rig was opened."""


class FleetRig(Rig, Protocol):
    """`zone` runs `zone.instances` (2 or more, below instances_max) instances of version v1, autoscaling on."""

    fleet: Fleet
    zone: Zone

    def image(self, version: str) -> Image: ...


class TrafficRig(Rig, Protocol):
    """`region` has 3 zones with 2 or more healthy instances each, all steady."""

    traffic: Traffic
    region: Region

    async def set_healthy(self, zone: str, *, healthy: bool) -> None:
        """Make every instance of the zone pass or fail the load balancer's probe. Returns before it has noticed."""

    async def resize(self, zone: str, instances: int) -> None:
        """Change the number of instances behind the adapter's back."""


class GlobalRig(Rig, Protocol):
    """`standing`: weights (2 or more regions, each above 0) that the records have when the rig opens."""

    global_traffic: GlobalTraffic
    standing: dict[str, int]


class OpenFence:
    """The lease is ours. `checks` counts how often an adapter asked."""

    number = 7

    def __init__(self) -> None:
        self.checks = 0

    async def check(self) -> None:
        self.checks += 1


class StaleFence:
    """The lease went to another process."""

    number = 6

    async def check(self) -> None:
        raise StaleCarrier("the lease belongs to another process now")


async def until(rig: Rig, look: Callable[[], Awaitable[T]], good: Callable[[T], bool], what: str) -> T:
    """Look every `poll_s` until `good`, or fail with what was last seen. A Transient error counts as not yet."""
    seen: T | Transient | None = None
    for _ in range(int(rig.patience_s / rig.poll_s)):
        try:
            seen = await look()
        except Transient as error:
            seen = error
        else:
            if good(seen):
                return seen
        await rig.sleep(rig.poll_s)
    raise AssertionError(f"{what}: not within {rig.patience_s} s; last seen {seen}")
