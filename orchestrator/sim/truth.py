"""What is true in the simulated world: instances, targets, fleets, fronts. Plain data; `world` moves it.

Times are seconds of virtual time. Nothing here knows what the code under test believes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import msgspec

from orchestrator.core.topology import Region, Zone

STEADY_POOL = "steady"
RAMP_POOL = "ramp"
BACKEND_POOL = "backend"


class Life(StrEnum):
    BOOTING = "booting"
    RUNNING = "running"
    DEAD = "dead"  # the machine is lost; only its cloud can bring it back


class Admin(StrEnum):
    """Azure's backend admin state; on AWS always NONE."""

    NONE = "None"  # the probe decides
    UP = "Up"  # takes new connections whatever the probe says
    DOWN = "Down"  # no new connections; established ones stay


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a version does once it runs. `lies` answers /readyz with 200 while it fails every request."""

    boots: bool = True
    ready: bool = True
    lies: bool = False
    error_share: float = 0.0
    added_ms: float = 0.0
    dies_after_s: float | None = None


WELL = Behaviour()


@dataclass(frozen=True, slots=True)
class Physics:
    """How slowly the world acts. Defaults are those of a brisk cloud; a scenario may draw others from its seed."""

    boot_s: float = 2.0
    ready_s: float = 0.5  # from listening to able to serve
    replace_start_s: float = 1.0  # from the call until the first instance is touched
    replace_give_up_s: float = 120.0
    health_pass_s: float = 0.4  # two good probes
    health_fail_s: float = 0.4  # two bad ones
    deregistration_s: float = 5.0
    close_s: float = 2.0  # Azure: connections are gone this long after admission goes off
    connection_life_s: float = 60.0  # Azure: without that they live this long
    longest_request_s: float = 0.3
    mean_request_s: float = 0.03
    synthetic_s: float = 0.001  # what one synthetic request of a region agent takes, all in all
    dns_sync_s: float = 1.0
    repair_s: float = 30.0  # from a lost instance to its cloud's repair, when that is not frozen


def healed(physics: Physics) -> Physics:
    """As slow as before, but nothing in it is endless any more."""
    usual = Physics()
    return replace(
        physics,
        replace_give_up_s=usual.replace_give_up_s,
        deregistration_s=min(physics.deregistration_s, 15.0),
        close_s=min(physics.close_s, 5.0),
        connection_life_s=usual.connection_life_s,
        synthetic_s=usual.synthetic_s,
        boot_s=min(physics.boot_s, 15.0),
    )


class Blow(StrEnum):
    """What can befall a zone."""

    DEAD = "dead"  # power is gone: every instance is lost until healed
    DARK = "dark"  # nothing reaches the instances
    AGENT_CUT = "agent-cut"  # the region agent cannot reach them; users can
    GRAY = "gray"  # a share of the requests fails, health checks pass
    ONE = "one"  # one instance of it is lost
    SLOW = "slow"  # every request takes longer, health checks pass


@dataclass(slots=True, eq=False)
class Target:
    """An instance in a pool. `proven`: it has been healthy here since it came, so its absence counts as out.

    `changing` is the health it will have when the probes have seen enough.
    """

    healthy: bool = False
    proven: bool = False
    draining: bool = False
    drains_since_s: float = float("inf")
    changing: bool | None = None


@dataclass(slots=True, eq=False)
class Box:
    """One instance."""

    id: str
    address: str
    zone: ZoneTruth = field(repr=False)
    version: str
    life: Life = Life.RUNNING
    listening: bool = True
    ready: bool = True
    admitted: bool = True
    admin: Admin = Admin.NONE
    incarnation: int = 1
    leaving: bool = False  # its fleet is about to end it, to replace it or
    surplus: bool = False  # to have one less
    lost_to_fault: bool = False
    targets: dict[str, Target] = field(default_factory=dict)
    # Rates and what has flowed so far (requests).
    rps: float = 0.0
    tail_rps: float = 0.0
    tail_until_s: float = 0.0
    busy_until_s: float = 0.0
    requests: float = 0.0
    slow_requests: float = 0.0
    errors: float = 0.0


class Flow(msgspec.Struct, eq=False):
    """What one instance gets, constant until the next change; kept apart from the instance, which may be gone by then."""

    box: Box
    rps: float
    fail_share: float
    over_rps: float  # beyond what it can carry
    cause: str
    slow: bool


@dataclass(slots=True, eq=False)
class Swap:
    """A replacement in progress or finished: an instance refresh, an upgrade of a scale set."""

    version: str
    running: bool = True
    done: int = 0
    total: int = 0
    failure: str | None = None
    generation: int = 0


@dataclass(slots=True, eq=False)
class ZoneTruth:
    zone: Zone
    region: RegionTruth = field(repr=False)
    boxes: list[Box] = field(default_factory=list)
    desired: int = 0
    minimum: int = 0  # of its autoscaler
    model: str = ""
    repairs: bool = True
    no_capacity: bool = False
    swap: Swap | None = None
    swaps: int = 0  # generation of the newest replacement: an older one that wakes up finds itself cancelled
    born: int = 0
    blows: dict[Blow, float] = field(default_factory=dict)  # how hard: share of errors, added ms
    by_hand: bool = False  # somebody put it back in while a run had it out
    by_hand_s: float = float("-inf")  # when that was last done, whatever has been done since
    lit_s: float = float("-inf")  # when what had taken all of it ended
    # Derived by `load`:
    rps: float = 0.0
    presence: float = 1.0  # by intent: 1 when all of its fair part may go to it, whatever health says
    serving: int = 0

    @property
    def dark(self) -> bool:
        return Blow.DEAD in self.blows or Blow.DARK in self.blows


@dataclass(slots=True, eq=False)
class RegionTruth:
    region: Region
    zones: list[ZoneTruth] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)  # of pools
    attached: dict[str, set[str]] = field(default_factory=dict)  # pool -> ids of attached zones
    share: float = 0.0  # of all users, now
    rps: float = 0.0
    unrouted_rps: float = 0.0  # reaches the front and finds no target
    shares: dict[Box, float] = field(default_factory=dict)  # of its new traffic, by instance
    flows: list[Flow] = field(default_factory=list)
    counted_s: float = 0.0  # the flows are counted up to here
    struck_at_s: float = float("-inf")  # last fault, healing or rise of load there
    disturbed_at_s: float = float("-inf")  # that, or what a person has done who asks nobody
    withdrawn: dict[Box, float] = field(
        default_factory=dict
    )  # instance that served well -> when somebody last changed that
    dirty: bool = True

    @property
    def aws(self) -> bool:
        return self.region.cloud == "aws"

    def boxes(self) -> list[Box]:
        return [box for zone in self.zones for box in zone.boxes]


@dataclass(slots=True)
class Ledger:
    """Harm so far, in requests, by cause: `act` (somebody changed something), `version`, `fault`, `overload`."""

    served: float = 0.0
    harmed: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("act", "version", "fault", "overload"), 0.0)
    )


class Happening(msgspec.Struct, frozen=True):
    """One line of a trace."""

    at_s: float
    kind: str
    what: str
    args: Mapping[str, object] = msgspec.field(default_factory=dict)
