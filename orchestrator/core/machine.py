"""What every durable machine (deploy, drill, failover, runbook) shares with the loop that carries it.

A machine is pure. `decide` names one effect, or one event it raises itself, or nothing (finished, or waiting for a
person). The loop performs the effect, `apply` folds the event in. The row of the run holds `dump(state)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol, TypeAlias, TypeVar

import msgspec

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class Effect(msgspec.Struct, frozen=True):
    """Something to do in the world for one zone. Idempotent: after a crash the same effect is performed again (I11)."""

    kind: str
    zone: str | None = None
    args: Mapping[str, Json] = msgspec.field(default_factory=dict)


class Event(msgspec.Struct, frozen=True):
    """What came of an effect, or a person's order. `evidence` is a sentence for people; `order` the message it consumes."""

    kind: str
    zone: str | None = None
    evidence: str = ""
    args: Mapping[str, Json] = msgspec.field(default_factory=dict)
    order: int | None = None


class Order(msgspec.Struct, frozen=True):
    """A person's (or a stronger run's) message to a run: pause, resume, abort, rollback, retarget."""

    id: int
    kind: str
    author: str
    reason: str
    at: datetime
    args: Mapping[str, Json] = msgspec.field(default_factory=dict)


class Facts(msgspec.Struct, frozen=True):
    """All that `decide` may know beyond the state. `orders` are pending, oldest first."""

    now: datetime
    orders: tuple[Order, ...] = ()
    frozen: bool = False  # I14: nothing new may start
    killed: bool = False  # I14: every automatic act stops


S = TypeVar("S")


class Machine(Protocol[S]):
    """One per kind of run; a stateless object."""

    kind: str

    def parse(self, data: Json) -> S: ...

    def dump(self, state: S) -> Json: ...

    def decide(self, state: S, facts: Facts) -> Effect | Event | None: ...

    def apply(self, state: S, event: Event, now: datetime) -> S:
        """Fold `event` in. An illegal event raises IllegalTransition and changes nothing."""

    def finished(self, state: S) -> bool:
        """True in an end state: the run's row is closed and it holds no lease."""

    def status(self, state: S) -> str:
        """One word for lists: active, paused, held, succeeded, ..."""

    def leased_zone(self, state: S) -> str | None:
        """The zone whose lease this state needs (I1). The store takes or frees the lease row in the same transaction."""

    def extra_slot(self, state: S) -> bool | tuple[str, ...]:
        """True when that lease may go beyond `max_zones_out`: the zone is dead, or a person has overridden I1.

        Or the zones beside which it may: what is leased there lies within, and is out anyway.
        """
