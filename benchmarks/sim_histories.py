"""How many simulated histories a core carries in a minute: plain six-zone deploys, and what the swarm draws.

`python benchmarks/sim_histories.py [--repeat 5]`. One process, processor time. The yardstick is a loop of plain Python in
the same run: histories per million of its turns compares machines, and a busy machine with itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time

from orchestrator.sim.run import simulate
from orchestrator.sim.scenario import good_deploy

HISTORIES = 12
TURNS = 1_000_000


def plain() -> int:
    scenario = good_deploy()
    return sum(len(simulate(seed, scenario).trace) for seed in range(HISTORIES))


def swarm() -> int:
    return sum(len(simulate(seed).trace) for seed in range(HISTORIES))


def yardstick() -> int:
    counts: dict[int, int] = {}
    for turn in range(TURNS):
        counts[turn & 255] = counts.get(turn & 255, 0) + 1
    return len(counts)


def best_s(work: Callable[[], int], repeat: int) -> float:
    def once() -> float:
        began_s = process_time()
        work()
        return process_time() - began_s

    return min(once() for _ in range(repeat))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--repeat", type=int, default=5)
    repeat = arguments.parse_args().repeat
    simulate(0, good_deploy())  # what is read once, is read
    turns_s = best_s(yardstick, repeat)
    print("histories        a second   a core-minute   for a million turns of the yardstick")
    for name, work in (("plain deploy", plain), ("swarm", swarm)):
        seconds = best_s(work, repeat) / HISTORIES
        print(f"{name:<16} {1 / seconds:8.1f} {60 / seconds:15.0f} {turns_s / seconds:12.2f}")


if __name__ == "__main__":
    main()
