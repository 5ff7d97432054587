"""What a fail-out proves, from a history and measurements written by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from core.proof_facts import CALM, CALM_SAMPLES, ZONES, at, happened, history, second, steady, topology, without

from orchestrator.core.proof import Proof, Worth, derive, dump, outings, parse

DRAINED = CALM[:3]


def proofs(steps=None, samples=None, ended=61.0, peak=500.0, rps_per_instance=100.0, **given) -> list[Proof]:
    told = history(steps if steps is not None else happened(*CALM), ended, **given)
    return derive(told, CALM_SAMPLES if samples is None else samples, topology(rps_per_instance), peak, 0.001)


def the_only(found: list[Proof]) -> Proof:
    assert 1 == len(found), found
    return found[0]


def test_a_zone_that_nobody_missed_leaves_a_good_proof_made_of_what_was_measured() -> None:
    proof = the_only(proofs())
    assert ("d1:aws/a:1", "aws/a", "aws/east", "deploy", "ada") == (
        proof.id, proof.zone, proof.region, proof.kind, proof.author,
    )  # fmt: skip
    assert (at(21), at(25), at(41), at(51)) == (proof.began, proof.emptied, proof.restored, proof.returned)
    assert (4.0, 30.0) == (proof.drain_s, proof.out_s)
    assert (500.0, 1.0) == (proof.load_rps, proof.load_share)
    assert (10_000, 0) == (proof.requests, proof.failed)
    assert (0.0, 0.0, 21.0) == (proof.added_p50_ms, proof.added_p99_ms, proof.before_s)
    assert {"aws/b": 0.5, "aws/c": 0.5, "azure/1": 0.667, "azure/2": 0.667} == proof.headroom
    assert (Worth.GOOD, "v1", "v2") == (proof.worth, proof.version, proof.target)
    assert "0 of 10,000 requests failed" in proof.evidence


def test_it_is_written_and_read_back_whole() -> None:
    proof = the_only(proofs())
    assert proof == parse(json.loads(json.dumps(dump(proof))))


def test_deriving_again_gives_the_same_records() -> None:
    assert proofs() == proofs()


def test_failed_requests_make_it_bad_and_one_by_chance_does_not() -> None:
    harmed = [*steady(range(21)), *without("aws/a", range(21, 41), errors={"aws/b": 2})]
    proof = the_only(proofs(samples=harmed))
    assert (Worth.BAD, 40) == (proof.worth, proof.failed)
    assert "users were harmed: 40 of 10,000" in proof.evidence
    once = [*steady(range(21)), *without("aws/a", range(21, 40)), *without("aws/a", range(40, 41), errors={"aws/b": 1})]
    assert (Worth.GOOD, 1) == ((chance := the_only(proofs(samples=once))).worth, chance.failed)


def test_survivors_that_got_slow_make_it_bad() -> None:
    proof = the_only(proofs(samples=[*steady(range(21)), *without("aws/a", range(21, 41), ms=300.0)]))
    assert (Worth.BAD, 260.0) == (proof.worth, proof.added_p99_ms)


def test_a_survivor_beyond_its_capacity_makes_it_bad() -> None:
    proof = the_only(proofs(rps_per_instance=45.0))
    assert Worth.BAD == proof.worth
    assert "aws/b, aws/c had no headroom left" in proof.evidence


def test_what_was_not_measured_is_none_and_the_proof_is_weak() -> None:
    proof = the_only(proofs(samples=[]))
    assert (None, None, None, None, None) == (
        proof.load_rps, proof.requests, proof.failed, proof.added_p99_ms, proof.load_share,
    )  # fmt: skip
    assert {None} == set(proof.headroom.values())
    assert Worth.WEAK == proof.worth
    assert "nothing was measured" in proof.evidence


def test_without_samples_the_load_is_what_admission_measured_and_the_proof_is_still_weak() -> None:
    steps = happened(*CALM, loads={"aws/a": 90.0, "aws/b": 110.0}, version="v1.1")
    proof = the_only(proofs(steps, samples=[]))
    assert (200.0, 90.0, "v1.1", Worth.WEAK) == (proof.load_rps, proof.zone_rps, proof.version, proof.worth)


def test_half_of_the_time_unwatched_is_weak() -> None:
    proof = the_only(proofs(samples=[*steady(range(21)), *without("aws/a", range(21, 31))]))
    assert Worth.WEAK == proof.worth
    assert "only 50% of the time was watched" in proof.evidence


def test_a_neighbour_that_nobody_heard_makes_it_weak() -> None:
    deaf = [replace(s, zones={z: w for z, w in s.zones.items() if z != "aws/b"}) for s in CALM_SAMPLES]
    proof = the_only(proofs(samples=deaf))
    assert (None, Worth.WEAK) == (proof.headroom["aws/b"], proof.worth)


def test_too_little_to_compare_with_is_weak() -> None:
    proof = the_only(proofs(samples=without("aws/a", range(21, 41))))
    assert (0.0, None, Worth.WEAK) == (proof.before_s, proof.added_p99_ms, proof.worth)
    assert "too few requests" in proof.evidence


def test_a_drain_that_took_too_long_is_bad_and_one_that_was_called_back_is_weak() -> None:
    late = happened(*CALM[:2], (25.0, "drain", "drain-timed-out"), (26.0, "join", "joined"))
    assert Worth.BAD == (proof := the_only(proofs(late))).worth
    assert "could not be emptied in time" in proof.evidence
    recalled = happened(*CALM[:2], (25.0, "drain", "interrupted"), (26.0, "join", "joined"))
    assert Worth.WEAK == (proof := the_only(proofs(recalled))).worth
    assert proof.drain_s is None
    assert "called back before it was empty" in proof.evidence


def test_a_zone_that_is_still_out_leaves_nothing_yet_and_a_bad_proof_once_the_run_waits_for_a_person() -> None:
    assert [] == proofs(happened(*DRAINED), ended=None)
    proof = the_only(proofs(happened(*DRAINED), ended=41.0))
    assert (None, Worth.BAD) == (proof.returned, proof.worth)
    assert "has not come back" in proof.evidence


def test_the_proof_of_a_zone_that_came_back_after_all_takes_the_place_of_the_bad_one() -> None:
    held = the_only(proofs(happened(*DRAINED), ended=41.0))
    assert held.id == the_only(proofs()).id


def test_a_sick_version_that_sends_the_zone_out_again_is_the_same_outing_until_it_has_joined() -> None:
    steps = happened(
        *CALM[:5], (45.0, "ramp", "unhealthy"), (47.0, "drain", "drained"), (50.0, "ramp", "step-passed"),
        (51.0, "join", "joined"), (55.0, "bake", "unhealthy"), (57.0, "drain", "drained"), (60.0, "join", "joined"),
    )  # fmt: skip
    first, second_ = outings(history(steps))
    assert (at(21), at(25), at(41), at(51)) == (first.began, first.emptied, first.restored, first.returned)
    assert (2, at(55), at(57), at(60)) == (second_.number, second_.began, second_.emptied, second_.returned)


def test_a_drain_that_a_crash_interrupted_is_timed_from_its_first_begin() -> None:
    steps = happened(*CALM[:2], (24.0, "drain", "interrupted"), (29.0, "drain", "drained"), *CALM[3:])
    assert 8.0 == the_only(proofs(steps)).drain_s


def test_capacity_that_was_added_for_it_stands_in_the_record() -> None:
    undo = {"scale": {"aws/b": {"from": 3, "to": 5}, "aws/c": {"from": 3, "to": 3}}, "weights": {}}
    assert {"aws/b": 2} == the_only(proofs(happened(*CALM, undo=undo))).capacity_added


def test_a_region_that_was_emptied_whole_is_carried_by_the_others() -> None:
    region = ZONES["aws/east"]
    words = ((21.0, "prepare", "prepared"), (25.0, "evacuate", "emptied"), (41.0, "verify", "verified"),
             (45.0, "ramp", "step-passed"), (51.0, "settle", "returned"))  # fmt: skip
    steps = [step for zone in region for step in happened(*words, zone=zone)]
    out = [second(i, {**dict.fromkeys(region, 0), "azure/1": 250, "azure/2": 250}) for i in range(21, 41)]
    found = proofs(sorted(steps, key=lambda s: s.at), samples=[*steady(range(21)), *out])
    assert set(region) == {p.zone for p in found}
    assert {("azure/1", "azure/2")} == {tuple(p.headroom) for p in found}
    assert {Worth.GOOD} == {p.worth for p in found}


@pytest.mark.parametrize("effect", ["drain", "evacuate"])
def test_deploys_drills_and_people_leave_the_same_record(effect: str) -> None:
    steps = happened(
        (21.0, "prepare", "prepared"), (25.0, effect, f"{effect}d" if effect == "evacuate" else "drained"),
        (40.0, "plan-return", "return-planned"), (41.0, "verify", "verified"), *CALM[5:7], (52.0, "settle", "settled"),
    )  # fmt: skip
    proof = the_only(proofs(steps, kind="outing", author="eve"))
    assert (at(25), at(41), at(51), Worth.GOOD, "eve") == (
        proof.emptied, proof.restored, proof.returned, proof.worth, proof.author,
    )  # fmt: skip
