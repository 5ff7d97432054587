"""The rules that a run is carried by, whichever machine carries it, and how they stand in its row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, cast

import msgspec

from orchestrator.core.health import GatePolicy
from orchestrator.core.machine import Json


class OnFailure(StrEnum):
    HOLD = "hold"
    ROLLBACK_ZONE = "rollback-zone"
    ROLLBACK_ALL = "rollback-all"


class OnExpiry(StrEnum):
    """What follows when a zone is out for longer than `out_expires_s` (I8). A person is paged in any case."""

    HOLD = "hold"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class DeployPolicy:
    """The rules a run is carried by; they are written into its row and do not change under it. Seconds and shares (0..1)."""

    max_utilisation: float = 0.75
    scale_survivors: bool = True
    on_failure: OnFailure = OnFailure.ROLLBACK_ZONE
    ramp_shares: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0)
    ramp_step_s: float = 60.0
    bake_s: float = 300.0
    bake_first_factor: float = 2.0
    load_window_s: float = 2.0
    poll_s: float = 1.0
    admit_timeout_s: float = 120.0
    prepare_timeout_s: float = 900.0
    drain_timeout_s: float = 600.0
    upgrade_timeout_s: float = 1800.0
    verify_timeout_s: float = 300.0
    synthetic_failed_share_max: float = 0.002
    synthetic_p50_max_ms: float = 250.0
    out_expires_s: float = 3600.0
    on_expiry: OnExpiry = OnExpiry.HOLD
    gate: GatePolicy = field(default_factory=GatePolicy)


@cache
def dump_policy(policy: DeployPolicy) -> Json:
    data = asdict(policy)
    data |= {"on_failure": str(policy.on_failure), "on_expiry": str(policy.on_expiry)}
    return cast("Json", {**data, "ramp_shares": list(policy.ramp_shares)})


def parse_policy(data: dict[str, Any]) -> DeployPolicy:
    return msgspec.convert(data, DeployPolicy)
