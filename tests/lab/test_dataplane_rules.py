"""The data plane's rules, without a process: who gets traffic, what HAProxy is told, what DNS answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.core import health
from orchestrator.lab import addresses, instance
from orchestrator.lab.addresses import RegionAddresses, region_of
from orchestrator.lab.balancer import serving, shares
from orchestrator.lab.catalogue import GOOD, SICKNESSES, behaviour_of
from orchestrator.lab.dns import Answer, candidates
from orchestrator.lab.haproxy import POOLS_MAX, SHARES, Serving, Slot, Wanted, commands, config, cuts
from orchestrator.lab.model import Admin, Front, FrontKind, Member, Pool, TargetHealth
from orchestrator.lab.prober import Check, Verdict

A, B, C = (Member(f"i-{z}", f"127.9.{n}.10", f"aws/{z}") for n, z in enumerate("abc", 1))
CHECK = Check("", "", 0, "/admit", 0.2, healthy_after=3, unhealthy_after=2)


def alb(*members: Member, away: tuple[str, ...] = ()) -> Front:
    return Front("alb", FrontKind.ALB, {}, (Pool("steady", members),), {"steady": 100}, frozenset(away))


def tcp(*members: Member) -> Front:
    return replace(alb(*members), kind=FrontKind.TCP)


def reached(front: Front, *well: Member) -> set[str]:
    names = {m.instance for m in well}
    judge = lambda key: TargetHealth.HEALTHY if key[2] in names else TargetHealth.UNHEALTHY  # noqa: E731
    return {i.removeprefix("i-") for i in serving(front, front.pools[0], judge)}


@pytest.mark.parametrize(
    ("expected", "front", "well"),
    [
        pytest.param("ab", alb(A, B, C), (A, B), id="an ALB reaches what is healthy"),
        pytest.param("abc", alb(A, B, C), (), id="an ALB with nothing healthy fails open"),
        pytest.param("b", alb(replace(A, draining=True), B), (A, B), id="what drains gets nothing new"),
        pytest.param("b", alb(replace(A, draining=True), B), (A,), id="not even when the pool fails open"),
        pytest.param("", alb(replace(A, draining=True)), (A,), id="a pool that only drains reaches nobody"),
        pytest.param("bc", alb(A, B, C, away=("aws/a",)), (A, B, C), id="a zonal shift takes the zone's targets out"),
        pytest.param("ab", alb(A, B, away=("aws/a",)), (A,), id="a zonal shift has no effect when the rest is sick"),
        pytest.param("a", tcp(A, B), (A,), id="a TCP front reaches members whose probe passes"),
        pytest.param("", tcp(A, B), (), id="a TCP front does not fail open"),
        pytest.param("b", tcp(replace(A, admin=Admin.DOWN), B), (A, B), id="Down gets nothing new"),
        pytest.param("a", tcp(replace(A, admin=Admin.UP), B), (), id="Up overrides the probe"),
    ],
)
def test_who_gets_new_traffic(expected, front, well):
    assert set(expected) == reached(front, *well)


@pytest.mark.parametrize(
    ("expected", "weights"),
    [
        ((10_000, 0), {"steady": 100, "ramp": 0}),
        ((9_000, 1_000), {"steady": 90, "ramp": 10}),
        ((9_900, 100), {"steady": 99, "ramp": 1}),
        ((0, 0), {"steady": 0, "ramp": 0}),
        ((3_333, 6_667), {"steady": 333, "ramp": 666}),
    ],
)
def test_weights_become_shares_of_the_whole(expected, weights):
    front = replace(alb(), weights=weights)
    found = shares(front, {"steady": 0, "ramp": 1})
    assert expected == found[:2]
    assert sum(found) in (0, SHARES)


def test_the_ends_of_the_pools_parts_are_cumulative_and_complete():
    assert "2500:10000:10000:10000:10000" == cuts((2500, 7500, 0, 0, 0))
    assert POOLS_MAX == len(cuts(()).split(":"))


def test_servers_come_before_their_weight_and_go_after_it():
    """HAProxy serves requests between two commands: a pool with weight must not be empty for that moment."""
    comes, goes = Slot(1, 1), Slot(0, 1)
    have = Wanted((10_000, 0, 0, 0, 0), {goes: ("127.9.1.10", Serving.TAKING)})
    want = Wanted((0, 10_000, 0, 0, 0), {goes: ("127.9.1.10", Serving.RESTING), comes: ("127.9.1.11", Serving.TAKING)})
    said = commands(have, want)
    assert ["set server p1/s1 addr 127.9.1.11 port 8080", "set server p1/s1 state ready"] == said[:2]
    assert "set var proc.cuts" in said[2]
    assert ["set server p0/s1 state drain"] == said[3:]
    assert [] == commands(want, want)


def test_a_member_that_is_gone_loses_its_sessions_and_one_that_rests_keeps_them():
    slot = Slot(0, 2)
    have = Wanted(servers={slot: ("127.9.1.10", Serving.TAKING)})
    assert ["set server p0/s2 state maint", "shutdown sessions server p0/s2"] == commands(have, Wanted())
    rests = Wanted(servers={slot: ("127.9.1.10", Serving.RESTING)})
    assert ["set server p0/s2 state drain"] == commands(have, rests)


def test_strict_mode_has_every_retry_off(tmp_path):
    for kind in FrontKind:
        strict = config(kind, "127.9.0.10", tmp_path / "x.sock", strict=True)
        assert "retries 0" in strict
        assert "redispatch" not in strict
        assert "redispatch" in config(kind, "127.9.0.10", tmp_path / "x.sock", strict=False)


def hear(verdict: Verdict, answers: str) -> TargetHealth:
    for answer in answers:
        verdict.hear(answer == "+", CHECK)
    return verdict.health


@pytest.mark.parametrize(
    ("expected", "answers"),
    [
        (TargetHealth.INITIAL, ""),
        (TargetHealth.INITIAL, "++"),
        (TargetHealth.HEALTHY, "+++"),
        (TargetHealth.INITIAL, "-+"),
        (TargetHealth.UNHEALTHY, "--"),
        (TargetHealth.UNHEALTHY, "--++-++"),
        (TargetHealth.HEALTHY, "--+++-"),
        (TargetHealth.UNHEALTHY, "+++--"),
    ],
)
def test_a_verdict_needs_its_answers_in_a_row(expected, answers):
    assert expected is hear(Verdict(), answers)


def record(set_id: str, weight: int, *, healthy: bool) -> Answer:
    return Answer(set_id, weight, 5, ("127.9.0.10",), healthy)


UP, SICK = record("up", 100, healthy=True), record("sick", 100, healthy=False)
SPARE, SICK_SPARE = record("spare", 0, healthy=True), record("sick spare", 0, healthy=False)


@pytest.mark.parametrize(
    ("expected", "records"),
    [
        pytest.param({"up"}, (UP, SICK, SPARE), id="healthy weighted records answer"),
        pytest.param({"spare"}, (SICK, SPARE), id="weight 0 answers when no weighted record is healthy"),
        pytest.param({"sick"}, (SICK, SICK_SPARE), id="when nothing is healthy everything counts as healthy"),
        pytest.param({"spare", "sick spare"}, (SPARE, replace(SICK_SPARE, healthy=True)), id="all weights 0: any"),
        pytest.param(set(), (), id="no records, no answer"),
    ],
)
def test_dns_chooses_as_route_53_does(expected, records):
    choice, weights = candidates(records)
    assert expected == {a.set_id for a in choice}
    assert all(weight > 0 for weight in weights)


def test_the_instance_agrees_with_the_package_that_it_cannot_import():
    assert health.LATENCY_BOUNDS_MS == instance.LATENCY_BOUNDS_MS
    assert addresses.FIRST_USER_HOST == instance.FIRST_USER_HOST


def test_agent_prober_and_lab_are_not_users_and_load_balancers_are():
    plan = RegionAddresses(9)
    host = lambda address: int(address.rsplit(".", 1)[1])  # noqa: E731
    assert max(map(host, (plan.agent, plan.prober, plan.hand))) < addresses.FIRST_USER_HOST
    assert min(map(host, (plan.node(0), plan.tcp_front))) >= addresses.FIRST_USER_HOST
    assert plan == region_of(plan.instance(2, 5))


def test_a_versions_suffix_says_its_sickness():
    assert GOOD == behaviour_of("v2") == behaviour_of("2026-01-01.errors")
    for suffix, sickness in SICKNESSES.items():
        assert sickness == behaviour_of(f"v7{suffix}") != GOOD
        assert (sickness, GOOD) == tuple(behaviour_of(f"v7{suffix}-on-azure", cloud) for cloud in ("azure", "aws"))
        assert sickness.boot_s == json.loads(sickness.to_json())["boot_s"]
