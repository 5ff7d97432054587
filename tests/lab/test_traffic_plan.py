"""What is pure in the traffic generator: the plan, the judging of answers, the recount."""

from __future__ import annotations

from itertools import islice, takewhile

import pytest

from orchestrator.core.errors import Rejected
from orchestrator.lab.traffic.answer import Answer, parse
from orchestrator.lab.traffic.plan import Dial, constant, day, plan, stepped
from orchestrator.lab.traffic.record import RawLog, Recount, Row, Slice, read, recount

BODY = b'{"zone": "aws/a", "instance": "i-1", "version": "v1"}'
HEAD = b"HTTP/1.1 200 OK\r\nx-zone: aws/a\r\nX-INSTANCE: i-1\r\nX-Version: v1\r\nContent-Length: %d\r\n" % len(BODY)


def the_plan(seed: int, rate=None):
    return plan(rate or constant(300), 60, fresh_share=0.3, long_share=0.1, seed=seed)


def test_a_seed_names_one_plan_and_another_seed_another():
    assert list(islice(the_plan(7), 500)) == list(islice(the_plan(7), 500))
    assert list(islice(the_plan(7), 500)) != list(islice(the_plan(8), 500))


def test_the_plan_keeps_its_shares_and_uses_every_client():
    planned = list(islice(the_plan(1), 10_000))
    assert sum(p.fresh for p in planned) == pytest.approx(3000, rel=0.05)
    assert sum(p.long for p in planned) == pytest.approx(1000, rel=0.1)
    assert set(range(60)) == {p.client for p in planned}


def test_a_day_is_quiet_at_night_peaks_in_the_evening_and_repeats():
    rate = day(300, 240)
    assert 300 == pytest.approx(max(rate(second) for second in range(240))) == pytest.approx(rate(200))
    assert pytest.approx(rate(40)) == 75  # 04:00
    assert rate(10) == pytest.approx(rate(250))


def test_a_plan_along_a_day_has_as_many_requests_as_the_curve_says():
    rate = day(300, 24)
    planned = list(takewhile(lambda p: p.due_s < 24, the_plan(1, rate)))
    wanted = sum(rate(i / 100) / 100 for i in range(2400))
    assert wanted == pytest.approx(len(planned), rel=0.01)


def test_a_rate_doubles_from_the_second_that_was_named():
    planned = list(takewhile(lambda p: p.due_s < 20, the_plan(1, stepped(constant(100), [(200, 10)]))))
    assert 1000 == pytest.approx(sum(p.due_s < 10 for p in planned), abs=1)
    assert 2000 == pytest.approx(sum(p.due_s >= 10 for p in planned), abs=1)


def test_a_rate_is_turned_in_the_middle_of_a_plan():
    dial = Dial(constant(100))
    planned = the_plan(1, dial)
    before = list(islice(planned, 101))
    dial.turn(200)
    after = list(islice(planned, 200))
    assert 1.0 == pytest.approx(before[-1].due_s)
    assert 1.0 == pytest.approx(after[-1].due_s - before[-1].due_s, abs=0.01)


@pytest.mark.parametrize("cut", [0, 10, len(HEAD), len(HEAD) + 2, len(HEAD) + 2 + len(BODY) - 1])
def test_an_answer_is_not_judged_before_it_is_whole(cut):
    assert parse((HEAD + b"\r\n" + BODY)[:cut]) is None


@pytest.mark.parametrize(
    ("expected", "received"),
    [
        (Answer("ok", "aws/a", "i-1", "v1", reusable=True), HEAD + b"\r\n" + BODY),
        (Answer("ok", "aws/a", "i-1", "v1", reusable=False), HEAD + b"connection: Close\r\n\r\n" + BODY),
        (Answer("ok", "aws/a", "i-1", "v1", reusable=False), HEAD.replace(b"1.1", b"1.0") + b"\r\n" + BODY),
        (Answer("wrong-body", "aws/a", "i-1", "v1", reusable=False), HEAD + b"\r\n" + BODY + b"more"),
        (Answer("wrong-body", "aws/a", "i-1", "v1", reusable=True), HEAD + b"\r\n" + BODY.replace(b"v1", b"v2")),
        (Answer("wrong-body", "aws/a", "i-1", "v1", reusable=True), HEAD + b"\r\n" + b"[" * len(BODY)),
        (Answer("wrong-body", "", "", "", reusable=True), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        (Answer("wrong-body", "", "", "", reusable=False), b"HTTP/1.1 200 OK\r\n\r\n"),
        (Answer("wrong-body", "", "", "", reusable=False), b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n"),
        (Answer("wrong-body", "", "", "", reusable=False), b"HTTP/1.1 two OK\r\n\r\n"),
        (Answer("wrong-body", "", "", "", reusable=False), b"x" * 20_000),
        (Answer("status-502", "", "", "", reusable=False), b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>"),
        (Answer("status-500", "", "", "", reusable=True), b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_only_a_whole_body_that_states_what_its_headers_state_is_ok(expected, received):
    assert expected == parse(received)


def row(t: float, outcome: str = "ok", latency_ms: float = 10.0, zone: str = "aws/a") -> Row:
    return Row(t, 3, zone, "i-1", "v1", outcome, latency_ms, "fresh", "short", "127.0.0.1")


def test_a_recount_tells_zones_failures_and_percentiles_of_the_ok_ones():
    rows = [row(i, latency_ms=i + 1) for i in range(100)] + [row(100, "reset", 900, zone="")]
    expected = Recount(
        *(101, 100, 1, 50, 99),
        {"reset": 1},
        {"": Slice(0, 1, None, None), "aws/a": Slice(100, 0, 50, 99)},
        {"v1": Slice(100, 1, 50, 99)},
    )
    assert expected == recount(rows)


def test_a_recount_of_a_phase_counts_what_was_due_in_it():
    rows = [row(i) for i in range(10)]
    assert recount(rows, since=2, until=5).sent == 3
    assert Recount(0, 0, 0, None, None, {}, {}, {}) == recount(rows, since=50)


def test_what_is_written_is_read_back_and_a_half_written_last_line_is_left_out(tmp_path):
    path = tmp_path / "log.csv"
    log = RawLog(path)
    log.write(row(1.25, zone='a"b,c'))
    log.write(row(2.5))
    log.close()
    assert [row(1.25, zone='a"b,c'), row(2.5)] == list(read(path))
    path.write_text(path.read_text()[:-5])
    assert [row(1.25, zone='a"b,c')] == list(read(path))


def test_a_damaged_log_is_rejected_with_its_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("time,zone\n1,a\n")
    with pytest.raises(Rejected, match="not a log of requests"):
        list(read(path))
    path.write_text(",".join(Row._fields) + "\n1,2,3\n")
    with pytest.raises(Rejected, match="line 2"):
        list(read(path))
