"""What the clouds' autoscalers do, played in the lab: target tracking on the load per instance, zone by zone.

Neither emulated cloud scales by itself. Out fast: as soon as the load needs more, straight to what it needs. In slowly:
only after it needed fewer for a whole window, and then to the most that it needed. A frozen fleet is watched, never
touched. https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Protocol

from orchestrator.lab.addresses import region_of
from orchestrator.lab.ask import fetch
from orchestrator.lab.dataplane import InstanceStatus
from orchestrator.lab.model import SERVICE_PORT, Process, ScaledFleet
from orchestrator.lab.timeline import Timeline

EVERY_S: Final = 0.5
SMOOTHED_S: Final = 2.0  # a minute's average in the clouds
ASK_TIMEOUT_S: Final = 0.4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Aim:
    """`target`: the share, 0..1, of `rps_per_instance` that every instance is to be used by; within `tolerance` (a share
    of it) nothing is done.
    """

    target: float
    rps_per_instance: float
    scale_in_after_s: float = 60.0
    tolerance: float = 0.1

    def needed(self, rps: float) -> int:
        return ceil(rps / (self.rps_per_instance * self.target) - 1e-9)

    def used(self, rps: float, instances: int) -> float:
        return rps / (self.rps_per_instance * max(1, instances))


@dataclass(frozen=True, slots=True)
class Load:
    """What users asked of a zone: requests per second, around `at` (monotonic seconds)."""

    at: float
    rps: float


@dataclass(frozen=True, slots=True)
class Change:
    to: int
    why: str


def decide(aim: Aim, loads: Sequence[Load], fleet: ScaledFleet) -> Change | None:
    """Say to how many instances the fleet goes now. `loads`: oldest first, at least as far back as the window reaches."""
    if fleet.frozen or not loads:
        return None

    def bounded(instances: int) -> int:
        return max(fleet.minimum, min(fleet.maximum, instances))

    newest = loads[-1]
    used = aim.used(newest.rps, fleet.desired)
    told = f"{newest.rps:.0f}/s over {fleet.desired} instances is {used:.2f}, target {aim.target:.2f}"
    wanted = bounded(aim.needed(newest.rps))
    if wanted > fleet.desired and used > aim.target * (1 + aim.tolerance):
        return Change(wanted, told)
    since = newest.at - aim.scale_in_after_s
    if loads[0].at > since:  # not watched for long enough
        return None
    most = bounded(max(aim.needed(load.rps) for load in loads if load.at >= since))
    if most < fleet.desired and used < aim.target * (1 - aim.tolerance):
        return Change(most, f"{told} at most for {aim.scale_in_after_s:g} s")
    return None


class Loads:
    """The load of every zone from its instances' own counters, averaged over SMOOTHED_S; kept for `keep_s`."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._counts: dict[str, int] = {}
        self._served: dict[str, deque[tuple[float, int]]] = {}  # zone -> (at, requests since it is watched)
        self.of: dict[str, list[Load]] = {}

    def read(self, at: float, zones: Mapping[str, str], counts: Mapping[str, int]) -> None:
        """`zones`: instance -> zone of all that run; `counts`: requests, of those that answered.

        One that is seen for the first time has served all of its requests lately; a count that fell began anew.
        """
        added = dict.fromkeys(zones.values(), 0)
        for instance, count in counts.items():
            had = self._counts.get(instance, 0)
            added[zones[instance]] += count - had if count >= had else count
        first = not self._served
        self._counts = {i: counts.get(i, self._counts.get(i, 0)) for i in zones}
        for zone, more in added.items():
            served = self._served.setdefault(zone, deque())
            served.append((at, (served[-1][1] if served else 0) + (0 if first else more)))
            while len(served) > 2 and served[1][0] <= at - SMOOTHED_S:
                served.popleft()
            seconds = at - served[0][0]
            if seconds > 0:
                kept = [load for load in self.of.get(zone, []) if load.at >= at - self._keep_s]
                self.of[zone] = [*kept, Load(at, (served[-1][1] - served[0][1]) / seconds)]


class Cloud(Protocol):
    """The part of an emulated cloud that its autoscaler works on."""

    def fleets(self) -> Sequence[ScaledFleet]:
        """Every fleet that has an autoscaler."""

    def resize(self, zone: str, instances: int) -> None:
        """Ask for so many instances, as the cloud's autoscaler does; whether there is room shows later in `fleets`."""


class Autoscaler:
    """Watches and acts on a thread of its own. Each act is a `scaled` event of the timeline: asked, or refused (no room)."""

    def __init__(
        self, clouds: Sequence[Cloud], instances: Callable[[], Sequence[InstanceStatus]], timeline: Timeline, aim: Aim
    ) -> None:
        self._clouds, self._instances, self._timeline, self._aim = clouds, instances, timeline, aim
        self._loads = Loads(aim.scale_in_after_s + 2 * EVERY_S)
        self._refused: dict[str, int] = {}  # zone -> the number that there was no room for, told once
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="autoscaler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._look()
            except Exception:  # noqa: BLE001  one bad look must not end the autoscaler
                _log.exception("the lab's autoscaler could not go on by itself")
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        running = [i for i in self._instances() if i.process is Process.RUNNING]
        counts = await asyncio.gather(*(_count(i.address) for i in running))
        known = {i.id: count for i, count in zip(running, counts, strict=True) if count is not None}
        self._loads.read(asyncio.get_running_loop().time(), {i.id: i.zone for i in running}, known)
        for cloud in self._clouds:
            for fleet in cloud.fleets():
                self._tell_refused(fleet)
                change = decide(self._aim, self._loads.of.get(fleet.zone, ()), fleet)
                if change is not None:
                    cloud.resize(fleet.zone, change.to)
                    self._tell(fleet.zone, fleet.desired, change.to, "asked", change.why)

    def _tell_refused(self, fleet: ScaledFleet) -> None:
        if not fleet.refused:
            self._refused.pop(fleet.zone, None)
        elif self._refused.get(fleet.zone) != fleet.desired:
            self._refused[fleet.zone] = fleet.desired
            self._tell(fleet.zone, fleet.there, fleet.desired, "refused", fleet.refused)

    def _tell(self, zone: str, before: int, to: int, state: str, why: str) -> None:
        self._timeline.write("scaled", zone=zone, state=state, why=why, **{"from": before, "to": to})


async def _count(address: str) -> int | None:
    """The users' requests that an instance has served; None when it did not answer."""
    body = await fetch(region_of(address).hand, address, SERVICE_PORT, "/status", ASK_TIMEOUT_S)
    return int(json.loads(body)["requests"]) if body else None
