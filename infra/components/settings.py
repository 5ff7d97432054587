"""The programs' typed configuration: parsed once, strictly, before anything is registered.

An unknown key, a missing one or a wrong type fails with its path, such as `regions[0].zones`. Sizes are instances for
each zone, rates are requests a second, times are seconds, `weight` is a region's share of the global tier (0..255).
"""

from __future__ import annotations

import ipaddress
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

import pulumi

T = TypeVar("T")

UTILISATION_MAX = 0.75  # I3: what survivors may carry, the orchestrator's default `max_utilisation`


class SettingsError(ValueError):
    """The stack's configuration is wrong; the text says where and what is expected."""


@dataclass(frozen=True, slots=True)
class Release:
    """What the fleets are born with; from then on `failout deploy` owns it and these values are ignored."""

    version: str
    digest: str
    user_data: str = ""


@dataclass(frozen=True, slots=True)
class Appliance:
    """A machine that runs Failout itself (region agent, orchestrator host). `image` must have Python 3.11 or later.

    `token_secret` is a reference: an ARN in AWS Secrets Manager, a secret's URL in Azure Key Vault. Its value never
    passes through Pulumi.
    """

    image: str
    package: str
    token_secret: str
    size: str
    token_vault_id: str = ""  # Azure: the vault's resource id, for the right to read it


@dataclass(frozen=True, slots=True)
class Capacity:
    """A zone's fleet. `peak_rps` is the region's; the zones that are left when one is lost must carry it (I3)."""

    instances: int
    instances_max: int
    rps_per_instance: float
    peak_rps: float = 0.0

    def check(self, zones: int, where: str) -> None:
        left = (zones - 1) * self.instances * self.rps_per_instance * UTILISATION_MAX
        if self.peak_rps > left:
            enough = (
                math.ceil(self.peak_rps / ((zones - 1) * self.rps_per_instance * UTILISATION_MAX)) if zones > 1 else 0
            )
            advice = f"{enough} instances a zone are enough" if enough else "one zone alone can never be lost"
            raise SettingsError(
                f"{where}: with one of {zones} zones lost, {zones - 1} x {self.instances} instances carry {left:g}/s at "
                f"{UTILISATION_MAX:.0%}, the peak is {self.peak_rps:g}/s; {advice}"
            )
        if not 1 <= self.instances <= self.instances_max:
            raise SettingsError(f"{where}: instances must be 1 to instances_max ({self.instances_max})")

    def scaling_target(self, zones: int) -> float:
        """CPU share at which a zone scales out: low enough that a lost zone's part still fits under UTILISATION_MAX."""
        return UTILISATION_MAX * (zones - 1) / zones if zones > 1 else UTILISATION_MAX


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """What a region has on either cloud. `cidr` is its network; block 0 of it is for infrastructure, block N zone N's.

    `agent_url` names a region agent that is run by other means; else `agent` must say how to run one.
    """

    name: str
    zones: tuple[str, ...]
    cidr: str
    capacity: Capacity
    weight: int = 100
    block_prefix: int = 20
    agent_url: str = ""
    agent: Appliance | None = None

    def block(self, index: int) -> ipaddress.IPv4Network:
        """Return the addresses of zone `index` (from 1), or of the region's infrastructure (0)."""
        network = ipaddress.IPv4Network(self.cidr)
        blocks = list(network.subnets(new_prefix=self.block_prefix))
        return blocks[index]

    def zone_blocks(self) -> dict[str, ipaddress.IPv4Network]:
        return {zone: self.block(i + 1) for i, zone in enumerate(self.zones)}

    def check(self) -> None:
        where = f"region {self.name}"
        if not self.zones or len(set(self.zones)) != len(self.zones):
            raise SettingsError(f"{where}: zones must be some, each named once, not {list(self.zones)}")
        if bool(self.agent_url) == bool(self.agent):
            raise SettingsError(f"{where}: say either agent (to run one) or agent_url (of one that runs)")
        if not 0 <= self.weight <= 255:  # noqa: PLR2004
            raise SettingsError(f"{where}: weight is 0 to 255, not {self.weight}")
        try:
            blocks = 2 ** (self.block_prefix - ipaddress.IPv4Network(self.cidr).prefixlen)
        except ValueError as error:
            raise SettingsError(f"{where}: cidr {self.cidr!r}: {error}") from None
        if blocks < len(self.zones) + 1:
            raise SettingsError(
                f"{where}: {self.cidr} has {blocks:g} blocks of /{self.block_prefix}; zones need one each, and one more"
            )
        self.capacity.check(len(self.zones), where)


@dataclass(frozen=True, slots=True)
class AwsRegionSettings(RegionSettings):
    """`image_id` is the service's first image; `certificate_arn` makes the listener HTTPS."""

    image_id: str = ""
    instance_type: str = "t3.small"
    root_device: str = "/dev/xvda"
    certificate_arn: str = ""


