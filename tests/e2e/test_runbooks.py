"""Every shipped runbook in the lab, as a person runs it: the command line, users in strict mode, the end that it says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from e2e.books import Book, runs, weights
from e2e.cases import Case
from e2e.stage import Stage, blueprint, stage

from orchestrator.config import read_settings
from orchestrator.core.topology import ZoneState as Z

AWS, AZURE = "aws/us-east-1", "azure/eastus"
ZONE, NEIGHBOUR = "aws/us-east-1a", "aws/us-east-1b"
USUAL = {AWS: 100, AZURE: 100}
# Until then users ask a dead zone: its node leaves the DNS within two seconds, and resolvers keep it for the TTL.
NODE_GONE_S = 2.0 + blueprint().ttl_s
POLICY = {
    "out_expires_s": 600.0,
    # A step lasts a second here: on a loaded machine its p99 is the machine's. Failed requests are judged as ever.
    "gate": {"samples_min": 15, "p50_added_max_ms": 500.0, "slow_share_max": 0.5},
}


def harmed(made: Stage, since: float) -> list[tuple[float, str, str]]:
    return [(round(r.t - since, 2), r.zone, r.outcome) for r in made.failures(since)]


@pytest.mark.soak  # as the other thirteen
def test_a_dead_zone_leaves_and_returns_by_runbook_killed_in_the_middle(tmp_path: Path, case: Case) -> None:
    """kill -9 while the zone is evacuated: `runbook resume` goes on, and does nothing twice (I11)."""
    with stage(tmp_path, blueprint(policy=POLICY)) as made:
        died = time.time()
        made.lab("/fail", zone=ZONE, mode="kill")
        book = Book(made, "zone-down", zone=ZONE)
        book.until("evacuate", "active")
        book.kill()
        book.resume()
        book.until("it-is-well-again")
        assert [ZONE] == [run.zone for run in runs(made, "outing")], "one evacuation, begun once"
        out = time.time()
        made.lab("/heal", zone=ZONE)
        book.answer("approve")
        told = book.ends()
        assert told["really-down"].startswith("done"), told
        assert [None] == [run.zone for run in runs(made, "outing")]
        users = made.seen(died)
        last = max((t for t, _, _ in harmed(made, died)), default=0.0)
        assert last < NODE_GONE_S
        assert [] == harmed(made, out)
    case.tell(
        "A zone dies; zone-down takes it out, is killed, goes on, and brings it back", users, "succeeded",
        f"the last failure came {last:.1f} s after the zone's death; none on its way back",
    )  # fmt: skip


@pytest.mark.soak
def test_a_whole_region_leaves_and_returns_killed_in_the_middle_and_nobody_notices(tmp_path: Path, case: Case) -> None:
    with stage(tmp_path, blueprint(ttl_s=2, policy=POLICY)) as made:
        out = Book(made, "region-evacuation", region=AWS, yes=True)
        deadline = time.monotonic() + 60
        while not (made.timeline("dns", out.started_at) and weights(made)[AWS] == 0):
            assert time.monotonic() < deadline, "no weight was moved"
            time.sleep(0.05)
        out.kill()
        out.resume("--yes")
        told = out.ends()
        assert "0 requests came" in told["nobody-is-left"]
        assert {AWS: 0, AZURE: 100} == weights(made)
        assert 1 == len(runs(made, "region"))
        emptied = time.time()
        time.sleep(2.0)
        assert {AZURE} == {z.rpartition("-")[0] for z in made.seen(emptied).by_zone if z}
        refused = made.failout("deploy", "--to", "v2", "--yes", "--reason", "a test").wait(60)
        assert 3 == refused.code, "I14: a freeze starts no deploy while the region is out"

        back = Book(made, "region-return", region=AWS, yes=True)
        told = back.ends()
        assert told["unfreeze"].startswith("done"), told
        assert USUAL == weights(made)
        assert_whole(made)
        assert [] == harmed(made, out.started_at)
        users = made.seen(out.started_at)
    case.tell(
        "A whole region leaves and returns by runbook, kill -9 in the middle", users, "succeeded",
        f"weights 0 and back in steps; {told['users-are-back']}",
    )  # fmt: skip


# ---- all the others in one lab, which each of them leaves as it found it


def assert_whole(made: Stage) -> None:
    """Nothing is out, frozen or under way, and every zone is steady."""
    with made.glance() as rows:
        service = made.settings.service
        assert [] == [r.id for r in rows.runs(service) if not r.finished]
        assert [] == list(rows.leases(service))
        assert [] == [s.name for s in rows.switches() if s.on]
    for condition in ("zones-steady", "zones-ready", "weights-usual"):
        looked = made.failout("runbook", "wait", condition, "--timeout", "20s").wait(60)
        assert 0 == looked.code, looked.out


class Labs:
    """A lab for many tests; one that a failed test leaves behind is thrown away."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders, self._open = folders, ExitStack()
        self._made: Stage | None = None

    def lend(self) -> Stage:
        if self._made is None:
            self._made = self._open.enter_context(
                stage(self._folders.mktemp("books"), blueprint(ttl_s=2, policy=POLICY))
            )
        return self._made

    def throw_away(self) -> None:
        self._made = None
        self._open.close()


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    made = Labs(tmp_path_factory)
    yield made
    made.throw_away()


