"""Many histories, one after the other or side by side, summed up; and one of them told for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from itertools import count
from time import perf_counter
from typing import cast

from orchestrator.core.machine import Json
from orchestrator.sim import scenario as scenarios
from orchestrator.sim.coverage import coverage
from orchestrator.sim.history import History
from orchestrator.sim.result import Result
from orchestrator.sim.scenario import Scenario
from orchestrator.sim.shrink import render, shrink

_BATCH = 25  # histories that a soak hands to each process between two looks at the time


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
    return _timed(summary, start, began_s)


def soak(seconds: float, start: int = 0, jobs: int = 1) -> dict[str, Json]:
    """Run histories from `start` on until `seconds` of wall time have passed, and sum them up as `sim_main` does."""
    began_s = perf_counter()

    def results() -> Iterator[Result]:
        for first in count(start, _BATCH * jobs):
            if perf_counter() - began_s >= seconds:
                return
            yield from pool.map(_briefly, range(first, first + _BATCH * jobs), chunksize=10)

    with ProcessPoolExecutor(jobs) as pool:
        return _timed(_sum(results()), start, began_s)


def _timed(summary: dict[str, Json], start: int, began_s: float) -> dict[str, Json]:
    seconds = perf_counter() - began_s
    rate = cast("int", summary["histories"]) / max(seconds, 1e-9)
    return {**summary, "seed": start, "seconds": round(seconds, 3), "histories_per_s": round(rate, 1)}


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


def explain(seed: int) -> tuple[str, str]:
    """Tell the history of a seed and, when it breaks a rule, the shortest scenario found that does, as a file; else ""."""
    drawn = scenarios.swarm(seed)
    result = simulate(seed, drawn)
    if not result.violations:
        return tell(result, drawn), ""
    least = shrink(result, drawn)
    broken = simulate(seed, least).violations
    rules = ", ".join(sorted({violation.rule for violation in broken}))
    text = render(least, seed, (str(violation) for violation in broken), (f"violates: [{rules}]",))
    return tell(result, drawn), text
