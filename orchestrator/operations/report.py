"""What a report of a run says: gathered from our own rows (or from the lab's log of users' requests), told as Markdown.

Every number was measured; what was not stands as a dash (I2). `operations.page` draws the same report as one HTML file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

from orchestrator.core.errors import NotFound
from orchestrator.core.proof import Proof
from orchestrator.core.proof import dump as dump_proof
from orchestrator.core.runbook_row import parse as parse_runbook
from orchestrator.core.samples import Sample, together
from orchestrator.engine.glance import Glance
from orchestrator.engine.ports import Record, Run
from orchestrator.operations.described import step_of, steps_told
from orchestrator.operations.halted import halted

POINTS_MAX: Final = 150  # of a curve: its steps grow with the run, so a page stays small
STEP_MIN_S: Final = 2.0
MOMENTS_MAX: Final = 400
INSTANCES: Final = "as the instances counted them; what reached none of them is not in it"


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a curve. `at_s` is its begin, since the run's; `rps` per zone; latencies ms, None without requests."""

    at_s: float
    rps: Mapping[str, float]
    requests: int
    failed: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def failed_share(self) -> float | None:
        return self.failed / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Series:
    """`source` tells who counted. Steps in which nothing was heard are missing."""

    source: str
    step_s: float
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Phase:
    """One effect on one zone, seconds since the run's begin."""

    zone: str
    kind: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of what happened. `zone`: of a runbook the step."""

    at: datetime
    zone: str | None
    event: str
    took_s: float
    evidence: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of this run beside the last one of its kind; None: unmeasured."""

    what: str
    unit: str
    now: float | None
    before: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """`order`: the run's zones in the order in which they left. `before`: the run it is compared with.

    `steps`: of a runbook, as operations.described.steps_told tells them; its phases are its steps.
    """

    run: str
    kind: str
    service: str
    title: str
    status: str
    why: str
    author: str
    began: datetime
    seconds: float
    ended: bool
    order: tuple[str, ...]
    series: Series
    phases: tuple[Phase, ...]
    proofs: tuple[Proof, ...]
    moments: tuple[Moment, ...]
    cut: int = 0  # moments that were left out of the middle
    before: str | None = None
    compared: tuple[Compared, ...] = ()
    notes: tuple[str, ...] = field(default=())
    steps: tuple[Mapping[str, Any], ...] = ()


def collect(glance: Glance, run_id: str, now: datetime, users: Series | None = None) -> Report:
    """Gather the report of a run, also of one that has not ended. `users`: what users saw, where a lab knows it."""
    run = glance.load(run_id)
    records = [*glance.events(run_id), *_of_its_outing(glance, run)]
    records.sort(key=lambda r: r.at)
    ended = run.finished_at or now
    of_run = [p for p in glance.proofs(run.service) if p.run == run_id or p.run.startswith(f"{run_id}.")]
    proofs = tuple(sorted(of_run, key=lambda p: (p.began, p.id)))
    samples = [] if users else glance.samples(run.service, run.created_at, ended)
    series = users or series_of(samples, run.created_at, (ended - run.created_at).total_seconds())
    phases = _phases(run, records, tuple(dict.fromkeys(p.zone for p in proofs)))
    last = _last_of_its_kind(glance, run)
    moments = [Moment(r.at, _of(run, r), r.event.kind, r.duration_s, r.event.evidence) for r in records]
    cut = max(0, len(moments) - MOMENTS_MAX)
    half = MOMENTS_MAX // 2
    state, halt = cast("dict[str, Any]", run.state), halted(run, glance.switches())
    return Report(
        run=run.id,
        kind=run.kind,
        service=run.service,
        title=f"{run.kind.capitalize()}{' of' if run.kind == 'deploy' else ''} {_subject(run)}".rstrip()
        + f": {run.status}",
        status=run.status,
        why=f"{halt.evidence}; next: {halt.next_command}" if halt else str(state.get("reason") or run.reason),
        author=run.author,
        began=run.created_at,
        seconds=(ended - run.created_at).total_seconds(),
        ended=run.finished,
        order=tuple(dict.fromkeys([*(p.zone for p in proofs), *(p.zone for p in phases)])),
        series=series,
        phases=phases,
        proofs=proofs,
        moments=tuple(moments if not cut else [*moments[:half], *moments[-half:]]),
        cut=cut,
        before=last.id if last else None,
        compared=_compare(run, last, proofs, glance.proofs(run.service)) if last else (),
        steps=tuple(steps_told(parse_runbook(run.state))) if run.kind == "runbook" else (),
    )


