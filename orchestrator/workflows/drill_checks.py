"""Everything that may speak against a drill, looked at without touching anything: a rehearsal is this and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.drill import Wish
from orchestrator.core.errors import FailoutError, StoreAway
from orchestrator.core.guards import (
    CapacityPlan,
    Refusal,
    ZoneLoad,
    plan_capacity,
    refuse_absent_survivors,
    refuse_second_zone_out,
    refuse_unsound_survivors,
)
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.region_plan import RegionPlan, plan_regions, refuse_leaving
from orchestrator.core.traffic import Placement, ZoneSeen
from orchestrator.ports import Finding, Reading
from orchestrator.workflows.gauge import Gauge
from orchestrator.workflows.polling import Found, Interrupted, NotYet, TimedOut, look_until
from orchestrator.workflows.steering import Steering
from orchestrator.workflows.world import World


class Signals(Protocol):
    async def read(self, names: Sequence[str]) -> Mapping[str, Reading]:
        """What each of them says now, by name. One that is not known is `unknown`."""


class Obstacles(Protocol):
    async def __call__(self, run: str | None) -> Sequence[Finding]:
        """What our own rows and `doctor` say. `run` is the drill's own, where there is one."""


@dataclass(frozen=True, slots=True)
class DrillChecks:
    world: World
    policy: DeployPolicy
    signals: Signals
    obstacles: Obstacles

    async def findings(self, wish: Wish, run: str | None, interrupted: Interrupted) -> list[Finding]:
        """All of them, also after one that failed. The signals come last: they are to be good right before (I15)."""
        found = [*await self.obstacles(run), await self._capacity(wish, interrupted)]
        if not wish.policy.outcome_signals:
            why = "I15: no outcome signal is named, and no drill starts without: drills.outcome_signals or --signal"
            found.append(Finding("outcome signal", "failed", why))
        readings = await self.signals.read([*wish.policy.blocking_signals, *wish.policy.outcome_signals])
        for name, reading in readings.items():
            verdict = "ok" if reading.state == "good" else "failed"
            role = "outcome" if name in wish.policy.outcome_signals else "blocking"
            found.append(Finding(f"{role} signal {name}", verdict, f"{reading.state}: {reading.evidence}"))  # type: ignore[arg-type]
        return found

    async def _capacity(self, wish: Wish, interrupted: Interrupted) -> Finding:
        """I1, I2, I3 by what clouds and agents say now; the run itself will ask them again."""
        gauge, steering = Gauge(self.world), Steering(self.world)

        async def look() -> str | NotYet:
            ruled = self._rule(wish, await gauge.loads(self.policy.load_window_s), await steering.seen())
            return NotYet(f"{ruled.rule}: {ruled.reason}") if isinstance(ruled, Refusal) else ruled.arithmetic

        clock, policy = self.world.clock, self.policy
        try:
            result = await look_until(look, clock, interrupted, every_s=policy.poll_s, timeout_s=policy.admit_timeout_s)
        except StoreAway:
            raise  # It says nothing of the place, and passes.
        except FailoutError as error:
            return Finding("capacity", "failed", str(error))
        if isinstance(result, Found):
            return Finding("capacity", "ok", result.value)
        return Finding("capacity", "failed", result.last if isinstance(result, TimedOut) else "it was interrupted")

    def _rule(
        self, wish: Wish, loads: Mapping[str, ZoneLoad], seen: Mapping[str, ZoneSeen]
    ) -> Refusal | CapacityPlan | RegionPlan:
        topology, used, scale = self.world.topology, self.policy.max_utilisation, self.policy.scale_survivors
        if wish.tier == "zone":
            refusal = (
                refuse_second_zone_out(wish.place, seen)
                or refuse_absent_survivors(wish.place, seen)
                or refuse_unsound_survivors(wish.place, loads, topology, self.policy.gate)
            )
            return refusal or plan_capacity(wish.place, loads, topology, max_utilisation=used, scale_survivors=scale)
        away = sorted(z for z, s in seen.items() if s.placement is not Placement.STEADY)
        if away:
            return Refusal("I1", f"{wish.place} may not leave: {', '.join(away)} is not steady")
        refusal = refuse_leaving([wish.place], loads, seen, topology, self.policy.gate)
        return refusal or plan_regions([wish.place], loads, topology, max_utilisation=used, scale_survivors=scale)
