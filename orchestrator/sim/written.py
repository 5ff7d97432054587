"""Scenarios that people write: a small YAML file that reads aloud, and the same file made from a scenario.

Every mistake is told with the file, the line and the nearest valid word. docs of the language: scenarios/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from orchestrator.config import Doc, read_policy, read_yaml
from orchestrator.core.deploy_table import RunStatus
from orchestrator.core.policy import DeployPolicy, OnExpiry
from orchestrator.core.topology import Topology
from orchestrator.operations.outings import OVERRIDABLE
from orchestrator.sim.faults import STATE, Fault
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.result import Result
from orchestrator.sim.scenario import BRISK, Command, Cut, Hand, Scenario, Strike, Switching, make_topology
from orchestrator.sim.signals import SIGNALS, SignalTurn
from orchestrator.sim.truth import Behaviour, Blow, Physics

_TOP = ("service", "zones", "instances", "rps_per_instance", "load", "seed", "version", "policy", "physics")
_TIMES = ("deploy_at_s", "trouble_ends_s")
_KEYS = (*_TOP, *_TIMES, "attention", "reconciles", "chances", "calls", "full", "events", "expect")
_EXPECTED = ("status", "violates", "harmed_max", "ended_within_s")
_RULES = (*(f"I{number}" for number in range(1, 17)), "converges")
_NAMED_FAULTS = tuple(str(f) for f in Fault if f not in {Fault.CLOCK_JUMP, Fault.CUT_OFF, Fault.ONE_WAY})


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a history must come to. `violates`: exactly these rules are broken; `harmed_max`: requests of users."""

    status: str = ""
    violates: tuple[str, ...] = ()
    harmed_max: float | None = None
    ended_within_s: float | None = None

    def unmet(self, result: Result) -> list[str]:
        """Say what came otherwise; empty when all is as expected."""
        told = []
        if self.status and result.status != self.status:
            told.append(f"status: expected {self.status}, ended {result.status}")
        broken = tuple(sorted({violation.rule for violation in result.violations}))
        if broken != tuple(sorted(self.violates)):
            told.append(
                f"violates: expected {', '.join(self.violates) or 'nothing'}, got {', '.join(broken) or 'nothing'}"
            )
        harmed = sum(result.harmed.values())
        if self.harmed_max is not None and harmed > self.harmed_max:
            told.append(f"harmed_max: expected at most {self.harmed_max:g} requests, {harmed:.0f} were harmed")
        if self.ended_within_s is not None and result.ended_s > self.ended_within_s:
            told.append(f"ended_within_s: expected {self.ended_within_s:g} s, took {result.ended_s:.0f} s")
        return told


@dataclass(frozen=True, slots=True)
class Written:
    scenario: Scenario
    seed: int = 1
    expect: Expectation = field(default_factory=Expectation)


@dataclass(frozen=True, slots=True)
class _Form:
    """One kind of sentence. In `says`, ZONE, REGION, N, S (seconds) and the like stand for what a file gives."""

    says: str
    put: Callable[[float, Mapping[str, str]], tuple[str, object]]

    def match(self, sentence: str) -> dict[str, str] | None:
        pattern = " ".join(f"(?P<{word}>{_SLOTS[word]})" if word in _SLOTS else word for word in self.says.split())
        found = re.fullmatch(pattern, sentence)
        return found.groupdict() if found else None


_NUMBER = r"-?\d+(?:\.\d+)?"
_SLOTS = {
    "ZONE": r"\S+",
    "REGION": r"\S+",
    "SECONDS": _NUMBER,
    "NUMBER": _NUMBER,
    "VERSION": "v2|v3",
    "EXPIRY": "|".join(str(o) for o in OnExpiry),
    "RULES": "(?:{0})(?: and (?:{0}))*".format("|".join(re.escape(rule) for rule in OVERRIDABLE)),
    "SIGNAL": "|".join(SIGNALS),
    "SAID": "bad|unknown",
    "SWITCH": "freeze|kill",
    "STATE": "on|off",
}