def series_of(samples: Sequence[Sample], began: datetime, seconds: float) -> Series:
    """Fold samples into the steps of a curve."""
    step_s = step_for(seconds)
    piles: dict[int, list[Sample]] = {}
    for sample in samples:
        piles.setdefault(int((sample.middle - began).total_seconds() // step_s), []).append(sample)
    points = []
    for i, pile in piles.items():
        whole = together(pile)
        zones = dict.fromkeys(zone for s in pile for zone in s.zones)
        rps = {zone: together(pile, {zone}).rps for zone in zones}
        point = Point(i * step_s, rps, whole.requests, whole.errors, whole.p50_ms, whole.p99_ms)
        covered = _covered(pile, step_s, began) - piles.keys()
        points += [point, *(replace(point, at_s=j * step_s, requests=0, failed=0) for j in covered)]
    return Series(INSTANCES, step_s, sorted(points, key=lambda p: p.at_s))


def _covered(pile: Sequence[Sample], step_s: float, began: datetime) -> set[int]:
    """Steps whose middle lies in a sample that took longer than one: it holds for them too, its requests count once."""
    until_s = (pile[-1].at - began).total_seconds()
    since_s = (pile[0].at - began).total_seconds() - pile[0].seconds
    return {
        i
        for i in range(max(0, int(since_s // step_s)), int(until_s // step_s) + 1)
        if since_s < (i + 0.5) * step_s < until_s
    }


def step_for(seconds: float) -> float:
    return float(max(STEP_MIN_S, ceil(seconds / POINTS_MAX)))


def _subject(run: Run) -> str:
    """What the run is about: two runs of one kind are compared when it is the same, whatever a deploy's version."""
    state = cast("dict[str, Any]", run.state)
    named = map({**state.get("wish", {}), **state}.get, ("target", "runbook", "zone", "place"))
    return str(next(filter(None, named), " + ".join(state.get("regions", ()))))


def _of_its_outing(glance: Glance, run: Run) -> Sequence[Record]:
    """A drill's report tells of the run that took its place out, too: there the zone moved."""
    outing = str(cast("dict[str, Any]", run.state).get("outing", ""))
    with suppress(NotFound):  # It was refused before it began one.
        return glance.events(outing) if run.kind == "drill" else []
    return []


def _of(run: Run, record: Record) -> str | None:
    """The zone, or the step of a runbook."""
    return step_of(run, record) if run.kind == "runbook" else record.event.zone


_ROUND: Final = frozenset({"begin", "watch", "return"})  # A drill's own, around what its outing does to the zone.


def _phases(run: Run, records: Iterable[Record], moved: Sequence[str]) -> tuple[Phase, ...]:
    """What was done with each zone; a region's move with each of its zones, `moved`; a runbook's steps one by one."""
    everywhere = moved or (" + ".join(cast("dict[str, Any]", run.state).get("regions", ())) or run.service,)
    found = []
    for r in records:
        if r.effect is not None and not (run.kind == "drill" and r.effect.kind in _ROUND):
            ended_s = (r.at - run.created_at).total_seconds()
            kind = "step" if run.kind == "runbook" else r.effect.kind.removesuffix("-region")
            zone = r.effect.zone if run.kind != "runbook" else _of(run, r)
            places = (zone,) if zone else everywhere
            found += [Phase(place, kind, max(0.0, ended_s - r.duration_s), ended_s) for place in places]
    return tuple(found)


def _last_of_its_kind(glance: Glance, run: Run) -> Run | None:
    def same(other: Run) -> bool:
        return other.kind == run.kind and (run.kind == "deploy" or _subject(other) == _subject(run))

    earlier = [r for r in glance.runs(run.service, 200) if same(r) and r.finished and r.created_at < run.created_at]
    return next((r for r in earlier if r.status == run.status), next(iter(earlier), None))


def _compare(run: Run, last: Run, mine: Sequence[Proof], every: Sequence[Proof]) -> tuple[Compared, ...]:
    theirs = [p for p in every if p.run == last.id]

    def took(r: Run) -> float | None:
        return (r.finished_at - r.created_at).total_seconds() if r.finished_at else None

    def middle(proofs: Sequence[Proof], name: str) -> float | None:
        values = [v for p in proofs if (v := getattr(p, name)) is not None]
        return median(values) if values else None

    def worst(proofs: Sequence[Proof]) -> float | None:
        return max((p.p99_ms for p in proofs if p.p99_ms is not None), default=None)

    def failed(proofs: Sequence[Proof]) -> float | None:
        counts = [p.failed for p in proofs if p.failed is not None]
        return float(sum(counts)) if counts else None

    def least(proofs: Sequence[Proof]) -> float | None:
        left = [share for p in proofs for share in p.headroom.values() if share is not None]
        return 100 * min(left) if left else None

    measures = (
        Compared("whole run", "s", took(run), took(last)),
        Compared("drain, median", "s", middle(mine, "drain_s"), middle(theirs, "drain_s")),
        Compared("out, median", "s", middle(mine, "out_s"), middle(theirs, "out_s")),
        Compared("load, median", "/s", middle(mine, "load_rps"), middle(theirs, "load_rps")),
        Compared("failed requests while out", "", failed(mine), failed(theirs)),
        Compared("survivors' p99, worst", "ms", worst(mine), worst(theirs)),
        Compared("least headroom", "%", least(mine), least(theirs)),
    )
    return tuple(c for c in measures if not c.now is c.before is None)


# ---- Markdown


def markdown(report: Report) -> str:
    """Fit to paste into a review."""
    parts = [f"# {report.title}", _facts(report)]
    if report.status != "succeeded" and report.why:
        parts.append(f"**Why:** {_cell(report.why)}")
    if report.steps:
        parts.append("## Steps\n\n" + table(STEP_HEAD, step_rows(report)))
    parts.append("## What each zone proved\n\n" + (_proof_table(report.proofs) or nothing_proven(report)))
    if report.phases and not report.steps:
        parts.append("## Seconds per zone and phase\n\n" + _phase_table(report))
    if report.series.points:
        parts.append(f"## What users got meanwhile\n\nCounted {report.series.source}.\n\n" + _meanwhile(report))
    if report.compared:
        rows = [(c.what, told(c.now, c.unit), told(c.before, c.unit)) for c in report.compared]
        parts.append(f"## Beside the last one ({report.before})\n\n" + table(("", "now", "before"), rows))
    moments = [(f"{m.at:%H:%M:%S}", m.zone or "", m.event, f"{m.took_s:.1f}", m.evidence) for m in report.moments]
    left_out = f"\n\n{report.cut} lines in the middle are left out." if report.cut else ""
    parts.append("## Timeline\n\n" + table(timeline_head(report), moments) + left_out)
    return "\n\n".join(parts) + "\n"


STEP_HEAD: Final = ("step", "state", "tries", "took s", "evidence", "by hand")


def step_rows(report: Report) -> list[tuple[str, ...]]:
    """A runbook's steps: what became of each, and the command that does the same by hand."""
    took = {name: sum(p.ended_s - p.began_s for p in report.phases if p.zone == name) for name in report.order}
    return [
        (
            s["name"],
            s["state"],
            str(s["tries"]),
            f"{took[s['name']]:.1f}" if s["name"] in took else "—",
            s["evidence"] or "—",
            s["command"],
        )
        for s in report.steps
    ]


def nothing_proven(report: Report) -> str:
    if report.steps:
        return "No run that it began has had a zone out and back, so nothing is proven by it."
    return "No zone was out, so nothing is proven."


def timeline_head(report: Report) -> tuple[str, ...]:
    return ("at (UTC)", "step" if report.steps else "zone", "what", "took s", "evidence")


def _facts(report: Report) -> str:
    facts = [
        f"- run `{report.run}` of `{report.service}` by {report.author}",
        f"- {report.began:%Y-%m-%d %H:%M:%S} UTC, {report.seconds:.0f} s{'' if report.ended else ' so far'}",
    ]
    requests, failed = totals(report.series)
    if requests:
        facts.append(f"- {requests:,} requests, {failed:,} failed ({report.series.source})")
    return "\n".join([*facts, *(f"- {note}" for note in report.notes)])


def totals(series: Series) -> tuple[int, int]:
    return sum(p.requests for p in series.points), sum(p.failed for p in series.points)


PROOF_HEAD: Final = (
    "zone",
    "verdict",
    "version",
    "load",
    "of peak",
    "drain",
    "out",
    "failed",
    "p99",
    "headroom",
    "evidence",
)


def proof_cells(p: Proof) -> tuple[str, ...]:
    """One proof as people read it; the first cells fit a phone."""
    left = [share for share in p.headroom.values() if share is not None]
    change = f"{p.version or '?'} → {p.target}" if p.target else p.version or "—"
    p99 = told(p.p99_ms, "ms") + (f" ({p.added_p99_ms:+.0f})" if p.added_p99_ms is not None else "")
    return (
        p.zone,
        str(p.worth),
        change,
        told(p.load_rps, "/s"),
        told(None if p.load_share is None else 100 * p.load_share, "%"),
        told(p.drain_s, "s"),
        told(p.out_s, "s"),
        told(p.failed, "") if p.requests is None else f"{p.failed:,} of {p.requests:,}",
        p99,
        told(100 * min(left) if left else None, "%"),
        p.evidence,
    )


def _proof_table(proofs: Sequence[Proof]) -> str:
    return table(PROOF_HEAD, [proof_cells(p) for p in proofs]) if proofs else ""


def phase_seconds(report: Report) -> tuple[tuple[str, ...], list[tuple[str, list[float]]]]:
    """Phase names in order of appearance, and per zone the seconds of each, summed over repeats."""
    kinds = tuple(dict.fromkeys(p.kind for p in report.phases))
    zones = dict.fromkeys(p.zone for p in report.phases)
    sums = [
        (
            zone,
            [sum(p.ended_s - p.began_s for p in report.phases if (p.zone, p.kind) == (zone, kind)) for kind in kinds],
        )
        for zone in zones
    ]
    return kinds, sums


def _phase_table(report: Report) -> str:
    kinds, sums = phase_seconds(report)
    rows = [(zone, *(f"{s:.1f}" if s else "—" for s in each), f"{sum(each):.1f}") for zone, each in sums]
    return table(("zone", *kinds, "in all"), rows)


def meanwhile(report: Report) -> list[tuple[str, ...]]:
    """Per phase of each zone: its share of traffic, and what all users got. A step belongs to the phase at its middle."""
    rows: list[tuple[str, ...]] = []
    known = {zone for p in report.series.points for zone in p.rps}
    for zone in report.order:
        for kind in dict.fromkeys(p.kind for p in report.phases if p.zone == zone):
            spans = [(p.began_s, p.ended_s) for p in report.phases if (p.zone, p.kind) == (zone, kind)]
            inside = [
                p
                for p in report.series.points
                if any(began <= p.at_s + report.series.step_s / 2 < ended for began, ended in spans)
            ]
            if not inside:
                continue
            requests, failed = sum(p.requests for p in inside), sum(p.failed for p in inside)
            here, all_ = sum(p.rps.get(zone, 0.0) for p in inside), sum(sum(p.rps.values()) for p in inside)
            slow = max((p.p99_ms for p in inside if p.p99_ms is not None), default=None)
            share = told(100 * here / all_ if all_ and zone in known else None, "%")
            rows.append((zone, kind, share, f"{requests:,}", f"{failed:,}", told(slow, "ms")))
    return rows


MEANWHILE_HEAD: Final = ("zone", "phase", "its share", "requests", "failed", "worst p99")


def _meanwhile(report: Report) -> str:
    return table(MEANWHILE_HEAD, meanwhile(report))


def told(value: float | None, unit: str) -> str:
    """12.34 s, 97 %, or a dash for what was not measured."""
    if value is None:
        return "—"
    digits = 1 if unit == "s" and abs(value) < 100 else 0  # noqa: PLR2004
    return f"{value:,.{digits}f} {unit}".strip() if unit != "/s" else f"{value:,.0f}/s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Nothing in a run's evidence may break the table or become markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def write_files(folder: Path, **named: str) -> None:
    """Write private files (0600), each whole or not at all. The folder is made (0700)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in named.items():
        path = folder / name.replace("_", ".")
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)


def document(report: Report, page: str | None) -> dict[str, Any]:
    """As `failout report show --json` prints it (schemas/report.json). `page`: the HTML file, where it was asked for."""
    requests, failed = totals(report.series)
    return {
        "schema": 1,
        "run": report.run,
        "kind": report.kind,
        "service": report.service,
        "status": report.status,
        "started": report.began.isoformat(),
        "seconds": round(report.seconds, 1),
        "ended": report.ended,
        "requests": requests,
        "failed": failed,
        "counted": report.series.source,
        "proofs": [dump_proof(p) for p in report.proofs],
        "before": report.before,
        "compared": [asdict(c) for c in report.compared],
        "page": page,
    }


def report_folder(state: Path, run: str) -> Path:
    return state / "reports" / run
