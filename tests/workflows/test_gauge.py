"""What was read lately is not waited for again."""

from __future__ import annotations

from workflows.outing_stage import Service, now_


def test_a_zone_is_verified_with_the_loads_that_were_read_while_it_was_upgraded() -> None:
    service = Service()
    run = service.deploy()
    service.until_status(run, "succeeded", within_s=3600.0)
    took = [e.duration_s for e in now_(service.store.events(run)) if e.event.kind == "verified"]
    assert 6 == len(took)
    assert max(took) < 1.5 * service.policy.load_window_s  # For the synthetic requests; a window more was waited for.
