"""A report is one file that loads nothing, that a phone can show, and that nothing in a run's evidence can break."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from core.proof_facts import CALM, CALM_SAMPLES, T0, at, happened, history, topology
from msgspec import structs

from orchestrator.core.proof import derive
from orchestrator.core.samples import Sample, ZoneSample
from orchestrator.operations.page import page, write_report
from orchestrator.operations.report import (
    INSTANCES,
    Compared,
    Moment,
    Phase,
    Report,
    Series,
    markdown,
    meanwhile,
    series_of,
    totals,
)

NASTY = """</td><script>alert(1)</script><img src=x onerror="x"> | ```  [a](http://evil.example)"""


@pytest.fixture
def report() -> Report:
    proofs = derive(history(happened(*CALM)), CALM_SAMPLES, topology(), 500.0, 0.001)
    began = [0.0, *(s for s, _, _ in CALM)]
    phases = [Phase("aws/a", kind, since, until) for since, (until, kind, _) in zip(began, CALM, strict=False)]
    return Report(
        run="d1", kind="deploy", service="gates", title="Deploy of v2: succeeded", status="succeeded", why="", author="ada",
        began=T0, seconds=61.0, ended=True, order=("aws/a",), series=series_of(CALM_SAMPLES, T0, 61.0), phases=tuple(phases),
        proofs=tuple(proofs), moments=(Moment(at(25), "aws/a", "drained", 4.0, "nothing in flight"),),
        before="d0", compared=(Compared("drain, median", "s", 4.0, 2.0), Compared("least headroom", "%", None, 50.0)),
    )  # fmt: skip


class Shape(HTMLParser):
    """What is in the page: tags, their attributes, and whether every one of them is closed."""

    VOID = frozenset({"meta", "link", "path", "rect", "polyline", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID or (tag == "rect" and "/>" not in self.get_starttag_text()):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag) -> None:
        if tag == "rect" and (not self.open or self.open[-1] != "rect"):
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_every_section_is_there_and_every_tag_is_closed(report: Report) -> None:
    text = page(report)
    shape = Shape(text)
    heads = re.findall(r"<h2>(.*?)</h2>", text)
    assert ["What each zone proved", "Traffic by zone, requests a second", "Failed requests, %", "p99 latency, ms",
            "Phases of each zone", "Beside the last one", "Timeline and evidence"] == heads  # fmt: skip
    assert (1, 1) == (shape.tags["h1"], shape.tags["html"])
    assert ([], []) == (shape.open, shape.wrong)


def test_nothing_is_loaded_from_anywhere_and_nothing_runs(report: Report) -> None:
    text = page(replace(report, author=NASTY, why=NASTY, moments=(Moment(T0, NASTY, NASTY, 1.0, NASTY),)))
    shape = Shape(text)
    assert 0 == sum(shape.tags[tag] for tag in ("script", "img", "iframe", "object", "base", "form", "image", "use"))
    loaded = [v for _, name, v in shape.attributes if name in {"src", "href", "srcset", "action", "data", "xlink:href"}]
    assert ["data:,"] == loaded
    assert [] == [name for _, name, _ in shape.attributes if name.startswith("on")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import", style)
    assert "default-src 'none'" in text
    assert ([], []) == (shape.open, shape.wrong)


def test_every_picture_has_words_for_those_who_cannot_see_it_and_a_shape_for_phones(report: Report) -> None:
    shape = Shape(page(report))
    told = [value for tag, name, value in shape.attributes if (tag, name) == ("svg", "aria-label")]
    assert shape.tags["svg"] == len(told) == 8
    assert all(value and len(value) > 20 for value in told)
    assert any("aws/a: 0 to 100 /s" in (value or "") for value in told)
    assert {"wide": 4, "narrow": 4} == Counter(v for t, n, v in shape.attributes if (t, n) == ("svg", "class"))
    assert ("meta", "content", "width=device-width, initial-scale=1") in shape.attributes


def test_a_day_of_a_hundred_zones_stays_small(report: Report) -> None:
    window = CALM_SAMPLES[0].zones["aws/a"].window
    zones = {f"aws/zone-{i}": ZoneSample(3, window) for i in range(100)}
    day = [Sample(at(60.0 * (i + 1)), zones) for i in range(24 * 60)]
    many = tuple(Moment(T0, "aws/a", "step", 1.0, "x" * 200) for _ in range(400))
    long = replace(report, seconds=86_400.0, series=series_of(day, T0, 86_400.0), moments=many)
    assert len(long.series.points) <= 151
    assert len(page(long)) < 2_000_000


def test_a_run_of_which_nothing_was_measured_says_so(report: Report) -> None:
    text = page(replace(report, series=Series(INSTANCES, 2.0, ()), proofs=(), compared=(), before=None))
    assert "Nothing was measured during this run." in text
    assert "nothing is proven" in text
    assert "first of its kind" in text


def test_curves_count_each_request_once_and_show_a_gap_where_nobody_was_heard() -> None:
    series = series_of([*CALM_SAMPLES[:10], *CALM_SAMPLES[20:]], T0, 61.0)
    assert (51 * 500, 0) == totals(series)
    assert [8.0, 20.0] == [p.at_s for p in series.points][4:6]
    slow = replace(
        CALM_SAMPLES[0],
        at=at(7),
        zones={"aws/a": ZoneSample(3, structs.replace(CALM_SAMPLES[0].zones["aws/a"].window, seconds=6.0))},
    )
    stretched = series_of([slow], at(0.5), 30.0)
    assert [0.0, 2.0, 4.0] == [p.at_s for p in stretched.points]
    assert (100, 0) == totals(stretched)


def test_numbers_by_phase_tell_the_share_of_the_zone_and_what_all_users_got(report: Report) -> None:
    rows = {row[1]: row[2:] for row in meanwhile(report)}
    assert ("0 %", "8,000", "0", "40 ms") == rows["upgrade"]
    assert "20 %" == rows["bake"][0]


def test_markdown_has_the_same_facts_and_evidence_cannot_become_markup(report: Report) -> None:
    text = markdown(replace(report, moments=(Moment(T0, "aws/a", "drained", 1.0, NASTY),)))
    assert text.startswith("# Deploy of v2: succeeded\n")
    assert "| aws/a | good | v1 → v2 | 500/s | 100 % | 4.0 s | 30.0 s | 0 of 10,000 | 40 ms (+0) | 50 % |" in text
    assert "| drain, median | 4.0 s | 2.0 s |" in text
    assert "| least headroom | — | 50 % |" in text
    assert "<script" not in text
    widths = {line.count(" | ") for line in text.split("## Timeline")[1].splitlines() if line.startswith("|")}
    assert 1 == len(widths), "a bar in the evidence must not make a column"


def test_both_files_are_their_owners_alone(report: Report, tmp_path) -> None:
    path = write_report(report, tmp_path / "reports" / "d1")
    assert {"report.md", "report.html"} == {p.name for p in path.parent.iterdir()}
    assert {0o600} == {p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
    write_report(report, path.parent)
