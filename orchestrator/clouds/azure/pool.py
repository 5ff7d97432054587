"""What a zone's traffic on Azure is, and what would bring it closer to a wish. Pure.

Two switches per instance, and new connections come only when both are on and it is ready: the admission flag, which the
load balancer's probe reads from the instance (data plane), and the address's admin state in the backend pool (control
plane). None leaves it to the probe, Down refuses new connections and leaves established ones alone, Up takes connections
whatever the probe says and is never set by us. https://learn.microsoft.com/azure/load-balancer/admin-state-overview

A load balancer has no weights: a share is a number of whole instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.traffic import Placement, ZoneSeen, ZoneTraffic


class AdminState(StrEnum):
    NONE = "None"
    UP = "Up"
    DOWN = "Down"


@dataclass(frozen=True, slots=True)
class Seat:
    """One address of the pool, and what the region agent saw of its instance (all False when it did not answer)."""

    instance: str
    address: str
    zone: str
    state: AdminState
    reachable: bool = False
    ready: bool = False
    admitted: bool = False
    users: int = 0  # requests in flight and connections of users

    @property
    def taking(self) -> bool:
        return self.state is AdminState.UP or (self.state is AdminState.NONE and self.ready and self.admitted)

    @property
    def dismissed(self) -> bool:
        """It said itself that it is not admitted; a silent instance has said nothing."""
        return self.reachable and not self.admitted


@dataclass(frozen=True, slots=True)
class Moves:
    """What to do for a zone. `states`: per address; `admit`, `dismiss`: whose flag to set and to clear."""

    states: dict[str, AdminState]
    admit: tuple[Seat, ...]
    dismiss: tuple[Seat, ...]


def seen(seats: Sequence[Seat]) -> ZoneSeen:
    """Read one zone. A zone on the ramp with nobody ready has share 0; without any address it is out."""
    taking = sum(seat.taking for seat in seats)
    total = len(seats)
    if all(seat.state is AdminState.DOWN for seat in seats):
        placement, share = Placement.OUT, 0.0
    elif any(seat.state is AdminState.DOWN or seat.dismissed for seat in seats):
        placement, share = Placement.RAMP, taking / total
    else:
        placement, share = Placement.STEADY, 1.0
    draining = sum(not seat.taking and seat.users > 0 for seat in seats)
    return ZoneSeen(placement, share, taking, draining, sum(seat.ready for seat in seats), total)


def moves(seats: Sequence[Seat], desired: ZoneTraffic) -> Moves:
    """Say what brings the zone closer to `desired`. An instance that is not ready is never opened, only closed."""
    chosen = _chosen(seats, desired)
    states: dict[str, AdminState] = {}
    for seat in seats:
        if seat not in chosen and seat.state is not AdminState.DOWN:
            states[seat.address] = AdminState.DOWN
        elif seat in chosen and seat.ready and seat.state is not AdminState.NONE:
            states[seat.address] = AdminState.NONE
    admit = tuple(seat for seat in seats if seat in chosen and seat.ready and not seat.admitted)
    dismiss = tuple(seat for seat in seats if seat not in chosen and seat.admitted)
    return Moves(states, admit, dismiss)


def _chosen(seats: Sequence[Seat], desired: ZoneTraffic) -> frozenset[Seat]:
    """Choose who takes traffic: the ready before the others, who is open already before who is not, then by name."""
    if desired.placement is Placement.OUT:
        return frozenset()
    if desired.placement is Placement.STEADY:
        return frozenset(seats)
    ranked = sorted(seats, key=lambda seat: (not seat.ready, seat.state is AdminState.DOWN, seat.instance))
    return frozenset(ranked[: desired.whole_instances(len(seats))])
