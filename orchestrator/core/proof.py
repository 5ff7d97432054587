"""Proof: what each fail-out of a zone showed, derived from the run's history and from what was measured meanwhile.

Nothing is invented (I2): what was not measured stays None, and a proof that leans on it is weak. Deploys, drills and
people leave the same record, because all of them drain a zone, carry on without it, and bring it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, cast

from orchestrator.core.health import GatePolicy, Verdict, Window, judge
from orchestrator.core.machine import Json
from orchestrator.core.samples import Sample, between, covered, together, utilisation
from orchestrator.core.topology import Topology

BEFORE_S: Final = 120.0  # The survivors are compared with themselves over so long before the zone left.
WATCHED_MIN: Final = 0.8  # of the time that the zone was leaving or out; less than that proves little
_LEAVES: Final = frozenset({"drain", "evacuate"})
_EMPTY: Final = frozenset({"drained", "evacuated", "emptied"})
_RETURNS: Final = frozenset({"ramp", "restore", "return", "join"})
_BACK: Final = frozenset({"joined", "rejoined", "restored", "returned"})
_TOO_LATE: Final = frozenset({"drain-timed-out"})


class Worth(StrEnum):
    """GOOD: the service did without the zone and nobody noticed. WEAK: no harm was seen, but too little was measured."""

    GOOD = "good"
    BAD = "bad"
    WEAK = "weak"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a run's history. `effect` is None for what a person ordered."""

    at: datetime
    zone: str | None
    effect: str | None
    event: str
    args: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """A run. `ended`: it finished, or waits for a person: what is out now stays out. `versions`: zone -> (had, gets).

    `steady_since`: from then until the run's first drain every zone of the service served.
    """

    run: str
    service: str
    kind: str
    author: str
    reason: str
    began: datetime
    steady_since: datetime
    ended: datetime | None
    steps: Sequence[Step]
    versions: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outing:
    """One time that one zone was out. `number` tells a zone's outings of one run apart."""

    zone: str
    number: int
    began: datetime
    emptied: datetime | None = None
    restored: datetime | None = None  # when users came back to it, a few at first
    returned: datetime | None = None
    timed_out: bool = False
    admitted: Mapping[str, Json] = field(default_factory=dict)
    added: Mapping[str, Json] = field(default_factory=dict)

    def until(self, history: History) -> datetime:
        """When it stopped doing without the zone."""
        return self.restored or self.returned or history.ended or self.emptied or self.began


@dataclass(frozen=True, slots=True)
class Proof:
    """One zone, one fail-out. Rates are requests/s, shares 0..1; None is "not measured".

    `headroom`: survivor -> the least share of its capacity that was left over ten seconds. `failed`: requests that any
    instance failed from the drain's begin until users came back. `before`: seconds that the survivors are compared with.
    """

    id: str
    service: str
    zone: str
    region: str
    run: str
    kind: str
    author: str
    reason: str
    version: str | None
    target: str | None
    began: datetime
    emptied: datetime | None
    restored: datetime | None
    returned: datetime | None
    drain_s: float | None
    out_s: float | None
    load_rps: float | None
    zone_rps: float | None
    peak_rps: float | None
    load_share: float | None
    requests: int | None
    failed: int | None
    before_s: float
    p50_ms: float | None
    p99_ms: float | None
    added_p50_ms: float | None
    added_p99_ms: float | None
    headroom: Mapping[str, float | None]
    capacity_added: Mapping[str, int]
    worth: Worth
    evidence: str

    @property
    def last(self) -> datetime:
        """When it stopped proving: users came back, or nothing more is known of it."""
        return self.restored or self.returned or self.emptied or self.began


def outings(history: History) -> list[Outing]:
    """Every time that a zone left, in order of leaving; those that are still on their way are not there yet."""
    open_: dict[str, dict[str, Any]] = {}
    admitted: dict[str, dict[str, Json]] = {}
    done: list[Outing] = []
    before = last = history.began
    for step in sorted(history.steps, key=lambda s: s.at):
        if step.at > last:
            before, last = last, step.at  # One effect may tell of several zones in one moment.
        if step.zone is not None:
            if "undo" in step.args or "loads" in step.args:
                admitted[step.zone] = {**admitted.get(step.zone, {}), **step.args}
            mine = open_.get(step.zone)
            if mine is None and step.effect in _LEAVES:
                number = sum(o.zone == step.zone for o in done) + 1
                facts = admitted.get(step.zone, {})
                mine = open_[step.zone] = {"zone": step.zone, "number": number, "began": before, "admitted": facts}
                mine["added"] = _scaled(facts)
            if mine is not None:
                _note(mine, step, before)
                if "returned" in mine:
                    done.append(Outing(**open_.pop(step.zone)))
    if history.ended is not None:
        done += [Outing(**mine) for mine in open_.values()]
    return sorted(done, key=lambda o: o.began)


