"""The load balancers' health checks of their targets, and the clouds' `/healthz` checks of instances.

Each check is one task that asks at its own interval; `reconcile` starts and ends them by difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.lab.addresses import region_of
from orchestrator.lab.ask import ask
from orchestrator.lab.model import SERVICE_PORT, DesiredRegion, Process, TargetHealth

TIMEOUT_S = 0.5  # generous, because the daemon that asks also emulates two clouds
HEALTHZ_INTERVAL_S = 0.4
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Check:
    """What to ask, how often, and how many answers in a row change the verdict."""

    source: str
    address: str
    port: int
    path: str
    interval_s: float
    healthy_after: int
    unhealthy_after: int


@dataclass(slots=True)
class Verdict:
    health: TargetHealth = TargetHealth.INITIAL
    passes: int = 0
    failures: int = 0

    def hear(self, passed: bool, check: Check) -> bool:
        """Fold in one answer; say whether the verdict changed."""
        before = self.health
        self.passes, self.failures = (self.passes + 1, 0) if passed else (0, self.failures + 1)
        if self.passes >= check.healthy_after:
            self.health = TargetHealth.HEALTHY
        elif self.failures >= check.unhealthy_after:
            self.health = TargetHealth.UNHEALTHY
        return self.health is not before


class Checks(Generic[K]):
    """A set of running checks. `changed` is called with the key at each new verdict."""

    def __init__(self, changed: Callable[[K, TargetHealth], None] | None = None) -> None:
        self._changed = changed
        self._wanted: dict[K, Check] = {}
        self._verdicts: dict[K, Verdict] = {}
        self._tasks: dict[K, asyncio.Task[None]] = {}

    def health(self, key: K) -> TargetHealth:
        verdict = self._verdicts.get(key)
        return verdict.health if verdict else TargetHealth.INITIAL

    def all(self) -> dict[K, TargetHealth]:
        return {key: verdict.health for key, verdict in self._verdicts.items()}

    def reconcile(self, wanted: Mapping[K, Check]) -> None:
        for key in [key for key, check in self._wanted.items() if wanted.get(key) != check]:
            self._tasks.pop(key).cancel()
            del self._wanted[key], self._verdicts[key]
        for key, check in wanted.items():
            if key not in self._wanted:
                self._wanted[key], self._verdicts[key] = check, Verdict()
                self._tasks[key] = asyncio.get_running_loop().create_task(self._keep_asking(key, check))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self.reconcile({})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_asking(self, key: K, check: Check) -> None:
        loop, verdict = asyncio.get_running_loop(), self._verdicts[key]
        due = loop.time()
        while True:
            status = await ask(check.source, check.address, check.port, check.path, TIMEOUT_S)
            if verdict.hear(200 <= status < 300, check) and self._changed:
                self._changed(key, verdict.health)
            due = max(due + check.interval_s, loop.time())
            await asyncio.sleep(due - loop.time())


def target_checks(regions: list[DesiredRegion]) -> dict[tuple[str, str, str], Check]:
    """Return the checks of every (front, pool, instance). Targets that drain are not asked any more, as on AWS."""
    return {
        (front.name, pool.name, member.instance): Check(
            region_of(member.address).prober,
            member.address,
            SERVICE_PORT,
            pool.probe_path,
            pool.probe_interval_s,
            pool.healthy_after,
            pool.unhealthy_after,
        )
        for region in regions
        for front in region.fronts
        for pool in front.pools
        for member in pool.members
        if not member.draining
    }


def fleet_checks(regions: list[DesiredRegion], processes: Mapping[str, Process]) -> dict[tuple[str, int], Check]:
    """Return the /healthz checks of every instance that is not known to be dead; a new incarnation is asked afresh."""
    return {
        (instance.id, instance.incarnation): Check(
            region_of(instance.address).prober, instance.address, SERVICE_PORT, "/healthz", HEALTHZ_INTERVAL_S, 1, 1
        )
        for region in regions
        for instance in region.instances
        if processes.get(instance.id) is not Process.DEAD
    }
