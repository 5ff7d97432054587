"""How long `failout --help` and `failout status` take, from process start to end: `python benchmarks/startup.py`.

Goals: help under 0.2 s, status under 0.5 s on an idle machine. Prints the median and the best of RUNS, JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

RUNS = 9


def seconds(*args: str) -> list[float]:
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "orchestrator.cli", *args], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    """`status` reads the state named by --config FILE where one is given, else an empty one."""
    with TemporaryDirectory() as folder:
        config = Path(folder) / "failout.yaml"
        config.write_text("service: gates\n", "utf-8")
        given = sys.argv[2] if sys.argv[1:2] == ["--config"] else str(config)
        commands = {"help": ["--help"], "deploy help": ["deploy", "--help"], "status": ["status", "--config", given]}
        found = {name: seconds(*args) for name, args in commands.items()}
    told = {n: {"median_s": round(statistics.median(t), 3), "best_s": round(min(t), 3)} for n, t in found.items()}
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