def _note(mine: dict[str, Any], step: Step, before: datetime) -> None:
    if step.event in _EMPTY:
        mine.setdefault("emptied", step.at)
    if step.event in _TOO_LATE:
        mine["timed_out"] = True
    if step.effect in _RETURNS:
        mine.setdefault("restored", before)
    if step.event in _BACK:
        mine["returned"] = step.at


def _scaled(facts: Mapping[str, Json]) -> dict[str, int]:
    undo = cast("dict[str, Any]", facts.get("undo") or {})
    return {zone: change["to"] - change["from"] for zone, change in undo.get("scale", {}).items()}


def derive(
    history: History, samples: Sequence[Sample], topology: Topology, peak_rps: float | None, failed_share_max: float
) -> list[Proof]:
    """Every proof of a run, oldest first. The same rows give the same proofs, so deriving twice harms nothing."""
    zones = [z.id for z in topology.zones()]
    found = [o for o in outings(history) if o.zone in zones]
    proofs = []
    for outing in found:
        until = outing.until(history)
        out = {o.zone for o in found if o.began < until and o.until(history) > outing.began}
        steady = [history.steady_since, *(o.returned for o in found)]
        since = max((t for t in steady if t is not None and t <= outing.began), default=outing.began)
        survivors = [z for z in zones if z not in out]
        seen = _measure(outing, samples, topology, survivors, since, until)
        proofs.append(_proof(history, outing, seen, topology, peak_rps, failed_share_max))
    return proofs


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the samples say of one outing. `watched`: share of the time that they cover."""

    before: Window
    during: Window
    all_before: Window
    all_during: Window
    out: Window
    watched: float
    headroom: Mapping[str, float | None]


def _carriers(zone: str, survivors: Sequence[str], topology: Topology) -> list[str]:
    """Those who carry a zone's load are its neighbours, or everybody where its whole region is out."""
    neighbours = [z.id for z in topology.region_of(zone).zones if z.id in survivors]
    return neighbours or list(survivors)


def _measure(
    outing: Outing,
    samples: Sequence[Sample],
    topology: Topology,
    survivors: Sequence[str],
    steady: datetime,
    until: datetime,
) -> _Measured:
    carriers = _carriers(outing.zone, survivors, topology)
    earlier = between(samples, max(steady, outing.began - timedelta(seconds=BEFORE_S)), outing.began)
    during = between(samples, outing.began, until)
    out = between(samples, outing.emptied or outing.began, until)
    used = {zone: utilisation(during, zone, topology.zone(zone).rps_per_instance) for zone in survivors}
    return _Measured(
        before=together(earlier, carriers),
        during=together(during, carriers),
        all_before=together(earlier),
        all_during=together(during),
        out=together(out),
        watched=covered(samples, outing.began, until),
        headroom={zone: None if share is None else round(1 - share, 3) for zone, share in used.items()},
    )


def _proof(
    history: History,
    outing: Outing,
    seen: _Measured,
    topology: Topology,
    peak_rps: float | None,
    failed_share_max: float,
) -> Proof:
    load = seen.out.rps if seen.out.seconds else _admitted_rps(outing, None)
    peak = max((p for p in (peak_rps, load) if p is not None), default=None)
    had, gets = history.versions.get(outing.zone, (None, None))
    at_admission = outing.admitted.get("version")
    carriers = _carriers(outing.zone, list(seen.headroom), topology)
    worth, evidence = _worth(outing, seen, load, carriers, failed_share_max)
    return Proof(
        id=f"{history.run}:{outing.zone}:{outing.number}",
        service=history.service,
        zone=outing.zone,
        region=topology.region_of(outing.zone).id,
        run=history.run,
        kind=history.kind,
        author=history.author,
        reason=history.reason,
        version=str(at_admission) if at_admission is not None else had,
        target=gets,
        began=outing.began,
        emptied=outing.emptied,
        restored=outing.restored,
        returned=outing.returned,
        drain_s=_seconds(outing.began, outing.emptied),
        out_s=_seconds(outing.began, outing.returned),
        load_rps=_round(load),
        zone_rps=_round(_admitted_rps(outing, outing.zone)),
        peak_rps=_round(peak),
        load_share=round(load / peak, 3) if load is not None and peak else None,
        requests=seen.all_during.requests if seen.all_during.seconds else None,
        failed=seen.all_during.errors if seen.all_during.seconds else None,
        before_s=round(seen.before.seconds, 1),
        p50_ms=seen.during.p50_ms,
        p99_ms=seen.during.p99_ms,
        added_p50_ms=_less(seen.during.p50_ms, seen.before.p50_ms),
        added_p99_ms=_less(seen.during.p99_ms, seen.before.p99_ms),
        headroom=seen.headroom,
        capacity_added={zone: int(n) for zone, n in outing.added.items() if isinstance(n, int) and n},
        worth=worth,
        evidence=evidence,
    )


