"""EmulatedAws: moto with its gaps closed, as a control plane of the lab."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from moto.autoscaling.models import autoscaling_backends
from moto.core.base_backend import BackendDict
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.moto_api._internal import mock_random

from orchestrator.lab.aws import autoscaling, desired, ec2, route53, server, targets, zonalshift
from orchestrator.lab.aws.groups import Group
from orchestrator.lab.aws.targets import TargetGroup
from orchestrator.lab.aws.world import ACCOUNT, Times, World, enter
from orchestrator.lab.model import DesiredDns, DesiredRegion, ScaledFleet, SeenRegion
from orchestrator.lab.timeline import Timeline

_log = logging.getLogger(__name__)
_running = threading.Lock()


class EmulatedAws:
    """AWS for the lab on 127.0.0.1. One at a time per process, for moto keeps its state in the process.

    `regions` are those that live; the API answers for any, but nothing happens there. `seed` makes ids repeat, as far as
    calls come in the same order. `middlewares`: see server.Server. Not to be started again once stopped.
    """

    def __init__(
        self,
        regions: Sequence[str] = ("us-east-1",),
        *,
        port: int = 0,
        times: Times | None = None,
        timeline: Timeline | None = None,
        seed: int = 0,
        middlewares: Sequence[server.Middleware] = (),
    ) -> None:
        self.regions = tuple(regions)
        self._world = World(times=times or Times(), timeline=timeline)
        self._port, self._seed, self._middlewares = port, seed, tuple(middlewares)
        self._stopping = threading.Event()
        self._loop = threading.Thread(target=self._run, name="aws-services", daemon=True)
        self._regions: tuple[DesiredRegion, ...] = ()
        self._dns = DesiredDns()
        self._server: server.Server | None = None

    @property
    def endpoint(self) -> str:
        """Return the URL for boto3's `endpoint_url`; only once started."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.port}"

    def start(self) -> Self:
        if not _running.acquire(blocking=False):
            raise RuntimeError("an emulated AWS runs in this process already")
        try:
            for module in (ec2, targets, autoscaling, route53, zonalshift):
                module.install()
            for backends in BackendDict._instances:  # type: ignore[misc]  # noqa: SLF001
                backends.clear()
            mock_random.seed(self._seed)
            enter(self._world)
            self._server = server.Server(self._port, self._world, self._publish, self._middlewares)
        except BaseException:
            _running.release()
            raise
        self._server.start()
        self._loop.start()
        return self

    def stop(self) -> None:
        if self._server is None:
            return
        self._stopping.set()
        self._loop.join()
        self._server.stop()
        self._server = None
        _running.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def desired(self) -> Sequence[DesiredRegion]:
        """Return what should exist; never older than the last API call that answered, or one tick."""
        return self._regions

    def desired_dns(self) -> DesiredDns:
        return self._dns

    def observe(self, seen: SeenRegion) -> None:
        self._world.seen = {**self._world.seen, seen.id.removeprefix("aws/"): seen}

    def limit_capacity(self, zone: str, instances: int | None) -> None:
        """Leave room for `instances` in the zone ("us-east-1a" or "aws/us-east-1a"); None takes the limit away."""
        name = zone.removeprefix("aws/")
        with self._world.lock:
            if instances is None:
                self._world.capacity.pop(name, None)
            else:
                self._world.capacity[name] = instances

    def fleets(self) -> Sequence[ScaledFleet]:
        """Every Auto Scaling group, for its autoscaler: alarms that may notify nobody act on nothing."""
        with self._world.lock:
            return tuple(group.scaled() for name in self.regions for group in self._groups(name))

    def resize(self, zone: str, instances: int) -> None:
        """Set the desired capacity of the zone's group, as a scaling policy does."""
        with self._world.lock:
            for group in (g for name in self.regions for g in self._groups(name) if g.zone_id == zone):
                group.set_desired_capacity(instances)

    def _groups(self, region: str) -> list[Group]:
        return [g for g in autoscaling_backends[ACCOUNT][region].autoscaling_groups.values() if isinstance(g, Group)]

    def _run(self) -> None:
        while not self._stopping.wait(self._world.times.tick_s):
            with self._world.lock:
                try:
                    self._tick()
                    self._publish()
                except Exception:  # noqa: BLE001  one bad tick must not stop the cloud
                    _log.exception("the emulated AWS could not go on by itself")

    def _tick(self) -> None:
        for name in self.regions:
            ec2.advance(ec2_backends[ACCOUNT][name])
            for group in self._groups(name):
                group.tick()
            alive = {i.id for i in ec2.instances(ec2_backends[ACCOUNT][name]) if ec2.is_alive(i)}
            for target_group in list(elbv2_backends[ACCOUNT][name].target_groups.values()):
                if isinstance(target_group, TargetGroup):
                    target_group.deregister([{"Id": t} for t in list(target_group.targets) if t not in alive])
                    target_group.forget_drained()

    def _publish(self) -> None:
        """Take one consistent picture for the data plane: it reads often and must never wait for an API call."""
        self._regions = tuple(desired.region(name) for name in self.regions)
        if route53.in_sync():
            self._dns = route53.desired()
