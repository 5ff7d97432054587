"""The address plan of a lab: every region owns 127.L.0.0/16, so private addresses are real and nothing needs root.

127.L.0.0/24 is the region's infrastructure, 127.L.Z.0/24 the subnet of its Z-th zone. An instance answers only peers in
the first; of those, hosts below `FIRST_USER_HOST` are the region's own (agent, prober, lab) and never count as users.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_USER_HOST = 10  # load balancers, hence users, connect from this host number on
FIRST_INSTANCE_HOST = 10
DNS_PORT = 5353


@dataclass(frozen=True, slots=True)
class RegionAddresses:
    """Addresses of the region with second octet `octet` (1..255)."""

    octet: int

    @property
    def network(self) -> str:
        return f"127.{self.octet}.0.0/16"

    @property
    def agent(self) -> str:
        return self._infrastructure(5)

    @property
    def prober(self) -> str:
        """Where the load balancer's health checks come from."""
        return self._infrastructure(6)

    @property
    def hand(self) -> str:
        """Where the lab itself reaches instances from, to set faults."""
        return self._infrastructure(7)

    @property
    def tcp_front(self) -> str:
        return self._infrastructure(20)

    @property
    def dns(self) -> str:
        return self._infrastructure(53)

    def node(self, zone_index: int) -> str:
        """Return the address of the load balancer's node in the zone, counted from 0."""
        return self._infrastructure(FIRST_USER_HOST + zone_index)

    def subnet(self, zone_index: int) -> str:
        return f"127.{self.octet}.{zone_index + 1}.0/24"

    def instance(self, zone_index: int, n: int) -> str:
        return f"127.{self.octet}.{zone_index + 1}.{FIRST_INSTANCE_HOST + n}"

    def _infrastructure(self, host: int) -> str:
        return f"127.{self.octet}.0.{host}"


def region_of(address: str) -> RegionAddresses:
    """Return the plan of the region that `address` lies in."""
    return RegionAddresses(int(address.split(".")[1]))
