"""What the emulated Azure knows: resource documents as ARM shows them, scale sets with their instances, balancers."""

from __future__ import annotations

import base64
import binascii
import copy
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.lab.addresses import FIRST_INSTANCE_HOST, RegionAddresses
from orchestrator.lab.azure.arm import Body, not_found
from orchestrator.lab.azure.operations import Operation, Operations
from orchestrator.lab.model import Process
from orchestrator.lab.timeline import Timeline

RELEASE_TAG = "failout-release"


def decoded(user_data: str | None) -> str:
    """Decode userData (base64 on the wire). Raises ValueError when it is not base64."""
    try:
        return base64.b64decode(user_data or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("userData is not base64-encoded text") from error


@dataclass(slots=True)
class Vm:
    """One instance. `model` is what it was last brought to; `version` is what its running process was started with."""

    id: str
    name: str
    uuid: str
    address: str
    model: Body
    version: str
    created: float
    changed: float  # last create, upgrade, reimage or restart: repairs wait out their grace from here
    incarnation: int = 1
    provisioning: str = "Creating"
    process: Process | None = None
    healthy: bool = False
    unhealthy_since: float | None = None

    @property
    def running(self) -> bool:
        return self.process is Process.RUNNING


@dataclass(slots=True)
class ScaleSet:
    """`document` is the scale set as ARM shows it, userData included; `vms` by instance id, oldest first."""

    document: Body
    region: str
    zone: str  # as in the API: "1"
    group: str
    created: float
    vms: dict[str, Vm] = field(default_factory=dict)
    next_id: int = 0
    next_host: int = FIRST_INSTANCE_HOST
    repairs_suspended: bool = False
    write: Operation | None = None  # the newest PUT or PATCH
    upgrade: Operation | None = None  # the newest upgrade, reimage or restart of instances
    rolling: Body | None = None  # the latest rolling upgrade, as the API reports it

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def etag(self) -> str:
        return str(self.document["etag"])

    @property
    def zone_id(self) -> str:
        return f"azure/{self.region}-{self.zone}"

    @property
    def capacity(self) -> int:
        return int(self.document["sku"]["capacity"])

    def model(self) -> Body:
        """Return what an instance takes over when it is created or upgraded. Capacity and policies are not part of it."""
        profile = self.document["properties"]["virtualMachineProfile"]
        size = self.document["sku"].get("name")
        return copy.deepcopy({"profile": profile, "tags": self.document.get("tags") or {}, "size": size})

    def nic(self) -> Body:
        nics = self.document["properties"]["virtualMachineProfile"]["networkProfile"]["networkInterfaceConfigurations"]
        return next((nic for nic in nics if nic.get("properties", {}).get("primary")), nics[0])

    def ip_configuration(self) -> Body:
        return self.nic()["properties"]["ipConfigurations"][0]  # type: ignore[no-any-return]

    def ip_configuration_id(self, vm: Vm) -> str:
        nic, ip = self.nic()["name"], self.ip_configuration()["name"]
        return f"{self.id}/virtualMachines/{vm.id}/networkInterfaces/{nic}/ipConfigurations/{ip}"

    def pools(self) -> set[str]:
        """Return the lower-case ids of the backend pools that its instances belong to."""
        pools = self.ip_configuration()["properties"].get("loadBalancerBackendAddressPools") or []
        return {pool["id"].lower() for pool in pools}


def version_of(model: Body) -> str:
    """Return the version that a machine of this model runs: VERSION= in userData, else the release tag, else the image's."""
    profile: Body = model["profile"]
    for line in decoded(profile.get("userData")).splitlines():
        key, _, value = line.strip().partition("=")
        if key.removeprefix("export ").strip() == "VERSION" and value:
            return value.strip().strip("\"'")
    image: Body = profile["storageProfile"]["imageReference"]
    return str(model["tags"].get(RELEASE_TAG) or image.get("version") or image.get("id") or "unknown")


@dataclass(slots=True)
class Balancer:
    """`admin`: per pool id and address name, as written. `applied`: the same as the data plane has it by now."""

    document: Body
    region: str
    admin: dict[str, dict[str, str]] = field(default_factory=dict)
    applied: dict[str, dict[str, str]] = field(default_factory=dict)
    write: Operation | None = None
    members: tuple[str, ...] = ()


@dataclass(slots=True)
class World:
    """All state of one stand-in. Guarded by the stand-in's lock.

    `azure_seconds_per_lab_second` shortens what Azure does not allow to be short: probe intervals (>= 5 s), the grace of
    automatic repairs (>= 10 min), Traffic Manager probes (>= 10 s). `room`: instances that a zone has hardware for;
    `quota`: instances that a location may hold; absent: no limit.
    """

    regions: Mapping[str, RegionAddresses]
    operations: Operations
    new_id: Callable[[], str]
    azure_seconds_per_lab_second: float
    boot_timeout_s: float
    network_write_s: float
    timeline: Timeline | None = None
    groups: dict[str, Body] = field(default_factory=dict)
    network: dict[str, Body] = field(default_factory=dict)  # lower-case id -> document of a plain network resource
    balancers: dict[str, Balancer] = field(default_factory=dict)
    scale_sets: dict[str, ScaleSet] = field(default_factory=dict)
    profiles: dict[str, Body] = field(default_factory=dict)
    autoscale: dict[str, Body] = field(default_factory=dict)  # lower-case id -> autoscale setting
    room: dict[str, int] = field(default_factory=dict)
    quota: dict[str, int] = field(default_factory=dict)

    def scale_set(self, path: str, group: str) -> ScaleSet:
        """Find by resource id. Raises ArmError 404."""
        found = self.scale_sets.get(path.lower())
        if found is None:
            raise not_found("Microsoft.Compute/virtualMachineScaleSets", path.rsplit("/", 1)[-1], group)
        return found

    def members(self, pool_id: str) -> Iterator[tuple[ScaleSet, Vm]]:
        """Yield the instances whose network interface belongs to the pool. Membership lives on the interface."""
        for scale_set in self.scale_sets.values():
            if pool_id.lower() in scale_set.pools():
                for vm in scale_set.vms.values():
                    yield scale_set, vm

    def allocate(self, scale_set: ScaleSet) -> str:
        """Return a free private address of the scale set's subnet; an address is not reused while others are left."""
        subnet = self.network[str(scale_set.ip_configuration()["properties"]["subnet"]["id"]).lower()]
        network = ipaddress.ip_network(subnet["properties"]["addressPrefix"])
        taken = {vm.address for other in self.scale_sets.values() for vm in other.vms.values()}
        hosts = network.num_addresses - 1 - FIRST_INSTANCE_HOST
        for _ in range(hosts):
            address = str(network[scale_set.next_host])
            scale_set.next_host += 1
            if scale_set.next_host >= network.num_addresses - 1:
                scale_set.next_host = FIRST_INSTANCE_HOST
            if address not in taken:
                return address
        raise ValueError(f"subnet {subnet['id']} has no free address")

    def tell(self, kind: str, **fields: object) -> None:
        if self.timeline is not None:
            self.timeline.write(kind, **fields)
