"""The programs live beside the package and are not installed: Pulumi starts them where they are.

Their SDKs have an environment of their own: elsewhere nothing here is collected, and a line says so.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
HERE = all(importlib.util.find_spec(name) for name in ("pulumi", "pulumi_aws", "pulumi_azure_native"))
collect_ignore_glob = [] if HERE else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    # pulumi-aws warns about its own modules as it loads them.
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:pulumi_aws.*")


def pytest_report_header() -> str | None:
    return None if HERE else "tests/infra: not here; `make test-infra` runs them in an environment with Pulumi's SDKs"
