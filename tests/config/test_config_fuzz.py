"""Whatever stands in a file, the parsers answer with a value or with one of our errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.config import read_release, read_settings, read_topology
from orchestrator.core.errors import FailoutError

SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = (
    "service state policy gate bake_s ramp_shares on_failure max_utilisation samples_min schema global regions zones id "
    "name weight instances attributes kind ttl_s record version images digest data checks synthetic_requests aws/us-east-1"
)
KEYS = st.sampled_from(WORDS.split()) | st.text(max_size=6)
TREE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)
READERS = (read_settings, read_topology, read_release)
TOPOLOGY: dict[str, Any] = {
    "schema": 1,
    "service": "gates",
    "global": {"kind": "route53", "ttl_s": 5, "record": "gates.lab.", "attributes": {"hosted_zone_id": "Z"}},
    "regions": [
        {
            "id": "aws/us-east-1",
            "cloud": "aws",
            "name": "us-east-1",
            "weight": 100,
            "agent_url": "http://127.0.0.1:9",
            "front": {},
            "zones": [
                {"id": "aws/us-east-1a", "name": "us-east-1a", "instances": 1, "instances_max": 2,
                 "rps_per_instance": 10, "fleet": {}},
            ],
        }
    ],
}  # fmt: skip


def answers(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        for read in READERS:
            told = refusal(read, path)
            assert told is None or (str(path) in told and "\n" not in told), "one line that names the file"


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except FailoutError as error:
        return str(error)
    return None


@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"a: &a [*a]")
@example(b"- " * 3000)
@example(b"[" * 3000)
@example(b"{" * 3000)
@example(b"? [a]\n: b")
@example(b"a: !!python/object:os.system x")
@example(b"a: !!binary x")
@example(b"a: 2026-99-99")
@example(b"service: !!timestamp nope")
@example(b"<<: 1")
@settings(max_examples=150, deadline=None)
def test_no_bytes_bring_a_parser_down(content: bytes) -> None:
    answers(content)


@given(TREE)
@settings(max_examples=150, deadline=None)
def test_no_tree_brings_a_parser_down(tree: Any) -> None:
    answers(json.dumps(tree).encode())
    answers(yaml.safe_dump(tree).encode())


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(p for key, value in inner for p in _places(value, (*path, key)))]


@given(st.sampled_from(_places(TOPOLOGY)[1:]), TREE)
@example(("regions", 0, "zones", 0, "instances"), float("inf"))
@example(("regions", 0, "weight"), float("nan"))
@example(("regions", 0, "zones", 0, "instances"), -1)
@settings(max_examples=200, deadline=None)
def test_no_value_in_any_place_of_a_topology_brings_the_parser_down(place: tuple[Any, ...], value: Any) -> None:
    changed = json.loads(json.dumps(TOPOLOGY))
    node = changed
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    answers(json.dumps(changed).encode())
