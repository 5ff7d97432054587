"""What Prometheus reads is what was measured, and nothing where nothing was."""

from __future__ import annotations

import re

from core.proof_facts import T0, ZONES, proof, topology

from orchestrator.core.standing import Objective, standings
from orchestrator.operations.proof import Ledger, document, prometheus, read_ledger

LINE = re.compile(r'^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="(\\.|[^"\\])*",?)*\})? -?[0-9.e+]+)$')


def ledger(*proofs) -> Ledger:
    zones, regions = standings(topology(), proofs, 500.0, Objective(), T0)
    return Ledger("gates", Objective(), T0, 500.0, tuple(zones), tuple(regions), (), tuple(proofs))


def test_every_line_is_of_the_text_format_and_labels_are_escaped() -> None:
    told = prometheus(ledger(proof(), proof("aws/b", evidence='a "quote"\n')))
    assert [] == [line for line in told.splitlines() if not LINE.match(line)]
    assert 'failout_proof_age_seconds{service="gates",zone="aws/a"} 86400\n' in told
    assert 'failout_proof_objective_met{service="gates",region="aws/east"} 0\n' in told


def test_a_zone_without_proof_has_no_age_but_is_told_not_to_meet_the_objective() -> None:
    told = prometheus(ledger(proof()))
    assert 'failout_proof_age_seconds{service="gates",zone="azure/1"}' not in told
    assert 'failout_proof_objective_met{service="gates",zone="azure/1"} 0\n' in told


def test_the_objective_is_met_when_every_zone_is_proven_and_not_before() -> None:
    every = [proof(z) for zones in ZONES.values() for z in zones]
    assert ledger(*every).met
    assert not ledger(*every[1:]).met
    assert not read_ledger(None, topology(), Objective(), T0).met
    assert [None] * 5 == [zone["proof"] for zone in document(ledger())["zones"]]