@pytest.fixture
def made(labs: Labs, passed: Callable[[], bool]) -> Iterator[Stage]:
    """The shared lab, whole; what a failed test had started is ended."""
    lent = labs.lend()
    yield lent
    if not passed():
        lent.end_processes()
        labs.throw_away()


def other(made: Stage) -> str:
    """The version that the lab does not run."""
    running = {version for of_zone in made.versions().values() for version in of_zone}
    assert 1 == len(running), running
    return "v1" if running == {"v2"} else "v2"


def unharmed(made: Stage, book: Book, case: Case, title: str, end: str, evidence: str) -> None:
    """Nobody was harmed since the runbook began, and the lab is as it was."""
    assert_whole(made)
    users = made.seen(book.started_at)
    assert [] == harmed(made, book.started_at)
    case.tell(f"Runbook {book.name}: {title}", users, end, evidence)


def written(made: Stage) -> dict[str, bytes]:
    """Everything in the folder of the state; -shm is how readers of SQLite find each other."""
    files = [p for p in made.settings.state.rglob("*") if p.is_file() and not p.name.endswith("-shm")]
    return {str(p): p.read_bytes() for p in files}


@pytest.mark.soak
def test_a_rehearsal_of_every_runbook_writes_nothing_and_creates_no_state(labs: Labs) -> None:
    made = labs.lend()
    params = {"zone": ZONE, "region": AWS, "cloud": "aws", "version": "v1"}
    listed = json.loads(made.failout("runbook", "list", "--json").wait().out)["runbooks"]
    assert 12 <= len(listed)
    before = written(made)
    for book in listed:
        given = [f"-p{p['name']}={params[p['name']]}" for p in book["parameters"] if p["default"] is None]
        ended = made.failout("runbook", "run", book["id"], *given, "--dry-run", "--json").wait(60)
        data = json.loads(ended.out)
        assert all(step["command"] for step in data["steps"])
        assert (0 if data["ok"] else 3) == ended.code
    assert before == written(made)


@pytest.mark.soak
def test_first_day_set_up_ends_with_the_version_everywhere_and_a_backup(
    made: Stage, case: Case, tmp_path: Path
) -> None:
    version, first = other(made), tmp_path / "first.backup"
    book = Book(made, "first-day-set-up", version=version, zone=ZONE, backup=str(first), yes=True)
    told = book.ends(timeout_s=240)
    assert f"every instance runs {version}" in told["everywhere"]
    assert "0 failed" in told["nothing-is-missing"]
    assert first.stat().st_size > 0
    before = written(made)
    assert 0 == made.failout("runbook", "run", "region-evacuation", f"-pregion={AWS}", "--dry-run").wait(60).code
    assert before == written(made), "a rehearsal writes nothing"
    unharmed(made, book, case, f"the first deploy, of {version}", "succeeded", told["proven"])


