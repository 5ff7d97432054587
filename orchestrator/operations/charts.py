"""The report's pictures as inline SVG: no script, no file, no address. All share one axis of time.

Each is drawn twice, for a page and for a phone, because text that is scaled down with its picture cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10
from typing import Final

from orchestrator.operations.report import Phase, Point, Report, Series

COLOURS: Final = 8
# Five groups of phases, so that colours stay few and mean something.
GROUPS: Final[Mapping[str, str]] = {
    "drain": "leave",
    "evacuate": "leave",
    "leave": "leave",
    "empty": "leave",
    "upgrade": "out",
    "relieve": "out",
    "stay-out": "out",
    "plan-return": "out",
    "verify": "out",
    "ramp": "back",
    "join": "back",
    "return": "back",
    "bake": "watch",
}
GROUP_NAMES: Final[Mapping[str, str]] = {
    "calm": "preparing, settling: it serves",
    "leave": "leaving",
    "out": "out: upgraded, verified",
    "back": "returning in steps",
    "watch": "watched",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a picture's plot lies. `seconds` of the run span its width."""

    css: str
    width: int
    height: int
    seconds: float
    left: int = 48
    right: int = 8
    top: int = 20
    bottom: int = 24

    def x(self, at_s: float) -> float:
        inside = self.width - self.left - self.right
        return round(self.left + inside * min(max(at_s / self.seconds, 0.0), 1.0), 1)

    def y(self, share: float) -> float:
        inside = self.height - self.top - self.bottom
        return round(self.top + inside * (1 - min(max(share, 0.0), 1.0)), 1)


def frames(seconds: float, height: int) -> tuple[Frame, Frame]:
    seconds = max(seconds, 1.0)
    return Frame("wide", 1040, height, seconds), Frame("narrow", 360, height, seconds)


def both(seconds: float, height: int, told: str, draw: Callable[[Frame], str]) -> str:
    """One picture in two widths; `told` is its text alternative."""
    return "".join(
        f'<svg class="{f.css}" role="img" aria-label="{escape(told)}" viewBox="0 0 {f.width} {f.height}">{draw(f)}</svg>'
        for f in frames(seconds, height)
    )


def colour(i: int) -> str:
    return f"var(--c{i % COLOURS})"


def out_spans(report: Report) -> list[tuple[int, float, float]]:
    """(number of the zone, begin, end) of every time that a zone was leaving, out, or returning."""
    spans: list[tuple[int, float, float]] = []
    for proof in report.proofs:
        began = (proof.began - report.began).total_seconds()
        ended = (proof.returned - report.began).total_seconds() if proof.returned else report.seconds
        spans.append((report.order.index(proof.zone) + 1, began, ended))
    return spans


def shares(report: Report) -> str:
    """Traffic by zone over time, stacked."""
    zones = list(dict.fromkeys([*report.order, *(z for p in report.series.points for z in p.rps)]))
    top = _ceiling(max((sum(p.rps.values()) for p in report.series.points), default=1.0))

    def draw(f: Frame) -> str:
        drawn = [_bands(f, report), _axes(f, top, "/s")]
        for run in _runs(report.series):
            below = [0.0] * len(run)
            for i, zone in enumerate(zones):
                above = [b + p.rps.get(zone, 0.0) for b, p in zip(below, run, strict=True)]
                if above != below:
                    upper, lower = _steps(f, run, above, top, report), _steps(f, run, below, top, report)
                    drawn.append(f'<path fill="{colour(i)}" d="M{upper}L{_reversed(lower)}Z"/>')
                below = above
        return "".join(drawn)

    least = [f"{z}: {_span_of([p.rps.get(z, 0.0) for p in report.series.points], '/s')}" for z in zones]
    return both(report.seconds, 220, f"Requests a second by zone over time, stacked. {'; '.join(least)}.", draw)


def _reversed(points: str) -> str:
    return " ".join(reversed(points.split(" ")))


def _steps(f: Frame, run: Sequence[Point], values: Sequence[float], top: float, report: Report) -> str:
    """Each value holds for its whole step."""
    step = report.series.step_s
    corners = []
    for point, value in zip(run, values, strict=True):
        y = f.y(value / top)
        corners += [f"{f.x(point.at_s)},{y}", f"{f.x(min(point.at_s + step, report.seconds))},{y}"]
    return " ".join(corners)


def line(report: Report, name: str, unit: str, value: Callable[[Point], float | None], at_least: float) -> str:
    """One measure over time, with the times that a zone was out behind it; a gap where nothing was measured."""
    values = [v for p in report.series.points if (v := value(p)) is not None]
    top = _ceiling(max([at_least, *values]))

    def draw(f: Frame) -> str:
        drawn = [_bands(f, report), _axes(f, top, unit)]
        for run in _runs(report.series, value):
            known = [v for p in run if (v := value(p)) is not None]
            corners = _steps(f, run, known, top, report)
            drawn.append(f'<polyline fill="none" stroke="var(--ink)" stroke-width="1.6" points="{corners}"/>')
        return "".join(drawn)

    return both(report.seconds, 150, f"{name} over time: {_span_of(values, unit)}.", draw)


