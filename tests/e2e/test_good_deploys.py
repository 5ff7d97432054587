"""Ten good deploys in a row, each in a lab and of users of another seed: no request fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.cases import Case
from e2e.stage import TWO_CLOUDS, blueprint, stage

pytestmark = pytest.mark.soak

ZONES = {"aws/us-east-1a", "aws/us-east-1b", "azure/eastus-1", "azure/eastus-2"}


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_good_deploy_fails_no_request_whatever_the_seed(tmp_path: Path, case: Case, seed: int) -> None:
    with stage(tmp_path, blueprint(TWO_CLOUDS, instances=1, ttl_s=1, seed=seed)) as made:
        deploy = made.deploy("v2")
        ended = deploy.wait()
        users = made.seen(deploy.started_at)
        assert {} == users.failures
        assert (0, "succeeded") == (ended.code, ended.run and ended.run.status), ended.err[-2000:]
        assert {zone: {"v2": 1} for zone in ZONES} == made.ending()["processes"]
        balancing = made.lab("/status")["balancing"]
        assert (0, 0) == (balancing["retries"], balancing["redispatches"])
        told = f"{ended.seconds:.0f} s; p99 {users.p99_ms:.0f} ms; no retry by a load balancer"
    case.tell(f"Good deploy of four zones, seed {seed}", users, "succeeded", told)