def _blow(says: str, blow: Blow) -> _Form:
    def put(at_s: float, said: Mapping[str, str]) -> tuple[str, object]:
        hard = float(said["NUMBER"]) / 100 if "NUMBER" in said else 1.0
        return "strikes", Strike(at_s, said["ZONE"], blow, float(said["SECONDS"]), hard)

    return _Form(f"{says} for SECONDS s", put)


def _told(says: str, kind: str) -> _Form:
    return _Form(says, lambda at_s, said: ("commands", Command(at_s, kind, said.get("VERSION", "v3"))))


DRILLS = {"drill": "drain", "drill by evacuation": "evacuate", "drill every minute": "schedule"}


def _outing(says: str, kind: str) -> _Form:
    def put(at_s: float, said: Mapping[str, str]) -> tuple[str, object]:
        expiry = OnExpiry(said.get("EXPIRY", "hold"))
        lasts_s = float(said.get("SECONDS", 60.0))
        drill, kind_of_it = kind in DRILLS, DRILLS.get(kind, kind)
        return "zone_orders", ZoneOrder(at_s, kind_of_it, said["ZONE"], lasts_s, expiry, _rules(said), drill)

    return _Form(says, put)


def _cut(says: str, *, one_way: bool) -> _Form:
    return _Form(
        f"{says} for SECONDS s",
        lambda at_s, said: ("cuts", Cut(at_s, said["REGION"], float(said["SECONDS"]), one_way)),
    )


def _move(says: str, kind: str) -> _Form:
    def put(at_s: float, said: Mapping[str, str]) -> tuple[str, object]:
        return "region_orders", RegionOrder(at_s, kind, said["REGION"], _rules(said), float(said.get("SECONDS", 60.0)))

    return _Form(says, put)


