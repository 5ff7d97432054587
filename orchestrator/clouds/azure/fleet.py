"""The fleet of a zone on Azure: one scale set with upgrade mode Manual, changed by a new model and a manual upgrade.

The model carries its release in two tags, `failout-release` and `failout-digest`. Tags are part of a scale set's model
and reach an instance with the upgrade, so an instance on the model has the model's release, and any other the release
that its own tag names. What it truly runs is the region agent's to say.

How far an upgrade is, is read from the instances (latestModelApplied, provisioningState), so it survives a restart of
Failout; the operation's own status, asked with its saved token, says whether the work goes on and why it failed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.clouds.azure import autoscale
from orchestrator.clouds.azure.arm import Azure, Progress
from orchestrator.clouds.azure.errors import is_no_capacity, one_line
from orchestrator.clouds.azure.machines import Machine, Machines, Place, scale_set
from orchestrator.core.errors import Denied, NoCapacity, Rejected, Transient
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.ports import Fence, FleetSeen, Instance, Replacement

if TYPE_CHECKING:
    from azure.core.polling import LROPoller
    from azure.mgmt.compute.models import VirtualMachineScaleSet, VirtualMachineScaleSetUpdate

    from orchestrator.clouds.azure.sdk import Clients, Started

    Start = Callable[[Clients, Started], LROPoller[Any]]

RELEASE_TAG = "failout-release"
DIGEST_TAG = "failout-digest"
REPAIRS = "AutomaticRepairs"
IMAGE_KEYS = ("id", "publisher", "offer", "sku", "version")
BUSY = frozenset({"Creating", "Updating", "Migrating"})  # provisioning states in which Azure still works
SETTLE_S = 1.0  # how long an order waits for a small operation that must come first; then the caller asks again
POLL_S = 0.1
UPGRADE, PATCH_MODEL, PATCH_CAPACITY, SET_REPAIRS = "UpdateInstances", "PatchModel", "PatchCapacity", "SetRepairs"
DELETE = "DeleteInstances"


@dataclass(frozen=True, slots=True)
class Look:
    """One reading of a scale set. `repairs`: Running, Suspended, NotRunning, or None when it has none."""

    model: VirtualMachineScaleSet
    machines: Sequence[Machine]
    repairs: str | None

    @property
    def release(self) -> str | None:
        return (self.model.tags or {}).get(RELEASE_TAG)

    @property
    def capacity(self) -> int:
        return int((self.model.sku.capacity if self.model.sku else None) or 0)

    def on_model(self, machine: Machine) -> bool:
        """Its image must be the model's too: the flag alone may be older than the model, when reads are stale."""
        of_machine = machine.vm.properties
        if of_machine is None or not of_machine.latest_model_applied:
            return False
        of_model = self.model.properties.virtual_machine_profile if self.model.properties else None
        want, have = (p.storage_profile and p.storage_profile.image_reference for p in (of_model, of_machine) if p)
        return not want or not have or all(have.get(key) == want.get(key) for key in IMAGE_KEYS)

    def behind(self) -> list[Machine]:
        return [m for m in self.machines if not self.on_model(m) or _state(m) == "Failed"]

    def upgraded(self) -> int:
        return sum(self.on_model(m) and _state(m) == "Succeeded" for m in self.machines)

    def instance(self, machine: Machine) -> Instance:
        on_model = self.on_model(machine)
        version = self.release if on_model else (machine.vm.tags or {}).get(RELEASE_TAG)
        running = _state(machine) == "Succeeded"
        return Instance(machine.name, machine.address, version, running=running, on_model=on_model)

    def changing(self) -> bool:
        return bool(self.model.properties and self.model.properties.provisioning_state in BUSY)

    def no_room(self) -> str:
        """Whoever asked for more got the reason in his operation's answer; what everybody sees is that it failed."""
        state = self.model.properties.provisioning_state if self.model.properties else None
        short = state == "Failed" and len(self.machines) < self.capacity
        return f"Azure gave {len(self.machines)} of {self.capacity} machines and no more" if short else ""

    def busy(self) -> bool:
        return self.changing() or any(_state(m) in BUSY for m in self.machines)


