"""Many histories, one after the other or side by side, summed up; and one of them told for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from time import perf_counter
from typing import cast

from orchestrator.core.machine import Json
from orchestrator.sim import scenario as scenarios
from orchestrator.sim.coverage import coverage
from orchestrator.sim.history import History, Result
from orchestrator.sim.scenario import Scenario


def simulate(seed: int, scenario: Scenario | None = None) -> Result:
    """Run one history; without a scenario, the one that the seed draws."""
    return History(seed, scenario or scenarios.swarm(seed)).go()


def sim_main(seeds: int, start: int = 0, jobs: int = 1) -> dict[str, Json]:
    """Run `seeds` histories from `start` on and sum them up, as `failout sim --json` prints it.

    `violating` holds the first 20 histories that broke a rule: seed, rules and what was seen. `replay(seed)` gives the
    whole trace of one. Rates are per second of wall time, all jobs together.
    """
    began_s = perf_counter()
    numbers = range(start, start + seeds)
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            summary = _sum(pool.map(_briefly, numbers, chunksize=max(1, seeds // (8 * jobs))))
    else:
        summary = _sum(map(_briefly, numbers))
    summary["seed"] = start
    summary["seconds"] = round(perf_counter() - began_s, 3)
    summary["histories_per_s"] = round(seeds / max(perf_counter() - began_s, 1e-9), 1)
    return summary


def _briefly(seed: int) -> Result:
    return replace(simulate(seed), trace=())


def _sum(results: Iterable[Result]) -> dict[str, Json]:
    histories, violations, violating = 0, 0, list[Json]()
    statuses, exercised, faults = Counter[str](), Counter[str](), Counter[str]()
    transitions = Counter[tuple[str, str]]()
    for result in results:
        histories += 1
        violations += len(result.violations)
        statuses[result.status] += 1
        exercised.update(result.exercised)
        faults.update(result.faults)
        transitions.update(result.transitions)
        if result.violations and len(violating) < 20:
            told = [str(violation) for violation in result.violations]
            violating.append({"seed": result.seed, "violations": list[Json](told)})
    return cast(
        "dict[str, Json]",
        {
            "histories": histories,
            "violations": violations,
            "violating": violating,
            "invariants": dict(sorted(exercised.items(), key=lambda item: int(item[0][1:]))),
            "never_exercised": sorted(rule for rule, count in exercised.items() if not count),
            "transitions": coverage(transitions),
            "statuses": dict(sorted(statuses.items())),
            "faults": dict(sorted(faults.items())),
        },
    )


def tell(result: Result, scenario: Scenario) -> str:
    """Tell one history for people: seed first, then its world, its violations, and what happened in order."""
    given = {f.name: getattr(scenario, f.name) for f in fields(scenario) if f.name not in {"topology", "policy"}}
    world = [f"{name}: {value}" for name, value in given.items() if value]
    shape = ", ".join(f"{region.id} {len(region.zones)} zones" for region in scenario.topology.regions)
    broken = [f"  VIOLATION {violation}" for violation in result.violations]
    happened = [
        f"{h.at_s:9.2f} {h.kind} {h.what} {' '.join(f'{k}={v}' for k, v in h.args.items())}".rstrip()
        for h in result.trace
    ]
    ended = f"ended {result.status} at {result.ended_s:.1f} s"
    return "\n".join([f"seed {result.seed}", shape, *world, ended, *broken, *happened])


def replay(seed: int, scenario: Scenario | None = None) -> str:
    """Run one history and tell it."""
    drawn = scenario or scenarios.swarm(seed)
    return tell(simulate(seed, drawn), drawn)
