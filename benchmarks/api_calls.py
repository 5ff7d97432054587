"""How many API calls a deploy sends to each cloud per zone: `python benchmarks/api_calls.py .failout/demo/NAME`.

Counts the `api` lines of the lab's timeline between the deploy's start and its end, retries included: what the cloud was
sent, not what the client meant. Prints Markdown; benchmarks/README.md keeps the last result.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# What changes something; the rest are reads.
WRITES = (
    "Create",
    "Modify",
    "Detach",
    "Attach",
    "Suspend",
    "Resume",
    "Start",
    "Update",
    "Set",
    "Change",
    "Put",
    "Cancel",
)


@dataclass(frozen=True, slots=True)
class Counted:
    """`busiest`: the most calls in any one second."""

    zones: int
    reads: Mapping[str, int]
    writes: Mapping[str, int]
    errors: int
    busiest: int


def api_lines(timeline: Path, begin: float, end: float) -> Iterator[Mapping[str, object]]:
    with timeline.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["kind"] == "api" and begin <= entry["t"] <= end:
                yield entry


def count(entries: Iterable[Mapping[str, object]], zones: Sequence[str]) -> dict[str, Counted]:
    """Per cloud that has one of `zones`."""
    calls: dict[str, Counter[str]] = {}
    errors: Counter[str] = Counter()
    seconds: dict[str, Counter[int]] = {}
    for entry in entries:
        cloud = str(entry["cloud"])
        calls.setdefault(cloud, Counter())[str(entry["call"])] += 1
        seconds.setdefault(cloud, Counter())[int(float(str(entry["t"])))] += 1
        errors[cloud] += int(str(entry["status"])) >= 400
    of = Counter(zone.partition("/")[0] for zone in zones)
    return {
        cloud: Counted(
            of[cloud],
            {call: n for call, n in calls[cloud].items() if not _writes(call)},
            {call: n for call, n in calls[cloud].items() if _writes(call)},
            errors[cloud],
            max(seconds[cloud].values()),
        )
        for cloud in sorted(calls)
        if of[cloud]
    }


def _writes(call: str) -> bool:
    return any(word.startswith(WRITES) for word in call.replace(".", "_").split("_")[1:])


def markdown(counted: Mapping[str, Counted]) -> str:
    lines = [
        "| cloud | zones | reads a zone | writes a zone | errors | busiest second |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for cloud, c in counted.items():
        reads, writes = sum(c.reads.values()) / c.zones, sum(c.writes.values()) / c.zones
        lines.append(f"| {cloud} | {c.zones} | {reads:.0f} | {writes:.1f} | {c.errors} | {c.busiest} |")
    lines += ["", "| call | a zone |", "|---|---:|"]
    for cloud, c in counted.items():
        every = Counter(c.reads) + Counter(c.writes)
        lines += [f"| {cloud} {call} | {n / c.zones:.1f} |" for call, n in every.most_common()]
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    report = json.loads((folder / "report.json").read_text("utf-8"))
    begin, end = (datetime.fromisoformat(report["deploy"][key]).timestamp() for key in ("started", "ended"))
    zones = [zone["id"] for zone in report["zones"]]
    print(markdown(count(api_lines(folder / "lab" / "timeline.jsonl", begin, end), zones)))


if __name__ == "__main__":
    main()
