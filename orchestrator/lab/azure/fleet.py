"""What happens to a scale set's instances: launch, removal, upgrade in place, repair. Driven by the clock and by what is seen.

The cloud never asks the load balancer: an upgrade or a repair ends the process at once, whatever it serves (I13 is the
orchestrator's to keep).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil

from orchestrator.lab.azure.arm import Body
from orchestrator.lab.azure.operations import SUCCEEDED, Ended, Judge, OnEnd, timestamp
from orchestrator.lab.azure.state import ScaleSet, Vm, World, version_of
from orchestrator.lab.model import Process, SeenRegion


def resize(world: World, scale_set: ScaleSet, now: float) -> Ended | None:
    """Launch or remove instances until capacity is met. Returns how the operation must end when the zone has no room."""
    short: Ended | None = None
    while len(scale_set.vms) < scale_set.capacity:
        room = world.room.get(scale_set.zone_id)
        if room is not None and _in_zone(world, scale_set.zone_id) >= room:
            message = (
                f"Allocation failed. We do not have sufficient capacity for the requested VM size in zone "
                f"{scale_set.zone} of {scale_set.region}: {len(scale_set.vms)} of {scale_set.capacity} allocated."
            )
            short = Ended("Failed", "AllocationFailed", message)
            break
        launch(world, scale_set, now)
    for vm in list(scale_set.vms.values())[scale_set.capacity :]:
        del scale_set.vms[vm.id]  # scale-in policy Default in one zone: the highest instance ids go first
    return short


def launch(world: World, scale_set: ScaleSet, now: float) -> Vm:
    model = scale_set.model()
    number = str(scale_set.next_id)
    scale_set.next_id += 1
    address = world.allocate(scale_set)
    name = f"{scale_set.name}_{number}"
    vm = Vm(number, name, world.new_id(), address, model, version_of(model), created=now, changed=now)
    scale_set.vms[number] = vm
    return vm


def bring_to_model(vm: Vm, model: Body, now: float, *, reimage: bool) -> None:
    """Apply the scale set's model to one instance.

    As in Azure only a new image (or an explicit reimage) replaces the disk and so restarts the process: same id, same
    network interface, same address, same admin state. New userData or tags alone are handed to the running machine,
    whose process reads them when it starts next.
    """
    replaced = reimage or _image(vm.model) != _image(model)
    vm.model = model
    if replaced:
        restart(vm, now)


def restart(vm: Vm, now: float) -> None:
    vm.incarnation += 1
    vm.version = version_of(vm.model)
    vm.process, vm.healthy, vm.unhealthy_since = None, False, None
    vm.changed, vm.provisioning = now, "Updating"


def until_running(world: World, scale_set: ScaleSet, vms: Sequence[Vm], started: float, short: Ended | None) -> Judge:
    """Judge an operation by what the data plane sees: all these instances run, or the boot timeout has passed."""

    def judge(now: float) -> Ended | None:
        alive = [vm for vm in vms if scale_set.vms.get(vm.id) is vm]
        late = [vm for vm in alive if not vm.running]
        if late and now - started < world.boot_timeout_s:
            return None
        for vm in alive:
            vm.provisioning = "Failed" if vm in late else "Succeeded"
        if late:
            names = ", ".join(vm.name for vm in late)
            message = f"OS provisioning for VM {names} did not finish in the allotted time."
            return Ended("Failed", "OSProvisioningTimedOut", message)
        return short or SUCCEEDED

    return judge


class Rollout:
    """An upgrade, reimage or restart of named instances in batches; one batch for manualupgrade: all at once."""

    def __init__(self, world: World, scale_set: ScaleSet, batches: Sequence[Sequence[Vm]], action: str) -> None:
        self._world = world
        self._scale_set = scale_set
        self._waiting = [list(batch) for batch in batches]
        self._action = action
        self._model = scale_set.model()
        self.version = version_of(self._model)
        self._current: list[Vm] = []
        self._judge: Judge = lambda _now: SUCCEEDED
        self._done = self._failed = 0
        self.cancelled = False

    def begin(self, now: float) -> OnEnd:
        """Start the first batch; returns what must run when the operation ends (the timeline's record)."""
        self.tell("started")
        self._next(now)
        return self.told_end

    def told_end(self, ended: Ended) -> None:
        cancelled = self.cancelled or ended.code == "OperationPreempted"
        self.tell("cancelled" if cancelled else "finished" if ended.status == "Succeeded" else "failed")

    def judge(self, now: float) -> Ended | None:
        ended = self._judge(now)
        if ended is None:
            return None
        if ended.status != "Succeeded":
            self._failed += sum(not vm.running for vm in self._current)
            self._done += sum(vm.running for vm in self._current)
            self._current = []
            return ended
        self._done += len(self._current)
        self._current = []
        if self.cancelled:
            return Ended("Canceled", "OperationCanceled", "The rolling upgrade was cancelled.")
        if not self._waiting:
            return SUCCEEDED
        self._next(now)
        return None

    def progress(self) -> Body:
        return {
            "successfulInstanceCount": self._done,
            "failedInstanceCount": self._failed,
            "inProgressInstanceCount": len(self._current),
            "pendingInstanceCount": sum(len(batch) for batch in self._waiting),
        }

    def _next(self, now: float) -> None:
        batch = self._waiting.pop(0) if self._waiting else []
        for vm in batch:
            if self._action == "restart":
                restart(vm, now)
            else:
                bring_to_model(vm, self._model, now, reimage=self._action == "reimage")
        self._current = batch
        self._judge = until_running(self._world, self._scale_set, batch, now, None)

    def tell(self, state: str) -> None:
        """Note it in the lab's timeline; a restart changes no version and is none of its business."""
        if self._action != "restart":
            self._world.tell("refresh", zone=self._scale_set.zone_id, state=state, version=self.version)


def batches_of(scale_set: ScaleSet, vms: Sequence[Vm]) -> list[list[Vm]]:
    """Split instances by the scale set's rolling upgrade policy (maxBatchInstancePercent, default 20)."""
    policy = scale_set.document["properties"].get("upgradePolicy", {}).get("rollingUpgradePolicy") or {}
    size = max(1, ceil(len(vms) * policy.get("maxBatchInstancePercent", 20) / 100))
    return [list(vms[i : i + size]) for i in range(0, len(vms), size)]


def observe(world: World, seen: SeenRegion, now: float) -> None:
    """Take over what the data plane saw of the region's processes. A report about an older incarnation is ignored."""
    for scale_set in world.scale_sets.values():
        if f"azure/{scale_set.region}" != seen.id:
            continue
        for vm in scale_set.vms.values():
            process = seen.processes.get(vm.name)
            if seen.incarnations.get(vm.name, vm.incarnation) != vm.incarnation:
                process = None
            vm.process = process
            vm.healthy = process is Process.RUNNING and seen.healthz.get(vm.name, False)
            if vm.healthy:
                vm.unhealthy_since = None
            elif vm.unhealthy_since is None:
                vm.unhealthy_since = now


def repair(world: World, scale_set: ScaleSet, now: float) -> None:
    """Automatic repairs: one instance at a time that was unhealthy beyond the grace is replaced, reimaged or restarted."""
    policy = scale_set.document["properties"].get("automaticRepairsPolicy") or {}
    if not policy.get("enabled") or scale_set.repairs_suspended:
        return
    busy = scale_set.upgrade is not None and scale_set.upgrade.ended is None
    if busy or any(vm.provisioning not in ("Succeeded", "Failed") for vm in scale_set.vms.values()):
        return
    grace = minutes(policy.get("gracePeriod", "PT10M")) * 60 / world.azure_seconds_per_lab_second
    for vm in list(scale_set.vms.values()):
        if vm.unhealthy_since is None or now - max(vm.unhealthy_since, vm.changed) < grace:
            continue
        action = policy.get("repairAction", "Replace")
        if action == "Restart":
            restart(vm, now)
        elif action == "Reimage":
            bring_to_model(vm, scale_set.model(), now, reimage=True)
        else:
            del scale_set.vms[vm.id]
            resize(world, scale_set, now)
        world.tell("repair", zone=scale_set.zone_id, instance=vm.name, action=action)
        return


def minutes(duration: str) -> int:
    """Read an ISO 8601 duration in whole minutes, the only form that the repairs policy takes ("PT30M")."""
    match = re.fullmatch(r"PT(\d+)M", duration)
    if match is None:
        raise ValueError(f"{duration!r} is not a duration such as PT30M")
    return int(match[1])


def settle(scale_set: ScaleSet) -> None:
    """Instances that started outside an operation (a repair) become Succeeded once they run."""
    for vm in scale_set.vms.values():
        if vm.provisioning in ("Creating", "Updating") and vm.running:
            vm.provisioning = "Succeeded"


def rolling_status(scale_set: ScaleSet, rollout: Rollout, code: str, started: float, now: float) -> Body:
    """Word the latest rolling upgrade as `rollingUpgrades/latest` reports it."""
    running = {"code": code, "startTime": timestamp(started), "lastAction": "Start", "lastActionTime": timestamp(now)}
    if code == "Cancelled":
        running["lastAction"] = "Cancel"
    policy = scale_set.document["properties"].get("upgradePolicy", {}).get("rollingUpgradePolicy") or {}
    return {
        "location": scale_set.region,
        "properties": {"policy": policy, "runningStatus": running, "progress": rollout.progress()},
    }


def _image(model: Body) -> Body:
    return model["profile"]["storageProfile"]["imageReference"]  # type: ignore[no-any-return]


def _in_zone(world: World, zone_id: str) -> int:
    return sum(len(s.vms) for s in world.scale_sets.values() if s.zone_id == zone_id)