@dataclass(frozen=True, slots=True)
class AzureRegionSettings(RegionSettings):
    """`image` is an ARM image reference: {id} or {publisher, offer, sku, version}. `zones` are "1", "2", "3"."""

    image: dict[str, str] = field(default_factory=dict)
    size: str = "Standard_B2s"
    ssh_public_key: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """Load balancer times. `deregistration_delay_s` must outlast the longest request of the service."""

    deregistration_delay_s: int = 60
    health_interval_s: int = 10
    grace_s: int = 90


@dataclass(frozen=True, slots=True)
class Service:
    """What all regions of a stack share. `tags` are added to Failout's own. `orchestrator` is how to run one, if here."""

    service: str
    release: Release
    service_port: int = 8080
    front_port: int = 0  # 0: 443 with a certificate (AWS), else 80
    protect: bool = False
    api_endpoint: str = ""  # not the public cloud's: a lab, a private endpoint
    tags: dict[str, str] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)

    def labels(self, role: str, zone: str = "", **more: str) -> dict[str, str]:
        """Tags of one resource: who owns it, what it is for, and which zone it belongs to."""
        own = {"failout-service": self.service, "failout-role": role} | ({"failout-zone": zone} if zone else {})
        return {**self.tags, **own, **more}


@dataclass(frozen=True, slots=True)
class Host:
    """One machine in any zone of `region`, started again elsewhere when that zone is lost. It serves no users (I16).

    `command` is what it runs all the time; empty: nothing, people and pipelines run `failout` there.
    """

    region: str
    appliance: Appliance
    command: str = ""


@dataclass(frozen=True, slots=True)
class AwsSettings(Service):
    """`orchestrator_principals`: ARNs of roles that may take the orchestrator's role, besides the host made here."""

    regions: tuple[AwsRegionSettings, ...] = ()
    orchestrator: Host | None = None
    orchestrator_principals: tuple[str, ...] = ()
    log_days: int = 30


@dataclass(frozen=True, slots=True)
class AzureSettings(Service):
    """`orchestrator_principal` is the object id that gets the orchestrator's role; empty: a new managed identity."""

    subscription_id: str = ""
    regions: tuple[AzureRegionSettings, ...] = ()
    orchestrator: Host | None = None
    orchestrator_principal: str = ""
    log_days: int = 30


@dataclass(frozen=True, slots=True)
class Member:
    """One region in the global tier: its id (`aws/us-east-1`) and the stack that provisions it."""

    id: str
    stack: str


@dataclass(frozen=True, slots=True)
class GlobalSettings:
    """`hosted_zone_id` names a zone that exists; empty: a new one for `zone_name`. `alias_ttl_s` is AWS's, not ours."""

    service: str
    zone_name: str
    record: str
    regions: tuple[Member, ...]
    hosted_zone_id: str = ""
    orchestrator_stack: str = ""
    ttl_s: int = 30
    alias_ttl_s: int = 60
    health_path: str = "/readyz"
    health_interval_s: int = 10
    health_failures: int = 3
    front_port: int = 443
    protect: bool = False
    api_endpoint: str = ""
    tags: dict[str, str] = field(default_factory=dict)


def load(kind: type[T], config: pulumi.Config) -> T:
    """Read the whole configuration of a stack into `kind`. Raises SettingsError."""
    given: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        value = config.get(name) if hint is str else config.get_object(name)
        if value is not None:
            given[name] = value
    return parse(kind, given, config.name)


def parse(kind: type[T], data: object, where: str) -> T:
    """Build the dataclass `kind` from plain data. Raises SettingsError with the path of what is wrong."""
    if not isinstance(data, Mapping):
        raise SettingsError(f"{where}: a mapping is expected, not {data!r}")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise SettingsError(f"{where}: unknown key {key!r}; known keys: {', '.join(known)}")
    hints = typing.get_type_hints(kind)
    given = {}
    for name, f in known.items():
        if name in data:
            given[name] = _value(hints[name], data[name], f"{where}.{name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise SettingsError(f"{where}: key {name!r} is missing")
    value = kind(**given)
    if isinstance(value, RegionSettings):
        value.check()
    return value


def _value(hint: Any, data: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(arm for arm in hint.__args__ if arm is not types.NoneType)
        return None if data is None else _value(hint, data, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(data, list | tuple):
            raise SettingsError(f"{where}: a list is expected, not {data!r}")
        return tuple(_value(hint.__args__[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if typing.get_origin(hint) is dict:
        if not isinstance(data, Mapping) or not all(isinstance(v, str) for v in data.values()):
            raise SettingsError(f"{where}: a mapping to texts is expected, not {data!r}")
        return dict(data)
    if is_dataclass(hint):
        return parse(hint, data, where)  # type: ignore[arg-type]
    wanted: tuple[type, ...] = (int, float) if hint is float else (hint,)
    if not isinstance(data, wanted) or (isinstance(data, bool) and hint is not bool):
        raise SettingsError(f"{where}: a {hint.__name__} is expected, not {data!r}")
    return data
