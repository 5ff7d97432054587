"""People on a lab with users: zones, freezes, the audit log; what is printed is what schemas/ says."""

from __future__ import annotations

import sqlite3

from cli.shell import Shell

ZONE = "azure/eastus-1"
WHY = ("--reason", "a test")
STATE = ".failout/labs/cli/state/failout.db"


def test_a_zone_is_drained_extended_and_restored_by_hand(lab: Shell) -> None:
    drained = lab.run("zone", "drain", ZONE, *WHY, "--expires", "30m", "--log", "none", "--json")
    assert 0 == drained.code, drained.err + drained.out
    told = drained.json("zone")
    assert ("out", "drain", "out") == (told["status"], told["course"], told["zones"][0]["state"])
    assert f"failout zone restore {ZONE} --reason ..." == told["next_command"]

    again = lab.run("zone", "drain", ZONE, *WHY)
    assert (3, True) == (again.code, "already" in again.err)
    second = lab.run("zone", "drain", "aws/us-east-1a", *WHY, "--log", "none")
    assert 3 == second.code
    assert f"{told['run']} of " in second.err
    assert f"next: failout zone restore {ZONE}" in second.err
    deploy = lab.run("deploy", "--to", "v3", "--yes", "--log", "none")
    assert (3, True) == (deploy.code, told["run"] in deploy.err)

    assert "extend" == lab.run("zone", "extend", ZONE, "--expires", "2h", *WHY, "--json").json("zone-order")["kind"]
    restored = lab.run("zone", "restore", ZONE, *WHY, "--log", "none", "--json")
    assert (0, "restored") == (restored.code, restored.json("zone")["status"]), restored.err
    assert "restored" == lab.run("status", "--json").json("status")["last"]["status"]
    nothing = lab.run("zone", "restore", ZONE, *WHY, "--log", "none")
    assert (4, f"failout: {ZONE} is not out: no drain or evacuation of it is under way") == nothing.said


def test_a_zone_that_cannot_come_back_as_it_is_is_released_to_a_deploy_and_to_nothing_else(lab: Shell) -> None:
    assert 0 == lab.run("zone", "evacuate", ZONE, *WHY, "--log", "none").code
    early = lab.run("zone", "release", ZONE, *WHY, "--log", "none", "--json")
    assert (10, "out") == (early.code, early.json("zone")["zones"][0]["state"])
    lab.run("lab", "fail", ZONE, "--name", "cli")
    try:
        held = lab.run("zone", "restore", ZONE, *WHY, "--log", "none")
        assert (11, True) == (held.code, "or release: a deploy is to mend" in held.out), held.out
        lent = lab.run("zone", "release", ZONE, *WHY, "--log", "none", "--json")
        told = lent.json("zone")
        assert (0, "held", "lent") == (lent.code, told["status"], told["zones"][0]["state"])
        assert told["next_command"].startswith("failout deployments rollback")
    finally:
        lab.run("lab", "heal", ZONE, "--name", "cli")
    back = lab.run("zone", "restore", ZONE, *WHY, "--log", "none", "--json")
    assert (0, "restored") == (back.code, back.json("zone")["status"]), back.err


def test_a_freeze_refuses_what_is_new_and_names_who_set_it(lab: Shell) -> None:
    assert True is lab.run("freeze", *WHY, "--json").json("switch")["on"]
    refused = lab.run("zone", "drain", ZONE, *WHY, "--log", "none")
    assert (3, True) == (refused.code, "refused by I14: freeze is on for gates" in refused.err)
    assert False is lab.run("unfreeze", *WHY, "--json").json("switch")["on"]
    for state in ("on", "off"):
        assert (state == "on") is lab.run("kill-switch", state, *WHY, "--json").json("switch")["on"]


def test_wrong_input_is_one_line_and_its_exit_code(lab: Shell) -> None:
    assert 4 == lab.run("zone", "drain", "aws/nowhere-1a", *WHY, "--log", "none").code
    soon = lab.run("zone", "drain", ZONE, *WHY, "--expires", "soon")
    assert (2, "failout: --expires: 'soon' is no duration; write 90s, 5m or 2h") == soon.said
    rule = lab.run("zone", "evacuate", ZONE, *WHY, "--override", "I13", "--log", "none")
    assert (2, True) == (rule.code, "'I13' cannot be overridden here" in rule.err)
    resumed = lab.run("deployments", "resume", *WHY, "--override", "I1")
    assert (2, True) == (resumed.code, "'I1' cannot be overridden here" in resumed.err)
    silent = lab.run("deploy", "--to", "v2", "--yes", "--override", "I3")
    assert (2, "failout: --override goes with --to VERSION and a --reason of its own") == silent.said


def test_every_act_stands_in_the_audit_log_and_a_forged_line_is_named(lab: Shell) -> None:
    entries = lab.run("audit", "show", "--json").json("audit-show")["entries"]
    acts = {entry["act"].split(" until")[0]: entry["result"] for entry in entries}
    assert acts[f"zone drain {ZONE}"].startswith("refused by I14")
    assert {"freeze on for gates", "freeze off for gates", f"zone restore {ZONE}"} <= acts.keys()
    assert {"a test"} >= {entry["reason"] for entry in entries if entry["act"].startswith(("zone", "freeze"))}
    whole = lab.run("audit", "verify", "--json")
    assert (0, None) == (whole.code, whole.json("audit-verify")["broken"])
    with sqlite3.connect(lab.folder / STATE) as rows:
        ((author,),) = rows.execute("SELECT author FROM audit WHERE id = 2").fetchall()
        rows.execute("UPDATE audit SET author = 'eve' WHERE id = 2")
    try:
        broken = lab.run("audit", "verify", "--json")
        assert (10, True) == (broken.code, "entry 2 " in broken.json("audit-verify")["broken"])
    finally:
        with sqlite3.connect(lab.folder / STATE) as rows:
            rows.execute("UPDATE audit SET author = ? WHERE id = 2", (author,))
    assert 0 == lab.run("audit", "verify").code


def test_where_nothing_happened_yet_the_log_is_whole_and_no_state_is_made(shell: Shell) -> None:
    assert 4 == shell.run("audit", "show").code  # no failout.yaml
    assert set() == shell.files()
