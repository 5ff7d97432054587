"""The lab as one process: emulated clouds, the data plane that follows them, the region agents, and a control API.

`python -m orchestrator.lab.daemon FOLDER` reads FOLDER/plan.json, raises the lab, writes topology, settings, manifests
and FOLDER/lab.json, and ends on SIGTERM, on `POST /down`, or with its parent when told so. It prints JSON lines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import yaml

from orchestrator.core.errors import FailoutError, Rejected, Transient
from orchestrator.lab.addresses import DNS_PORT, RegionAddresses
from orchestrator.lab.ask import ask
from orchestrator.lab.autoscaler import Aim, Autoscaler
from orchestrator.lab.aws import EmulatedAws, Record, Region, provision_dns, provision_region
from orchestrator.lab.aws import RegionPlan as AwsPlan
from orchestrator.lab.aws.faults import Faulty
from orchestrator.lab.aws.world import Times
from orchestrator.lab.azure import SUBSCRIPTION_ID, EmulatedAzure
from orchestrator.lab.azure import RegionPlan as AzurePlan
from orchestrator.lab.azure import provision as provision_azure
from orchestrator.lab.azure.faults import fault_of
from orchestrator.lab.blueprint import (
    CLAIM_PORT,
    FIRST_BLOCK,
    LAB_POLICY,
    LAST_BLOCK,
    Blueprint,
    RegionBlueprint,
    manifest,
    read_blueprint,
    write_private,
)
from orchestrator.lab.catalogue import SICKNESSES
from orchestrator.lab.dataplane import DataPlane
from orchestrator.lab.model import AGENT_PORT, FRONT_PORT
from orchestrator.lab.programs import provision as provision_with_programs
from orchestrator.lab.timeline import Timeline

UP_TIMEOUT_S: Final = 60.0


def claim_blocks(count: int) -> tuple[list[int], list[socket.socket]]:
    """Take `count` second octets that no other lab on this machine has; the sockets keep them. Raises Rejected."""
    blocks: list[int] = []
    held: list[socket.socket] = []
    for block in range(FIRST_BLOCK, LAST_BLOCK):
        claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            claim.bind((f"127.{block}.0.1", CLAIM_PORT))
            claim.listen(1)
        except OSError as error:
            claim.close()
            if block == FIRST_BLOCK and error.errno != 98:  # EADDRINUSE: another lab
                raise Rejected(f"127.{block}.0.1 cannot be used on this machine: {error.strerror}") from error
            continue
        blocks.append(block)
        held.append(claim)
        if len(blocks) == count:
            return blocks, held
    raise Rejected("every address block is taken by other labs; take one down with `failout lab down --name NAME`")


class Daemon:
    """Owns everything of one lab; `up` returns when users could be served."""

    def __init__(self, folder: Path, blueprint: Blueprint) -> None:
        self._folder, self._plan = folder, blueprint
        self._timeline = Timeline(folder / "timeline.jsonl")
        self._blocks, self._claims = claim_blocks(len(blueprint.regions))
        self._octets = {r.id: block for r, block in zip(blueprint.regions, self._blocks, strict=True)}
        self._aws_regions = [r for r in blueprint.regions if r.cloud == "aws"]
        self._azure_regions = [r for r in blueprint.regions if r.cloud == "azure"]
        self._aws_faults = Faulty()
        self._aws = EmulatedAws(
            [r.name for r in self._aws_regions] or ["us-east-1"],
            times=Times(alias_ttl_s=float(blueprint.ttl_s)),
            timeline=self._timeline,
            seed=blueprint.seed,
            middlewares=[self._aws_faults.wrap],
        )
        self._azure = EmulatedAzure({r.name: self._octets[r.id] for r in self._azure_regions}, self._timeline)
        self._agents: list[subprocess.Popen[bytes]] = []
        self._loop = threading.Thread(target=self._run_data_plane, name="data-plane", daemon=True)
        self._broken: BaseException | None = None
        self.down = threading.Event()
        self.data = DataPlane(
            [self._aws, self._azure],
            self._timeline,
            folder / "data",
            dns_address=self.dns_address,
            strict=blueprint.strict,
            seed=blueprint.seed,
        )
        self._autoscaler = self._plays_autoscaler() if blueprint.autoscale else None

    def _plays_autoscaler(self) -> Autoscaler:
        aim = Aim(rps_per_instance=self._plan.rps_per_instance, **self._plan.autoscale)
        return Autoscaler([self._aws, self._azure], lambda: self.data.status().instances, self._timeline, aim)

    @property
    def dns_address(self) -> str:
        return RegionAddresses(self._blocks[0]).dns

    def up(self, tell: Callable[..., None]) -> None:
        (self._folder / "data").mkdir(mode=0o700, exist_ok=True)
        tell("clouds", text="starting the emulated clouds")
        self._aws.start()
        azure_url = self._azure.start()
        self._loop.start()
        tell("provision", text=f"provisioning {len(self._plan.regions)} regions through the clouds' APIs")
        try:
            topology = self._provision(azure_url)
        except Exception as error:
            self._require_data_plane(error)
            raise
        token_file = self._folder / "agent.token"
        write_private(token_file, secrets.token_urlsafe(32))
        for region in self._plan.regions:
            self._agents.append(self._start_agent(RegionAddresses(self._octets[region.id]), token_file))
        self._write_documents(topology)
        tell("boot", text="waiting until every instance and load balancer serves")
        self._await_ready()
        if self._autoscaler is not None:
            self._autoscaler.start()

    def close(self) -> None:
        """End every process of the lab."""
        if self._autoscaler is not None:
            self._autoscaler.stop()
        self.data.stop()
        for agent in self._agents:
            agent.terminate()
        if self._loop.is_alive():
            self._loop.join(10)
        for agent in self._agents:
            try:
                agent.wait(3)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
        self._aws.stop()
        self._azure.stop()
        self._timeline.close()
        for claim in self._claims:
            claim.close()

    def _run_data_plane(self) -> None:
        try:
            asyncio.run(self.data.run())
        except BaseException as error:  # noqa: BLE001 - the main thread must learn of it, whatever it is
            self._broken = error
        finally:
            self.down.set()

    def _provision(self, azure_url: str) -> dict[str, Any]:
        if self._plan.programs:
            folder = Path(self._plan.programs)
            return provision_with_programs(folder, self._plan, self._octets, self._aws.endpoint, azure_url)
        documents: dict[str, dict[str, Any]] = {}
        records: list[Record] = []
        for region in self._plan.regions:
            if region.cloud == "aws":
                made = self._provision_aws(region)
                documents[region.id] = made.topology
                records.append(Record(region.id, region.weight, alias=made))
            else:
                documents[region.id] = self._provision_azure(region, azure_url)
                address = RegionAddresses(self._octets[region.id]).tcp_front
                records.append(Record(region.id, region.weight, address=address))
        tier = provision_dns(self._aws.endpoint, self._plan.service, records, ttl_s=self._plan.ttl_s)
        regions = [documents[r.id] for r in self._plan.regions]
        return {"schema": 1, "service": self._plan.service, "global": tier, "regions": regions}

    def _provision_aws(self, region: RegionBlueprint) -> Region:
        image, digest = self._image(region)
        plan = AwsPlan(
            service=self._plan.service,
            region=region.name,
            block=self._octets[region.id],
            zones=tuple(f"{region.name}{'abc'[i]}" for i in range(region.zones)),
            version=self._plan.version,
            digest=digest,
            image_id=image["image_id"],
            instances=self._plan.instances,
            instances_max=self._plan.instances_max,
            instances_min=self._plan.instances if self._plan.autoscale else 0,
            rps_per_instance=self._plan.rps_per_instance,
            weight=region.weight,
            deregistration_delay_s=self._plan.deregistration_delay_s,
        )
        return provision_region(self._aws.endpoint, plan)

    def _provision_azure(self, region: RegionBlueprint, url: str) -> dict[str, Any]:
        image, _ = self._image(region)
        plan = AzurePlan(
            location=region.name,
            octet=self._octets[region.id],
            version=self._plan.version,
            service=self._plan.service,
            zones=tuple(str(i + 1) for i in range(region.zones)),
            instances=self._plan.instances,
            instances_max=self._plan.instances_max,
            rps_per_instance=self._plan.rps_per_instance,
            weight=region.weight,
            image_version=image["image_version"],
        )
        return provision_azure(url, SUBSCRIPTION_ID, plan)

    def _image(self, region: RegionBlueprint) -> tuple[Mapping[str, str], str]:
        document = yaml.safe_load(manifest(self._plan.version, self._plan.regions))
        image = document["images"][region.id]
        return image["data"], image["digest"]

    def _start_agent(self, addresses: RegionAddresses, token_file: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "orchestrator.agent"]
        command += ["--listen", f"{addresses.agent}:{AGENT_PORT}", "--source-address", addresses.agent]
        command += ["--allow", addresses.network, "--token-file", str(token_file), "--with-parent"]
        with (self._folder / "data" / f"agent-{addresses.octet}.log").open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def _write_documents(self, topology: dict[str, Any]) -> None:
        write_private(self._folder / "topology.json", json.dumps(topology, indent=2))
        releases = self._folder / "releases"
        releases.mkdir(exist_ok=True)
        for version in ["v1", "v2", "v3", self._plan.version, *(f"v2{s}" for s in SICKNESSES)]:
            (releases / f"{version}.yaml").write_text(manifest(version, self._plan.regions), "utf-8")
        settings = {
            "service": self._plan.service,
            "topology": "topology.json",
            "releases": "releases",
            "state": "state",
            "agent_token_file": "agent.token",
            "signals": {"users": {"kind": "lab-traffic", "folder": "."}},
            "drills": {"outcome_signals": ["users"]},
            "policy": {**LAB_POLICY, **self._plan.policy},
        }
        (self._folder / "failout.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")

    def _await_ready(self) -> None:
        wanted = sum(r.zones for r in self._plan.regions) * self._plan.instances
        deadline = time.monotonic() + UP_TIMEOUT_S
        served = asyncio.run(self._serving(wanted, deadline))
        self._require_data_plane()
        if not served:
            raise Transient(f"the lab did not serve within {UP_TIMEOUT_S:.0f} s; see {self._folder / 'data'}")

    def _require_data_plane(self, error: Exception | None = None) -> None:
        if self._broken is not None:
            raise Rejected(f"the data plane ended: {self._broken!r}") from error

    async def _serving(self, wanted: int, deadline: float) -> bool:
        """Every instance runs, and every front answers a request three times in a row."""
        while time.monotonic() < deadline and self._broken is None:
            running = sum(i.process == "running" for i in self.data.status().instances)
            if running >= wanted and await self._dns_answers() and all([await self._fronts_answer() for _ in range(3)]):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _dns_answers(self) -> bool:
        """Every region's record is in rotation: users who come now are told where to go."""
        import dns.asyncquery  # noqa: PLC0415
        import dns.exception  # noqa: PLC0415
        import dns.message  # noqa: PLC0415

        query = dns.message.make_query(f"{self._plan.service}.lab.", "A")
        wanted = {str(self._octets[r.id]) for r in self._plan.regions if r.weight > 0}
        seen: set[str] = set()
        for _ in range(40):
            try:
                answer = await dns.asyncquery.udp(query, self.dns_address, port=DNS_PORT, timeout=1.0)
            except (OSError, dns.exception.DNSException):
                return False
            seen.update(str(item) for rrset in answer.answer for item in rrset)
            if {address.split(".")[1] for address in seen} == wanted:
                return True
        return False

    async def _fronts_answer(self) -> bool:
        for region in self._plan.regions:
            addresses = RegionAddresses(self._octets[region.id])
            nodes = [addresses.node(i) for i in range(region.zones)] if region.cloud == "aws" else [addresses.tcp_front]
            for node in nodes:
                if await ask("127.0.0.1", node, FRONT_PORT, "/", 1.0) != HTTPStatus.OK:
                    return False
        return True

    def break_cloud(self, cloud: str, order: Mapping[str, Any]) -> None:
        """Make calls of a cloud's API fail; {"clear": true} ends that, {"zone", "room"} limits a zone's capacity."""
        if order.get("clear"):
            (self._aws_faults.deck if cloud == "aws" else self._azure.faults).clear()
        elif "room" in order:
            limit = self._aws.limit_capacity if cloud == "aws" else self._azure.set_room
            limit(str(order["zone"]), order["room"])
        else:
            fault = fault_of(order)
            if cloud == "aws":
                self._aws_faults.order(fault)
            else:
                self._azure.faults.add(fault)

    def status(self) -> dict[str, Any]:
        seen = self.data.status()
        return {
            "schema": 1,
            "name": self._plan.name,
            "pid": os.getpid(),
            "service": self._plan.service,
            "dns": f"{self.dns_address}:{DNS_PORT}",
            "strict": self._plan.strict,
            "faults": {zone: str(mode) for zone, mode in seen.faults.items()},
            "balancing": asdict(seen.balancing),
            "instances": [{**asdict(i), "process": str(i.process)} for i in seen.instances],
        }


