"""What the workflows need of the outside world: small, idempotent, read back.

Every method may raise Transient (try again), Denied, Rejected, NoCapacity. None of them retries on its own beyond its
client's budget. Adapters: clouds/ (Fleet, Traffic, GlobalTraffic), metrics/ and agent/ (Agent), engine/ (Store, Clock).
Every fake passes the contract suite in tests/contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Literal, Protocol

import msgspec

from orchestrator.core.health import Counters, InstanceProbe, Synthetic
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import ZoneSeen, ZoneTraffic


class Fence(Protocol):
    """The right to change something: read from the lease row right before every write (I1)."""

    @property
    def number(self) -> int: ...

    async def check(self) -> None:
        """Raise StaleCarrier when the lease or the run belongs to someone else now."""


class Instance(msgspec.Struct, frozen=True):
    """One instance as its cloud describes it. `version` is the release version it was launched or upgraded with.

    `running` says the cloud calls it running (InService, Succeeded); whether it works is the agent's to say.
    `on_model` says it runs the fleet's newest model.
    """

    id: str
    address: str
    version: str | None
    running: bool
    on_model: bool


class Autoscaler(msgspec.Struct, frozen=True):
    """The cloud's own: between how many instances it moves the fleet while it is `enabled`."""

    minimum: int
    maximum: int
    enabled: bool


class FleetSeen(msgspec.Struct, frozen=True):
    """`autoscaling` False: nothing but Failout changes the number of instances. `model_version`: what new instances get.

    `autoscaler` None: the zone has none, or it could not be read; then `unread` says why, and `autoscaling` is True.
    `no_room`: why the cloud has not given all of `desired`, where it says that it has no capacity for them.
    """

    instances: tuple[Instance, ...]
    desired: int
    model_version: str | None
    autoscaling: bool
    autoscaler: Autoscaler | None = None
    unread: str = ""
    no_room: str = ""


@dataclass(frozen=True, slots=True)
class Replacement:
    """How far an upgrade is. `running` while the cloud works; then `failure` is None or says why in one line."""

    running: bool
    version: str | None
    done: int
    total: int
    failure: str | None = None


class Fleet(Protocol):
    """The instances of one zone. Methods are idempotent: asking twice is asking once."""

    async def describe(self, zone: Zone) -> FleetSeen: ...

    async def replace(self, zone: Zone, version: str, image: Image, fence: Fence) -> None:
        """Begin to bring every instance of the zone to `version`: stage the model, start the cloud's own upgrade.

        Returns at once. Instances already at `version` are left alone. An upgrade to another version that is still
        running is cancelled first. The caller has made sure that the zone takes no traffic (I13).
        """

    async def replacement(self, zone: Zone) -> Replacement: ...

    async def scale(self, zone: Zone, instances: int, fence: Fence) -> None:
        """Ask for `instances`; returns at once. Raises NoCapacity when the cloud says at once that there is none.

        The cloud's own autoscaler gets this number as its minimum, or it would take away again what was asked for.
        """

    async def set_minimum(self, zone: Zone, instances: int, fence: Fence) -> None:
        """Let the cloud's own autoscaler, if there is one, go down to `instances`; how many there are now stays."""

    async def set_autoscaling(self, zone: Zone, *, enabled: bool, fence: Fence, repairs: bool | None = None) -> None:
        """Freeze or thaw whatever would change the fleet by itself. `repairs`: of sick instances; None: like the rest."""


class Traffic(Protocol):
    """The region tier of one cloud."""

    def grain(self, zone: Zone, instances: int) -> Fraction:
        """Smallest step of a share: 1/N where the cloud can only admit whole instances, finer where it has weights."""

    def whole_instances(self) -> bool:
        """True when the cloud has no weights and a share means some of the instances."""

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        """Say what each zone of the region gets now, from the cloud itself. Keys are zone ids."""

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        """Do the next thing that brings the region closer to `desired` and return; call again until `read` matches.

        Never waits for health or draining. Never lets a zone take traffic before its targets are healthy. Zones that
        are already as desired are not written to.
        """


@dataclass(frozen=True, slots=True)
class GlobalSeen:
    """`weights` per region id; `in_sync` False while the DNS still spreads the last change."""

    weights: Mapping[str, int]
    in_sync: bool


class GlobalTraffic(Protocol):
    """The global tier: weighted DNS. Answers live in resolvers for the TTL; waiting for that is the caller's business."""

    async def read(self) -> GlobalSeen: ...

    async def apply(self, weights: Mapping[str, int], fence: Fence) -> None: ...


class Peer(msgspec.Struct, frozen=True):
    """An instance as the region agent reaches it: private address and port."""

    id: str
    address: str


class Agent(Protocol):
    """The region agent: the only one that can talk to instances. One per region."""

    async def probe(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        """Ask /readyz, /version and the in-flight count of each peer. A peer that does not answer is `reachable=False`."""

    async def counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        """Read each instance's own counts of users' requests; peers that do not answer are left out."""

    async def synthesize(self, peers: Sequence[Peer], requests: int, timeout_s: float) -> Synthetic:
        """Send `requests` real requests, marked synthetic, spread over the peers."""

    async def admit(self, peers: Sequence[Peer], *, admitted: bool, fence: Fence) -> None:
        """Set the admission flag that `/admit` answers from. Off: instances also close their connections as they answer."""


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, aware."""

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person must see: what happened, to which zone, on what evidence, by which rule, and what to run next."""

    level: str  # "info", "warning", "page"
    run: str
    zone: str | None
    what: str
    evidence: str
    rule: str | None
    next_command: str | None


class Notifier(Protocol):
    async def notify(self, notice: Notice) -> None: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at before anything is done. `unchecked`: nobody could tell, and `evidence` says why."""

    what: str
    verdict: Literal["ok", "failed", "unchecked"]
    evidence: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What one signal said. `unknown`: nobody could tell, and `evidence` says why; it never counts as good (I15)."""

    state: Literal["good", "bad", "unknown"]
    evidence: str


class Signal(Protocol):
    """One outside opinion on the service: an HTTP check, a command, a query, a cloud's alarm, the lab's own traffic."""

    async def read(self) -> Reading:
        """Ask once, within the signal's own time limit. Never raises what the other side does: that is `unknown`."""


class Inspector(Protocol):
    """Says whether one cloud would let Failout work in a region. Reads and dry runs only."""

    async def inspect(self, region: Region, now: datetime) -> Sequence[Finding]:
        """Credentials, clock skew, each permission that the adapters use, what the topology names, quotas.

        Never raises what a cloud answers: that is a finding.
        """