class OperationBook(Protocol):
    """Tokens of what was last begun, per zone and call. One that outlives the process lets the next one carry it on."""

    async def load(self, key: str) -> str | None: ...

    async def save(self, key: str, token: str | None) -> None: ...


class Remembered:
    """An OperationBook for the life of the process."""

    def __init__(self) -> None:
        self._tokens: dict[str, str | None] = {}

    async def load(self, key: str) -> str | None:
        return self._tokens.get(key)

    async def save(self, key: str, token: str | None) -> None:
        self._tokens[key] = token


class AzureFleet:
    """Implements ports.Fleet.

    `operations` keeps what is worth carrying on after a crash: an upgrade and the model before it. "Autoscaling" is two things:
    the scale set's automatic repairs, and Azure Monitor's autoscale setting (autoscale.py). Growth never waits for the
    latter: it is another service, and may be away just when a zone is lost.
    """

    def __init__(self, azure: Azure, regions: Iterable[Region], operations: OperationBook | None = None) -> None:
        self._azure = azure
        self._regions = {zone.id: region for region in regions for zone in region.zones}
        # Whoever carries on asks for the small ones again: an old answer to them would be taken for one to the new order.
        small, kept = Remembered(), operations or Remembered()
        books: dict[str, OperationBook] = {UPGRADE: kept, PATCH_MODEL: kept}
        self._operations = {PATCH_CAPACITY: small, DELETE: small, SET_REPAIRS: small} | books
        self._machines = Machines()

    async def describe(self, zone: Zone) -> FleetSeen:
        seen, (setting, unread) = await asyncio.gather(self._look(zone), self._setting(zone))
        instances = tuple(seen.instance(machine) for machine in seen.machines)
        bounds = setting.bounds if setting else None
        moves = seen.repairs == "Running" or bool(unread) or (bounds is not None and bounds.enabled)
        return FleetSeen(instances, seen.capacity, seen.release, moves, bounds, unread, seen.no_room())

    async def replace(self, zone: Zone, version: str, image: Image, fence: Fence) -> None:
        """Suspend repairs, change the model, upgrade what is not on it; each only when needed, the next order preempts.

        Raises Transient while a step that must come first is still at work: ask again.
        """
        place = self._place(zone)
        seen = await self._look(zone, user_data=True)
        staged = _has(seen.model, version, image)
        if staged and not seen.behind():
            return
        if seen.release not in (None, version) and _boots(seen.model, image):
            raise Rejected(
                f"{version} boots the same image as {seen.release}: Azure would restart no instance of {zone.id}"
            )
        if seen.repairs == "Running":
            await self._set_repairs(zone, "Suspend", fence)
        if not staged:
            await self._keep(zone, UPGRADE, None)  # obsolete with the new model, also when its answer is lost
            await self._begin(
                zone, PATCH_MODEL, fence, lambda c, m: _patch_model(c, m, place, seen.model, version, image)
            )
        elif (await self._progress(zone, UPGRADE)).running:
            return
        await self._settled(zone, PATCH_MODEL, lambda look: not look.changing())
        behind = (await self._look(zone)).behind()
        names = [str(machine.vm.instance_id) for machine in behind]
        if names:
            await self._begin(zone, UPGRADE, fence, lambda c, m: _upgrade(c, m, place, names))

    async def replacement(self, zone: Zone) -> Replacement:
        upgrade, seen = await asyncio.gather(self._progress(zone, UPGRADE), self._look(zone))
        done, total = seen.upgraded(), len(seen.machines)
        running = seen.busy() or (upgrade.running and done < total)  # an operation that never ends is not believed
        failure = None
        if not running and (done < total or total == 0):
            failure = (
                _why(seen, upgrade) or f"{done} of {total} instances are on the model and nothing upgrades the rest"
            )
        return Replacement(running, seen.release, done, total, failure)

    async def scale(self, zone: Zone, instances: int, fence: Fence) -> None:
        """Ask again to learn that there was no room: NoCapacity once, then the next call tries anew.

        A smaller set loses its last instances by name, by name: a lower capacity would let Azure choose, and it ends
        machines without asking the load balancer. The caller has taken them out of traffic. The maximum of an autoscale
        setting is a bound that people set, and is never raised.
        """
        if not 0 <= instances <= zone.instances_max:
            raise Rejected(f"{zone.id} may have 0 to {zone.instances_max} instances, not {instances}")
        growth, seen, (setting, _) = await asyncio.gather(
            self._progress(zone, PATCH_CAPACITY), self._look(zone), self._setting(zone)
        )
        if is_no_capacity(growth.code, growth.message):
            await self._keep(zone, PATCH_CAPACITY, None)
            raise NoCapacity(f"azure {PATCH_CAPACITY} for {zone.id}: {one_line(growth.code, growth.message)}")
        if setting is None:
            await self._resize(zone, instances, growth, seen, fence)
            return
        if instances > setting.bounds.maximum:
            told = f"{setting.name} allows {setting.bounds.maximum}"
            raise NoCapacity(f"{zone.id}: {instances} instances asked, {told}")
        if instances < setting.bounds.minimum:
            await self._set_minimum(zone, setting, instances, fence)
        await self._resize(zone, instances, growth, seen, fence)
        if instances > setting.bounds.minimum:
            with contextlib.suppress(Transient, Denied):  # it grows already, and the next call tries again
                await self._set_minimum(zone, setting, instances, fence)

    async def set_minimum(self, zone: Zone, instances: int, fence: Fence) -> None:
        setting = await autoscale.read(self._place(zone))
        if setting is not None:
            await self._set_minimum(zone, setting, instances, fence)

    async def _resize(self, zone: Zone, instances: int, growth: Progress, seen: Look, fence: Fence) -> None:
        place = self._place(zone)
        if seen.capacity == instances and (growth.running or seen.busy() or len(seen.machines) == instances):
            return
        surplus = sorted(machine.name for machine in seen.machines)[instances:]
        if instances < seen.capacity and surplus:
            ids = [str(m.vm.instance_id) for m in seen.machines if m.name in surplus]
            if not (await self._progress(zone, DELETE)).running:
                await self._begin(zone, DELETE, fence, lambda c, m: _delete(c, m, place, ids))
            return
        await self._begin(zone, PATCH_CAPACITY, fence, lambda c, m: _patch_capacity(c, m, place, seen.model, instances))

    async def set_autoscaling(self, zone: Zone, *, enabled: bool, fence: Fence, repairs: bool | None = None) -> None:
        """Switch automatic repairs and the autoscale setting. A zone that lacks one has nothing there to freeze.

        Thaws what a hand had switched off, too: thaw only what `describe` called autoscaling before it was frozen.
        """
        seen, setting = await asyncio.gather(self._look(zone), autoscale.read(self._place(zone)))
        repairs = enabled if repairs is None else repairs
        if seen.repairs == ("Suspended" if repairs else "Running"):
            await self._set_repairs(zone, "Resume" if repairs else "Suspend", fence)
        if setting is not None and setting.enabled is not enabled:
            await autoscale.write(self._place(zone), setting, setting.profiles, fence, enabled=enabled)

    async def _setting(self, zone: Zone) -> tuple[autoscale.Setting | None, str]:
        """The zone's autoscale setting, or why it could not be read: what Failout does next seldom depends on it."""
        try:
            return await autoscale.read(self._place(zone)), ""
        except (Transient, Denied, Rejected) as error:
            return None, str(error)

    async def _set_minimum(self, zone: Zone, setting: autoscale.Setting, minimum: int, fence: Fence) -> None:
        profiles = setting.with_minimum(minimum)
        if profiles is not None:
            await autoscale.write(self._place(zone), setting, profiles, fence, enabled=setting.enabled)

    async def _set_repairs(self, zone: Zone, action: str, fence: Fence) -> None:
        place = self._place(zone)
        await self._begin(
            zone,
            SET_REPAIRS,
            fence,
            lambda c, m: _service_state(c, m, place, action),
        )
        wanted = "Suspended" if action == "Suspend" else "Running"
        await self._settled(zone, SET_REPAIRS, lambda look: look.repairs == wanted)

    def _place(self, zone: Zone) -> Place:
        return scale_set(self._azure, self._regions[zone.id], zone)

    async def _look(self, zone: Zone, *, user_data: bool = False) -> Look:
        place = self._place(zone)
        expand = "userData" if user_data else None

        def get(c: Clients) -> VirtualMachineScaleSet:
            return c.compute.virtual_machine_scale_sets.get(place.group, place.name, expand=expand)

        def repairs(c: Clients) -> str | None:
            view = c.compute.virtual_machine_scale_sets.get_instance_view(place.group, place.name)
            found = [s for s in view.orchestration_services or [] if s.service_name == REPAIRS]
            return found[0].service_state if found else None

        model, state, machines = await asyncio.gather(
            place.arm.ask("GetScaleSet", zone.id, get),
            place.arm.ask("GetInstanceView", zone.id, repairs),
            self._machines.of(place, expand="instanceView"),
        )
        return Look(model, machines, state)

    async def _begin(self, zone: Zone, call: str, fence: Fence, start: Start) -> None:
        await fence.check()
        await self._keep(zone, call, await self._place(zone).arm.begin(call, zone.id, start))

    async def _keep(self, zone: Zone, call: str, token: str | None) -> None:
        await self._operations[call].save(f"{zone.id} {call}", token)

    async def _progress(self, zone: Zone, call: str) -> Progress:
        token = await self._operations[call].load(f"{zone.id} {call}")
        return await self._place(zone).arm.progress(token, zone.id) if token else Progress(known=False)

    async def _settled(self, zone: Zone, call: str, so: Callable[[Look], bool]) -> None:
        """Wait a moment for a small operation that must come first, done by its own word or when it is `so`.

        Raises Transient when it runs on, or failed.
        """
        for _ in range(int(SETTLE_S / POLL_S)):
            progress = await self._progress(zone, call)
            if progress.code:
                await self._keep(zone, call, None)
                raise Transient(f"azure {call} for {zone.id}: {one_line(progress.code, progress.message)}")
            if not progress.running:
                return
            await asyncio.sleep(POLL_S)
        if not so(await self._look(zone)):
            raise Transient(f"azure {call} for {zone.id} is still at work", retry_after_s=progress.retry_after_s)


