"""Wrong input and bad surroundings: one clear line, its exit code, and nothing changed. No lab is needed."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pty
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cli.shell import REGION, TOPOLOGY, ZONE, Shell

NO_SETTINGS = (
    "failout: no failout.yaml here and no lab is up; "
    "`failout init` writes one, `failout lab up` raises a lab, --config names another"
)


def other(**region: object) -> str:
    """A topology whose region is another one in this."""
    return json.dumps({**TOPOLOGY, "regions": [{**REGION, **region}]})


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("deploymens", 2, "failout: no such command 'deploymens'. Did you mean 'deployments'? See `failout --help`"),
        ("lab fial", 2, "failout: no such command 'fial'. Did you mean 'fail'? See `failout lab --help`"),
        ("status --nope", 2, "failout: no such option '--nope'; see `failout status --help`"),
        ("lab fail", 2, "failout: missing argument 'ZONE'; see `failout lab fail --help`"),
        ("plan", 2, "failout: missing option '--to'; see `failout plan --help`"),
        ("freeze --reason", 2, "failout: option '--reason' requires an argument; see `failout freeze --help`"),
        ("lab fail aws/x --mode", 2, "failout: option '--mode' requires an argument; see `failout lab fail --help`"),
        ("deploy", 2, "failout: say either --to VERSION, with or without --dry-run, or --resume"),
        ("deploy --to v2 --resume", 2, "failout: say either --to VERSION, with or without --dry-run, or --resume"),
        (
            "deploy --resume --on-failure hold",
            2,
            "failout: --on-failure goes with --to VERSION: a run keeps the policy that it began with",
        ),
        ("status", 4, NO_SETTINGS),
        ("plan --to v2", 4, NO_SETTINGS),
        ("status -C nowhere.yaml", 4, "failout: there is no file nowhere.yaml"),
        ("lab status", 4, "failout: no lab 'default' is up; `failout lab up --name default` raises it"),
        ("lab down --name x", 4, "failout: no lab 'x' is up"),
        ("lab up --name ../x", 2, "failout: '../x' is no name for a lab: letters, digits, - and _ only, at most 40"),
        ("lab up --aws mars", 2, "failout: no aws region 'mars' in the lab; it has us-east-1, us-west-2, eu-west-1"),
        ("lab up --aws us-east-1:9", 2, "failout: 'us-east-1:9': a region of the lab has 1 to 3 zones"),
    ],
)  # fmt: skip
def test_wrong_words_in_an_empty_folder_are_one_line_and_change_nothing(
    shell: Shell, command: str, code: int, line: str
) -> None:
    assert (code, line) == shell.run(*command.split()).said
    assert set() == shell.files()


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("plan --to v3", 4, "there is no release 'v3' in"),
        ("deploy --to vv2 --yes", 4, "did you mean 'v2'?"),
        ("deploy --to ../v1 --yes", 4, "there is no release '../v1' in"),
        ("deploy --to v2", 2, "nobody is there to ask: add --yes to deploy without a question"),
        ("deploy --resume", 4, "nothing was deployed from here yet"),
        ("deployments show x", 4, "nothing was deployed from here yet"),
        ("deployments abort x --reason y", 4, "nothing was deployed from here yet"),
        ("deployments abort x", 2, "missing option '--reason'"),
    ],
)
def test_wrong_names_in_a_service_are_one_line_and_change_nothing(
    service: Shell, command: str, code: int, told: str
) -> None:
    before = service.files()
    ended = service.run(*command.split())
    assert code == ended.code
    assert 1 == ended.err.count("\n")
    assert told in ended.err
    assert before == service.files()


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("failout.yaml", "service: gates\nstat: x\n", "failout.yaml:2: unknown key 'stat' in failout.yaml; did you mean 'state'?"),
        ("failout.yaml", "service: gates\npolicy: {bake: 3}\n", "failout.yaml:2: unknown key 'bake' in policy; did you mean 'bake_s'?"),
        ("failout.yaml", "service: gates\npolicy:\n  max_utilisation: 75\n", "failout.yaml:3: 'max_utilisation' in policy must be a number"),
        ("failout.yaml", "service: !!timestamp nope\n", "failout.yaml: not YAML"),
        ("failout.yaml", "state: state\n", "failout.yaml:1: 'service' is missing in failout.yaml"),
        ("failout.yaml", "service: [\n", "failout.yaml:2: not YAML"),
        ("failout.yaml", "\x00", "failout.yaml: not YAML"),
        ("failout.yaml", "service: gates\nservice: x\n", "failout.yaml:2: key 'service' stands twice in failout.yaml"),
        ("failout.yaml", "service: gates\ndatabase: mysql://x\n", "failout.yaml:2: 'database' in failout.yaml is a PostgreSQL URL such as postgresql://failout@HOST/failout"),
        ("topology.json", "{", "topology.json is no topology document"),
        ("topology.json", "[]", "topology.json is no topology document of schema 1: an object is expected, not list"),
        ("topology.json", json.dumps({**TOPOLOGY, "regions": [{**REGION, "weight": -1}]}), "'weight' must be a number, 0 or more, not -1"),
        ("topology.json", json.dumps({k: v for k, v in TOPOLOGY.items() if k != "global"}), "'global' is missing"),
        ("topology.json", other(cloud="gcp"), "region aws/us-east-1 is of cloud 'gcp'; there are aws and azure"),
        ("topology.json", other(zones=[{"id": "z", **ZONE, "instance": 3}]), "unknown key 'instance' in zone z; did you mean 'instances'?"),
        ("topology.json", other(zones=[{"id": "z", **ZONE, "instances": 9}]), "zone z has 9 instances, more than its instances_max 2"),
        ("topology.json", json.dumps({**TOPOLOGY, "schema": 2}), "schema is 2"),
        ("topology.json", json.dumps({**TOPOLOGY, "service": "other"}), "describes service 'other', not 'gates'"),
        ("releases/v2.yaml", "version: v1\nimages: {}\n", "v2.yaml is the manifest of version 'v1', not 'v2'"),
        ("releases/v2.yaml", "version: v2\nimages: {}\n", "release v2 names no image for aws/us-east-1"),
        ("agent.token", "short", "must be at least"),
    ],
)  # fmt: skip
def test_wrong_files_are_told_with_what_to_mend(service: Shell, file: str, text: str, told: str) -> None:
    (service.folder / file).write_text(text)
    before = service.files()
    ended = service.run("plan", "--to", "v2")
    assert (2, "", 1) == (ended.code, ended.out, ended.err.count("\n")), ended.err
    assert told in ended.err
    assert before == service.files()


@pytest.mark.parametrize("command", ["", "zone", "drill schedule"])
def test_a_group_without_a_command_prints_its_help_as_it_is(shell: Shell, command: str) -> None:
    named = command.split()
    assert (2, shell.run(*named, "--help").out) == (shell.run(*named).code, shell.run(*named).err)


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("zone drain aws/us-east-1z --reason x", 4, "no zone 'aws/us-east-1z' in service gates"),
        ("zone restore aws/us-east-1z --reason x", 4, "no zone 'aws/us-east-1z' in service gates"),
        ("zone drain aws/us-east-1a --reason x --override I13", 2, "'I13' cannot be overridden here"),
        ("region evacuate --reason x", 2, "name either a REGION or --cloud CLOUD"),
        ("region return aws/us-east-9 --reason x", 4, "no region 'aws/us-east-9'"),
        ("drill run --zone aws/us-east-1z", 4, "no zone 'aws/us-east-1z' in service gates"),
        ("runbook run zone-down", 2, "zone"),
        ("runbook run zone-down -p zone=aws/zzz", 2, "aws/zzz"),
        ("runbook show zone-down -p zone=aws/zzz", 2, "aws/zzz"),
        ("serve --listen 0.0.0.0:7080", 2, "0.0.0.0 can be reached by others: add --token-file"),
        ("state prune --older-than 90d", 4, "nothing was deployed from here yet"),
        ("sim --seed 3 --seeds 4", 2, "--seed tells one history: it does not go with --seeds"),
        ("sim --seed 3 --minutes 1", 2, "--seed tells one history: it does not go with --minutes"),
    ],
)
def test_arguments_are_checked_before_a_state_is_opened_and_a_cloud_is_asked(
    service: Shell, command: str, code: int, told: str
) -> None:
    before = service.files()
    ended = service.run(*command.split())
    assert (code, 1, True) == (ended.code, ended.err.count("\n"), told in ended.err), ended.err
    assert before == service.files()


@pytest.mark.parametrize("command", ["zone drain aws/us-east-1a --reason x", "serve", "deploy --resume"])
def test_without_a_topology_no_state_is_made(service: Shell, command: str) -> None:
    (service.folder / "topology.json").unlink()
    before = service.files()
    ended = service.run(*command.split())
    assert (4, before) == (ended.code, service.files()), ended.err
    assert command == "deploy --resume" or "`failout topology import` writes it for a service" in ended.err


def test_debug_shows_where_it_came_from(shell: Shell) -> None:
    (shell.folder / "failout.yaml").write_text("nope: 1\n")
    ended = shell.run("status", "--debug")
    assert 2 == ended.code
    assert "Traceback" in ended.err
    assert (
        "failout.yaml:1: unknown key 'nope' in failout.yaml; known keys: service, topology"
        in ended.err.splitlines()[-1]
    )


# ---- the state


def _state(service: Shell) -> Path:
    folder = service.folder / "state"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize("command", ["status", "deployments list", "deploy --resume", "deploy --to v2 --yes"])
def test_a_damaged_state_file_is_told_and_left_as_it_is(service: Shell, command: str) -> None:
    file = _state(service) / "failout.db"
    file.write_bytes(b"not a database at all " * 300)
    code, line = service.run(*command.split()).said
    assert 2 == code
    assert f"state {file} is damaged: file is not a database; restore it from a copy" in line
    assert b"not a database at all " * 300 == file.read_bytes()


def test_a_state_of_a_newer_failout_is_left_as_it_is(service: Shell) -> None:
    file = _state(service) / "failout.db"
    with sqlite3.connect(file) as rows:
        rows.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        rows.execute("INSERT INTO meta VALUES ('schema_version', '99')")
    rows.close()
    before = file.read_bytes()
    for command in ("status", "deploy --to v2 --yes"):
        code, line = service.run(*command.split()).said
        assert 2 == code
        assert "the state has schema 99" in line
        assert "use the newer failout that wrote it" in line
    assert before == file.read_bytes()


def test_of_two_processes_on_one_state_the_second_names_the_first(service: Shell) -> None:
    lock = _state(service) / "failout.lock"
    with lock.open("w") as held:
        held.write("4711\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        code, line = service.run("deploy", "--to", "v2", "--yes").said
        assert 2 == code
        assert "is in use by process 4711" in line
        assert "next: failout status" in line
        assert 0 == service.run("status").code, "looking is always possible"


def test_a_full_disk_is_told_and_looking_still_works(service: Shell) -> None:
    """A limit on the size of files stands for the disk: SQLite cannot grow its file."""

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    code, line = service.run("deploy", "--to", "v2", "--yes", preexec_fn=full).said
    assert 5 == code
    assert "cannot be written" in line
    assert "free some space" in line
    assert 0 == service.run("topology", "show", preexec_fn=full).code


def test_output_that_cannot_be_written_is_told(service: Shell) -> None:
    """/dev/full is full."""
    command = [sys.executable, "-m", "orchestrator.cli", "topology", "show"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, cwd=service.folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (5, "failout: cannot write: No space left on device; free some space, then run it again\n") == (
        ended.returncode,
        ended.stderr,
    )


def test_a_folder_that_may_not_be_written_is_told(service: Shell) -> None:
    """Without its right to overrule permissions root is like anybody; prctl(2) and capabilities(7) have the numbers."""

    def like_anybody() -> None:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP

    service.folder.chmod(0o500)
    try:
        assert 0 == service.run("topology", "show", preexec_fn=like_anybody).code
        init = service.run("init", "--service", "x", preexec_fn=like_anybody)
        lab = service.run("lab", "up", "--name", "x", preexec_fn=like_anybody)
        deploy = service.run("deploy", "--to", "v2", "--yes", preexec_fn=like_anybody)
    finally:
        service.folder.chmod(0o700)
    assert (2, "failout: failout.yaml is there already; --force replaces it") == init.said
    assert (2, f"failout: {service.folder}/.failout/labs/x cannot be made: Permission denied") == lab.said
    assert (2, f"failout: state {service.folder}/state cannot be written: Permission denied") == deploy.said


@pytest.mark.parametrize("command", ["plan --to v2", "deploy --to v2 --yes", "serve --token-file nofile"])
def test_a_token_file_that_is_not_there_is_not_found(service: Shell, command: str) -> None:
    if "nofile" not in command:
        (service.folder / "agent.token").unlink()
    code, line = service.run(*command.split()).said
    assert (4, True) == (code, "there is no token file" in line), line


# ---- terminals and pipes


def test_a_reader_that_leaves_ends_it_quietly(service: Shell) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "orchestrator.cli", "topology", "show"]
    ended = subprocess.run(command, cwd=service.folder, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (141, "") == (ended.returncode, ended.stderr)


def test_a_command_that_is_terminated_says_so_and_ends_with_a_code_of_its_own(service: Shell) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "status", "--watch", "--json"]
    watching = subprocess.Popen(command, cwd=service.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    assert "{\n" == watching.stdout.readline()
    watching.terminate()
    _, told = watching.communicate(timeout=20)
    expected = "failout: ended by SIGTERM; what was under way stays as it stands\nnext: failout status\n"
    assert (143, expected) == (watching.returncode, told.lstrip("\n"))


def test_no_colour_is_written_anywhere_even_to_a_terminal(service: Shell) -> None:
    main, other = pty.openpty()
    command = [sys.executable, "-m", "orchestrator.cli", "topology", "show"]
    subprocess.run(command, cwd=service.folder, stdout=other, check=True, env={**os.environ, "NO_COLOR": "1"})
    os.close(other)
    said = os.read(main, 65536)
    os.close(main)
    assert b"aws/us-east-1a" in said
    assert b"\x1b[" not in said


def test_init_writes_what_failout_would_do_anyway_and_never_over_a_file(shell: Shell) -> None:
    assert 0 == shell.run("init", "--service", "gates").code
    written = (shell.folder / "failout.yaml").read_text()
    assert (2, "failout: failout.yaml is there already; --force replaces it") == shell.run(
        "init", "--service", "x"
    ).said
    assert written == (shell.folder / "failout.yaml").read_text()
    assert 0 == shell.run("init", "--service", "gates", "--force").code
    assert "service gates" in shell.run("status").out
