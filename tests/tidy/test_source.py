"""What the linters cannot know: which call is right where, and how long things may get. Each rule is seen to bite."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tidy.source import calls, dotted, functions, modules, text_of, texts, tracked

LINES_MAX, FUNCTION_LINES_MAX = 500, 60
# Longer than allowed, as they stand: a number here may only go down, and an entry that is no longer needed must go.
LONGER_FILES: dict[str, int] = {}
LONGER_FUNCTIONS: dict[str, int] = {
    "orchestrator/operations/telemetry.py::metrics": 67,
}

PURE = ("orchestrator/core/", "orchestrator/workflows/", "orchestrator/operations/")
VIRTUAL = (*PURE, "orchestrator/sim/")


@dataclass(frozen=True)
class Ban:
    """Calls that match `name` in files below `where` are wrong; `instead` is what to write. `example` must be caught."""

    name: str
    where: tuple[str, ...]
    instead: str
    example: str
    but: frozenset[str] = frozenset()


BANS = (
    Ban(
        r"(datetime\.)?datetime\.(now|utcnow|today)|time\.(time|time_ns|monotonic|monotonic_ns)",
        VIRTUAL,
        "take `now` as an argument, or ask the Clock port: the simulator runs this code in virtual time",
        "import time\ntime.time()",
    ),
    Ban(
        r"asyncio\.(sleep|wait_for|timeout|wait|create_task|to_thread)|time\.sleep",
        PURE,
        "wait with `job.wait`, `job.until` or `clock.sleep`, which a person's order and virtual time can end",
        "from asyncio import sleep\nsleep(1)",
        # The recorder runs beside a run, and doctor, proof and backup read files: neither is ever simulated.
        frozenset({"orchestrator/operations/recording.py", "orchestrator/operations/checks.py"}),
    ),
    Ban(
        r"(random|uuid|secrets)\..*|os\.urandom",
        PURE,
        "take randomness and ids as arguments, so that a run can be repeated",
        "import uuid\nuuid.uuid4()",
    ),
    Ban(
        r"random\.(?!Random$|SystemRandom$).*",
        ("orchestrator/", "tests/", "benchmarks/"),
        "use `random.Random(seed)` and print the seed",
        "import random\nrandom.choice([1])",
        # Any free address block will do there, and two test runs on one machine must not choose alike.
        frozenset({"tests/contract/agent_rig.py", "tests/lab/dataplane_world.py"}),
    ),
    Ban(r"print", ("orchestrator/",), "use click.echo in cli/, a log line elsewhere", "print(1)"),
    Ban(
        r"(pickle|marshal|shelve)\..*|eval|exec|os\.(system|popen)|yaml\.(load|unsafe_load|full_load)",
        ("orchestrator/", "tests/", "docs/", "benchmarks/"),
        "JSON for data, yaml.safe_load or yaml.compose for people's files, subprocess with a list for programs",
        "import pickle\npickle.loads(b'')",
        frozenset({"tests/engine/test_runtime.py"}),  # plants a pickle, to see that nobody unpickles it
    ),
    Ban(
        r"(requests|urllib\.request|http\.client)\..*",
        tuple(f"orchestrator/{p}/" for p in ("agent", "cli", "clouds", "core", "engine", "notify", "operations", "workflows")),
        "use httpx with a timeout, or the agent's Wire inside a region",
        "import urllib.request\nurllib.request.urlopen('x')",
    ),
    Ban(
        r"os\.(environ\.get|getenv)",
        tuple(f"orchestrator/{p}" for p in ("agent/", "clouds/", "config.py", "core/", "engine/", "operations/", "workflows/")),
        "settings come from failout.yaml through config.py, or from an option of the command",
        "import os\nos.environ.get('X')",
    ),
    Ban(
        r"unittest\.mock\..*|mock\..*|~mocker\..*",
        ("tests/",),
        "pass a fake that passes the port's contract suite",
        "from unittest import mock\nmock.Mock()",
    ),
    Ban(
        r"~monkeypatch\.setattr",
        ("tests/",),
        "pass a fake that passes the port's contract suite",
        "monkeypatch.setattr(a, 'b', c)",
        # These break the shipped code on purpose, to see that the suite notices, or the stand-in's own reply.
        frozenset(
            {
                "tests/core/test_deploy_explored.py",
                "tests/lab/test_arm_faults.py",
                "tests/simulation/mutations.py",
                "tests/simulation/test_outages_of_others.py",
            }
        ),
    ),
    Ban(
        r"time\.sleep",
        ("tests/clouds/", "tests/core/", "tests/simulation/", "tests/tidy/", "tests/workflows/"),
        "use virtual time; only tests of real processes poll, with a deadline",
        "import time\ntime.sleep(1)",
    ),
)  # fmt: skip


def breaches(ban: Ban, module: ast.Module) -> list[int]:
    wanted = re.compile(ban.name)
    return [line for line, name in calls(module) if wanted.fullmatch(name)]


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: ban.instead[:48])
def test_a_banned_call_names_its_replacement(ban: Ban) -> None:
    assert breaches(ban, ast.parse(ban.example)), "the rule does not bite its own example"
    found = [
        f"{path}:{line}: {ban.instead}"
        for path, module in modules(*ban.where)
        if path not in ban.but
        for line in breaches(ban, module)
    ]
    assert [] == found


@pytest.mark.parametrize("ban", [b for b in BANS if b.but], ids=lambda ban: ban.instead[:48])
def test_an_exception_that_is_no_longer_needed_is_taken_off_the_list(ban: Ban) -> None:
    needed = {path for path, module in modules(*ban.where) if path in ban.but and breaches(ban, module)}
    assert ban.but == needed


def _swallows(module: ast.Module) -> Iterator[int]:
    """`except Exception: pass`, bare or `BaseException` alike; also `continue` and `...`."""
    for node in ast.walk(module):
        if isinstance(node, ast.ExceptHandler):
            caught = {dotted(t) for t in getattr(node.type, "elts", [node.type]) if t} or {"BaseException"}
            empty = all(
                isinstance(s, ast.Pass | ast.Continue)
                or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
                for s in node.body
            )
            if empty and caught & {"Exception", "BaseException"}:
                yield node.lineno
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("suppress"):
            yield from (node.lineno for a in node.args if dotted(a) in {"Exception", "BaseException"})


def test_no_error_is_swallowed_whole() -> None:
    """Name the error that is expected, and what it means."""
    for bad in ("try: f()\nexcept Exception: pass", "with contextlib.suppress(Exception): f()"):
        assert list(_swallows(ast.parse(bad)))
    assert [] == [f"{path}:{line}" for path, module in modules() for line in _swallows(module)]


def test_files_and_functions_stay_short() -> None:
    files = {p: n for p in tracked() if p.endswith(".py") and (n := text_of(p).count("\n")) > LINES_MAX}
    long = {
        f"{path}::{f.name}": lines
        for path, module in modules()
        for f in functions(module)
        if (lines := (f.end_lineno or f.lineno) - f.lineno + 1) > FUNCTION_LINES_MAX
    }
    for allowed, found, most in ((LONGER_FILES, files, LINES_MAX), (LONGER_FUNCTIONS, long, FUNCTION_LINES_MAX)):
        grown = {name: lines for name, lines in found.items() if lines > allowed.get(name, most)}
        assert {} == grown, f"split what grew beyond {most} lines"
        assert allowed.keys() <= found.keys(), "take what is short now off the list"


# Spelt in two parts, so that this file does not match itself.
WORDS = {
    r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b": "do it, or file an issue",
    r"(py" + r"pi\.org|pythonhosted\." + r"org|regi" + r"stry\.(npmjs|yarnpkg))": "no registry is named in this repository",
    r"(?<![\w.:])/(wo" + r"rk|ho" + r"me|ro" + r"ot|Us" + r"ers)/(?!ops/)\w": "a path of somebody's machine",
}  # fmt: skip
SAMPLES = {0: "TO" + "DO: x", 1: "https://py" + "pi.org/x", 2: "see /ho" + "me/someone/x"}


@pytest.mark.parametrize("number", range(len(WORDS)))
def test_no_tracked_file_holds_words_that_do_not_belong(number: int) -> None:
    pattern, why = list(WORDS.items())[number]
    wanted = re.compile(pattern)
    assert wanted.search(SAMPLES[number])
    found = [
        f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {hit.group()}: {why}"
        for path, text in texts()
        for hit in wanted.finditer(text)
    ]
    assert [] == found


def test_every_silenced_check_names_which_one() -> None:
    """`# noqa: X123` and `# type: ignore[code]`: a blanket hides the next mistake too."""
    blanket = re.compile(r"#\s*(noqa(?!: ?[A-Z]+\d)|type:\s*ignore(?!\[))\b")
    assert blanket.search("x  # no" + "qa")
    assert blanket.search("x  # type:" + " ignore")
    others = [(path, text) for path, text in texts() if path.endswith(".py") and path != "tests/tidy/test_source.py"]
    assert [] == [path for path, text in others if blanket.search(text)]


def test_no_two_test_modules_share_a_name() -> None:
    """Test folders have no __init__, so that a second module of one name would hide the first."""
    names = Counter(path.rpartition("/")[2] for path in tracked() if re.search(r"^tests/.*/test_\w+\.py$", path))
    twice = sorted(name for name, count in names.items() if count > 1)
    assert [] == twice
