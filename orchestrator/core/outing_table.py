"""What may happen to a zone that is taken out on purpose: every stage, event and transition of an outing, in one table.

`core/outing.py` walks it; the diagram in docs/outing-machine.md is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """Where the zone stands. All but WAITING, PREPARING and the two ends count as out."""

    WAITING = "waiting"
    PREPARING = "preparing"
    DRAINING = "draining"
    EVACUATING = "evacuating"
    RELIEVING = "relieving"  # It is out; its survivors get the capacity that a drain would have prepared before.
    OUT = "out"
    RETURNING = "returning"  # What runs there, and can its region take it back (I3)?
    VERIFYING = "verifying"
    RAMPING = "ramping"
    JOINING = "joining"
    SETTLING = "settling"
    HELD_LEAVING = "held-leaving"
    HELD_OUT = "held-out"
    HELD_SERVING = "held-serving"
    HELD_SETTLING = "held-settling"
    LENT = "lent"  # A deploy mends what runs there; what was prepared for its absence is still to be undone.
    RESTORED = "restored"
    REFUSED = "refused"  # It never left: a rule said no.
    WITHDRAWN = "withdrawn"  # It serves as before: called off, or it could not be emptied.


class OutingEvent(StrEnum):
    """Everything that can happen to an outing. What effects answer is spelled as for a deploy (deploy.E)."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    GO = "go"  # An evacuation asks for the lease and nothing else.
    CONTESTED = "contested"  # Another zone is out: it is called back, unless this one is seen dead.
    DEAD = "dead"
    SOUND = "sound"
    PREPARED = "prepared"
    REPLANNED = "replanned"
    UNPREPARED = "unprepared"
    DRAINED = "drained"
    DRAIN_TIMED_OUT = "drain-timed-out"
    EVACUATED = "evacuated"
    EXPIRED = "expired"
    DUE = "due"  # The time that a drill gave it is over.
    RETURN_PLANNED = "return-planned"
    VERIFIED = "verified"
    STEP_PASSED = "step-passed"
    STEP_MERGED = "step-merged"
    RAMPED = "ramped"
    JOINED = "joined"
    SETTLED = "settled"
    PUT_BACK = "put-back"  # A resume or a restore of what never left, or came back from a drain: it goes on joining.
    UNDONE = "undone"  # What was prepared for a zone that never left, or came back at once, is put back.
    STALE = "stale"  # As for a deploy: it stood still before it left, or before it was put back.
    UNHEALTHY = "unhealthy"
    INCOMPLETE = "incomplete"  # Its users are served, and instances of it are missing: a person must choose.
    INCONCLUSIVE = "inconclusive"
    STUCK = "stuck"
    INTERRUPTED = "interrupted"
    WARNED = "warned"
    ALARMED = "alarmed"
    # A person's orders, or a stronger run's.
    PAUSE = "pause"
    RESUME = "resume"
    RESTORE = "restore"
    EVACUATE = "evacuate"
    EXTEND = "extend"
    RELEASE = "release"
    TAKE_OVER = "take-over"  # A person wants what a drill has out: from now on it is that person's.


_E = OutingEvent
ORDER_REFUSED: Final = "order-refused"
ORDERS: Final = frozenset({_E.PAUSE, _E.RESUME, _E.RESTORE, _E.EVACUATE, _E.EXTEND, _E.RELEASE, _E.TAKE_OVER, "abort"})
ANYWHERE: Final = frozenset({_E.PAUSE, _E.EXTEND, _E.TAKE_OVER, _E.WARNED, _E.ALARMED})  # They move no stage.

_G = Stage
_BACK: Final = {_E.RESTORE: _G.RETURNING}
_SERVING: Final = {_E.STUCK: _G.HELD_SERVING, _E.EVACUATE: _G.EVACUATING}

