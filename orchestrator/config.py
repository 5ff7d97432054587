"""Reads failout.yaml, the topology document and release manifests: once, strictly, into frozen values.

Unknown keys fail with the file, the line and the nearest valid key. Durations are seconds, shares 0..1.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from orchestrator.core.drill import DrillPolicy
from orchestrator.core.errors import NotFound, Rejected
from orchestrator.core.health import GatePolicy
from orchestrator.core.policy import DeployPolicy, OnExpiry, OnFailure
from orchestrator.core.release import Image, Release
from orchestrator.core.signal import KEYS, LabTraffic, SignalSpec, parse_signal
from orchestrator.core.standing import Objective
from orchestrator.core.topology import GlobalTier, Region, Topology, Zone

TOPOLOGY_SCHEMA: Final = 1
CLOUDS: Final = ("aws", "azure")


@dataclass(frozen=True, slots=True)
class Settings:
    """failout.yaml. Paths are absolute; `database` is a PostgreSQL URL or None for the embedded file in `state`."""

    path: Path
    service: str
    topology: Path
    releases: Path
    state: Path
    agent_token_file: Path
    policy: DeployPolicy
    objective: Objective = field(default_factory=Objective)
    database: str | None = None
    drills: DrillPolicy = field(default_factory=DrillPolicy)
    signals: Mapping[str, SignalSpec] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Doc:
    """A mapping of a YAML file with the line that each key stands on."""

    file: Path
    where: str
    line: int
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def fail(self, key: str | None, why: str) -> NoReturn:
        line = self.lines.get(key, self.line) if key else self.line
        raise Rejected(f"{self.file}:{line}: {why}")

    def only(self, known: Sequence[str]) -> None:
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                self.fail(key, f"unknown key {key!r} in {self.where}; {hint}")

    def _given(self, key: str, default: object) -> object:
        if key not in self.values and default is None:
            self.fail(None, f"{key!r} is missing in {self.where}")
        return self.values.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._given(key, default)
        if not isinstance(value, str) or not value:
            self.fail(key, f"{key!r} in {self.where} must be a text, not {value!r}")
        return value

    def number(self, key: str, default: float | None, *, low: float, high: float) -> float:
        value = self._given(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.fail(key, f"{key!r} in {self.where} must be a number from {low:g} to {high:g}, not {value!r}")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"{key!r} in {self.where} must be true or false, not {value!r}")
        return value

    def sub(self, key: str) -> Doc:
        value = self._given(key, None)
        if not isinstance(value, Doc):
            self.fail(key, f"{key!r} in {self.where} must be a mapping")
        return value


def read_yaml(path: Path) -> Doc:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"{path} cannot be read: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        doc = _value(path, path.name, node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Rejected(f"{path}:{line}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        # PyYAML meets a tag that does not fit its value ("!!bool x") with whatever its constructor stumbles over.
        raise Rejected(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(doc, Doc):
        raise Rejected(f"{path}:1: a mapping of keys is expected")
    return doc


def _value(path: Path, where: str, node: yaml.Node | None) -> Any:  # noqa: ANN401 - what YAML gives
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in values:
                raise Rejected(f"{path}:{line}: key {key!r} stands twice in {where}")
            values[key], lines[key] = _value(path, key, value_node), line
        return Doc(path, where, node.start_mark.line + 1, values, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(path, where, item) for item in node.value]
    loader = yaml.SafeLoader("")
    return loader.construct_object(node) if node is not None else None


# ---- failout.yaml

_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "max_utilisation": (0.05, 1.0),
    "bake_first_factor": (1.0, 100.0),
    "synthetic_failed_share_max": (0.0, 1.0),
    "error_share_max": (0.0, 1.0),
    "slow_share_max": (0.0, 1.0),
    "samples_min": (1, 1_000_000),
    "errors_min": (1, 1_000_000),
    "slow_min": (1, 1_000_000),
}
_SECONDS: Final = (0.0, 7 * 86400.0)


def read_settings(path: Path) -> Settings:
    """Read failout.yaml; paths in it are relative to it. Raises Rejected (what, which line) or NotFound."""
    doc = read_yaml(path)
    doc.only(
        [
            "service",
            "topology",
            "releases",
            "state",
            "database",
            "agent_token_file",
            "policy",
            "objective",
            "drills",
            "signals",
        ]
    )
    here = path.resolve().parent
    policy = read_policy(doc.sub("policy")) if "policy" in doc.values else DeployPolicy()
    signals = _read_signals(doc.sub("signals")) if "signals" in doc.values else {}
    return Settings(
        path=path.resolve(),
        service=doc.text("service"),
        topology=here / doc.text("topology", "topology.json"),
        releases=here / doc.text("releases", "releases"),
        state=here / _folder(doc),
        agent_token_file=here / doc.text("agent_token_file", "agent.token"),
        policy=policy,
        objective=_read_objective(doc.sub("objective")) if "objective" in doc.values else Objective(),
        database=_database(doc) if "database" in doc.values else None,
        drills=_read_drills(doc.sub("drills"), signals) if "drills" in doc.values else DrillPolicy(),
        signals=signals,
    )


def _folder(doc: Doc) -> str:
    text = doc.text("state", ".failout")
    if "://" in text:
        doc.fail("state", "'state' in failout.yaml is a folder of files; a PostgreSQL URL is its 'database'")
    return text


def _database(doc: Doc) -> str:
    try:
        return database_url(doc.text("database"))
    except ValueError as error:
        doc.fail("database", f"'database' in {doc.where} {error}")


def database_url(text: str) -> str:
    """Return the URL of a PostgreSQL database as given. Raise ValueError for anything else: it would name a new, empty folder.

    Of what is wrong only the beginning is told: a password may follow.
    """
    if text.startswith(("postgresql://", "postgres://")):
        return text
    begins = re.match(r"[\w.+-]*:?/{0,2}", text)
    told = begins.group() if begins else ""
    raise ValueError(
        f"is a PostgreSQL URL such as postgresql://failout@HOST/failout, and begins with postgresql:// or postgres://, "
        f"not with {told!r}; a folder of files is 'state'"
    )


def read_policy(doc: Doc) -> DeployPolicy:
    doc.only([f.name for f in fields(DeployPolicy)])
    given: dict[str, Any] = {}
    for key in doc.values:
        match key:
            case "gate":
                given[key] = _read_gate(doc.sub(key))
            case "on_failure":
                given[key] = OnFailure(_one_of(doc, key, [str(o) for o in OnFailure]))
            case "on_expiry":
                given[key] = OnExpiry(_one_of(doc, key, [str(o) for o in OnExpiry]))
            case "scale_survivors":
                given[key] = doc.flag(key)
            case "ramp_shares":
                given[key] = _shares(doc, key)
            case _:
                given[key] = _limited(doc, key)
    return DeployPolicy(**given)


def _limited(doc: Doc, key: str) -> float:
    low, high = _LIMITS.get(key, _SECONDS)
    return doc.number(key, 0.0, low=low, high=high)


def _read_gate(doc: Doc) -> GatePolicy:
    known = {f.name: f for f in fields(GatePolicy)}
    doc.only(list(known))
    given: dict[str, Any] = {}
    for key in doc.values:
        value = _limited(doc, key)
        given[key] = int(value) if isinstance(known[key].default, int) else value
    return GatePolicy(**given)


_OBJECTIVE_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "age_days_max": (0.01, 3650.0),
    "load_share_min": (0.0, 1.0),
    "failed_share_max": (0.0, 1.0),
    "peak_rps": (0.001, 1e9),
}


def _read_objective(doc: Doc) -> Objective:
    doc.only(list(_OBJECTIVE_LIMITS))
    given: dict[str, Any] = {}
    for key in doc.values:
        low, high = _OBJECTIVE_LIMITS[key]
        given[key] = float(doc.number(key, 0.0, low=low, high=high))
    return Objective(**given)


_DRILL_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "duration_s": (1.0, 15 * 86400.0),
    "read_every_s": (0.5, 300.0),
    "unknown_max_s": (1.0, 3600.0),
}


def _read_drills(doc: Doc, known: Mapping[str, SignalSpec]) -> DrillPolicy:
    signals = ("outcome_signals", "blocking_signals")
    doc.only([*signals, *_DRILL_LIMITS])
    given: dict[str, Any] = {name: _names(doc, name, known) for name in signals if name in doc.values}
    for key, (low, high) in _DRILL_LIMITS.items():
        if key in doc.values:
            given[key] = float(doc.number(key, 0.0, low=low, high=high))
    return DrillPolicy(**given)


def _names(doc: Doc, key: str, known: Mapping[str, SignalSpec]) -> tuple[str, ...]:
    value = doc.values[key]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        doc.fail(key, f"{key!r} in {doc.where} must be a list of names, not {value!r}")
    for name in value:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"under signals: {', '.join(known) or 'nothing'}"
            doc.fail(key, f"there is no signal {name!r}; {hint}")
    return tuple(value)


def _read_signals(doc: Doc) -> dict[str, SignalSpec]:
    found: dict[str, SignalSpec] = {}
    for name in doc.values:
        signal = doc.sub(name)
        kind = _one_of(signal, "kind", list(KEYS))
        signal.only(["kind", *KEYS[kind]])
        try:
            spec = parse_signal(name, signal.values)
            if isinstance(spec, LabTraffic):  # as every path in this file
                spec = replace(spec, folder=str(doc.file.resolve().parent / spec.folder))
            found[name] = spec
        except Rejected as wrong:
            signal.fail(next((k for k in signal.values if f"'{k}'" in str(wrong)), None), str(wrong))
    return found


def _one_of(doc: Doc, key: str, known: Sequence[str]) -> str:
    value = doc.text(key)
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
        doc.fail(key, f"{key!r} is {value!r}; {hint}")
    return value


def _shares(doc: Doc, key: str) -> tuple[float, ...]:
    value = doc.values[key]
    good = isinstance(value, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and 0 < v <= 1 for v in value
    )
    if not good or not value or sorted(value) != value or value[-1] != 1:
        doc.fail(key, f"{key!r} must be growing shares that end with 1, such as [0.1, 0.5, 1.0], not {value!r}")
    return tuple(float(v) for v in value)


# ---- the topology document


def read_topology(path: Path, service: str | None = None) -> Topology:
    """Read the `topology` output of the Pulumi programs or of `failout lab up`. Raises Rejected or NotFound."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"there is no topology at {path}; `failout topology import` writes it for a service, `failout lab up` for a lab; "
            "failout.yaml may name another place (`failout init` shows how)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise Rejected(f"{path} is no topology document: {error}") from None
    try:
        topology = parse_topology(data)
    except KeyError as error:
        raise Rejected(f"{path} is no topology document of schema {TOPOLOGY_SCHEMA}: {error} is missing") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise Rejected(f"{path} is no topology document of schema {TOPOLOGY_SCHEMA}: {error}") from None
    if service is not None and topology.service != service:
        raise Rejected(f"{path} describes service {topology.service!r}, not {service!r}")
    return topology


