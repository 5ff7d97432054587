"""From a history that breaks a rule to the shortest found that still breaks it, told as a scenario file.

Delta debugging (Zeller and Hildebrandt, 2002): drop halves, then quarters, down to single faults and orders. What is
left is one minimum, not the only one: dropping any single line of it makes the violation go away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from orchestrator.core.policy import DeployPolicy
from orchestrator.sim.faults import STATE, Fault
from orchestrator.sim.history import History
from orchestrator.sim.moves import RegionOrder
from orchestrator.sim.outings import ZoneOrder
from orchestrator.sim.result import Result
from orchestrator.sim.scenario import BRISK, Cut, Scenario, Strike
from orchestrator.sim.truth import WELL, Blow, Physics
from orchestrator.sim.written import BLOWS, CUTS, DEATHS, DRILLS, STATE_AWAY

_LISTS = (
    "strikes",
    "hands",
    "commands",
    "loads",
    "switches",
    "zone_orders",
    "region_orders",
    "signals",
    "cuts",
    "jumps",
    "deaths",
    "full",
)
Atom = tuple[str, Any]


@dataclass(slots=True)
class _Trial:
    """Runs candidates, up to `left` of them; one that breaks any of `rules` is as bad as the first."""

    seed: int
    rules: frozenset[str]
    left: int

    def fails(self, scenario: Scenario) -> bool:
        if self.left <= 0:
            return False
        self.left -= 1
        result = History(self.seed, scenario).go()
        return not self.rules.isdisjoint(violation.rule for violation in result.violations)


def shrink(result: Result, scenario: Scenario, trials: int = 150) -> Scenario:
    """Return the smallest scenario found that breaks a rule which `result` of `scenario` broke.

    Chances become the faults that were drawn, by number of call, and what watchers said stands with its time. Without a
    violation the scenario comes back as it is.
    """
    trial = _Trial(result.seed, frozenset(violation.rule for violation in result.violations), trials)
    placed = _placed(scenario, result)
    if not trial.rules or not trial.fails(placed):
        return scenario
    atoms = _least(_atoms(placed), lambda kept: trial.fails(_with(placed, kept)))
    least = _with(placed, atoms)
    for simpler in (
        {"physics": Physics()},
        {"policy": BRISK},
        {"target": WELL},
    ):
        candidate = replace(least, **simpler)
        if candidate != least and trial.fails(candidate):
            least = candidate
    rounded = _rounded(least)
    return rounded if trial.fails(rounded) else least


def _placed(scenario: Scenario, result: Result) -> Scenario:
    """The same with everything that was drawn on the way as what it came to: faults by number of call, words by time."""
    commands = sorted((*scenario.commands, *result.said), key=lambda order: order.at_s)
    zone_orders = sorted((*scenario.zone_orders, *result.said_of_zones), key=lambda order: order.at_s)
    drawn = replace(scenario, rates={}, plan=result.placed, attention=0.0)
    return replace(drawn, commands=tuple(commands), zone_orders=tuple(zone_orders))


def _atoms(scenario: Scenario) -> list[Atom]:
    """Everything that can be left out, one by one."""
    atoms: list[Atom] = [(name, item) for name in _LISTS for item in getattr(scenario, name)]
    atoms += [("plan", call) for call in sorted(scenario.plan.items())]
    return [*atoms, ("away", scenario.away)] if scenario.away else atoms


def _with(scenario: Scenario, atoms: Sequence[Atom]) -> Scenario:
    given: dict[str, Any] = {name: tuple(item for kind, item in atoms if kind == name) for name in _LISTS}
    given["plan"] = dict(item for kind, item in atoms if kind == "plan")
    given["away"] = next((item for kind, item in atoms if kind == "away"), "")
    return replace(scenario, **given)


def _least(atoms: list[Atom], fails: Callable[[list[Atom]], bool]) -> list[Atom]:
    if fails([]):
        return []
    parts = 2
    while len(atoms) > 1:
        size = -(-len(atoms) // parts)
        for start in range(0, len(atoms), size):
            rest = atoms[:start] + atoms[start + size :]
            if fails(rest):
                atoms, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(atoms))
    return atoms


def _rounded(thing: Any) -> Any:  # noqa: ANN401 - whatever a scenario holds
    """The same with every number that is written in a file to a tenth."""
    if isinstance(thing, float):
        return round(thing, 1)
    if isinstance(thing, tuple):
        return tuple(_rounded(item) for item in thing)
    if isinstance(thing, Scenario):
        given = {name: _rounded(getattr(thing, name)) for name in (*_LISTS, "users_rps", "away_until_s")}
        return replace(thing, **given)
    names = {f.name for f in fields(thing)} if hasattr(thing, "__dataclass_fields__") else set()
    times = {name: round(getattr(thing, name), 1) for name in names & {"at_s", "seconds", "lasts_s"}}
    return replace(thing, **times) if times else thing


# ---- a scenario as a file


def render(scenario: Scenario, seed: int, heading: Iterable[str] = (), expect: Iterable[str] = ()) -> str:
    """The file that `read_scenario` reads back as this scenario, to a millionth of each number.

    Zones differ in nothing but their names there: the first zone's instances are every zone's.
    """
    zone, regions = scenario.topology.regions[0].zones[0], scenario.topology.regions
    lines = [*(f"# {line}" for line in heading), f"service: {scenario.topology.service}", "zones:"]
    lines += [f"  {region.id}: {len(region.zones)}" for region in regions]
    lines += [f"instances: {zone.instances}", f"rps_per_instance: {_n(zone.rps_per_instance)}"]
    lines += [f"load: {_n(scenario.users_rps)}", f"seed: {seed}"]
    lines += _mapping("version", _differs(scenario.target, WELL))
    lines += _mapping("physics", _differs(scenario.physics, Physics()))
    lines += _policy_lines(scenario.policy)
    lines += _mapping("chances", {str(fault): _n(rate) for fault, rate in scenario.rates.items()})
    lines += _mapping("calls", {str(call): str(fault) for call, fault in scenario.plan.items()})
    if scenario.full:
        lines.append(f"full: [{', '.join(scenario.full)}]")
    events = sorted(_events(scenario), key=lambda event: event[0])
    lines += ["events:"] if events else []
    lines += [f"  - at {_n(at_s)}s: {said}" for at_s, said in events]
    plain = Scenario(scenario.topology, 1.0)
    keys = ("deploy_at_s", "attention", "trouble_ends_s")
    given = {key: getattr(scenario, key) for key in keys if getattr(scenario, key) != getattr(plain, key)}
    lines += [f"{key}: {_n(value)}" for key, value in given.items()]
    lines += ["reconciles: true"] if scenario.reconciles else []
    told = list(expect)
    return "\n".join([*lines, *(["expect:"] if told else []), *(f"  {line}" for line in told), ""])


def _n(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _mapping(key: str, values: dict[str, str]) -> list[str]:
    return [f"{key}:", *(f"  {name}: {value}" for name, value in values.items())] if values else []


def _differs(thing: Any, default: Any) -> dict[str, str]:  # noqa: ANN401 - two of one dataclass
    given = {f.name: getattr(thing, f.name) for f in fields(thing)}
    return {
        name: str(value).lower()
        if isinstance(value, bool)
        else _n(value)
        if isinstance(value, float | int)
        else str(value)
        for name, value in given.items()
        if value != getattr(default, name)
    }


def _policy_lines(policy: DeployPolicy) -> list[str]:
    lines = _mapping("policy", _differs(replace(policy, gate=BRISK.gate, ramp_shares=BRISK.ramp_shares), BRISK))
    if policy.ramp_shares != BRISK.ramp_shares:
        lines += [*([] if lines else ["policy:"]), f"  ramp_shares: [{', '.join(map(_n, policy.ramp_shares))}]"]
    gate = [f"  {line}" for line in _mapping("gate", _differs(policy.gate, BRISK.gate))]
    return lines + ([] if lines or not gate else ["policy:"]) + gate


def _events(scenario: Scenario) -> list[tuple[float, str]]:
    said = [(strike.at_s, _strike(strike)) for strike in scenario.strikes]
    said += [(cut.at_s, _cut(cut)) for cut in scenario.cuts]
    said += [(at_s, f"load is {_n(rps)}") for at_s, rps in scenario.loads]
    said += [(at_s, f"the clock is {_n(skew_s)} s off") for at_s, skew_s in scenario.jumps]
    said += [
        (at_s, DEATHS[Fault.STALL if fault is Fault.STALL else Fault.KILL_BEFORE]) for at_s, fault in scenario.deaths
    ]
    said += [(s.at_s, f"switch {s.name} {'on' if s.on else 'off'}") for s in scenario.switches]
    said += [
        (order.at_s, f"retarget to {order.target}" if order.kind == "retarget" else order.kind)
        for order in scenario.commands
    ]
    said += [(order.at_s, _zone_order(order)) for order in scenario.zone_orders]
    said += [(order.at_s, _region_order(order)) for order in scenario.region_orders]
    said += [(turn.at_s, f"signal {turn.name} is {turn.state} for {_n(turn.seconds)} s") for turn in scenario.signals]
    said += [(hand.at_s, f"put zone {hand.zone} in by hand") for hand in scenario.hands]
    if scenario.away:
        said.append((0.0, f"take zone {scenario.away} out by hand until {_n(scenario.away_until_s)} s"))
    return said


def _strike(strike: Strike) -> str:
    says = BLOWS[strike.blow].replace("ZONE", strike.zone)
    if strike.blow is Blow.GRAY:
        says = says.replace("NUMBER", _n(strike.hard * 100))
    return f"{says} for {_n(strike.seconds)} s"


def _cut(cut: Cut) -> str:
    says = STATE_AWAY if cut.region == STATE else CUTS[cut.one_way].replace("REGION", cut.region)
    return f"{says} for {_n(cut.seconds)} s"


def _region_order(order: RegionOrder) -> str:
    says = f"{order.kind} region {order.region}"
    if order.kind == "drill":
        return f"{says} for {_n(order.lasts_s)} s"
    return f"{says} overriding {' and '.join(order.overrides)}" if order.overrides else says


def _zone_order(order: ZoneOrder) -> str:
    if order.drill:
        says = next(says for says, kind in DRILLS.items() if kind == order.kind)
        return f"{says} zone {order.zone} for {_n(order.lasts_s)} s"
    says = f"{order.kind} zone {order.zone}"
    if order.kind in {"drain", "evacuate"}:
        says += f" for {_n(order.lasts_s)} s then {order.on_expiry}"
        return f"{says} overriding {' and '.join(order.overrides)}" if order.overrides else says
    return f"{says} for {_n(order.lasts_s)} s" if order.kind == "extend" else says
