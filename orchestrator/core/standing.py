"""How well proven each zone and region is: age and strength against an objective, trends, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from statistics import median
from typing import Final

from orchestrator.core.proof import Proof, Worth, newest_first
from orchestrator.core.topology import Region, Topology

_DAY_S: Final = 86_400.0
_TREND_MIN: Final = 1.5  # A release that drains so many times slower is worth a sentence.


@dataclass(frozen=True, slots=True)
class Objective:
    """What is good enough. `peak_rps`: the service's peak as people know it, where it is more than Failout has seen."""

    age_days_max: float = 7.0
    load_share_min: float = 0.5
    failed_share_max: float = 0.001
    peak_rps: float | None = None


class State(StrEnum):
    """Worst first."""

    BROKEN = "broken"  # The last fail-out did harm, or the zone did not come back.
    NEVER = "never"
    STALE = "stale"
    WEAK = "weak"
    PROVEN = "proven"


@dataclass(frozen=True, slots=True)
class Standing:
    """`proof`: the one that counts. `strength`: its load as a share of the peak as it is known now; None: unmeasured."""

    place: str
    state: State
    proof: Proof | None
    age_s: float | None
    strength: float | None
    why: str
    next_command: str | None

    @property
    def met(self) -> bool:
        return self.state is State.PROVEN


@dataclass(frozen=True, slots=True)
class RegionStanding:
    """A region stands as its weakest zone does. `emptied`: when all of its zones were last out at once, and sound."""

    place: str
    state: State
    zones: tuple[str, ...]
    age_s: float | None
    strength: float | None
    why: str
    emptied_age_s: float | None
    emptied_strength: float | None

    @property
    def met(self) -> bool:
        return self.state is State.PROVEN


def zone_standing(
    zone: str, proofs: Iterable[Proof], peak_rps: float | None, objective: Objective, now: datetime
) -> Standing:
    """Judge one zone. A harmful fail-out revokes the good ones before it."""
    mine = newest_first(p for p in proofs if p.zone == zone)
    peak = max((p for p in (peak_rps, objective.peak_rps) if p is not None), default=None)
    drill = f"failout drill run --zone {zone}"
    good = [p for p in mine if p.worth is Worth.GOOD]
    strong = [p for p in good if (_strength(p, peak) or 0.0) >= objective.load_share_min]
    counts = next(iter(strong or good or mine), None)
    if counts is None:
        return Standing(zone, State.NEVER, None, None, None, "it was never failed out under measurement", drill)
    age_s, strength = (now - counts.last).total_seconds(), _strength(counts, peak)
    stand = Standing(zone, State.PROVEN, counts, age_s, strength, counts.evidence, None)
    last = next((p for p in mine if p.worth is not Worth.WEAK), counts)
    if last.worth is Worth.BAD:
        show = f"failout report show {last.run}"
        return replace(
            stand,
            state=State.BROKEN,
            proof=last,
            age_s=(now - last.last).total_seconds(),
            strength=_strength(last, peak),
            why=f"its last fail-out was bad: {last.evidence}",
            next_command=show,
        )
    if not good:
        return replace(stand, state=State.WEAK, why=f"too little was measured: {counts.evidence}", next_command=drill)
    if not strong:
        why = f"proven at {_share(strength)} of the peak load only, {objective.load_share_min:.0%} wanted: fail it out at a busier hour"
        return replace(stand, state=State.WEAK, why=why, next_command=drill)
    if age_s > objective.age_days_max * _DAY_S:
        why = f"its last good proof is {age_s / _DAY_S:.1f} days old, {objective.age_days_max:g} allowed"
        return replace(stand, state=State.STALE, why=why, next_command=drill)
    return stand


def _strength(proof: Proof, peak: float | None) -> float | None:
    if proof.load_rps is None or not (top := max(peak or 0.0, proof.load_rps)):
        return None
    return proof.load_rps / top


def _share(share: float | None) -> str:
    return "an unknown share" if share is None else f"{share:.0%}"