@pytest.mark.soak
def test_a_monthly_region_drill_leaves_everything_as_it_was(made: Stage, case: Case, tmp_path: Path) -> None:
    """Without an outcome signal it is refused and nothing moves (I15); with one it is a drill."""
    with signals(made):
        book = Book(made, "monthly-region-drill", region=AZURE, duration="3s", yes=True)
        told = book.ends("held")
        assert "I15" in told["drill"]
        book.order("abort")
    well = tmp_path / "well"
    well.touch()
    with signals(made, users={"kind": "command", "command": ["/usr/bin/test", "-e", str(well)]}):
        book = Book(made, "monthly-region-drill", region=AZURE, duration="3s", yes=True)
        told = book.ends()
    assert ["succeeded"] == [run.status for run in runs(made, "drill")]
    assert 0 in [e["weights"][AZURE] for e in made.timeline("dns", book.started_at)]
    assert USUAL == weights(made)
    unharmed(made, book, case, "a whole region is done without, as a drill", "succeeded", told["drill"])


@contextmanager
def signals(made: Stage, **named: object) -> Iterator[None]:
    """Exactly these outcome signals in failout.yaml, for a while."""
    before = made.config.read_text()
    document = {k: v for k, v in yaml.safe_load(before).items() if k not in {"signals", "drills"}}
    if named:
        document |= {"signals": named, "drills": {"outcome_signals": list(named), "read_every_s": 1.0}}
    made.config.write_text(yaml.safe_dump(document, sort_keys=False))
    try:
        yield
    finally:
        made.config.write_text(before)


@pytest.mark.soak
def test_a_whole_cloud_leaves_when_a_person_says_so_and_returns(made: Stage, case: Case) -> None:
    book = Book(made, "cloud-evacuation", cloud="azure")
    book.until("sure")
    time.sleep(1.0)
    assert USUAL == weights(made), "an open question moves nobody"
    book.answer("approve")
    book.until("wait-for-the-word")
    assert 0 == weights(made)[AZURE]
    book.answer("approve")
    book.until("let-go")
    book.answer("approve")
    told = book.ends()
    assert USUAL == weights(made)
    unharmed(made, book, case, "Azure is emptied and comes back", "succeeded", told["bring-back"])


@pytest.mark.soak
def test_a_no_to_a_cloud_evacuation_ends_it_with_nothing_moved(made: Stage, case: Case) -> None:
    book = Book(made, "cloud-evacuation", cloud="azure")
    book.until("sure")
    book.answer("deny")
    told = book.ends("failed")
    assert told["sure"].startswith("failed: deny by")
    assert [] == [e for e in made.timeline("dns", book.started_at) if e["weights"] != USUAL]
    assert 0 == made.failout("unfreeze", "--reason", "a test").wait().code
    unharmed(made, book, case, "refused by a person", "failed", told["sure"])


def agents(made: Stage, cloud: str) -> list[int]:
    """The processes of the region agents of a cloud."""
    topology = json.loads(made.settings.topology.read_text())
    addresses = [r["agent_url"].partition("//")[2] for r in topology["regions"] if r["cloud"] == cloud]
    return [pid for pid in made.pids() if (words := _words(pid)) and any(f"{a}" in words for a in addresses)]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


@pytest.mark.soak
@pytest.mark.parametrize(("name", "place"), [("region-down", AZURE), ("cloud-down", "azure")])
def test_what_answers_nobody_is_taken_out_although_nobody_can_measure_it(
    made: Stage, case: Case, name: str, place: str
) -> None:
    zones, silent = ("azure/eastus-1", "azure/eastus-2"), agents(made, "azure")
    assert 1 == len(silent)
    for zone in zones:
        made.lab("/fail", zone=zone, mode="kill")
    os.kill(silent[0], signal.SIGSTOP)
    died = time.time()
    try:
        book = Book(made, name, **{name.partition("-")[0]: place})
        book.until("not-us" if name == "cloud-down" else "global-tier-and-others")
        book.answer("approve")
        if name == "region-down":
            told = book.ends()
        else:
            book.until("it-is-well-again")
            told = book.told()
        assert 0 == weights(made)[AZURE]
        emptied = time.time()
        time.sleep(5.0)  # One TTL, and the pools of connections that still point there.
        assert [] == harmed(made, emptied + 3.0)
    finally:
        os.kill(silent[0], signal.SIGCONT)
        for zone in zones:
            made.lab("/heal", zone=zone)
    returns = time.time()
    if name == "region-down":
        Book(made, "region-return", region=AZURE, yes=True).ends()
    else:
        for question in ("it-is-well-again", "let-go"):
            book.until(question)
            book.answer("approve")
        book.ends()
    assert USUAL == weights(made)
    assert_whole(made)
    users = made.seen(died)
    assert [] == harmed(made, returns), "none fails on the way back"
    took = emptied - died
    case.tell(f"Runbook {name}: every instance dies and its agent is silent", users, "succeeded",
              f"weight 0 after {took:.0f} s: {told['take-it-out']}")  # fmt: skip


