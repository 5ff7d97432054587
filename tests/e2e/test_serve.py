"""`failout serve` in a lab under traffic: clients leave runs to it, it dies and goes on, and it keeps traffic as written."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.stage import Failout, Stage, blueprint, stage

from orchestrator.bootstrap import reading_world
from orchestrator.core.traffic import OUT, Placement
from orchestrator.lab.blueprint import RegionBlueprint
from orchestrator.workflows.steering import Steering

REGIONS = (RegionBlueprint("aws", "us-east-1", 2), RegionBlueprint("azure", "eastus", 1))
RESUME_S = 5.0
BUSY_S = 4.0  # Other tests may be keeping this machine busy.


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("serve"), blueprint(REGIONS, ttl_s=1)) as made:
        yield made


class Serving:
    """A `failout serve` process on a port of its own."""

    def __init__(self, lab: Stage, port: int) -> None:
        self.port = port
        self.failout: Failout = lab.failout("serve", "--log", "json", "--listen", f"127.0.0.1:{port}")
        until(lambda: self.get("/healthz")[0] == 200, 20, "serve is well")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


def until(so: Callable[[], bool], seconds: float, what: str) -> float:
    began = time.monotonic()
    while not so():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.03)
    return time.monotonic() - began


def placement(lab: Stage, zone: str) -> Placement | None:
    seen = asyncio.run(Steering(reading_world(lab.settings, lambda *_, **__: None)).seen())
    return seen[zone].placement


class Anyone:
    """The fence of somebody at a console: nobody asks."""

    number = 0

    async def check(self) -> None: ...


def take_out_by_hand(lab: Stage, zone_id: str) -> None:
    async def act() -> None:
        world = reading_world(lab.settings, lambda *_, **__: None)
        region = world.topology.region_of(zone_id)
        document = await Steering(world).document()
        wanted = {zone.id: document.zones[zone.id] for zone in region.zones} | {zone_id: OUT}
        while (await world.traffic(region).read(region))[zone_id].placement is Placement.STEADY:
            await world.traffic(region).apply(region, wanted, Anyone())

    asyncio.run(act())


@pytest.mark.soak
def test_serve_carries_a_clients_deploy_keeps_traffic_as_written_dies_and_goes_on(lab: Stage) -> None:
    first = Serving(lab, 17081)
    client = lab.deploy("v2")
    lab.until(lambda s: any(z.state == "upgrading" for z in s.zones), 60, "a zone is out")
    assert "in use by process" in lab.failout("serve", "--listen", "127.0.0.1:17083").wait().err
    lab.order("pause")
    state = lab.until(lambda s: s.status == "paused", 30, "paused")
    out = state.active_zone()
    assert out is not None
    other = next(z.zone for z in state.zones if z.zone.startswith("aws/") and z.zone != out.zone)

    # While a run is paused nothing steers: the reconciler alone keeps the clouds as the document says.
    take_out_by_hand(lab, other)
    back_s = until(lambda: placement(lab, other) is Placement.STEADY, 20, f"{other} is back")
    assert placement(lab, out.zone) is Placement.OUT, "the zone that is out on purpose stays out"
    told = first.get("/metrics")[1]
    assert 'failout_up{service="gates"} 1' in told
    assert f'zone="{out.zone}"' in told
    assert 'event="traffic_put_back"} 0' not in told

    epoch = epoch_of(lab)
    first.failout.kill()
    second = Serving(lab, 17082)
    until(lambda: epoch_of(lab) > epoch, 20, "the run is carried again")
    resumed_s = cpu_s(second.failout.process.pid)
    lab.order("resume")
    ended = client.wait(120)
    assert 0 == ended.code, ended.err[-2000:]
    assert '"event": "following"' in ended.err
    second.failout.process.terminate()
    assert 0 == second.failout.wait(20).code
    assert back_s < 2.0 + BUSY_S, f"back after {back_s:.1f} s"
    assert resumed_s < RESUME_S, f"carried again after {resumed_s:.1f} s of processor time"


def epoch_of(lab: Stage) -> int:
    run = lab.newest_run()
    assert run is not None
    return run.epoch


def cpu_s(pid: int) -> float:
    """Processor time: other tests may be keeping this machine busy, and starting waits for nothing else."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_metrics_that_others_can_reach_need_a_token_and_tell_the_proof_of_each_zone(lab: Stage, tmp_path: Path) -> None:
    refused = lab.failout("serve", "--listen", "0.0.0.0:17085").wait()
    assert (2, True) == (refused.code, "add --token-file" in refused.err)
    token = tmp_path / "token"
    token.write_text("a-token-that-is-long-enough-to-be-secret")
    token.chmod(0o600)
    serving = lab.failout("serve", "--listen", "127.0.0.1:17086", "--token-file", str(token))
    probe = Serving.__new__(Serving)
    probe.port = 17086
    until(lambda: probe.get("/healthz")[0] == 200, 20, "serve is well")
    assert 401 == probe.get("/metrics")[0]
    request = urllib.request.Request(
        "http://127.0.0.1:17086/metrics", headers={"Authorization": f"Bearer {token.read_text()}"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        told = answer.read().decode()
    assert 'failout_up{service="gates"} 1' in told
    assert 'failout_proof_objective_met{service="gates",zone="azure/eastus-1"} 0' in told, "never proven is not met"
    serving.process.terminate()
    assert 0 == serving.wait(20).code
