"""What may happen to a deploy and to each of its zones: every state, event and transition, in two tables.

`core/deploy.py` walks them; the diagram in docs/deploy-machine.md is generated from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from orchestrator.core.topology import ZoneState


class RunStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    HELD = "held"  # A person must choose: resume, rollback, abort, or a new target.
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # The sick zone was rolled back and returned; zones done before it keep the new version.
    ABORTED = "aborted"
    ROLLED_BACK = "rolled-back"


FINISHED: Final = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.ABORTED, RunStatus.ROLLED_BACK})


class Course(StrEnum):
    """What the run as a whole is after."""

    FORWARD = "forward"
    ABORT = "abort"  # Bring the zone that is out back; touch no other.
    ROLLBACK = "rollback"  # Bring every zone back to the version it had, newest first (I12).


class E(StrEnum):
    """Everything that can happen to a zone."""

    ADMITTED = "admitted"
    ALREADY_THERE = "already-there"
    REFUSED = "refused"
    YIELDED = "yielded"  # A zone of this run is out already, and nobody else's: that one goes first (I1).
    PREPARED = "prepared"
    REPLANNED = "replanned"  # What was prepared no longer suffices: the row learns what more is needed first (I11).
    UNPREPARED = "unprepared"
    DRAINED = "drained"
    DRAIN_TIMED_OUT = "drain-timed-out"
    UPGRADED = "upgraded"
    VERIFIED = "verified"
    STEP_PASSED = "step-passed"
    STEP_MERGED = "step-merged"  # Too small to be measured under the load of now: the next step covers it (I9).
    RAMPED = "ramped"
    JOINED = "joined"
    REJOINED = "rejoined"  # After a rollback, or something stronger waits: it skips the bake, never health (I12).
    BAKED = "baked"
    SETTLED = "settled"
    WITHDRAWN = "withdrawn"
    UNHEALTHY = "unhealthy"
    INCOMPLETE = (
        "incomplete"  # Its users are served, and instances of it are missing: it goes back as carefully as it left.
    )
    REVERT = "revert"  # Sick: out at once, whatever the survivors then carry.
    SENT_BACK = "sent-back"  # A person's order: out again as carefully as the first time.
    CANCELLED = "cancelled"  # Sent back before it left: only its preparations are undone.
    RECALLED = "recalled"  # Sent back before anything in it was replaced: it may return at once (I9).
    PUT_BACK = "put-back"  # A resume while its preparations are undone: that goes on, and its goal it has not reached.
    STALE = "stale"  # It stood still before it left, or before it was put back: what was known of it is asked anew.
    HOLD = "hold"
    INCONCLUSIVE = "inconclusive"
    STUCK = "stuck"  # An effect could not be done: denied, rejected, timed out.
    RESUME = "resume"
    RETARGET = "retarget"
    INTERRUPTED = "interrupted"


_Z = ZoneState
# The zone carries nothing, or is leaving: it goes back, or on to a new target, by a drain, so that no instance is
# replaced while its zone takes traffic (I13).
_OUT: Final = {E.REVERT: _Z.DRAINING, E.SENT_BACK: _Z.DRAINING, E.RETARGET: _Z.DRAINING}
# The zone carries users' requests: a sick one leaves at once, but an order asks for the survivors' capacity anew (I3).
_SERVING: Final = {E.REVERT: _Z.DRAINING, E.SENT_BACK: _Z.PREPARING, E.RETARGET: _Z.PREPARING}
_ORDERED: Final = {E.SENT_BACK: _Z.PREPARING, E.RETARGET: _Z.PREPARING}

ZONE_TRANSITIONS: Final[Mapping[ZoneState, Mapping[E, ZoneState]]] = {
    _Z.WAITING: {
        E.ADMITTED: _Z.PREPARING,
        E.ALREADY_THERE: _Z.DONE,
        E.REFUSED: _Z.WAITING,
        E.YIELDED: _Z.WAITING,
        E.RETARGET: _Z.WAITING,
        E.INTERRUPTED: _Z.WAITING,
    },
    _Z.PREPARING: {
        E.PREPARED: _Z.DRAINING,
        E.REPLANNED: _Z.PREPARING,
        E.UNPREPARED: _Z.SETTLING,
        E.CANCELLED: _Z.SETTLING,
        E.STUCK: _Z.HELD_PREPARING,
        E.INTERRUPTED: _Z.PREPARING,
        **_ORDERED,
    },
    _Z.DRAINING: {
        E.DRAINED: _Z.UPGRADING,
        E.DRAIN_TIMED_OUT: _Z.JOINING,
        E.RECALLED: _Z.JOINING,
        E.STALE: _Z.PREPARING,
        E.STUCK: _Z.HELD_OUT,
        E.INTERRUPTED: _Z.DRAINING,
        E.SENT_BACK: _Z.DRAINING,
        E.RETARGET: _Z.DRAINING,
    },
    _Z.UPGRADING: {
        E.UPGRADED: _Z.VERIFYING,
        E.HOLD: _Z.HELD_OUT,
        E.STUCK: _Z.HELD_OUT,
        E.INTERRUPTED: _Z.UPGRADING,
        **_OUT,
    },
    _Z.VERIFYING: {
        E.VERIFIED: _Z.RAMPING,
        E.INCONCLUSIVE: _Z.HELD_OUT,
        E.HOLD: _Z.HELD_OUT,
        E.STUCK: _Z.HELD_OUT,
        E.INTERRUPTED: _Z.VERIFYING,
        **_OUT,
    },
    _Z.RAMPING: {
        E.STEP_PASSED: _Z.RAMPING,
        E.STEP_MERGED: _Z.RAMPING,
        E.RAMPED: _Z.JOINING,
        E.STALE: _Z.VERIFYING,
        E.INCONCLUSIVE: _Z.HELD_SERVING,
        E.HOLD: _Z.HELD_SERVING,
        E.STUCK: _Z.HELD_SERVING,
        E.INTERRUPTED: _Z.RAMPING,
        **_SERVING,
    },
    _Z.JOINING: {
        E.JOINED: _Z.BAKING,
        E.REJOINED: _Z.SETTLING,
        E.STALE: _Z.VERIFYING,
        E.STUCK: _Z.HELD_SERVING,
        E.INTERRUPTED: _Z.JOINING,
        **_ORDERED,
    },
    _Z.BAKING: {
        E.BAKED: _Z.SETTLING,
        E.REJOINED: _Z.SETTLING,
        E.INCONCLUSIVE: _Z.HELD_SERVING,
        E.HOLD: _Z.HELD_SERVING,
        E.STUCK: _Z.HELD_SERVING,
        E.INTERRUPTED: _Z.BAKING,
        **_SERVING,
    },
    _Z.SETTLING: {
        E.SETTLED: _Z.DONE,
        E.WITHDRAWN: _Z.WAITING,
        E.STUCK: _Z.HELD_SERVING,
        E.INTERRUPTED: _Z.SETTLING,
        **_ORDERED,
    },
    _Z.HELD_PREPARING: {E.RESUME: _Z.PREPARING, **_ORDERED},
    _Z.HELD_OUT: {E.RESUME: _Z.DRAINING, E.SENT_BACK: _Z.DRAINING, E.RETARGET: _Z.DRAINING},
    _Z.HELD_SERVING: {E.RESUME: _Z.RAMPING, E.PUT_BACK: _Z.JOINING, E.CANCELLED: _Z.JOINING, **_ORDERED},
    _Z.DONE: {E.SENT_BACK: _Z.WAITING, E.RETARGET: _Z.WAITING},
}

EFFECT_OF: Final[Mapping[ZoneState, str]] = {
    _Z.WAITING: "admit",
    _Z.PREPARING: "prepare",
    _Z.DRAINING: "drain",
    _Z.UPGRADING: "upgrade",
    _Z.VERIFYING: "verify",
    _Z.RAMPING: "ramp",
    _Z.JOINING: "join",
    _Z.BAKING: "bake",
    _Z.SETTLING: "settle",
}
CALLED_OFF: Final = {_Z.PREPARING: E.CANCELLED, _Z.DRAINING: E.RECALLED}
HELD: Final = frozenset({_Z.HELD_PREPARING, _Z.HELD_OUT, _Z.HELD_SERVING})
IDLE: Final = frozenset({_Z.WAITING, _Z.DONE})


class R(StrEnum):
    """Everything that can happen to a run."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"
    RETARGET = "retarget"
    SUSPEND = "suspend"  # Bring the zone that is out back by the shortest way, then hold: the lease is needed (I1).
    ZONE_HELD = "zone-held"
    ZONE_LOST = "zone-lost"  # A zone was rolled back and policy says to stop there.
    COMPLETE_FORWARD = "complete-forward"
    COMPLETE_ABORT = "complete-abort"
    COMPLETE_ROLLBACK = "complete-rollback"
    COMPLETE_SUSPEND = "complete-suspend"