def _span_of(values: Sequence[float], unit: str) -> str:
    if not values:
        return "nothing measured"
    return f"{min(values):.{0 if max(values) >= 10 else 2}f} to {max(values):.{0 if max(values) >= 10 else 2}f} {unit}"  # noqa: PLR2004


def phases(report: Report) -> str:
    """A row a zone: what was done with it, when."""
    rows = [z for z in report.order if any(p.zone == z for p in report.phases)]
    row = 26

    def draw(f: Frame) -> str:
        drawn = [_seconds_axis(f)]
        for i, zone in enumerate(rows):
            y = f.top + i * row
            mine = [p for p in report.phases if p.zone == zone]
            number = report.order.index(zone) + 1
            drawn.append(f'<text class="ink" x="{f.left - 6}" y="{y + 16}" text-anchor="end">{number}</text>')
            drawn += [_bar(f, p, y) for p in _with_gaps(mine)]
        return "".join(drawn)

    told = "; ".join(f"{z} from {s[0]:.0f} s to {s[1]:.0f} s" for z, s in _extent(report, rows).items())
    return both(report.seconds, 44 + row * len(rows), f"What was done with each zone, when: {told}.", draw)


def _extent(report: Report, rows: Sequence[str]) -> dict[str, tuple[float, float]]:
    return {
        zone: (
            min(p.began_s for p in report.phases if p.zone == zone),
            max(p.ended_s for p in report.phases if p.zone == zone),
        )
        for zone in rows
    }


def _with_gaps(mine: Sequence[Phase]) -> list[Phase]:
    """Between being empty and being verified a zone may just stay out: no effect says so, and the picture must."""
    filled = list(mine[:1])
    for before, after in pairwise(mine):
        if GROUPS.get(before.kind) in {"leave", "out"} and after.began_s - before.ended_s > 0:
            filled.append(Phase(before.zone, "stay-out", before.ended_s, after.began_s))
        filled.append(after)
    return filled


def _bar(f: Frame, phase: Phase, y: float) -> str:
    x, width = f.x(phase.began_s), max(f.x(phase.ended_s) - f.x(phase.began_s), 0.6)
    fill = f"var(--{GROUPS.get(phase.kind, 'calm')})"
    said = f"{phase.zone} {phase.kind}: {phase.ended_s - phase.began_s:.1f} s"
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="20" fill="{fill}"><title>{escape(said)}</title></rect>'


def _bands(f: Frame, report: Report) -> str:
    """Where a zone was out, with its number on top; zones that leave and return as one share theirs."""
    drawn = []
    together: dict[tuple[float, float], list[str]] = {}
    for number, began, ended in out_spans(report):
        together.setdefault((f.x(began), f.x(ended)), []).append(str(number))
    for (x, end), numbers in together.items():
        drawn.append(
            f'<rect x="{x}" y="{f.top}" width="{max(end - x, 1):.1f}" height="{f.y(0) - f.top:.1f}" fill="var(--band)"/>'
            f'<text x="{(x + end) / 2:.1f}" y="{f.top - 6}" text-anchor="middle">{", ".join(numbers)}</text>'
        )
    return "".join(drawn)


def _axes(f: Frame, top: float, unit: str) -> str:
    drawn = [_seconds_axis(f)]
    for share in (0.0, 0.5, 1.0):
        y = f.y(share)
        said = f"{top * share:g}{unit if unit.startswith('/') or unit == '%' else ''}"
        drawn.append(f'<path stroke="var(--line)" d="M{f.left} {y}H{f.width - f.right}"/>')
        drawn.append(f'<text x="{f.left - 6}" y="{y + 4}" text-anchor="end">{said}</text>')
    return "".join(drawn)


def _seconds_axis(f: Frame) -> str:
    """Ticks at round times, as many as fit."""
    wanted = f.seconds / max(2, (f.width - f.left) // 90)
    step = next((s for s in (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200) if s >= wanted), ceil(wanted))
    unit, name = (60.0, "min") if step >= 60 else (1.0, "s")  # noqa: PLR2004
    drawn = []
    for i in range(floor(f.seconds / step) + 1):
        x, anchor = f.x(i * step), "start" if i == 0 else "end" if f.x(i * step) > f.width - 30 else "middle"
        drawn.append(f'<text x="{x}" y="{f.height - 6}" text-anchor="{anchor}">{i * step / unit:g} {name}</text>')
        drawn.append(f'<path stroke="var(--line)" d="M{x} {f.height - f.bottom}v4"/>')
    return "".join(drawn)


def _runs(series: Series, value: Callable[[Point], float | None] | None = None) -> list[list[Point]]:
    """Points that follow each other without a gap."""
    runs: list[list[Point]] = []
    for point in series.points:
        if value is not None and value(point) is None:
            continue
        if runs and point.at_s - runs[-1][-1].at_s <= 1.5 * series.step_s:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _ceiling(value: float) -> float:
    """The next round number: 1, 2, 2.5, 4, 5 or 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(float(f"{m * power:g}") for m in (1, 2, 2.5, 4, 5, 10) if m * power >= value * 0.999)