def parse_topology(data: Mapping[str, Any]) -> Topology:
    """Raises KeyError, TypeError, ValueError or OverflowError for anything but a topology document of our schema."""
    if not isinstance(data, dict):
        raise TypeError(f"an object is expected, not {type(data).__name__}")
    if data.get("schema") != TOPOLOGY_SCHEMA:
        raise ValueError(f"schema is {data.get('schema')!r}")
    _only(data, "schema service global regions", "the document")
    tier = data["global"]
    _only(tier, "kind ttl_s record attributes api", "'global'")
    regions = tuple(_region(r) for r in data["regions"])
    ids = [z.id for r in regions for z in r.zones]
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f"zones must be some, and each named once: {ids}")
    return Topology(
        service=str(data["service"]),
        regions=regions,
        global_tier=GlobalTier(
            str(tier["kind"]),
            _number(tier, "ttl_s"),
            str(tier["record"]),
            dict(tier["attributes"]),
            dict(tier.get("api", {})),
        ),
    )


def _number(data: Mapping[str, Any], key: str) -> float:
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise ValueError(f"{key!r} must be a number, 0 or more, not {value!r}")
    return float(value)


def _only(data: Mapping[str, Any], known: str, where: str) -> None:
    """As schemas/topology.json has it."""
    for key in data:
        if key not in known.split():
            near = difflib.get_close_matches(str(key), known.split(), n=1)
            raise ValueError(
                f"unknown key {key!r} in {where}; {f'did you mean {near[0]!r}?' if near else f'it has {known}'}"
            )