_S = RunStatus
# Abort works in every state (I13). A new target restarts the gates, wherever the run stands.
_PEOPLE: Final = {R.ABORT: _S.ACTIVE, R.ROLLBACK: _S.ACTIVE, R.RETARGET: _S.ACTIVE}

RUN_TRANSITIONS: Final[Mapping[RunStatus, Mapping[R, RunStatus]]] = {
    _S.ACTIVE: {
        R.PAUSE: _S.PAUSED,
        R.ZONE_HELD: _S.HELD,
        R.ZONE_LOST: _S.FAILED,
        R.COMPLETE_FORWARD: _S.SUCCEEDED,
        R.COMPLETE_ABORT: _S.ABORTED,
        R.COMPLETE_ROLLBACK: _S.ROLLED_BACK,
        R.COMPLETE_SUSPEND: _S.HELD,
        R.SUSPEND: _S.ACTIVE,
        **_PEOPLE,
    },
    _S.PAUSED: {R.RESUME: _S.ACTIVE, R.SUSPEND: _S.ACTIVE, **_PEOPLE},
    _S.HELD: {R.RESUME: _S.ACTIVE, R.PAUSE: _S.PAUSED, R.SUSPEND: _S.HELD, **_PEOPLE},
    _S.SUCCEEDED: {},
    _S.FAILED: {},
    _S.ABORTED: {},
    _S.ROLLED_BACK: {},
}

ORDER_REFUSED: Final = "order-refused"
ORDERS: Final = frozenset({R.PAUSE, R.RESUME, R.ABORT, R.ROLLBACK, R.RETARGET, R.SUSPEND})
