"""What may not be provisioned, because it would break the independence of zones. One rule a function, each with its source.

Rules read the resources of a whole stack, as Pulumi's wire names them. A service's fleets are told by the tags that the
components give them: `failout-role: fleet`, `failout-zone`, `failout-zones`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ZONES_MIN = 3
TTL_MAX_S = 60
UTILISATION_MAX = 0.75
ADMISSION_PATH = "/admit"
GROUP = "aws:autoscaling/group:Group"
SCALE_SET = "azure-native:compute:VirtualMachineScaleSet"
AUTOSCALE = "azure-native:monitor:AutoscaleSetting"

Props = Mapping[str, Any]


class Thing(Protocol):
    """A resource of the stack: the engine's PolicyResource, or a test's."""

    @property
    def resource_type(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def props(self) -> Props: ...


@dataclass(frozen=True, slots=True)
class Violation:
    """`name` is the resource's; empty: the whole stack's."""

    name: str
    what: str


def fleet_over_zones(things: Sequence[Thing]) -> Iterator[Violation]:
    for thing in fleets(things):
        places = thing.props.get("vpcZoneIdentifiers" if thing.resource_type == GROUP else "zones") or []
        if len(places) != 1:
            yield Violation(thing.name, f"a fleet stands in exactly one zone, this one in {len(places)}")


def fewer_than_three_zones(things: Sequence[Thing]) -> Iterator[Violation]:
    for region, members in regions(things).items():
        if len(members) < ZONES_MIN:
            yield Violation("", f"{region} has {len(members)} zones: with fewer than {ZONES_MIN}, losing one halves it")


def no_headroom(things: Sequence[Thing]) -> Iterator[Violation]:
    """A zone must be able to grow to its share of a lost one's load; where the peak is known, to carry it."""
    for region, members in regions(things).items():
        zones = len(members)
        for thing in members:
            instances, instances_max = _sizes(thing, things)
            needed = math.ceil(instances * zones / (zones - 1)) if zones > 1 else math.inf
            if instances_max < needed:
                yield Violation(
                    thing.name,
                    f"{region}: with one of {zones} zones lost it needs {needed} instances, it may have {instances_max}",
                )
        if members[0].resource_type == SCALE_SET:
            yield from _peak(region, members, things)


def _peak(region: str, members: Sequence[Thing], things: Sequence[Thing]) -> Iterator[Violation]:
    """Azure Monitor looks back minutes before it adds an instance, so what runs must carry the peak."""
    tags = labels(members[0])
    peak, each = float(tags.get("failout-peak-rps", 0)), float(tags.get("failout-rps-per-instance", 0))
    sizes = [_sizes(m, things)[0] for m in members]
    left = (sum(sizes) - max(sizes)) * each * UTILISATION_MAX
    if peak > left:
        yield Violation("", f"{region}: without its largest zone it carries {left:g}/s, the peak is {peak:g}/s")


def shared_nat(things: Sequence[Thing]) -> Iterator[Violation]:
    """Each private route table, or subnet, must leave through a gateway of its own zone."""
    users: dict[str, list[str]] = defaultdict(list)
    for thing in things:
        if thing.resource_type == "aws:ec2/routeTable:RouteTable":
            for route in thing.props.get("routes") or []:
                if route.get("natGatewayId"):
                    users[str(route["natGatewayId"])].append(thing.name)
        if thing.resource_type == "azure-native:network:Subnet" and thing.props.get("natGateway"):
            users[str(thing.props["natGateway"].get("id"))].append(thing.name)
    for gateway, names in users.items():
        if len(names) > 1:
            yield Violation(
                names[0], f"NAT gateway {gateway} serves {', '.join(sorted(names))}: it fails with its one zone"
            )


def shared_subnet(things: Sequence[Thing]) -> Iterator[Violation]:
    used = Counter(subnet for thing in fleets(things) for subnet in _subnets(thing))
    for thing in fleets(things):
        for subnet in _subnets(thing):
            if used[subnet] > 1:
                yield Violation(thing.name, f"subnet {subnet} is shared by {used[subnet]} fleets")


def public_instance(things: Sequence[Thing]) -> Iterator[Violation]:
    for thing in things:
        if thing.resource_type == "aws:ec2/launchTemplate:LaunchTemplate":
            for nic in thing.props.get("networkInterfaces") or []:
                if str(nic.get("associatePublicIpAddress")).lower() == "true":
                    yield Violation(
                        thing.name, "instances are private: only their region's agents and front reach them"
                    )
        if thing.resource_type == "aws:ec2/subnet:Subnet" and thing.props.get("mapPublicIpOnLaunch"):
            yield Violation(thing.name, "a subnet must not give public addresses to whatever starts in it")
        if thing.resource_type == SCALE_SET and any("publicIPAddressConfiguration" in ip for ip in _addresses(thing)):
            yield Violation(thing.name, "instances are private: only their region's agents and front reach them")


def long_ttl(things: Sequence[Thing]) -> Iterator[Violation]:
    for thing in things:
        if thing.resource_type == "aws:route53/record:Record" and thing.props.get("weightedRoutingPolicies"):
            ttl = float(thing.props.get("ttl") or 0)
            if ttl > TTL_MAX_S:
                yield Violation(
                    thing.name, f"a TTL of {ttl:g} s keeps users in a lost region that long; {TTL_MAX_S} s at most"
                )


