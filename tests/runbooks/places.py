"""A small service in two clouds, without any world behind it."""

from __future__ import annotations

from orchestrator.core.guards import ZoneLoad
from orchestrator.core.topology import GlobalTier, Region, Topology, Zone


def region(cloud: str, name: str, zones: tuple[str, ...], weight: int = 100) -> Region:
    made = tuple(Zone(f"{cloud}/{z}", cloud, f"{cloud}/{name}", z, 2, 6, 50.0) for z in zones)
    return Region(f"{cloud}/{name}", cloud, name, weight, made, "")


TOPOLOGY = Topology(
    "gates",
    (
        region("aws", "us-east-1", ("us-east-1a", "us-east-1b", "us-east-1c")),
        region("azure", "eastus", ("eastus-1", "eastus-2", "eastus-3")),
    ),
    GlobalTier("route53", 5.0, "gates.lab."),
)


def loads(rps: float, topology: Topology = TOPOLOGY, instances: int = 2) -> dict[str, ZoneLoad]:
    """The same load in every zone."""
    return {z.id: ZoneLoad(z.id, rps, instances, instances, int(rps), 0) for z in topology.zones()}
