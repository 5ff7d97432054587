"""Which files begin first where workers share them (`--dist loadfile`)."""

from __future__ import annotations

from pathlib import Path

import pytest

# Files that wait for a lab, or explore all there is. xdist begins with those that have many tests; of these, one that
# begins last is waited for alone. Whole commands against a lab alternate with pure work: a core has something to do.
LONGEST = (
    "cli/test_cli_people.py",
    "core/test_deploy_explored.py",
    "cli/test_cli_outputs.py",
    "simulation/test_swarm.py",
    "contract/test_killed_deploys.py",
    "cli/test_cli_drills.py",
    "contract/test_aws_contract.py",
    "cli/test_cli_described.py",
    "contract/test_aws_adapters.py",
    "cli/test_cli_switches.py",
    "config/test_config_fuzz.py",
    "cli/test_cli_edges.py",
    "e2e/test_deploy.py",
    "e2e/test_drills.py",
    "e2e/test_zones_by_hand.py",
    "e2e/test_demo.py",
    "lab/test_dataplane_fronts.py",
    "contract/test_takeover.py",
    "lab/test_dataplane_orders.py",
    "lab/test_azure_adapters_lab.py",
    "lab/test_traffic.py",
    "lab/test_aws_adapters_lab.py",
    "infra/test_lab.py",
)
ORDER = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if gone := [path.name for path in ORDER if not path.is_file()]:
        raise pytest.UsageError(f"tests/conftest.py orders files that are gone: {', '.join(gone)}")
    items.sort(key=lambda item: ORDER.get(item.path, len(ORDER)))