@pytest.mark.soak
def test_a_gray_zone_is_drained_and_comes_back(made: Stage, case: Case) -> None:
    began = time.time()
    made.lab("/fail", zone=ZONE, mode="errors")
    time.sleep(3.0)
    book = Book(made, "zone-gray", zone=ZONE)
    book.until("it-is-well-again")
    out = time.time()
    made.lab("/heal", zone=ZONE)
    book.answer("approve")
    told = book.ends()
    assert told["its-users-are-failed"].startswith("done"), told
    assert_whole(made)
    users = made.seen(began)
    assert {ZONE} == {zone for _, zone, _ in harmed(made, began)}
    assert [] == harmed(made, out)
    case.tell("Runbook zone-gray: three of ten answers of a zone are errors, health checks green", users, "succeeded",
              f"{told['drain']}; none failed once it was out, nor on its way back")  # fmt: skip


@pytest.mark.soak
def test_a_shortage_is_waited_for_and_proven_over(made: Stage, case: Case) -> None:
    """The zone's neighbour could not carry both until a person has added an instance to it."""
    topology = made.settings.topology
    before = topology.read_text()
    document = json.loads(before)
    for region in document["regions"]:
        for zone in region["zones"]:
            zone["rps_per_instance"] = 45.0
    topology.write_text(json.dumps(document))
    try:
        book = Book(made, "capacity-shortage", zone=ZONE)
        book.until("added")
        assert book.told()["sum"].startswith("failed"), book.told()
        resize(made, NEIGHBOUR, 3)
        book.answer("approve")
        book.until("let-go")
        book.answer("approve")
        told = book.ends()
    finally:
        topology.write_text(before)
        resize(made, NEIGHBOUR, 2)
    assert "allowed 0.75" in told["enough-now"]
    unharmed(made, book, case, "a zone could not be lost, until a person adds an instance", "succeeded",
             f"first {told['sum']}; then {told['enough-now']}")  # fmt: skip


def resize(made: Stage, zone: str, instances: int) -> None:
    """As a person does it at the cloud: desired capacity of one zone's fleet."""
    import boto3  # noqa: PLC0415

    region = next(r for r in json.loads(made.settings.topology.read_text())["regions"] if r["id"] == AWS)
    fleet = next(z for z in region["zones"] if z["id"] == zone)["fleet"]["auto_scaling_group"]
    client = boto3.client(
        "autoscaling", region_name=region["name"], endpoint_url=region["api"]["endpoint_url"],
        aws_access_key_id="lab", aws_secret_access_key="lab",
    )  # fmt: skip
    client.set_desired_capacity(AutoScalingGroupName=fleet, DesiredCapacity=instances)


@pytest.mark.soak
def test_an_outage_of_an_api_is_waited_out_and_one_that_answers_is_none(made: Stage, case: Case) -> None:
    calm = Book(made, "management-api-outage", cloud="azure", yes=True)
    told = calm.ends()
    assert told["really-no-answer"].startswith("failed"), "it answers"
    assert told["freeze"].startswith("pending"), "nothing was frozen"

    made.lab("/cloud-fault", cloud="azure", kind="error", count=100_000)
    try:
        book = Book(made, "management-api-outage", cloud="azure")
        book.until("it-answers", "active")
        time.sleep(3.0)
        book.until("it-answers", "active")
    finally:
        made.lab("/cloud-fault", cloud="azure", clear=True)
    book.until("let-go")
    book.answer("approve")
    told = book.ends()
    assert told["go-on"].startswith("skipped"), told
    unharmed(made, book, case, "Azure's API answers every call with an error", "succeeded", told["really-no-answer"])