def _state(machine: Machine) -> str | None:
    return machine.vm.properties.provisioning_state if machine.vm.properties else None


def _why(seen: Look, upgrade: Progress) -> str | None:
    """Why an upgrade ended short of its goal: the operation's own words, else the first failed instance's."""
    if upgrade.code:
        return one_line(upgrade.code, upgrade.message)
    for machine in seen.machines:
        view = machine.vm.properties.instance_view if machine.vm.properties else None
        for status in (view.statuses if view else None) or []:
            if status.level == "Error":
                return f"{machine.name}: {one_line(status.code or '', status.message or status.display_status or '')}"
    return None


def _reference(image: Image) -> dict[str, str]:
    """`image_id` (a gallery image version) or publisher, offer, sku and image_version. Rejected when neither is whole."""
    if image.data.get("image_id"):
        return {"id": image.data["image_id"]}
    names = {"publisher": "publisher", "offer": "offer", "sku": "sku", "version": "image_version"}
    if missing := [name for name in names.values() if not image.data.get(name)]:
        raise Rejected(f"the image for {image.region} names neither image_id nor {', '.join(missing)}")
    return {key: image.data[name] for key, name in names.items()}


def _user_data(image: Image) -> str | None:
    text = image.data.get("user_data")
    return None if text is None else base64.b64encode(text.encode()).decode()


