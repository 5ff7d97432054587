"""The region tier on Azure: a Standard Load Balancer's backend pool, and the admission flags of the region's instances.

Level-triggered: `apply` reads the pool and the instances, does what `pool.moves` says, and returns. Traffic is stopped
first through the flag, which needs no word from Azure (I10), then in the pool, all zones in one conditional write. Azure lets a
later write supersede one that is still at work, so none is waited for; but what a write changes is not believed before
Azure says that it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from msgspec import structs

from orchestrator.clouds.azure import pool as pools
from orchestrator.clouds.azure.arm import Azure
from orchestrator.clouds.azure.machines import Machines, attribute, front, scale_set
from orchestrator.clouds.azure.pool import AdminState, Moves, Seat
from orchestrator.core.errors import FailoutError, StaleCarrier
from orchestrator.core.health import InstanceProbe
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import Placement, ZoneSeen, ZoneTraffic
from orchestrator.ports import Agent, Fence, Peer

if TYPE_CHECKING:
    from azure.core.polling import LROPoller
    from azure.mgmt.network.models import BackendAddressPool, LoadBalancerBackendAddress

    from orchestrator.clouds.azure.sdk import Clients, Started


@dataclass(frozen=True, slots=True)
class Look:
    """One reading of a region. `silent`: why the agent told nothing; then every seat looks unreachable."""

    pool: BackendAddressPool
    seats: Sequence[Seat]
    silent: FailoutError | None

    @property
    def busy(self) -> bool:
        return bool(self.pool.properties and self.pool.properties.provisioning_state == "Updating")

    def of(self, zone: str) -> list[Seat]:
        return [seat for seat in self.seats if seat.zone == zone]


class AzureTraffic:
    """Implements ports.Traffic. `agents`: the region agent per region id.

    An instance that the scale set adds arrives in the pool with state None and admitted: in a zone that is out it could
    take connections until the next `apply`. Nothing adds instances there while Failout has the zone (repairs suspended).
    """

    def __init__(self, azure: Azure, agents: Mapping[str, Agent]) -> None:
        self._azure = azure
        self._agents = agents
        self._machines = Machines()
        self._seats: dict[str, Seat] = {}  # by key of a pool address: whose it is, learnt from the scale sets
        self._changing: dict[str, frozenset[str]] = {}  # per region: the zones that our last write to the pool changes

    def grain(self, zone: Zone, instances: int) -> Fraction:  # noqa: ARG002
        return Fraction(1, max(instances, 1))

    def whole_instances(self) -> bool:
        return True

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        look = await self._look(region)
        if look.silent is not None:
            raise look.silent
        found = {zone.id: pools.seen(look.of(zone.id)) for zone in region.zones}
        if look.busy:
            changing = self._changing.get(region.id, frozenset())
            unsure = [z for z, seen in found.items() if z in changing or seen.placement is not Placement.STEADY]
            found.update({zone: structs.replace(found[zone], placement=None, share=None) for zone in unsure})
        return found

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        """Does what can be done when the agent or Azure fails, then raises what failed first."""
        failed: list[FailoutError] = []
        out = [zone for zone, traffic in desired.items() if traffic.placement is Placement.OUT]
        emptied, look = await asyncio.gather(
            _tried(self._dismiss_known(region, out, fence), failed), self._look(region), return_exceptions=True
        )
        if isinstance(emptied, BaseException):
            raise emptied
        if isinstance(look, BaseException):
            raise look
        if look.silent is not None:
            failed.append(look.silent)
        wanted = {zone: pools.moves(look.of(zone), traffic) for zone, traffic in desired.items()}
        dismiss = [seat for moves in wanted.values() for seat in moves.dismiss]
        admit = [seat for moves in wanted.values() for seat in moves.admit]
        await _tried(self._flag(region, dismiss, admitted=False, fence=fence), failed)
        await _tried(self._write(region, look.pool, wanted, fence), failed)
        await _tried(self._flag(region, admit, admitted=True, fence=fence), failed)
        if failed:
            raise failed[0]

    async def _dismiss_known(self, region: Region, zones: Sequence[str], fence: Fence) -> None:
        """Clear the flags of the instances seen last, without a word to Azure: enough to empty a zone (I10)."""
        seats = [seat for seat in {s.address: s for s in self._seats.values()}.values() if seat.zone in zones]
        if seats:
            probes = await self._agents[region.id].probe([_peer(seat) for seat in seats])
            admitted = {probe.id for probe in probes if probe.admitted}
            await self._flag(region, [s for s in seats if s.instance in admitted], admitted=False, fence=fence)

    async def _look(self, region: Region) -> Look:
        place, name = front(self._azure, region), attribute(region.front, "backend_pool", region.id)
        pool = await place.arm.ask(
            "GetBackendPool",
            region.id,
            lambda c: c.network.load_balancer_backend_address_pools.get(place.group, place.name, name),
        )
        addresses = _addresses(pool)
        if any(_key(address) not in self._seats for address in addresses):
            await self._learn(region)
        seats = [
            replace(self._seats[_key(address)], state=_state(address))
            for address in addresses
            if _key(address) in self._seats
        ]
        try:
            probes = {p.id: p for p in await self._agents[region.id].probe([_peer(seat) for seat in seats])}
        except FailoutError as error:
            return Look(pool, seats, error)
        return Look(pool, [_probed(seat, probes.get(seat.instance)) for seat in seats], None)

    async def _learn(self, region: Region) -> None:
        """Ask the scale sets whose addresses these are. An address that is nobody's of ours stays as it is, for ever."""
        for zone in region.zones:
            for machine in await self._machines.of(scale_set(self._azure, region, zone)):
                if machine.address:
                    seat = Seat(machine.name, machine.address, zone.id, AdminState.NONE)
                    self._seats |= {machine.nic: seat, machine.address: seat}

    async def _flag(self, region: Region, seats: Sequence[Seat], *, admitted: bool, fence: Fence) -> None:
        if seats:
            await self._agents[region.id].admit([_peer(seat) for seat in seats], admitted=admitted, fence=fence)

    async def _write(self, region: Region, pool: BackendAddressPool, wanted: Mapping[str, Moves], fence: Fence) -> None:
        states = {address: state for moves in wanted.values() for address, state in moves.states.items()}
        if not states:
            return
        place, name = front(self._azure, region), attribute(region.front, "backend_pool", region.id)
        for address in _addresses(pool):
            seat = self._seats.get(_key(address))
            if seat is not None and seat.address in states and address.properties:
                address.properties.admin_state = states[seat.address]

        def put(c: Clients, polling: Started) -> LROPoller[BackendAddressPool]:
            of_pools = c.network.load_balancer_backend_address_pools
            headers = {"If-Match": pool.etag} if pool.etag else {}
            return of_pools.begin_create_or_update(
                place.group, place.name, name, pool, polling=polling, headers=headers
            )

        await fence.check()
        self._changing[region.id] = frozenset(zone for zone, moves in wanted.items() if moves.states)
        await place.arm.begin("PutBackendPool", region.id, put)


