"""Machines and zones that die in the middle of a deploy: what may fail is counted and bounded, and nothing else does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.cases import Case
from e2e.stage import Ended, Labs, Stage, blueprint, stage

from orchestrator.core.topology import ZoneState as Z
from orchestrator.lab.traffic.record import Recount

pytestmark = pytest.mark.soak

AWS, AZURE = "aws/us-east-1a", "azure/eastus-1"
ZONES = [AWS, AZURE, "aws/us-east-1b", "azure/eastus-2"]
POLICY = {"upgrade_timeout_s": 12.0, "verify_timeout_s": 8.0, "ramp_step_s": 3.0, "bake_s": 3.0}

# A load balancer asks an instance every 0.2 s and calls it unwell after two failures; a request that was routed to it
# before that may fail, also one that was due up to a client's timeout (1 s) before.
MACHINE_S = 1.5
# The DNS asks a node or a region about once in a fifth of a second, and its answers live for a second (TTL).
NODE_S = 4.0


def at_one_version(made: Stage) -> bool:
    running = made.versions()
    return set(ZONES) == set(running) and 1 == len({v for of_zone in running.values() for v in of_zone})


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    kept = Labs(tmp_path_factory.mktemp("zones"), blueprint(policy=POLICY, ttl_s=1), at_one_version)
    yield kept
    kept.close()


@pytest.fixture
def made(labs: Labs) -> Stage:
    return labs.get()


def other(made: Stage) -> str:
    return "v3" if "v2" in made.versions()[AWS] else "v2"


def bounded(made: Stage, since: float, killed: float, for_s: float) -> tuple[Recount, str]:
    """Every failure was due around the kill; how many there were, and when."""
    users = made.seen(since)
    when = [row.t - killed for row in made.failures(since)]
    assert [] == [round(t, 2) for t in when if not -1.0 <= t <= for_s]
    bound = f"only requests due from 1 s before to {for_s:g} s after the kill may fail"
    if not when:
        return users, f"none failed; {bound}"
    return users, f"{len(when)} failed, due {min(when):+.1f} s to {max(when):+.1f} s around the kill; {bound}"


def all_at(made: Stage, version: str) -> None:
    assert {zone: {version: 2} for zone in ZONES} == {zone: dict(v) for zone, v in made.versions().items()}


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_an_instance_that_dies_while_its_zone_drains_is_replaced_with_the_others(
    made: Stage, case: Case, zone: str
) -> None:
    version = other(made)
    deploy = made.deploy(version)
    made.until_zone(zone, Z.DRAINING)
    killed = time.time()
    made.kill_instance(zone)
    ended = deploy.wait()
    users, told = bounded(made, deploy.started_at, killed, MACHINE_S)
    assert (0, "succeeded") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    all_at(made, version)
    case.tell(f"An instance of {zone} dies while the zone drains", users, "succeeded", told)


@pytest.mark.parametrize(
    ("state", "title"),
    [(Z.VERIFYING, "right after its upgrade"), (Z.RAMPING, "on the ramp"), (Z.BAKING, "in the bake")],
)
@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_a_new_instance_that_dies_sends_its_zone_back(made: Stage, case: Case, zone: str, state: Z, title: str) -> None:
    version, before = other(made), next(iter(made.versions()[zone]))
    deploy = made.deploy(version, "--on-failure", "rollback-all")
    made.until_zone(zone, state)
    killed = time.time()
    made.kill_instance(zone)
    ended = deploy.wait()
    users, told = bounded(made, deploy.started_at, killed, 0.0 if state is Z.VERIFYING else MACHINE_S)
    if state is Z.VERIFYING:
        assert {} == users.failures
    assert (10, "rolled-back") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    all_at(made, before)
    why = ended.evidence("unhealthy") or ended.evidence("incomplete")
    assert why
    case.tell(f"A new instance of {zone} dies {title}", users, "rolled back, all zones serve", f"{told}; {why}")


def held_and_resumed(made: Stage, held: Ended, zone: str) -> Ended:
    """Held with one line that names the zone, what was seen and the next command; healed; gone on to the end."""
    assert (11, "held") == (held.code, held.run and held.run.status), held.err[-3000:]
    assert held.run is not None
    line = next(line for line in held.out.splitlines() if line.lstrip().startswith("why:"))
    wanted = (zone, "(rule I", f"next: failout deployments resume {held.run.id}")
    assert [] == [word for word in wanted if word not in line], line
    made.lab("/heal", zone=zone)
    time.sleep(2.0)
    assert 0 == made.order("resume").code
    return made.resume().wait()


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_a_zone_that_dies_while_it_is_out_is_held_out_until_it_lives(made: Stage, case: Case, zone: str) -> None:
    version = other(made)
    deploy = made.deploy(version, "--on-failure", "hold")
    made.until_zone(zone, Z.UPGRADING)
    killed = time.time()
    made.lab("/fail", zone=zone, mode="kill")
    held = deploy.wait()
    ended = held_and_resumed(made, held, zone)
    users, told = without_its_node(made, zone, deploy.started_at, killed)
    assert (0, "succeeded") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    all_at(made, version)
    assert held.state is not None
    case.tell(f"The whole of {zone} dies while it is out", users,
              f"held ({held.zones()[zone]}); healed, resumed, succeeded", f"{told}; {held.state.reason}")  # fmt: skip


def without_its_node(made: Stage, zone: str, since: float, killed: float) -> tuple[Recount, str]:
    """A zone of AWS dies with its load balancer node, whose address users keep for a while though it serves nobody."""
    users, told = bounded(made, since, killed, NODE_S if zone == AWS else 0.0)
    if zone == AZURE:
        assert {} == users.failures
    return users, told


@pytest.mark.parametrize(
    ("dead", "on_failure"),
    [("aws/us-east-1b", "hold"), ("aws/us-east-1b", "rollback-zone"), ("azure/eastus-2", "hold")],
    ids=["in the other cloud", "in the other cloud, and goes back", "beside it"],
)
def test_while_a_zone_is_out_another_dies_and_the_sound_one_comes_back_before_the_run_is_held(
    made: Stage, case: Case, dead: str, on_failure: str
) -> None:
    """I1: no zone leaves beside the dead one; what is sound serves again. The dead one goes on, or back, when it lives."""
    version, before = other(made), next(iter(made.versions()[dead]))
    deploy = made.deploy(version, "--on-failure", on_failure)
    made.until_zone(AZURE, Z.UPGRADING)
    killed = time.time()
    made.lab("/fail", zone=dead, mode="kill")
    held = deploy.wait()
    assert "done" == held.zones()[AZURE] or AZURE in serving(made), held.out
    assert AZURE in serving(made)
    ended = held_and_resumed(made, held, dead)
    users, told = bounded(made, deploy.started_at, killed, NODE_S)
    end, there = ((0, "succeeded"), version) if on_failure == "hold" else ((10, "failed"), before)
    assert end == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    reached = {**dict.fromkeys(ZONES[: ZONES.index(dead)], version), **dict.fromkeys(ZONES[ZONES.index(dead) :], there)}
    assert {zone: {at: 2} for zone, at in reached.items()} == {zone: dict(v) for zone, v in made.versions().items()}
    assert held.state is not None
    case.tell(f"{dead} dies while {AZURE} is out, on failure: {on_failure}", users,
              f"sound zone restored, held; healed, resumed, {end[1]} with {dead} at {there}",
              f"{told}; {held.state.reason}")  # fmt: skip


# Calls a second that each API refills for a whole account: AWS's and ARM's pages on request throttling. Auto Scaling's
# limits are not published; it is held to those of Elastic Load Balancing.
LIMITS = {"elbv2": 10.0, "autoscaling": 10.0, "ec2": 10.0, "route53": 5.0, "ARM reads": 25.0, "ARM writes": 10.0}


@pytest.mark.parametrize("zone", [AWS, AZURE])
def test_waiting_on_a_dead_zone_and_keeping_a_held_run_stay_far_below_the_apis_limits(
    tmp_path: Path, case: Case, zone: str
) -> None:
    """With the shipped pace of one look a second: half of each limit is left to others, and no call is throttled."""
    policy = {**POLICY, "poll_s": 1.0, "upgrade_timeout_s": 25.0}
    with stage(tmp_path, blueprint(policy=policy, ttl_s=1)) as made:
        deploy = made.deploy("v2", "--on-failure", "hold")
        made.until_zone(zone, Z.UPGRADING)
        killed = time.time()
        made.lab("/fail", zone=zone, mode="kill")
        waiting = called(made, 20.0)
        held = deploy.wait()
        serve = made.failout("serve", "--listen", "127.0.0.1:17087")
        keeping = called(made, 20.0)
        serve.process.terminate()
        assert 0 == serve.wait(20).code
        ended = held_and_resumed(made, held, zone)
        users, failed = without_its_node(made, zone, deploy.started_at, killed)
        assert (0, "succeeded") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
        assert [] == [e for e in made.timeline("api", deploy.started_at) if e["status"] == 429], "ARM had to throttle"
    for rates in (waiting, keeping):
        assert {} == {api: rate for api, rate in rates.items() if rate > LIMITS[api] / 2}
    told = [", ".join(f"{api} {rate * 60:.0f}" for api, rate in sorted(rates.items())) for rates in (waiting, keeping)]
    case.tell(f"Calls a minute while {zone} is dead", users, "held; healed, resumed, succeeded",
              f"waiting on it: {told[0]}; held, beside `failout serve`: {told[1]}; {failed}")  # fmt: skip


def called(made: Stage, seconds: float) -> dict[str, float]:
    """Calls a second of each API while `seconds` pass."""
    since = time.time()
    time.sleep(seconds)
    counts: Counter[str] = Counter()
    for event in made.timeline("api", since):
        service, _, name = event["call"].rpartition(".")
        reads = "Get" in name or "List" in name
        counts[service or ("ARM reads" if reads else "ARM writes")] += 1
    return {api: n / seconds for api, n in counts.items()}


def serving(made: Stage) -> set[str]:
    """The zones that answered users in the last two seconds."""
    return set(made.seen(time.time() - 2.0).by_zone)