def serve_control(daemon: Daemon, folder: Path) -> None:
    """Serve the control API on loopback with a token of this lab, and say where in lab.json."""
    import uvicorn  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import JSONResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    token = secrets.token_urlsafe(24)

    async def control(request: Request) -> JSONResponse:
        given = request.headers.get("authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return JSONResponse({"error": "no"}, 401)
        try:
            match request.url.path:
                case "/status":
                    return JSONResponse(daemon.status())
                case "/fail":
                    wanted = await request.json()
                    daemon.data.fail(str(wanted["zone"]), str(wanted["mode"]))
                case "/heal":
                    daemon.data.heal(str((await request.json())["zone"]))
                case "/cloud-fault":
                    wanted = await request.json()
                    daemon.break_cloud(str(wanted["cloud"]), wanted)
                case "/down":
                    daemon.down.set()
        except FailoutError as error:
            return JSONResponse({"error": str(error), "exit_code": error.exit_code}, 400)
        return JSONResponse({"ok": True})

    routes = [Route("/status", control)]
    routes += [Route(path, control, methods=["POST"]) for path in ("/fail", "/heal", "/cloud-fault", "/down")]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)  # before lab.json says where: whoever reads it may ask at once
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    threading.Thread(target=lambda: asyncio.run(server.serve([listener])), name="control", daemon=True).start()
    where = {"pid": os.getpid(), "url": f"http://127.0.0.1:{listener.getsockname()[1]}", "token": token}
    write_private(folder / "lab.json", json.dumps(where))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.lab.daemon", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    folder: Path = options.folder.resolve()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    daemon = None
    try:
        daemon = Daemon(folder, read_blueprint(folder))
        if options.with_parent:
            threading.Thread(target=_watch_parent, args=(daemon.down,), daemon=True).start()
        daemon.up(_tell)
        serve_control(daemon, folder)
        _tell("up", text="the lab is up")
        while not stop.wait(0.1) and not daemon.down.is_set():
            pass
    except FailoutError as error:
        _tell("failed", text=str(error), exit_code=error.exit_code)
        return error.exit_code
    finally:
        (folder / "lab.json").unlink(missing_ok=True)
        if daemon is not None:
            daemon.close()
    return 0


def _watch_parent(down: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    down.set()


def _tell(kind: str, **fields: object) -> None:
    """One JSON line for whoever raised the lab; nobody may listen any more."""
    try:
        sys.stdout.write(json.dumps({"kind": kind, **fields}) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