def wrong_health_path(things: Sequence[Thing]) -> Iterator[Violation]:
    """The front asks /admit, so that a flag in the data plane empties a zone; a fleet's own health never does."""
    for thing in things:
        if thing.resource_type == "aws:lb/targetGroup:TargetGroup" and thing.props.get("protocol") == "HTTP":
            path = (thing.props.get("healthCheck") or {}).get("path")
            if path != ADMISSION_PATH:
                yield Violation(thing.name, f"the load balancer must ask {ADMISSION_PATH}, not {path}")
        if thing.resource_type == "azure-native:network:LoadBalancer":
            for probe in thing.props.get("probes") or []:
                if probe.get("protocol") != "Tcp" and probe.get("requestPath") != ADMISSION_PATH:
                    yield Violation(thing.name, f"the probe must ask {ADMISSION_PATH}, not {probe.get('requestPath')}")
    for thing in fleets(things):
        if thing.props.get("healthCheckType") == "ELB":
            yield Violation(thing.name, "a group that trusts the load balancer's health terminates a drained zone")
        extensions = (thing.props.get("virtualMachineProfile") or {}).get("extensionProfile", {}).get("extensions", [])
        if any(e.get("settings", {}).get("requestPath") == ADMISSION_PATH for e in extensions):
            yield Violation(thing.name, "automatic repairs that ask the admission path replace a drained zone")


def fleets(things: Sequence[Thing]) -> list[Thing]:
    return [t for t in things if t.resource_type in (GROUP, SCALE_SET) and labels(t).get("failout-role") == "fleet"]


def regions(things: Sequence[Thing]) -> dict[str, list[Thing]]:
    """Fleets by cloud and region."""
    found: dict[str, list[Thing]] = defaultdict(list)
    for thing in fleets(things):
        aws = thing.resource_type == GROUP
        found[f"aws/{thing.props.get('region')}" if aws else f"azure/{thing.props.get('location')}"].append(thing)
    return dict(found)


def labels(thing: Thing) -> dict[str, str]:
    tags = thing.props.get("tags") or {}
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return {str(tag["key"]): str(tag["value"]) for tag in tags}


def _sizes(thing: Thing, things: Sequence[Thing]) -> tuple[int, int]:
    """How many instances a fleet has at least and at most. A scale set's most is its autoscaler's, where it has one."""
    if thing.resource_type == GROUP:
        return int(thing.props.get("minSize") or 0), int(thing.props.get("maxSize") or 0)
    most = [int(labels(thing).get("failout-instances-max", 0))]
    name = thing.props.get("vmScaleSetName")  # the setting's too: its target is not known in a first preview
    for setting in things:
        if setting.resource_type == AUTOSCALE and setting.props.get("autoscaleSettingName") == name:
            most += [int(profile["capacity"]["maximum"]) for profile in setting.props["profiles"]]
    return int(thing.props["sku"]["capacity"]), min(most)


def _subnets(thing: Thing) -> list[str]:
    if thing.resource_type == GROUP:
        return [str(subnet) for subnet in thing.props.get("vpcZoneIdentifiers") or []]
    return [str(ip["subnet"]["id"]) for ip in _addresses(thing) if ip.get("subnet")]


def _addresses(thing: Thing) -> list[Props]:
    profile = (thing.props.get("virtualMachineProfile") or {}).get("networkProfile") or {}
    return [
        ip for nic in profile.get("networkInterfaceConfigurations") or [] for ip in nic.get("ipConfigurations") or []
    ]


# name -> (rule, what it demands, the vendor's document)
RULES = {
    "fleet-in-one-zone": (
        fleet_over_zones,
        "A fleet stands in one zone, so that it can be drained, upgraded and lost alone.",
        "https://docs.aws.amazon.com/whitepapers/latest/advanced-multi-az-resilience-patterns/availability-zone-independence.html",
    ),
    "three-zones": (
        fewer_than_three_zones,
        "A region has at least three zones.",
        "https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/availability-zones.html",
    ),
    "headroom": (
        no_headroom,
        "The zones that are left when one is lost can carry its load (static stability).",
        "https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/static-stability.html",
    ),
    "nat-per-zone": (
        shared_nat,
        "Zones share no NAT gateway.",
        "https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-basics.html",
    ),
    "subnet-per-zone": (
        shared_subnet,
        "Zones share no subnet.",
        "https://learn.microsoft.com/azure/nat-gateway/nat-availability-zones",
    ),
    "private-instances": (
        public_instance,
        "Instances have no public address.",
        "https://docs.aws.amazon.com/securityhub/latest/userguide/autoscaling-controls.html",
    ),
    "short-ttl": (
        long_ttl,
        "Records that move users between regions live for a minute at most.",
        "https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/best-practices-dns.html",
    ),
    "health-path": (
        wrong_health_path,
        "Load balancers ask the admission path; nothing that replaces instances does.",
        "https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-health-checks.html",
    ),
}
