"""Machines and zones that die in the middle of a deploy: what may fail is counted and bounded, and nothing else does."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from e2e.cases import Case
from e2e.stage import Ended, Labs, Stage, blueprint

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
    why = ended.evidence("unhealthy")
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


def test_a_zone_that_dies_while_it_is_out_is_held_out_until_it_lives(made: Stage, case: Case) -> None:
    version = other(made)
    deploy = made.deploy(version, "--on-failure", "hold")
    made.until_zone(AZURE, Z.UPGRADING)
    made.lab("/fail", zone=AZURE, mode="kill")
    held = deploy.wait()
    users = made.seen(deploy.started_at)
    ended = held_and_resumed(made, held, AZURE)
    assert {} == users.failures
    assert (0, "succeeded") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    all_at(made, version)
    users = made.seen(deploy.started_at)
    assert {} == users.failures
    assert held.state is not None
    case.tell(f"The whole of {AZURE} dies while it is out", users,
              f"held ({held.zones()[AZURE]}); healed, resumed, succeeded", held.state.reason)  # fmt: skip


@pytest.mark.parametrize("dead", ["aws/us-east-1b", "azure/eastus-2"], ids=["in the other cloud", "beside it"])
def test_while_a_zone_is_out_another_dies_and_the_sound_one_comes_back_before_the_run_is_held(
    made: Stage, case: Case, dead: str
) -> None:
    """I1: no further zone leaves; what is sound serves again."""
    version = other(made)
    deploy = made.deploy(version)
    made.until_zone(AZURE, Z.UPGRADING)
    killed = time.time()
    made.lab("/fail", zone=dead, mode="kill")
    held = deploy.wait()
    assert "done" == held.zones()[AZURE] or AZURE in serving(made), held.out
    assert AZURE in serving(made)
    ended = held_and_resumed(made, held, dead)
    users, told = bounded(made, deploy.started_at, killed, NODE_S)
    assert (0, "succeeded") == (ended.code, ended.run and ended.run.status), ended.err[-3000:]
    all_at(made, version)
    assert held.state is not None
    case.tell(f"{dead} dies while {AZURE} is out", users, "sound zone restored, held; healed, resumed, succeeded",
              f"{told}; {held.state.reason}")  # fmt: skip


def serving(made: Stage) -> set[str]:
    """The zones that answered users in the last two seconds."""
    return set(made.seen(time.time() - 2.0).by_zone)