@pytest.mark.soak
@pytest.mark.parametrize("answer", ["deny", "approve"])
def test_a_held_deploy_is_rolled_back_on_a_no_and_goes_on_upon_a_yes(made: Stage, case: Case, answer: str) -> None:
    """Denied permissions hold it; they are mended before the yes."""
    version, running = other(made), made.versions()
    made.lab("/cloud-fault", cloud="aws", kind="deny", call="StartInstanceRefresh", count=100_000)
    deploy = made.deploy(version)
    ended = deploy.wait()
    made.lab("/cloud-fault", cloud="aws", clear=True)
    assert (11, "held") == (ended.code, ended.run and ended.run.status), ended.err[-2000:]
    book = Book(made, "deploy-held")
    book.until("go-on")
    book.answer(answer)
    told = book.ends(timeout_s=200)
    if answer == "deny":
        assert "rolled-back" in told["roll-back"]
        assert running == made.versions()
    else:
        assert {version} == {v for of_zone in made.versions().values() for v in of_zone}
        assert told["roll-back"].startswith("pending")
    unharmed(made, book, case, f"its question is answered with {answer}", "succeeded", told["what"])


@pytest.mark.soak
def test_everything_goes_back_to_a_version_that_was_good(made: Stage, case: Case) -> None:
    """In the middle of a deploy: what runs is rolled back, the rest is deployed back."""
    good = other(made)
    first = made.deploy(good).wait()
    assert 0 == first.code, first.err[-2000:]
    bad = other(made)
    deploy = made.deploy(bad)
    made.until_zone("azure/eastus-1", Z.DRAINING, Z.UPGRADING)
    book = Book(made, "roll-back-everything", version=good, yes=True)
    told = book.ends(timeout_s=240)
    deploy.wait()
    assert "rolled-back" in told["roll-back-the-running-deploy"]
    assert f"every instance runs {good}" in told["everywhere"]
    assert 3 == made.deploy(bad).wait().code, "deploys stay frozen until a person says otherwise"
    assert 0 == made.failout("unfreeze", "--reason", "a test").wait().code
    unharmed(made, book, case, f"back to {good} in the middle of a deploy", "succeeded", told["everywhere"])


@pytest.mark.soak
@pytest.mark.parametrize("lost_at", ["aws/us-east-1a", "azure/eastus-1"])
def test_an_orchestrator_that_is_lost_is_replaced_from_a_backup_elsewhere(
    made: Stage, case: Case, tmp_path: Path, lost_at: str
) -> None:
    """Killed in a deploy, its state gone, the copy a little older, or a whole zone older: then I13 may have it given up."""
    version, copy = other(made), tmp_path / "state.backup"
    deploy = made.deploy(version)
    made.until_zone("aws/us-east-1a", Z.UPGRADING)
    assert 0 == made.failout("state", "backup", str(copy)).wait().code
    made.until_zone(lost_at, Z.VERIFYING if lost_at == "aws/us-east-1a" else Z.UPGRADING)
    deploy.kill()
    elsewhere = moved(made, tmp_path / "elsewhere")
    assert 0 == elsewhere.failout("state", "restore", str(copy), "--reason", "the machine is gone").wait().code
    book = Book(elsewhere, "orchestrator-lost", yes=True)
    told = book.ends(timeout_s=240)
    assert_whole(elsewhere)
    end = runs(elsewhere, "deploy")[0].status
    if end == "aborted" and lost_at != "aws/us-east-1a":
        assert "I13" in told["go-on-with-the-deploy"] + told["its-end"]
        again = elsewhere.deploy(version).wait()
        assert 0 == again.code, again.err[-2000:]
    assert {version} == {v for of_zone in made.versions().values() for v in of_zone}
    shutil.rmtree(made.settings.state)
    shutil.copytree(elsewhere.settings.state, made.settings.state)  # The next test goes on from here.
    users = made.seen(deploy.started_at)
    assert [] == harmed(made, deploy.started_at)
    case.tell(f"Runbook orchestrator-lost: killed in a deploy at {lost_at}, an older backup restored in another folder",
              users, "succeeded", f"the deploy: {end}; {told['go-on-with-the-deploy']}")  # fmt: skip


def moved(made: Stage, folder: Path) -> Stage:
    """Settings, topology, releases and the agents' token on another machine; not the state."""
    folder.mkdir()
    settings = yaml.safe_load(made.config.read_text())
    for name in (settings["topology"], settings["agent_token_file"]):
        shutil.copy(made.folder / name, folder / name)
    shutil.copytree(made.settings.releases, folder / settings["releases"])
    (folder / "failout.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    there = Stage(made.folder, made.traffic)
    there.config, there.settings = folder / "failout.yaml", read_settings(folder / "failout.yaml")
    return there