def _has(model: VirtualMachineScaleSet, version: str, image: Image) -> bool:
    """Whether the scale set's model is this release to the letter, so that a hand's change is put right too."""
    tags = model.tags or {}
    profile = model.properties.virtual_machine_profile if model.properties else None
    return (
        tags.get(RELEASE_TAG) == version
        and tags.get(DIGEST_TAG) in (None, image.digest)  # None: provisioned by other hands
        and _boots(model, image)
        and _user_data(image) in (None, profile.user_data if profile else None)
    )


def _boots(model: VirtualMachineScaleSet, image: Image) -> bool:
    profile = model.properties.virtual_machine_profile if model.properties else None
    reference = profile.storage_profile.image_reference if profile and profile.storage_profile else None
    return reference is not None and all(reference.get(key) == value for key, value in _reference(image).items())


def _patch_model(
    c: Clients, polling: Started, place: Place, model: VirtualMachineScaleSet, version: str, image: Image
) -> LROPoller[Any]:
    """Tags are replaced as a whole, so the others are sent along; the etag keeps a change made meanwhile."""
    from azure.mgmt.compute import models  # noqa: PLC0415

    storage = models.VirtualMachineScaleSetUpdateStorageProfile(
        image_reference=models.ImageReference(_reference(image))
    )
    profile = models.VirtualMachineScaleSetUpdateVMProfile(storage_profile=storage, user_data=_user_data(image))
    update = models.VirtualMachineScaleSetUpdate(
        tags={**(model.tags or {}), RELEASE_TAG: version, DIGEST_TAG: image.digest},
        properties=models.VirtualMachineScaleSetUpdateProperties(virtual_machine_profile=profile),
    )
    return _patch(c, polling, place, model, update)