async def _tried(step: Awaitable[None], failed: list[FailoutError]) -> None:
    """Note a failure and let the caller go on; not when the lease is gone, then nothing more may be done."""
    try:
        await step
    except StaleCarrier:
        raise
    except FailoutError as error:
        failed.append(error)


def _addresses(pool: BackendAddressPool) -> Sequence[LoadBalancerBackendAddress]:
    return (pool.properties.load_balancer_backend_addresses if pool.properties else None) or []


def _key(address: LoadBalancerBackendAddress) -> str:
    """Its network interface, where the pool names one, else its IP address."""
    properties = address.properties
    configuration = properties.network_interface_ip_configuration if properties else None
    if configuration is not None and configuration.id:
        return configuration.id.lower().partition("/ipconfigurations/")[0]
    return (properties.ip_address if properties else None) or ""


def _state(address: LoadBalancerBackendAddress) -> AdminState:
    return AdminState((address.properties.admin_state if address.properties else None) or AdminState.NONE)


def _peer(seat: Seat) -> Peer:
    return Peer(seat.instance, seat.address)


def _probed(seat: Seat, probe: InstanceProbe | None) -> Seat:
    if probe is None or not probe.reachable:
        return seat
    users = probe.in_flight + probe.connections
    return replace(seat, reachable=True, ready=probe.ready, admitted=probe.admitted, users=users)
