"""One real process per instance that the control planes want: started and stopped by difference, never blocking.

A stop is what a cloud does to a machine: SIGTERM, then SIGKILL after a grace. It does not wait for load balancers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.lab.catalogue import behaviour_of
from orchestrator.lab.faults import Faults
from orchestrator.lab.model import SERVICE_PORT, DesiredInstance, Process
from orchestrator.lab.timeline import Timeline

STOP_GRACE_S = 2.0
PROGRAM = Path(__file__).with_name("instance.py")


@dataclass(slots=True)
class Running:
    """A process. `child` None: the machine is in a dead zone and was never started."""

    wanted: DesiredInstance
    child: subprocess.Popen[bytes] | None
    state: Process
    fault: Mapping[str, object] = field(default_factory=dict)
    telling_fault: bool = False
    suspended: bool = False
    killed_by_fault: bool = False
    kill_at: float = 0.0


class Supervisor:
    """`reconcile` every tick with what is wanted; `processes` says how each instance is."""

    def __init__(self, timeline: Timeline, folder: Path, faults: Faults, *, seed: int) -> None:
        self._timeline, self._faults, self._seed = timeline, faults, seed
        self._log = (folder / "instances.log").open("ab")
        self._running: dict[str, Running] = {}
        self._stopping: list[Running] = []

    def processes(self) -> dict[str, Process]:
        return {id_: running.state for id_, running in self._running.items()}

    def running(self) -> Sequence[Running]:
        return list(self._running.values())

    def reconcile(self, wanted: Sequence[DesiredInstance], now: float) -> None:
        """Stop what is not wanted, start what is missing and watch the rest. `now` is monotonic seconds."""
        self._reap(now)
        by_id = {instance.id: instance for instance in wanted}
        for running in self.running():
            if by_id.get(running.wanted.id) != running.wanted:
                del self._running[running.wanted.id]
                self._stop(running, now)
        busy = {stopping.wanted.address for stopping in self._stopping}
        for instance in wanted:
            if instance.id not in self._running and instance.address not in busy:
                self._running[instance.id] = self._start(instance)
        for running in self.running():
            self._watch(running)
            self._obey_faults(running)

    def close(self) -> None:
        """End every process at once."""
        for running in [*self._running.values(), *self._stopping]:
            if running.child is not None:
                running.child.kill()
                running.child.wait()
                self._close_pipes(running.child)
        self._running.clear()
        self._stopping.clear()
        self._log.close()

    def _start(self, instance: DesiredInstance) -> Running:
        if self._faults.dead(instance.zone):
            return Running(instance, None, Process.DEAD, killed_by_fault=True)
        fault = self._faults.in_instances(instance.zone, instance.address)
        child = subprocess.Popen(
            [
                sys.executable, "-I", "-S", str(PROGRAM),
                f"--host={instance.address}", f"--port={SERVICE_PORT}", f"--zone={instance.zone}",
                f"--instance={instance.id}", f"--version={instance.version}",
                f"--behaviour={behaviour_of(instance.version, instance.zone.partition('/')[0]).to_json()}",
                f"--fault={json.dumps(fault)}",
                f"--seed={self._seed}/{instance.id}/{instance.incarnation}",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            process_group=0,  # Ctrl-C is for the lab, which ends its machines itself
        )  # fmt: skip
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        self._tell(instance, "started")
        return Running(instance, child, Process.BOOTING, fault)

    def _stop(self, running: Running, now: float) -> None:
        if running.child is None or running.state is Process.DEAD:
            return
        running.child.send_signal(signal.SIGTERM)
        running.kill_at = now + STOP_GRACE_S
        self._stopping.append(running)

    def _reap(self, now: float) -> None:
        for stopping in list(self._stopping):
            assert stopping.child is not None
            if stopping.child.poll() is None:
                if now >= stopping.kill_at:
                    stopping.child.kill()
                continue
            self._stopping.remove(stopping)
            self._close_pipes(stopping.child)
            self._tell(stopping.wanted, "exited")

    def _watch(self, running: Running) -> None:
        child = running.child
        if child is None or running.state is Process.DEAD:
            return
        assert child.stdout is not None
        if child.poll() is not None:
            running.state = Process.DEAD
            self._close_pipes(child)
            self._tell(running.wanted, "exited")
        elif running.state is Process.BOOTING and child.stdout.read(64):
            running.state = Process.RUNNING
            self._tell(running.wanted, "listening")

    def _obey_faults(self, running: Running) -> None:
        """Kill, suspend or resume as the zone's fault says; a machine that died of it starts again when healed."""
        zone, child = running.wanted.zone, running.child
        dead = self._faults.dead(zone)
        if dead and running.state is not Process.DEAD:
            assert child is not None
            child.kill()
            running.killed_by_fault = True
        elif not dead and running.state is Process.DEAD and running.killed_by_fault:
            self._running[running.wanted.id] = self._start(running.wanted)
        elif child is not None and running.state is not Process.DEAD:
            suspend = self._faults.suspended(zone)
            if suspend != running.suspended:
                child.send_signal(signal.SIGSTOP if suspend else signal.SIGCONT)
                running.suspended = suspend

    def _tell(self, instance: DesiredInstance, state: str) -> None:
        self._timeline.write(
            "process",
            instance=instance.id,
            zone=instance.zone,
            version=instance.version,
            incarnation=instance.incarnation,
            state=state,
        )

    @staticmethod
    def _close_pipes(child: subprocess.Popen[bytes]) -> None:
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
