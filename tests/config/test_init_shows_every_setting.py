"""What `failout init` writes: every setting that failout.yaml knows, and nothing but what Failout does anyway."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli.init import document
from orchestrator.config import Settings, read_settings
from orchestrator.core.drill import DrillPolicy
from orchestrator.core.health import GatePolicy
from orchestrator.core.policy import DeployPolicy
from orchestrator.core.signal import KEYS
from orchestrator.core.standing import Objective

SHIPPED = document("my: service", DeployPolicy(), Objective(), DrillPolicy())
WITHOUT_DEFAULT = {"peak_rps", "database"}


def uncommented(text: str) -> str:
    """As a person does it who takes every comment sign away; what is a comment of its own within stays one."""
    settings = text.split("\n", 1)[1]
    return re.sub(r"(?m)^# ", "", settings)


def read(folder: Path, text: str) -> Settings:
    path = folder / "failout.yaml"
    path.write_text(text)
    return read_settings(path)


@pytest.mark.parametrize(
    ("section", "settings"),
    [("", Settings), ("policy", DeployPolicy), ("policy.gate", GatePolicy), ("objective", Objective), ("drills", DrillPolicy)],
)  # fmt: skip
def test_init_shows_each_setting_of(section: str, settings: Any) -> None:
    shown: dict[str, Any] = yaml.safe_load(uncommented(SHIPPED))
    for part in filter(None, section.split(".")):
        shown = shown[part]
    known = {field.name for field in fields(settings)} - {"path"}
    assert known - WITHOUT_DEFAULT == shown.keys() - WITHOUT_DEFAULT
    assert [] == [name for name in sorted(known) if not re.search(rf"(?m)^[# ]*{name}:", SHIPPED)]


def test_init_shows_each_kind_of_signal_with_each_of_its_keys() -> None:
    shown = {signal["kind"] for signal in yaml.safe_load(uncommented(SHIPPED))["signals"].values()}
    assert set(KEYS) == shown
    of_each = {kind: next(line for line in SHIPPED.splitlines() if f"kind: {kind}," in line) for kind in KEYS}
    told = {"timeout_s": of_each["http"], "endpoint_url": of_each["cloudwatch-alarm"]}  # the same for several kinds
    missing = [(kind, key) for kind, keys in KEYS.items() for key in keys if key not in told.get(key, of_each[kind])]
    assert [] == missing


def test_uncommented_it_is_what_was_given_and_as_it_is_written_what_failout_does_anyway(tmp_path: Path) -> None:
    policy = replace(DeployPolicy(), bake_s=17.5, scale_survivors=False, gate=GatePolicy(samples_min=99))
    objective = Objective(age_days_max=3.0, load_share_min=0.25, failed_share_max=0.5, peak_rps=70.0)
    drills = DrillPolicy(("users",), ("pages",), duration_s=77.0, read_every_s=7.0, unknown_max_s=9.0)
    text = document("my: service", policy, objective, drills)
    given = read(tmp_path, uncommented(text).replace("subscriptions/ID", "subscriptions/1"))
    assert (policy, objective, drills) == (given.policy, given.objective, given.drills)
    assert Objective() == read(tmp_path, uncommented(SHIPPED)).objective, "what has no default stays a comment"
    shipped = read(tmp_path, text)
    assert ("my: service", DeployPolicy(), Objective(), DrillPolicy()) == (
        shipped.service,
        shipped.policy,
        shipped.objective,
        shipped.drills,
    )