def _patch_capacity(
    c: Clients, polling: Started, place: Place, model: VirtualMachineScaleSet, instances: int
) -> LROPoller[Any]:
    from azure.mgmt.compute import models  # noqa: PLC0415

    size = model.sku or models.Sku()
    update = models.VirtualMachineScaleSetUpdate(sku=models.Sku(name=size.name, tier=size.tier, capacity=instances))
    return _patch(c, polling, place, model, update)


def _patch(
    c: Clients,
    polling: Started,
    place: Place,
    model: VirtualMachineScaleSet,
    update: VirtualMachineScaleSetUpdate,
) -> LROPoller[Any]:
    from azure.core import MatchConditions  # noqa: PLC0415

    poller: LROPoller[Any] = c.compute.virtual_machine_scale_sets.begin_update(
        place.group,
        place.name,
        update,
        etag=model.etag,
        match_condition=MatchConditions.IfNotModified if model.etag else None,
        polling=polling,
    )
    return poller


def _service_state(c: Clients, polling: Started, place: Place, action: str) -> LROPoller[Any]:
    from azure.mgmt.compute import models  # noqa: PLC0415

    wanted = models.OrchestrationServiceStateInput(service_name=REPAIRS, action=action)
    sets = c.compute.virtual_machine_scale_sets
    return sets.begin_set_orchestration_service_state(place.group, place.name, wanted, polling=polling)


def _delete(c: Clients, polling: Started, place: Place, ids: Sequence[str]) -> LROPoller[Any]:
    from azure.mgmt.compute import models  # noqa: PLC0415

    wanted = models.VirtualMachineScaleSetVMInstanceRequiredIDs(instance_ids=list(ids))
    sets = c.compute.virtual_machine_scale_sets
    poller: LROPoller[Any] = sets.begin_delete_instances(place.group, place.name, wanted, polling=polling)
    return poller


def _upgrade(c: Clients, polling: Started, place: Place, ids: Sequence[str]) -> LROPoller[Any]:
    from azure.mgmt.compute import models  # noqa: PLC0415

    wanted = models.VirtualMachineScaleSetVMInstanceRequiredIDs(instance_ids=list(ids))
    sets = c.compute.virtual_machine_scale_sets
    poller: LROPoller[Any] = sets.begin_update_instances(place.group, place.name, wanted, polling=polling)
    return poller
