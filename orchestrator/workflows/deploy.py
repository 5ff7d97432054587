"""What each effect of the deploy machine does, on ports. Every effect is idempotent, and interruptible by a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from orchestrator.core.deploy import DeployState
from orchestrator.core.deploy_table import E
from orchestrator.core.errors import Bug, Denied, NoCapacity, Refused, Rejected, StoreAway, Transient
from orchestrator.core.machine import Effect, Event
from orchestrator.ports import Fence, Notice
from orchestrator.workflows.capacity import Capacity
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.job import Job
from orchestrator.workflows.leaving import Leaving
from orchestrator.workflows.polling import Interrupted
from orchestrator.workflows.returning import Returning
from orchestrator.workflows.settling import Settling
from orchestrator.workflows.steering import Steering
from orchestrator.workflows.world import World

# What an effect becomes when its cloud refuses for good: the machine then holds, withdraws or undoes.
_FAILED_AS: Final = {"admit": E.REFUSED, "prepare": E.UNPREPARED}
_LEVELS: Final = {
    E.UNHEALTHY: "warning",
    E.INCOMPLETE: "warning",
    E.DRAIN_TIMED_OUT: "warning",
    E.REFUSED: "page",
    E.UNPREPARED: "page",
    E.STUCK: "page",
    E.INCONCLUSIVE: "page",
}


class DeployPerformer:
    """Performs effects for runs of kind `deploy` of one service."""

    def __init__(self, world: World) -> None:
        self._world = world
        gauge, steering = Gauge(world), Steering(world)
        capacity = Capacity(gauge, steering)
        leaving, returning = Leaving(gauge, steering, capacity), Returning(gauge, steering, capacity)
        self._effects: Mapping[str, Callable[[Job], Awaitable[Event]]] = {
            "admit": capacity.admit,
            "prepare": capacity.prepare,
            "drain": leaving.drain,
            "upgrade": leaving.upgrade,
            "verify": returning.verify,
            "ramp": returning.ramp,
            "join": returning.join,
            "bake": returning.bake,
            "settle": Settling(gauge, steering, capacity).settle,
        }

    async def perform(self, state: DeployState, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        """Do `effect` and say what came of it. Only StaleCarrier, StoreAway and Bug are raised; every other failure is an event."""
        if effect.zone is None:
            raise Bug(f"effect {effect.kind} names no zone")
        zone = self._world.topology.zone(effect.zone)
        progress, waiting = state.zone(effect.zone), tuple(z.zone for z in state.waiting())
        policy = replace(state.policy, admit_timeout_s=state.admit_timeout_s) if state.behind else state.policy
        job = Job(self._world, zone, progress, policy, fence, interrupted, state.overrides, waiting)
        try:
            event = await self._effects[effect.kind](job)
        except Refused as refused:
            event = job.event(_FAILED_AS.get(effect.kind, E.STUCK), f"refused by {refused.rule}: {refused.reason}")
        except StoreAway:
            raise
        except (Denied, Rejected, NoCapacity, Transient) as error:
            event = job.event(_FAILED_AS.get(effect.kind, E.STUCK), f"{type(error).__name__.lower()}: {error}")
        await self._notify(state, event)
        return event

    async def _notify(self, state: DeployState, event: Event) -> None:
        """A person hears of everything that is not plain progress."""
        level = _LEVELS.get(E(event.kind))
        if level is not None:
            notice = Notice(level, state.target, event.zone, event.kind, event.evidence, None, None)
            await self._world.notifier.notify(notice)
