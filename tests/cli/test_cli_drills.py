"""`failout drill` as a person runs it: schedules come and go, a rehearsal changes nothing, and nothing drills unwatched."""

from __future__ import annotations

import yaml
from cli.shell import Shell

CONFIG = ".failout/labs/cli/failout.yaml"


def watched(lab: Shell) -> None:
    """Give the lab's service one outcome signal, which is good, and none that a drill would take by itself."""
    config = lab.folder / CONFIG
    settings = yaml.safe_load(config.read_text())
    settings["signals"] = {"users": {"kind": "command", "command": ["/bin/true"]}}
    settings.pop("drills", None)
    config.write_text(yaml.safe_dump(settings))


def test_schedules_are_added_told_paused_resumed_and_removed(lab: Shell) -> None:
    watched(lab)
    words = ["--cron", "0 10 * * tue,thu", "--time-zone", "Europe/Berlin", "--allow", "mon-fri 09:00-17:00"]
    words += [
        "--block-dates",
        "2026-12-20..2027-01-02",
        "--jitter",
        "10m",
        "--skip-if-proven",
        "5d",
        "--signal",
        "users",
    ]
    added = lab.run("drill", "schedule", "add", "twice-a-week", *words, "--reason", "a test", "--json")
    assert {"schema": 1, "schedule": "twice-a-week", "done": "added"} == added.json("drill-schedule")
    (told,) = lab.run("drill", "schedule", "list", "--json").json("drill-schedules")["schedules"]
    assert ("Europe/Berlin", None, "weakest", 432000.0, ["users"]) == (
        told["time_zone"], told["place"], told["choice"], told["fresh_s"], told["outcome_signals"])  # fmt: skip
    assert told["next"] is not None
    assert [told["schedule"]] == [
        s["schedule"] for s in lab.run("drill", "list", "--json").json("drill-list")["schedules"]
    ]
    again = lab.run("drill", "schedule", "add", "twice-a-week", *words, "--reason", "a test")
    assert (2, "failout: there is a schedule twice-a-week already") == again.said
    for order, done in (("pause", "paused"), ("resume", "resumed"), ("remove", "removed")):
        ordered = lab.run("drill", "schedule", order, "twice-a-week", "--reason", "a test", "--json")
        assert done == ordered.json("drill-schedule")["done"]
        now = lab.run("drill", "schedule", "list", "--json").json("drill-schedules")["schedules"]
        assert ([True], [False], [])[("pause", "resume", "remove").index(order)] == [s["paused"] for s in now]
    assert 4 == lab.run("drill", "schedule", "remove", "twice-a-week", "--reason", "a test").code


def test_a_rehearsal_runs_every_check_and_leaves_nothing(lab: Shell) -> None:
    watched(lab)
    before = lab.run("drill", "list", "--json").json("drill-list")
    words = ["--zone", "aws/us-east-1a", "--actions", "none", "--signal", "users", "--json"]
    told = lab.run("drill", "run", *words).json("drill-rehearsal")
    checks = [finding["what"] for finding in told["findings"]]
    assert ["switches", "other runs", "doctor", "capacity", "outcome signal users"] == checks
    assert before == lab.run("drill", "list", "--json").json("drill-list")


def test_i15_without_a_signal_nothing_is_drilled_and_the_refusal_is_on_record(lab: Shell) -> None:
    watched(lab)
    refused = lab.run("drill", "run", "--zone", "aws/us-east-1a", "--log", "none")
    assert (3, True) == (refused.code, "needs an outcome signal" in refused.err), refused.err
    acts = lab.run("audit", "show", "--json").json("audit-show")["entries"]
    assert any("refused by I15" in entry["result"] for entry in acts)
    nowhere = lab.run("drill", "run", "--zone", "aws/us-east-1z", "--signal", "users", "--log", "none")
    assert 4 == nowhere.code
    assert 4 == lab.run("drill", "show", "nobody").code
    assert 2 == lab.run("drill", "run", "--signal", "users").code
