"""A report as one HTML file: no script, nothing loaded from anywhere, readable on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from orchestrator.operations import charts
from orchestrator.operations.report import (
    MEANWHILE_HEAD,
    PROOF_HEAD,
    STEP_HEAD,
    Report,
    markdown,
    meanwhile,
    nothing_proven,
    phase_seconds,
    proof_cells,
    step_rows,
    timeline_head,
    told,
    totals,
    write_files,
)

TEMPLATE: Final = Path(__file__).with_name("report.html")
_NUMBERS: Final = frozenset({"load", "of peak", "drain", "out", "failed", "p99", "headroom", "now", "before", "took s"})
_NUMBERS_MEANWHILE: Final = frozenset({"its share", "requests", "failed", "worst p99"})


def write_report(report: Report, folder: Path) -> Path:
    """Write report.md and report.html into `folder` and return the latter."""
    write_files(folder, report_md=markdown(report), report_html=page(report))
    return folder / "report.html"


def page(report: Report) -> str:
    """The whole file. Its size is bounded: curves have at most 150 steps, the timeline at most 400 lines."""
    sections = [
        _head(report),
        _steps(report),
        _proofs(report),
        *_pictures(report),
        _compared(report),
        _timeline(report),
    ]
    title = f"{report.title} ({report.run})"
    return Template(TEMPLATE.read_text("utf-8")).substitute(title=escape(title), body="\n".join(sections))


def _head(report: Report) -> str:
    requests, failed = totals(report.series)
    good = sum(p.worth == "good" for p in report.proofs)
    tiles = [
        ("took", told(report.seconds, "s") if report.ended else f"{report.seconds:.0f} s so far"),
        ("zones proven", f"{good} of {len(report.proofs)}"),
        ("requests", f"{requests:,}" if requests else "—"),
        ("failed", f"{failed:,}" if requests else "—"),
        ("worst p99", told(max((p.p99_ms for p in report.series.points if p.p99_ms is not None), default=None), "ms")),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    why = f'<p class="why">{escape(report.why)}</p>' if report.status != "succeeded" and report.why else ""
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in report.notes)
    return (
        f"<header><h1>{escape(report.title)}</h1>"
        f'<p class="soft">{escape(report.service)} · {escape(report.run)} · by {escape(report.author)} · '
        f'<time datetime="{report.began.isoformat()}">{report.began:%Y-%m-%d %H:%M:%S} UTC</time></p>{why}{notes}'
        f'<dl class="tiles">{cells}</dl></header>'
    )


def _steps(report: Report) -> str:
    if not report.steps:
        return ""
    return "<h2>Steps</h2>" + _table(STEP_HEAD, step_rows(report), frozenset({"tries", "took s"}), cards=True)


def _proofs(report: Report) -> str:
    if not report.proofs:
        return f'<h2>What each zone proved</h2><p class="soft">{nothing_proven(report)}</p>'
    rows = [list(proof_cells(p)) for p in report.proofs]
    return "<h2>What each zone proved</h2>" + _table(PROOF_HEAD, rows, _NUMBERS, cards=True)


def _pictures(report: Report) -> list[str]:
    if not report.series.points:
        nothing = '<h2>Traffic</h2><p class="soft">Nothing was measured during this run.</p>'
        return [nothing, _bars(report)] if report.phases else [nothing]
    known = {z for p in report.series.points for z in p.rps}
    zones = dict.fromkeys([*report.order, *(z for p in report.series.points for z in p.rps)])
    names = [(charts.colour(i), f"{_number(report, z)}{z}") for i, z in enumerate(zones) if z in known]
    source = f'<p class="soft">Counted {escape(report.series.source)}. '
    source += "Grey: a zone was out, by its number.</p>" if report.proofs else "</p>"
    share = charts.line(report, "Share of failed requests", "%", _percent, 0.1)
    p99 = charts.line(report, "p99 latency", "ms", lambda p: p.p99_ms, 1.0)
    rows = [list(r) for r in meanwhile(report)]
    numbers = _table(MEANWHILE_HEAD, rows, _NUMBERS_MEANWHILE, cards=False)
    return [
        f"<h2>Traffic by zone, requests a second</h2>{source}<figure>{charts.shares(report)}{_legend(names)}</figure>",
        f"<h2>Failed requests, %</h2><figure>{share}</figure>",
        f"<h2>p99 latency, ms</h2><figure>{p99}</figure>",
        _bars(report),
        f"<details><summary>The same in numbers, by zone and phase</summary>{numbers}</details>",
    ]


def _percent(point: object) -> float | None:
    share: float | None = getattr(point, "failed_share", None)
    return None if share is None else 100 * share


def _number(report: Report, zone: str) -> str:
    return f"{report.order.index(zone) + 1} " if zone in report.order else ""


def _bars(report: Report) -> str:
    zones = ", ".join(f"{i} {zone}" for i, zone in enumerate(report.order, 1))
    if report.steps:
        return f'<h2>Steps over time</h2><p class="soft">{escape(zones)}</p><figure>{charts.phases(report)}</figure>'
    kinds, sums = phase_seconds(report)
    rows = [[zone, *(f"{s:.1f}" if s else "—" for s in each), f"{sum(each):.1f}"] for zone, each in sums]
    names = [(f"var(--{group})", name) for group, name in charts.GROUP_NAMES.items()]
    head = ("zone", *kinds, "in all")
    return (
        f'<h2>Phases of each zone</h2><p class="soft">{escape(zones)}</p>'
        f"<figure>{charts.phases(report)}{_legend(names)}</figure>"
        f"<details><summary>Seconds per zone and phase</summary>{_table(head, rows, frozenset(head[1:]), cards=True)}"
        "</details>"
    )


def _legend(names: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li><i style="background:{fill}"></i>{escape(name)}</li>' for fill, name in names)
    return f'<ul class="legend">{items}</ul>'


def _compared(report: Report) -> str:
    if not report.compared:
        return '<h2>Beside the last one</h2><p class="soft">It is the first of its kind that ended here.</p>'
    rows = [[c.what, told(c.now, c.unit), told(c.before, c.unit)] for c in report.compared]
    told_of = f'<p class="soft">{escape(report.before or "")}</p>'
    return f"<h2>Beside the last one</h2>{told_of}" + _table(("", "now", "before"), rows, _NUMBERS, cards=False)


def _timeline(report: Report) -> str:
    rows = [[f"{m.at:%H:%M:%S}", m.zone or "", m.event, f"{m.took_s:.1f}", m.evidence] for m in report.moments]
    left_out = f'<p class="soft">{report.cut} lines in the middle are left out.</p>' if report.cut else ""
    listed = _table(timeline_head(report), rows, _NUMBERS, cards=True)
    many = f"<details><summary>{len(rows)} events, each with its evidence</summary>{listed}{left_out}</details>"
    return f"<h2>Timeline and evidence</h2>{many}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[str], *, cards: bool) -> str:
    """With `cards`, a phone shows each row as a list, its heads beside the values."""

    def css(i: int, name: str) -> str:
        kinds = ["first"] if i == 0 else ["n"] if name in numbers else ["w"] if name in {"evidence", "by hand"} else []
        return f' class="{" ".join(kinds)}"' if kinds else ""

    def cell(i: int, name: str, value: str) -> str:
        tag = f'<span class="tag {value}">{value}</span>' if name == "verdict" else escape(value)
        return f'<td{css(i, name)} data-head="{escape(name)}">{tag}</td>'

    top = "".join(f'<th scope="col"{" class=n" if h in numbers else ""}>{escape(h)}</th>' for h in head)
    body = "".join(
        "<tr>" + "".join(cell(i, h, v) for i, (h, v) in enumerate(zip(head, row, strict=True))) + "</tr>"
        for row in rows
    )
    return f"<table{' class=cards' if cards else ''}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
