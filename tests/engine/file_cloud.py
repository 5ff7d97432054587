"""Two clouds in one file: what a killed process did stays done, and what it began goes on without it.

Every port is idempotent as a real cloud's is; upgrades, readiness and draining take real time. `on_call` sees each call.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from orchestrator.core.health import LATENCY_BOUNDS_MS, Counters, InstanceProbe, Synthetic
from orchestrator.core.release import Image, Release
from orchestrator.core.topology import GlobalTier, Region, Topology, Zone
from orchestrator.core.traffic import Placement, ZoneSeen, ZoneTraffic
from orchestrator.ports import Fence, FleetSeen, GlobalSeen, Instance, Notice, Peer, Replacement

USERS_RPS = 6000.0
SWAP_S, BOOT_S, DRAIN_S = 0.06, 0.03, 0.03
OnCall = Callable[[str], None]


def topology(zones: int) -> Topology:
    def region(cloud: str, name: str) -> Region:
        names = [f"{name}{letter}" for letter in "abc"[:zones]]
        of_region = tuple(Zone(f"{cloud}/{n}", cloud, f"{cloud}/{name}", n, 2, 6, 9000.0) for n in names)
        return Region(f"{cloud}/{name}", cloud, name, 100, of_region, "")

    regions = (region("aws", "us-east-1"), region("azure", "eastus"))
    return Topology("gates", regions, GlobalTier("file", 0.02, "gates.lab."))


@dataclass
class FileCloud:
    """All ports but the agents' per region; `fleets`, `traffics` and `agents` of a World are this object."""

    path: Path
    shape: Topology
    on_call: OnCall = lambda _: None

    def create(self) -> None:
        zones = {
            zone.id: {
                "model": "v1",
                "desired": zone.instances,
                "autoscaling": True,
                "placement": "steady",
                "share": 1.0,
                "left_at": 0.0,
                "swap": None,
                "instances": [self._instance(f"{zone.id}/{n}", "v1", 0.0) for n in range(zone.instances)],
            }
            for zone in self.shape.zones()
        }
        weights = {region.id: region.weight for region in self.shape.regions}
        self.path.write_text(json.dumps({"at": time.time(), "born": 0, "weights": weights, "zones": zones}))

    @staticmethod
    def _instance(name: str, version: str, since: float) -> dict[str, Any]:
        return {"id": name, "version": version, "since": since, "served": 0.0}

    @contextmanager
    def _open(self) -> Iterator[dict[str, Any]]:
        """One call at a time; everything that time has done since the last one is done first."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            world = json.loads(self.path.read_text())
            self._pass_time(world, time.time())
            yield world
            fresh = self.path.with_suffix(".new")
            fresh.write_text(json.dumps(world))
            fresh.rename(self.path)

    def _pass_time(self, world: dict[str, Any], now: float) -> None:
        total = sum(world["weights"].values())
        for region in self.shape.regions:
            of_region = [world["zones"][zone.id] for zone in region.zones]
            shares = sum(z["share"] * len(z["instances"]) for z in of_region)
            rps = USERS_RPS * world["weights"][region.id] / total if total else 0.0
            for zone in of_region:
                for instance in zone["instances"]:
                    instance["served"] += rps * zone["share"] / shares * (now - world["at"]) if shares else 0.0
                swap = zone["swap"]
                if swap and not swap["done"] and now - swap["at"] >= SWAP_S:
                    assert zone["share"] == 0.0, "I13: instances were replaced while their zone took traffic"
                    swap["done"] = True
                    zone["instances"] = [self._born(world, zone, now) for _ in range(zone["desired"])]
        world["at"] = now

    def _born(self, world: dict[str, Any], zone: dict[str, Any], now: float) -> dict[str, Any]:
        world["born"] += 1
        return self._instance(f"i{world['born']}", zone["model"], now)

    def content(self) -> dict[str, Any]:
        """What matters in the end, without names and times."""
        with self._open() as world:
            zones = {
                zone_id: [zone[key] for key in ("model", "desired", "autoscaling", "placement", "share")]
                + [sorted(instance["version"] for instance in zone["instances"])]
                for zone_id, zone in world["zones"].items()
            }
            return {"zones": zones, "weights": world["weights"]}

    # ports.Fleet

    async def describe(self, zone: Zone) -> FleetSeen:
        self.on_call("read")
        with self._open() as world:
            of = world["zones"][zone.id]
            instances = tuple(
                Instance(i["id"], f"at-{i['id']}", i["version"], running=True, on_model=i["version"] == of["model"])
                for i in of["instances"]
            )
            return FleetSeen(instances, of["desired"], of["model"], of["autoscaling"])

    async def replace(self, zone: Zone, version: str, image: Image, fence: Fence) -> None:
        with self._open() as world:
            of = world["zones"][zone.id]
            if of["model"] == version and (of["swap"] or all(i["version"] == version for i in of["instances"])):
                return
        await fence.check()
        with self._open() as world:
            world["zones"][zone.id] |= {"model": version, "swap": {"at": world["at"], "done": False}}
        self.on_call("write")

    async def replacement(self, zone: Zone) -> Replacement:
        self.on_call("read")
        with self._open() as world:
            of = world["zones"][zone.id]
            done = sum(i["version"] == of["model"] for i in of["instances"])
            return Replacement(bool(of["swap"] and not of["swap"]["done"]), of["model"], done, len(of["instances"]))

    async def scale(self, zone: Zone, instances: int, fence: Fence) -> None:
        raise AssertionError("there is capacity enough")

    async def set_minimum(self, zone: Zone, instances: int, fence: Fence) -> None:
        raise AssertionError("nothing was scaled")

    async def set_autoscaling(self, zone: Zone, *, enabled: bool, fence: Fence, repairs: bool | None = None) -> None:
        await fence.check()
        with self._open() as world:
            world["zones"][zone.id]["autoscaling"] = enabled
        self.on_call("write")

    # ports.Traffic

    def grain(self, zone: Zone, instances: int) -> Fraction:
        return Fraction(1, 100)

    def whole_instances(self) -> bool:
        return False

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        self.on_call("read")
        with self._open() as world:
            return {zone.id: self._seen(world, world["zones"][zone.id]) for zone in region.zones}

    def _seen(self, world: dict[str, Any], of: dict[str, Any]) -> ZoneSeen:
        total = len(of["instances"])
        healthy = sum(world["at"] - i["since"] >= BOOT_S for i in of["instances"])
        taking = 0 if of["placement"] == "out" else healthy
        draining = total if taking == 0 and world["at"] - of["left_at"] < DRAIN_S else 0
        return ZoneSeen(Placement(of["placement"]), of["share"], taking, draining, healthy, total)

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        with self._open() as world:
            now = {zone: (world["zones"][zone]["placement"], world["zones"][zone]["share"]) for zone in desired}
        wanted = {zone: (str(wish.placement), wish.share) for zone, wish in desired.items()}
        for zone in [zone for zone in desired if now[zone] != wanted[zone]]:
            await fence.check()
            with self._open() as world:
                placement, share = wanted[zone]
                world["zones"][zone] |= {"placement": placement, "share": share, "left_at": world["at"]}
            self.on_call("write")

    # ports.Agent

    async def probe(self, peers: Sequence[Peer]) -> Sequence[InstanceProbe]:
        self.on_call("read")
        with self._open() as world:
            known = {i["id"]: (i, zone) for zone in world["zones"].values() for i in zone["instances"]}
            return [self._probe(world, peer.id, *known.get(peer.id, (None, None))) for peer in peers]

    def _probe(self, world: dict[str, Any], name: str, of: Any, zone: Any) -> InstanceProbe:
        ready = of is not None and world["at"] - of["since"] >= BOOT_S
        users = int(ready and zone["share"] > 0)
        version = of["version"] if of else None
        return InstanceProbe(name, ready, ready, ready, version, in_flight=0, connections=users)

    async def counters(self, peers: Sequence[Peer]) -> Mapping[str, Counters]:
        self.on_call("read")
        asked = {peer.id for peer in peers}
        with self._open() as world:
            instances = [i for zone in world["zones"].values() for i in zone["instances"] if i["id"] in asked]
        rest = (0,) * len(LATENCY_BOUNDS_MS)
        return {i["id"]: Counters(int(i["served"]), 0, (int(i["served"]), *rest)) for i in instances}

    async def synthesize(self, peers: Sequence[Peer], requests: int, timeout_s: float) -> Synthetic:
        self.on_call("read")
        return Synthetic(requests, requests, 0, 5.0, 9.0)

    async def admit(self, peers: Sequence[Peer], *, admitted: bool, fence: Fence) -> None:
        raise AssertionError("traffic is moved by this cloud's load balancer")

    # Releases and Notifier

    def get(self, version: str) -> Release:
        images = tuple(Image(region.id, "sha256:0", {}) for region in self.shape.regions)
        return Release(version, images, 5)

    async def notify(self, notice: Notice) -> None: ...


@dataclass
class FileDns:
    """ports.GlobalTraffic."""

    cloud: FileCloud

    async def read(self) -> GlobalSeen:
        self.cloud.on_call("read")
        with self.cloud._open() as world:
            return GlobalSeen(world["weights"], in_sync=True)

    async def apply(self, weights: Mapping[str, int], fence: Fence) -> None:
        with self.cloud._open() as world:
            if world["weights"] == dict(weights):
                return
        await fence.check()
        with self.cloud._open() as world:
            world["weights"] = dict(weights)
        self.cloud.on_call("write")