def _worth(
    outing: Outing, seen: _Measured, load: float | None, carriers: Sequence[str], failed_share_max: float
) -> tuple[Worth, str]:
    """Harm makes it bad, whatever else is unknown; then anything unknown makes it weak."""
    told = _told(seen, load)
    spent = [z for z in carriers if (left := seen.headroom.get(z)) is not None and left < 0]
    compared = judge(seen.during, seen.before, GatePolicy(error_share_max=failed_share_max))
    if outing.timed_out:
        return Worth.BAD, f"it could not be emptied in time; {told}"
    if outing.returned is None:
        return Worth.BAD, f"it has not come back; {told}"
    if compared.verdict is Verdict.UNHEALTHY or _more_failed(seen.all_before, seen.all_during, failed_share_max):
        return Worth.BAD, f"users were harmed: {told}"
    if spent:
        return Worth.BAD, f"{', '.join(spent)} had no headroom left; {told}"
    if outing.emptied is None:
        return Worth.WEAK, f"it was called back before it was empty; {told}"
    unknown = [z for z in carriers if seen.headroom.get(z) is None]
    if load is None or seen.watched < WATCHED_MIN:
        return Worth.WEAK, f"only {seen.watched:.0%} of the time was watched; {told}"
    if unknown:
        return Worth.WEAK, f"nobody measured how busy {', '.join(unknown)} was; {told}"
    if compared.verdict is not Verdict.HEALTHY:
        few = f"{seen.during.requests} of the survivors while it was out, {seen.before.requests} before"
        return Worth.WEAK, f"too few requests to compare ({few}); {told}"
    return Worth.GOOD, told


def _more_failed(before: Window, during: Window, share_max: float) -> bool:
    """One failed request may be chance; a zone that failed requests before it left is why it left."""
    return during.errors > 1 and (during.error_share or 0.0) > (before.error_share or 0.0) + share_max


def _told(seen: _Measured, load: float | None) -> str:
    if not seen.all_during.seconds:
        return "nothing was measured while it was out"
    parts = [f"{seen.all_during.errors:,} of {seen.all_during.requests:,} requests failed while it was out"]
    if load is not None:
        parts.append(f"{load:.0f}/s")
    if seen.before.p99_ms is not None and seen.during.p99_ms is not None:
        was, now = seen.before.p99_ms, seen.during.p99_ms
        parts.append(f"survivors' p99 {now:.0f} ms, {was:.0f} ms in the {seen.before.seconds:.0f} s before")
    left = [(share, zone) for zone, share in seen.headroom.items() if share is not None]
    if left:
        share, zone = min(left)
        parts.append(f"least headroom {share:.0%} ({zone})")
    return ", ".join(parts)


def _admitted_rps(outing: Outing, zone: str | None) -> float | None:
    """What admission measured, of one zone or of all."""
    loads = cast("dict[str, float]", outing.admitted.get("loads") or {})
    if zone is not None:
        return loads.get(zone)
    return sum(loads.values()) if loads else None


def _seconds(since: datetime, until: datetime | None) -> float | None:
    return round((until - since).total_seconds(), 2) if until is not None else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _less(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


_INSTANTS: Final = ("began", "emptied", "restored", "returned")


def dump(proof: Proof) -> dict[str, Json]:
    data = asdict(proof)
    instants = {name: data[name].isoformat() if data[name] else None for name in _INSTANTS}
    return {**data, **instants, "worth": str(proof.worth)}


def parse(data: Mapping[str, Any]) -> Proof:
    """Read a record back; what a newer Failout added to it is left out, what an older one did not know is None."""
    known = {f.name: data.get(f.name) for f in fields(Proof)}
    for name in _INSTANTS:
        known[name] = datetime.fromisoformat(data[name]) if data.get(name) else None
    known["worth"] = Worth(data["worth"])
    return Proof(**cast("dict[str, Any]", known))


def newest_first(proofs: Iterable[Proof]) -> list[Proof]:
    return sorted(proofs, key=lambda p: (p.last, p.id), reverse=True)