def _region(data: Mapping[str, Any]) -> Region:
    cloud, name = str(data["cloud"]), str(data["name"])
    _only(data, "id cloud name weight agent_url front api zones", f"region {data['id']}")
    if cloud not in CLOUDS:
        raise ValueError(f"region {data['id']} is of cloud {cloud!r}; there are {' and '.join(CLOUDS)}")
    for z in data["zones"]:
        _only(z, "id name instances instances_max rps_per_instance fleet", f"zone {z['id']}")
        if _number(z, "instances") > _number(z, "instances_max"):
            raise ValueError(
                f"zone {z['id']} has {z['instances']} instances, more than its instances_max {z['instances_max']}"
            )
    zones = tuple(
        Zone(
            id=str(z["id"]),
            cloud=cloud,
            region=str(data["id"]),
            name=str(z["name"]),
            instances=int(_number(z, "instances")),
            instances_max=int(_number(z, "instances_max")),
            rps_per_instance=_number(z, "rps_per_instance"),
            fleet=dict(z["fleet"]),
        )
        for z in data["zones"]
    )
    return Region(
        id=str(data["id"]),
        cloud=cloud,
        name=name,
        weight=int(_number(data, "weight")),
        zones=zones,
        agent_url=str(data["agent_url"]),
        front=dict(data["front"]),
        api=dict(data.get("api", {})),
    )


