"""What there is: clouds hold regions, regions hold zones, a zone holds one fleet of the service.

`fleet`, `front` and `api` are opaque to the core: each cloud's adapter reads its own keys from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.errors import NotFound


class ZoneState(StrEnum):
    """Where a zone stands during a deploy, a drill or a person's drain. All but WAITING, PREPARING and DONE count as out."""

    WAITING = "waiting"
    PREPARING = "preparing"  # Admitted and leased, still serving: survivors are scaled, load is moved between regions.
    DRAINING = "draining"
    UPGRADING = "upgrading"
    VERIFYING = "verifying"
    RAMPING = "ramping"
    JOINING = "joining"
    BAKING = "baking"
    SETTLING = "settling"
    DONE = "done"
    HELD_PREPARING = "held-preparing"  # A person must choose; what has to be true before it may leave is not true yet.
    HELD_OUT = "held-out"  # A person must choose; the zone carries no traffic.
    HELD_SERVING = "held-serving"  # A person must choose; the zone carries some or all of its traffic.


@dataclass(frozen=True, slots=True)
class Zone:
    """One availability zone. `id` is `aws/us-east-1a`; `rps_per_instance` is what one instance carries at 100 %."""

    id: str
    cloud: str
    region: str
    name: str
    instances: int
    instances_max: int
    rps_per_instance: float
    fleet: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Region:
    """One region of one cloud. `id` is `aws/us-east-1`; `weight` is its share in the global tier when all is well."""

    id: str
    cloud: str
    name: str
    weight: int
    zones: tuple[Zone, ...]
    agent_url: str
    front: Mapping[str, str] = field(default_factory=dict)
    api: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GlobalTier:
    """The DNS that spreads users over regions. `ttl_s` is how long an answer lives in a resolver."""

    kind: str
    ttl_s: float
    record: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    api: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topology:
    service: str
    regions: tuple[Region, ...]
    global_tier: GlobalTier

    def zones(self) -> Iterator[Zone]:
        for region in self.regions:
            yield from region.zones

    def zone(self, zone_id: str) -> Zone:
        for zone in self.zones():
            if zone.id == zone_id:
                return zone
        known = ", ".join(z.id for z in self.zones())
        raise NotFound(f"no zone {zone_id!r} in service {self.service}; its zones are {known}")

    def zones_at(self, place: str) -> tuple[Zone, ...]:
        """The zones of a lease's place: a zone, or regions joined by `+`. Raises NotFound."""
        regions = {region.id: region for region in self.regions}
        if all(part in regions for part in place.split("+")):
            return tuple(zone for part in place.split("+") for zone in regions[part].zones)
        return (self.zone(place),)

    def region_of(self, zone_id: str) -> Region:
        for region in self.regions:
            for zone in region.zones:
                if zone.id == zone_id:
                    return region
        raise NotFound(f"no zone {zone_id!r} in service {self.service}")

    def region(self, region_id: str) -> Region:
        for region in self.regions:
            if region.id == region_id:
                return region
        known = ", ".join(r.id for r in self.regions)
        raise NotFound(f"no region {region_id!r} in service {self.service}; its regions are {known}")