def _rules(said: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(said["RULES"].split(" and ")) if "RULES" in said else ()


BLOWS = {
    Blow.DEAD: "kill zone ZONE",
    Blow.DARK: "darken zone ZONE",
    Blow.AGENT_CUT: "blind the agent to zone ZONE",
    Blow.GRAY: "fail NUMBER percent of zone ZONE",
    Blow.ONE: "lose one instance of zone ZONE",
    Blow.SLOW: "slow zone ZONE",
}
CUTS = {False: "cut off region REGION", True: "lose all answers of region REGION"}
STATE_AWAY = "lose the state"
DEATHS = {Fault.KILL_BEFORE: "kill the orchestrator", Fault.STALL: "stop the orchestrator for a while"}
_EXPIRING = "for SECONDS s then EXPIRY"
FORMS: tuple[_Form, ...] = (
    *(_blow(says, blow) for blow, says in BLOWS.items()),
    *(_cut(says, one_way=one_way) for one_way, says in CUTS.items()),
    _Form(f"{STATE_AWAY} for SECONDS s", lambda at_s, said: ("cuts", Cut(at_s, STATE, float(said["SECONDS"])))),
    _Form("load is NUMBER", lambda at_s, said: ("loads", (at_s, float(said["NUMBER"])))),
    _Form("the clock is SECONDS s off", lambda at_s, said: ("jumps", (at_s, float(said["SECONDS"])))),
    *(_Form(says, lambda at_s, _said, fault=fault: ("deaths", (at_s, fault))) for fault, says in DEATHS.items()),  # type: ignore[misc]
    _Form(
        "switch SWITCH STATE",
        lambda at_s, said: ("switches", Switching(at_s, said["SWITCH"], on=said["STATE"] == "on")),  # type: ignore[arg-type]
    ),
    *(_told(kind, kind) for kind in ("pause", "resume", "abort", "rollback", "suspend")),
    _told("retarget to VERSION", "retarget"),
    *(
        _outing(f"{kind} zone ZONE {tail}", kind)
        for kind in ("drain", "evacuate")
        for tail in ("for SECONDS s", _EXPIRING, f"{_EXPIRING} overriding RULES")
    ),
    *(_outing(f"{kind} zone ZONE for SECONDS s", kind) for kind in ("extend", *DRILLS)),
    *(
        _move(f"{kind} region REGION{tail}", kind)
        for kind in ("evacuate", "return", "resume")
        for tail in (("", " overriding RULES") if kind == "evacuate" else ("",))
    ),
    _move("drill region REGION for SECONDS s", "drill"),
    *(_outing(f"{kind} zone ZONE", kind) for kind in ("restore", "release", "pause", "resume", "abort")),
    _Form(
        "signal SIGNAL is SAID for SECONDS s",
        lambda at_s, said: ("signals", SignalTurn(at_s, said["SIGNAL"], said["SAID"], float(said["SECONDS"]))),  # type: ignore[arg-type]
    ),
    _Form("put zone ZONE in by hand", lambda at_s, said: ("hands", Hand(at_s, said["ZONE"]))),
    _Form(
        "take zone ZONE out by hand until SECONDS s",
        lambda _at_s, said: ("away", (said["ZONE"], float(said["SECONDS"]))),
    ),
)


def read_scenario(path: Path) -> Written:
    """Read one file. Raises Rejected (file, line, what is wrong, the nearest valid word) or NotFound."""
    doc = read_yaml(path)
    doc.only(_KEYS)
    topology = _topology(doc)
    scenario = Scenario(topology, doc.number("load", None, low=0.001, high=1e9))
    given: dict[str, Any] = {
        "physics": _plain(doc, "physics", Physics()),
        "target": _plain(doc, "version", Behaviour()),
    }
    if "policy" in doc.values:
        given["policy"] = _policy(doc.sub("policy"))
    if "chances" in doc.values:
        rates = doc.sub("chances")
        rates.only(_NAMED_FAULTS)
        given["rates"] = {Fault(key): rates.number(key, 0.0, low=0.0, high=1.0) for key in rates.values}
    if "calls" in doc.values:
        given["plan"] = _calls(doc.sub("calls"))
    if "full" in doc.values:
        given["full"] = tuple(_known(doc, "full", zone, _zones(topology)) for zone in _texts(doc, "full"))
    given |= {key: doc.number(key, getattr(scenario, key), low=0.0, high=86400.0) for key in _TIMES}
    given["reconciles"] = doc.flag("reconciles")
    given["attention"] = doc.number("attention", 0.0, low=0.0, high=1.0)
    seed = doc.number("seed", 1, low=0, high=2**53)
    return Written(replace(scenario, **given, **_events(doc, topology)), int(seed), _expectation(doc))


def _topology(doc: Doc) -> Topology:
    zones = doc.sub("zones")
    for region in zones.values:
        if not re.fullmatch(r"(aws|azure)/[a-z0-9-]+", region):
            zones.fail(region, f"a region is written aws/NAME or azure/NAME, not {region!r}")
    counts = {region: int(zones.number(region, 0, low=1, high=6)) for region in zones.values}
    if not counts:
        doc.fail("zones", "'zones' names no region: write `aws/us-east-1: 3`")
    instances = int(doc.number("instances", 3, low=1, high=100))
    topology = make_topology(
        counts, instances=instances, rps_per_instance=doc.number("rps_per_instance", 40.0, low=0.001, high=1e9)
    )
    return replace(topology, service=doc.text("service", topology.service))


def _zones(topology: Topology) -> list[str]:
    return [zone.id for zone in topology.zones()]


def _plain(doc: Doc, key: str, default: Any) -> Any:  # noqa: ANN401 - a Physics gives a Physics, a Behaviour one
    """A flat mapping onto the fields of a dataclass: numbers, and true or false where the default is that."""
    if key not in doc.values:
        return default
    sub = doc.sub(key)
    sub.only([f.name for f in fields(default)])
    given: dict[str, Any] = {}
    for name in sub.values:
        if isinstance(getattr(default, name), bool):
            given[name] = sub.flag(name)
        else:
            given[name] = sub.number(name, 0.0, low=0.0, high=1.0 if name.endswith("_share") else 86400.0)
    return replace(default, **given)


def _policy(doc: Doc) -> DeployPolicy:
    """The keys of failout.yaml; what is not given is brisk, so that a history takes minutes."""
    read = read_policy(doc)
    given = {key: getattr(read, key) for key in doc.values}
    if "gate" in given:
        given["gate"] = replace(BRISK.gate, **{key: getattr(read.gate, key) for key in doc.sub("gate").values})
    return replace(BRISK, **given)


def _calls(doc: Doc) -> dict[int, Fault]:
    plan: dict[int, Fault] = {}
    for key in doc.values:
        if not key.isdecimal() or int(key) < 1:
            doc.fail(key, f"'calls' counts the calls of the run from 1, 2, 3 on, not {key!r}")
        plan[int(key)] = Fault(_known(doc, key, doc.text(key), _NAMED_FAULTS))
    return plan


def _texts(doc: Doc, key: str) -> list[str]:
    value = doc.values[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        doc.fail(key, f"{key!r} must be a list of names, not {value!r}")
    return value


def _known(doc: Doc, key: str | None, name: str, known: Sequence[str]) -> str:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        doc.fail(key, f"there is no {name!r}; {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(known)}")
    return name


def _events(doc: Doc, topology: Topology) -> dict[str, Any]:
    items = doc.values.get("events", [])
    if not isinstance(items, list):
        doc.fail("events", "'events' must be a list of lines like `- at 30s: kill zone aws/us-east-1a for 40 s`")
    found: dict[str, list[Any]] = {}
    for item in items:
        if not isinstance(item, Doc) or len(item.values) != 1:
            (item if isinstance(item, Doc) else doc).fail(
                None if isinstance(item, Doc) else "events", "an event is one `at SECONDSs: what happens`"
            )
        name, thing = _event(item, topology)
        found.setdefault(name, []).append(thing)
    given: dict[str, Any] = {name: tuple(things) for name, things in found.items() if name != "away"}
    for orders in given.keys() & {"zone_orders", "region_orders"}:
        given[orders] = tuple(sorted(given[orders], key=lambda order: order.at_s))
    for zone, until_s in found.get("away", []):
        given |= {"away": zone, "away_until_s": until_s}
    return given


def _event(item: Doc, topology: Topology) -> tuple[str, object]:
    ((when, sentence),) = item.values.items()
    at = re.fullmatch(rf"at ({_NUMBER}) ?s", when)
    if at is None:
        item.fail(when, f"{when!r} is no time: write `at 30s: ...`")
    if not isinstance(sentence, str):
        item.fail(when, f"what happens must be a sentence, not {sentence!r}")
    sentence = " ".join(re.sub(r"(\d)s\b", r"\1 s", sentence).split())
    read = next(((form, said) for form in FORMS if (said := form.match(sentence)) is not None), None)
    if read is None:
        forms = [form.says for form in FORMS]
        near = get_close_matches(sentence, forms, n=1, cutoff=0.3)
        item.fail(when, f"{sentence!r} is nothing that can happen; did you mean `{near[0] if near else forms[0]}`?")
    form, said = read
    if form.says.startswith(BLOWS[Blow.GRAY]) and not 0 < float(said["NUMBER"]) <= 100:
        item.fail(when, f"of the requests more than 0 and at most 100 percent can fail, not {said['NUMBER']}")
    if "ZONE" in said:
        _known(item, when, said["ZONE"], _zones(topology))
    if "REGION" in said:
        _known(item, when, said["REGION"], [region.id for region in topology.regions])
    return form.put(float(at.group(1)), said)


def _expectation(doc: Doc) -> Expectation:
    if "expect" not in doc.values:
        return Expectation()
    sub = doc.sub("expect")
    sub.only(_EXPECTED)
    status = _known(sub, "status", sub.text("status"), [str(s) for s in RunStatus]) if "status" in sub.values else ""
    limits = {
        key: sub.number(key, 0.0, low=0.0, high=1e12) for key in ("harmed_max", "ended_within_s") if key in sub.values
    }
    violates = tuple(
        _known(sub, "violates", rule, _RULES) for rule in (_texts(sub, "violates") if "violates" in sub.values else ())
    )
    return Expectation(status, violates, **limits)
