from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from e2e.cases import Case, in_words, write

# As on anybody's machine: without it every process of a lab compiles a second's worth of modules at its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
REPORT = pytest.StashKey[bool]()
WHY = pytest.StashKey[str]()


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """The row of docs/cases.md that this test writes."""
    row = Case(request.node.name)
    yield row
    row.passed, row.why = request.node.stash.get(REPORT, False), request.node.stash.get(WHY, "")
    write(row)


@pytest.fixture
def passed(request: pytest.FixtureRequest) -> Callable[[], bool]:
    """For the teardown of a fixture: whether the test has passed."""
    return lambda: request.node.stash.get(REPORT, False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if call.when == "call":
        item.stash[REPORT] = report.passed
        item.stash[WHY] = in_words(str(call.excinfo.value)) if call.excinfo else ""
    return report
