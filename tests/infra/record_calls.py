"""Record which calls the adapters make: `python tests/infra/record_calls.py LAB_FOLDER > tests/infra/recorded_calls.json`.

Run it on a lab that has been up and deployed to (`failout lab up`, `failout deploy --to v2 --yes`). What the lab itself
called to provision came before lab.json was written and is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def recorded(folder: Path) -> dict[str, list[str]]:
    since = (folder / "lab.json").stat().st_mtime
    calls: dict[str, set[str]] = {"aws": set(), "azure": set()}
    with (folder / "timeline.jsonl").open() as timeline:
        for line in timeline:
            event = json.loads(line)
            if event["kind"] == "api" and event["t"] > since:
                calls[event["cloud"]].add(event["call"])
    return {cloud: sorted(found) for cloud, found in calls.items()}


if __name__ == "__main__":
    json.dump(recorded(Path(sys.argv[1])), sys.stdout, indent=1)
