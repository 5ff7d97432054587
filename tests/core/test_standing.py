"""Age, strength, trends, and what to do next."""

from __future__ import annotations

from core.proof_facts import T0, ZONES, proof, topology

from orchestrator.core.proof import Worth
from orchestrator.core.standing import Objective, State, standings, trends, zone_standing

ALL = [z for zones in ZONES.values() for z in zones]


def stand(*proofs, peak=500.0, **objective):
    return zone_standing("aws/a", proofs, peak, Objective(**objective), T0)


def test_a_fresh_good_proof_under_load_is_what_the_objective_wants() -> None:
    found = stand(proof())
    assert (State.PROVEN, True, 86_400.0, 1.0, None) == (
        found.state, found.met, found.age_s, found.strength, found.next_command,
    )  # fmt: skip


def test_a_zone_without_proof_was_never_failed_out_and_wants_a_drill() -> None:
    found = stand(proof("aws/b"))
    assert (State.NEVER, None, None) == (found.state, found.age_s, found.strength)
    assert "failout drill run --zone aws/a" == found.next_command


def test_a_proof_grows_stale() -> None:
    assert State.STALE == (found := stand(proof(days_ago=8))).state
    assert "8.0 days old, 7 allowed" in found.why
    assert State.PROVEN == stand(proof(days_ago=8), age_days_max=9).state


def test_a_proof_at_night_is_weak_however_fresh_and_an_older_one_under_load_still_counts() -> None:
    night = proof(load_rps=100.0, run="d2")
    assert (State.WEAK, 0.2) == ((found := stand(night)).state, found.strength)
    assert "20% of the peak load only" in found.why
    assert (State.PROVEN, 3 * 86_400.0) == ((found := stand(night, proof(days_ago=3))).state, found.age_s)


def test_a_peak_that_has_grown_since_makes_an_old_proof_weaker() -> None:
    assert 0.5 == stand(proof(), peak=1_000.0).strength
    assert 0.25 == stand(proof(), peak_rps=2_000.0).strength


def test_a_load_that_was_not_measured_is_no_strength() -> None:
    assert (State.WEAK, None) == ((found := stand(proof(load_rps=None))).state, found.strength)


def test_a_harmful_fail_out_revokes_the_good_ones_before_it_and_a_good_one_heals_it() -> None:
    bad = proof(worth=Worth.BAD, days_ago=0.5, run="d2", evidence="users were harmed")
    assert (State.BROKEN, "failout report show d2") == ((found := stand(bad, proof())).state, found.next_command)
    assert State.PROVEN == stand(bad, proof(days_ago=0.1, run="d3")).state


def test_a_weak_proof_takes_nothing_away_from_the_good_one_before_it() -> None:
    weak = proof(worth=Worth.WEAK, days_ago=0.5, run="d2")
    assert State.PROVEN == stand(weak, proof()).state
    assert State.WEAK == stand(weak).state


def test_a_region_stands_as_its_weakest_zone_does() -> None:
    proofs = [proof(z, days_ago=8 if z == "aws/b" else 1) for z in ALL if z != "azure/2"]
    zones, (aws, azure) = standings(topology(), proofs, 500.0, Objective(), T0)
    assert ALL == [z.place for z in zones]
    assert (State.STALE, 8 * 86_400.0) == (aws.state, aws.age_s)
    assert (State.NEVER, None) == (azure.state, azure.age_s)
    assert "aws/b: its last good proof is 8.0 days old" in aws.why


def test_a_region_was_emptied_only_when_all_of_its_zones_were_out_at_once() -> None:
    one_by_one = [proof(z, days_ago=1 + i) for i, z in enumerate(ZONES["aws/east"])]
    _, (aws, _) = standings(topology(), one_by_one, 500.0, Objective(), T0)
    assert aws.emptied_age_s is None
    at_once = [proof(z, run="e1", load_rps=400.0) for z in ZONES["aws/east"]]
    _, (aws, _) = standings(topology(), at_once, 500.0, Objective(), T0)
    assert (86_400.0, 0.8) == (aws.emptied_age_s, aws.emptied_strength)


def releases(*drains: float) -> list:
    """Two zones drained once by each of v1, v2, ..., a day apart; the second takes twice as long."""
    found = []
    for i, drain_s in enumerate(drains):
        for factor, zone in ((1, "aws/a"), (2, "azure/1")):
            left = proof(zone, days_ago=30 - i, run=f"d{i}", version=f"v{i + 1}", drain_s=factor * drain_s)
            found.append(left)
    return found


def test_a_release_from_which_on_zones_drain_slower_is_named() -> None:
    assert ["zones drain 2.0x slower since v3 (9.0 s before, 18.0 s since)"] == trends(releases(6, 6, 12, 12))


def test_one_slow_release_that_was_mended_and_small_changes_are_no_trend() -> None:
    assert [] == trends(releases(6, 12, 6))
    assert [] == trends(releases(6, 7, 8))
    assert [] == trends(releases(6))
    assert [] == trends([])


def test_a_zone_is_compared_with_itself_and_a_bad_fail_out_with_nothing() -> None:
    mixed = [proof("aws/a", 3, version="v1", drain_s=5.0), proof("azure/1", 2, version="v2", drain_s=50.0)]
    assert [] == trends(mixed)
    assert [] == trends([*releases(6), proof(days_ago=0.1, version="v9", drain_s=600.0, worth=Worth.BAD)])
