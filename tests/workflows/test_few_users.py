"""A service that hardly anybody uses is deployed too: its gates wait for longer, or a person decides."""

from __future__ import annotations

import pytest
from workflows.outing_stage import Service, now_

from orchestrator.core.errors import Rejected
from orchestrator.core.outing import Mode
from orchestrator.operations.outings import Person, order_outing


def test_a_whole_part_is_watched_until_it_is_enough_to_tell() -> None:
    """Six requests a second over six zones: a step and its double are too short, half a minute is not."""
    service = Service(users_rps=6.0)
    run = service.deploy()
    service.until_status(run, "succeeded", within_s=3600.0)
    assert 0.0 == service.harmed()


def test_too_few_users_hold_the_zone_until_a_person_overrides_i2_by_name() -> None:
    service = Service(users_rps=0.6)
    run = service.deploy()
    service.until_status(run, "held")
    now_(service.store.post_order(run, "resume", author="eve", reason="it is night", now=service.now()))
    service.wait(5.0)
    service.until_status(run, "held")
    args = {"overrides": ["I2"]}
    now_(service.store.post_order(run, "resume", author="eve", reason="it is night", now=service.now(), args=args))
    service.until_status(run, "succeeded", within_s=3600.0)
    told = [e.event.evidence for e in now_(service.store.events(run)) if e.event.kind in {"step-passed", "baked"}]
    assert told
    assert all(evidence.startswith("I2 is overridden: ") for evidence in told)


def test_a_zone_that_a_person_took_out_comes_back_by_the_same_override() -> None:
    service = Service(users_rps=0.6)
    run = service.take_out("aws/us-east-1a", Mode.EVACUATE)
    service.until_status(run, "out")
    service.restore("aws/us-east-1a")
    service.until_status(run, "held")
    who = Person("ada", "it is night", service.now())
    now_(order_outing(service.store, service.topology, "aws/us-east-1a", "restore", who, {"overrides": ["I2"]}))
    service.until_status(run, "restored")
    assert ("zone restore aws/us-east-1a, overriding I2", "order 2 for run outing-1") == service.audit()[-1]


def test_a_restore_overrides_no_rule_that_nobody_may() -> None:
    service = Service()
    service.take_out("aws/us-east-1a")
    service.wait(1.0)  # Its carrier begins: a coroutine that never does is warned of.
    who = Person("ada", "why not", service.now())
    with pytest.raises(Rejected, match="I13"):
        now_(order_outing(service.store, service.topology, "aws/us-east-1a", "restore", who, {"overrides": ["I13"]}))
