"""moto's state as the data plane's orders: which machines run, and what each load balancer does."""

from __future__ import annotations

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance
from moto.elbv2.models import FakeLoadBalancer, elbv2_backends

from orchestrator.lab.aws import ec2
from orchestrator.lab.aws.targets import TargetGroup, forwards
from orchestrator.lab.aws.world import ACCOUNT, here
from orchestrator.lab.aws.zonalshift import arczonalshift_backends
from orchestrator.lab.model import DesiredInstance, DesiredRegion, Front, FrontKind, Member, Pool

FIRST_NODE = 10


def region(name: str) -> DesiredRegion:
    """Return what the region's machines and load balancers should be; what is not on 127/8 is not the lab's.

    A load balancer serves on FRONT_PORT of its nodes, whatever port its listener names.
    """
    machines = {i.id: i for i in ec2.instances(ec2_backends[ACCOUNT][name]) if str(i.private_ip).startswith("127.")}
    running = [m for i in machines.values() if ec2.is_alive(i) and (m := _machine(i)) is not None]
    balancers = list(elbv2_backends[ACCOUNT][name].load_balancers.values())
    fronts = [_front(b, name, machines) for b in balancers if b.type == "application" and _in_lab(b)]
    return DesiredRegion(f"aws/{name}", tuple(running), tuple(fronts))


def _in_lab(balancer: FakeLoadBalancer) -> bool:
    return all(str(subnet.cidr.network_address).startswith("127.") for subnet in balancer.subnets)


def _machine(instance: Instance) -> DesiredInstance | None:
    """A machine whose user data names no version runs no service, and nothing would answer on its address."""
    version = ec2.release_version(instance.user_data)
    if version is None:
        return None
    zone, address = f"aws/{instance.placement.zone}", str(instance.private_ip)
    return DesiredInstance(instance.id, zone, address, version, instance.lab_incarnation)  # type: ignore[attr-defined]


def _front(balancer: FakeLoadBalancer, region_name: str, machines: dict[str, Instance]) -> Front:
    groups, weights = elbv2_backends[ACCOUNT][region_name].target_groups, forwards(balancer)
    away = arczonalshift_backends[ACCOUNT][region_name].away(balancer.arn)
    enabled = {subnet.availability_zone for subnet in balancer.subnets}
    pools = [_pool(group, machines, enabled) for arn in weights if isinstance(group := groups.get(arn), TargetGroup)]
    return Front(
        name=balancer.name,
        kind=FrontKind.ALB,
        nodes={
            f"aws/{subnet.availability_zone}": _node(str(subnet.cidr.network_address)) for subnet in balancer.subnets
        },
        pools=tuple(pools),
        weights={groups[arn].name: weight for arn, weight in weights.items() if arn in groups},
        away=frozenset(f"aws/{s.availability_zone}" for s in balancer.subnets if s.availability_zone_id in away),
    )


def _node(network: str) -> str:
    """Return the node address of a zone's subnet: 127.L.(z+1).0 has its node at 127.L.0.(10+z)."""
    first, block, third, _ = network.split(".")
    return f"{first}.{block}.0.{FIRST_NODE + int(third) - 1}"


def _pool(group: TargetGroup, machines: dict[str, Instance], enabled: set[str]) -> Pool:
    """List the registered and the draining targets that still run, in the zones that the balancer is in."""
    present = [(target, False) for target in list(group.targets)]
    present += [(target, True) for target in list(group.draining) if group.is_draining(target)]
    members = [
        Member(i.id, str(i.private_ip), f"aws/{i.placement.zone}", draining=draining)
        for target, draining in present
        if (i := machines.get(target)) is not None and ec2.is_alive(i) and i.placement.zone in enabled
    ]
    return Pool(
        name=group.name,
        members=tuple(members),
        probe_path=group.health_check_path or "/",
        probe_interval_s=int(group.health_check_interval_seconds) * here().times.health_scale,
        healthy_after=int(group.healthy_threshold_count),
        unhealthy_after=int(group.unhealthy_threshold_count),
    )