TRANSITIONS: Final[Mapping[Stage, Mapping[OutingEvent, Stage]]] = {
    _G.WAITING: {
        _E.ADMITTED: _G.PREPARING,
        _E.REFUSED: _G.REFUSED,
        _E.GO: _G.EVACUATING,
        _E.CONTESTED: _G.WAITING,
        _E.DEAD: _G.EVACUATING,
        _E.SOUND: _G.EVACUATING,
        _E.INTERRUPTED: _G.WAITING,
        _E.EVACUATE: _G.WAITING,
        _E.RESTORE: _G.WITHDRAWN,
    },
    _G.PREPARING: {
        _E.PREPARED: _G.DRAINING,
        _E.REPLANNED: _G.PREPARING,
        _E.UNPREPARED: _G.SETTLING,
        _E.INTERRUPTED: _G.PREPARING,
        _E.EVACUATE: _G.EVACUATING,
        _E.RESTORE: _G.SETTLING,
    },
    _G.DRAINING: {
        _E.DRAINED: _G.OUT,
        _E.DRAIN_TIMED_OUT: _G.JOINING,
        _E.STALE: _G.PREPARING,
        _E.STUCK: _G.HELD_LEAVING,
        _E.INTERRUPTED: _G.DRAINING,
        _E.EVACUATE: _G.EVACUATING,
        _E.RESTORE: _G.JOINING,  # It left healthy and nothing in it changed: it may return at once (I9).
    },
    _G.EVACUATING: {
        _E.EVACUATED: _G.RELIEVING,
        _E.STUCK: _G.HELD_LEAVING,
        _E.INTERRUPTED: _G.EVACUATING,
        **_BACK,
    },
    _G.RELIEVING: {
        _E.PREPARED: _G.OUT,
        _E.REPLANNED: _G.RELIEVING,
        _E.UNPREPARED: _G.OUT,
        _E.INTERRUPTED: _G.RELIEVING,
        **_BACK,
    },
    _G.OUT: {_E.EXPIRED: _G.RETURNING, _E.DUE: _G.RETURNING, _E.RESUME: _G.RETURNING, **_BACK},
    _G.RETURNING: {
        _E.RETURN_PLANNED: _G.VERIFYING,
        _E.JOINED: _G.SETTLING,  # It never left: what was to empty it was stopped before, and it has got well again.
        _E.STUCK: _G.HELD_OUT,
        _E.INTERRUPTED: _G.RETURNING,
        _E.EVACUATE: _G.EVACUATING,
        **_BACK,
    },
    _G.VERIFYING: {
        _E.VERIFIED: _G.RAMPING,
        _E.UNHEALTHY: _G.HELD_OUT,
        _E.INCONCLUSIVE: _G.HELD_OUT,
        _E.STUCK: _G.HELD_OUT,
        _E.INTERRUPTED: _G.VERIFYING,
        _E.EVACUATE: _G.EVACUATING,
        _E.RESTORE: _G.VERIFYING,
    },
    _G.RAMPING: {
        _E.STEP_PASSED: _G.RAMPING,
        _E.STEP_MERGED: _G.RAMPING,
        _E.RAMPED: _G.JOINING,
        _E.STALE: _G.RETURNING,
        _E.UNHEALTHY: _G.EVACUATING,
        _E.INCONCLUSIVE: _G.HELD_SERVING,
        _E.INTERRUPTED: _G.RAMPING,
        _E.RESTORE: _G.RAMPING,
        **_SERVING,
    },
    _G.JOINING: {
        _E.JOINED: _G.SETTLING,
        _E.STALE: _G.RETURNING,
        _E.INTERRUPTED: _G.JOINING,
        _E.RESTORE: _G.JOINING,
        **_SERVING,
    },
    _G.SETTLING: {
        _E.SETTLED: _G.RESTORED,
        _E.UNDONE: _G.WITHDRAWN,
        _E.STUCK: _G.HELD_SETTLING,
        _E.INTERRUPTED: _G.SETTLING,
        _E.EVACUATE: _G.EVACUATING,
        _E.RESTORE: _G.SETTLING,
    },
    _G.HELD_LEAVING: {_E.RESUME: _G.DRAINING, _E.EVACUATE: _G.EVACUATING, **_BACK},
    _G.HELD_OUT: {_E.RESUME: _G.RETURNING, _E.RELEASE: _G.LENT, **_BACK},
    _G.LENT: {_E.RESUME: _G.RETURNING, _E.REFUSED: _G.LENT, **_BACK},  # Refused while the deploy has it.
    _G.HELD_SERVING: {
        _E.RESUME: _G.RAMPING,
        _E.RESTORE: _G.RAMPING,
        _E.PUT_BACK: _G.JOINING,
        _E.EVACUATE: _G.EVACUATING,
    },
    _G.HELD_SETTLING: {_E.RESUME: _G.SETTLING, _E.RESTORE: _G.SETTLING, _E.EVACUATE: _G.EVACUATING},
    _G.RESTORED: {},
    _G.REFUSED: {},
    _G.WITHDRAWN: {},
}

EFFECT_OF: Final[Mapping[Stage, str]] = {
    _G.PREPARING: "prepare",
    _G.DRAINING: "drain",
    _G.EVACUATING: "evacuate",
    _G.RELIEVING: "relieve",
    _G.RETURNING: "plan-return",
    _G.VERIFYING: "verify",
    _G.RAMPING: "ramp",
    _G.JOINING: "join",
    _G.SETTLING: "settle",
}
NOT_YET_LEFT: Final = {_G.WAITING: _E.REFUSED, _G.PREPARING: _E.UNPREPARED}
FINISHED: Final = frozenset({_G.RESTORED, _G.REFUSED, _G.WITHDRAWN})
HELD: Final = frozenset({_G.HELD_LEAVING, _G.HELD_OUT, _G.HELD_SERVING, _G.HELD_SETTLING, _G.LENT})