def region_standing(
    region: Region, zones: Mapping[str, Standing], proofs: Sequence[Proof], peak_rps: float | None, now: datetime
) -> RegionStanding:
    mine = [zones[z.id] for z in region.zones]
    order = list(State)
    worst = min(mine, key=lambda s: (order.index(s.state), -(s.age_s or 0.0)))
    ages = [s.age_s for s in mine if s.age_s is not None]
    strengths = [s.strength for s in mine if s.strength is not None]
    whole = _emptied(region, proofs)
    return RegionStanding(
        place=region.id,
        state=worst.state,
        zones=tuple(s.place for s in mine),
        age_s=max(ages) if len(ages) == len(mine) else None,
        strength=min(strengths) if len(strengths) == len(mine) else None,
        why="every zone of it is proven" if worst.met else f"{worst.place}: {worst.why}",
        emptied_age_s=(now - min(p.last for p in whole)).total_seconds() if whole else None,
        emptied_strength=min((s for p in whole if (s := _strength(p, peak_rps)) is not None), default=None),
    )


def _emptied(region: Region, proofs: Sequence[Proof]) -> list[Proof]:
    """The newest good proofs of all its zones in one run that were empty at the same time; [] when that never was."""
    for run in dict.fromkeys(p.run for p in newest_first(proofs)):
        mine = {
            p.zone: p for p in proofs if p.run == run and p.region == region.id and p.worth is Worth.GOOD and p.emptied
        }
        if all(z.id in mine for z in region.zones):
            whole = [mine[z.id] for z in region.zones]
            if max(p.emptied for p in whole if p.emptied) < min(p.last for p in whole):
                return whole
    return []


def standings(
    topology: Topology, proofs: Sequence[Proof], peak_rps: float | None, objective: Objective, now: datetime
) -> tuple[list[Standing], list[RegionStanding]]:
    """Every zone and every region of the service, in the topology's order."""
    zones = {z.id: zone_standing(z.id, proofs, peak_rps, objective, now) for z in topology.zones()}
    peak = max((p for p in (peak_rps, objective.peak_rps) if p is not None), default=None)
    return list(zones.values()), [region_standing(r, zones, proofs, peak, now) for r in topology.regions]


_MEASURES: Final = {"drain_s": "drain", "out_s": "stay out"}


def trends(proofs: Sequence[Proof]) -> list[str]:
    """What got slower since which version: `zones drain 2.0x slower since v41 (6.0 s before, 12.1 s since)`.

    Zones are compared with themselves, version by version in the order in which they were first seen, over medians; the
    version that the zone ran when it left is the one that drained.
    """
    found = []
    for name, verb in _MEASURES.items():
        by_version: dict[str, dict[str, list[float]]] = {}
        for proof in reversed(newest_first(proofs)):
            value = getattr(proof, name)
            if value is not None and proof.version is not None and proof.worth is not Worth.BAD:
                by_version.setdefault(proof.version, {}).setdefault(proof.zone, []).append(value)
        told = _slower_since(by_version)
        if told is not None:
            version, ratio, before, since = told
            found.append(
                f"zones {verb} {ratio:.1f}x slower since {version} ({before:.1f} s before, {since:.1f} s since)"
            )
    return found


def _slower_since(by_version: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[str, float, float, float] | None:
    """The newest version from which on every one is slower than all before it by the bound."""
    versions = list(by_version)
    for cut in range(1, len(versions)):
        ratios, earlier, later = [], [], []
        for zone in {z for v in versions[cut:] for z in by_version[v]}:
            was = [x for v in versions[:cut] for x in by_version[v].get(zone, ())]
            each = [median(by_version[v][zone]) for v in versions[cut:] if zone in by_version[v]]
            if was and each and median(was) > 0:
                ratios.append(min(each) / median(was))
                earlier.append(median(was))
                later.append(median(each))
        if ratios and median(ratios) >= _TREND_MIN:
            return versions[cut], median(ratios), median(earlier), median(later)
    return None