# ---- release manifests


def read_release(path: Path) -> Release:
    """Read one manifest. Raises Rejected with the line, or NotFound."""
    doc = read_yaml(path)
    doc.only(["version", "images", "checks"])
    images = []
    for region in doc.sub("images").values:
        image = doc.sub("images").sub(region)
        image.only(["digest", "data"])
        data = image.sub("data")
        images.append(Image(region, image.text("digest"), {k: data.text(k) for k in data.values}))
    synthetic = 1000.0
    if "checks" in doc.values:
        checks = doc.sub("checks")
        checks.only(["synthetic_requests"])
        synthetic = checks.number("synthetic_requests", 1000, low=1, high=1_000_000)
    return Release(doc.text("version"), tuple(images), int(synthetic))


class ReleaseFolder:
    """Manifests in a folder, `VERSION.yaml` each; read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def versions(self) -> list[str]:
        return sorted(p.stem for p in self._folder.glob("*.yaml"))

    def get(self, version: str) -> Release:
        path = self._folder / f"{version}.yaml"
        if "/" in version or version.startswith(".") or not path.is_file():
            near = difflib.get_close_matches(version, self.versions(), n=1)
            known = ", ".join(self.versions()) or "none"
            hint = f"did you mean {near[0]!r}?" if near else f"known: {known}"
            raise NotFound(f"there is no release {version!r} in {self._folder}; {hint}")
        release = read_release(path)
        if release.version != version:
            raise Rejected(f"{path} is the manifest of version {release.version!r}, not {version!r}")
        return release
