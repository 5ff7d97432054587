"""The region tier on AWS: one Application Load Balancer, target groups `steady` and `ramp` (see shift.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from orchestrator.clouds.aws.session import AwsEndpoint, AwsSession
from orchestrator.clouds.aws.shift import (
    GRAIN,
    Attach,
    Deregister,
    Detach,
    FrontSeen,
    Group,
    SetWeights,
    Targets,
    Weights,
    Write,
    next_writes,
    zone_seen,
)
from orchestrator.core.errors import Rejected
from orchestrator.core.topology import Region, Zone
from orchestrator.core.traffic import ZoneSeen, ZoneTraffic
from orchestrator.ports import Fence

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef
    from mypy_boto3_elbv2.type_defs import (
        ActionOutputTypeDef,
        ActionTypeDef,
        ForwardActionConfigTypeDef,
        TargetGroupTupleTypeDef,
    )


STRANGERS_MAX = 200  # values of one EC2 filter; the next look learns the rest


@dataclass(frozen=True, slots=True)
class _Look:
    """One reading of a region: 4 calls. `actions` are the listener's, to be given back whole (ModifyListener replaces)."""

    front: FrontSeen
    actions: list[ActionOutputTypeDef]


class AwsTraffic:
    """Moves zones between out, ramp and steady. A pass of `apply` costs 4 reads and the writes; none waits."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session
        # A target outlives its instance while it drains, so the zone of every instance ever seen is kept (50 bytes each).
        self._zone_of: dict[str, str] = {}

    def grain(self, zone: Zone, instances: int) -> Fraction:  # noqa: ARG002
        return GRAIN

    def whole_instances(self) -> bool:
        return False

    async def read(self, region: Region) -> Mapping[str, ZoneSeen]:
        look = await self._look(region)
        return {zone.id: zone_seen(look.front, zone.id) for zone in region.zones}

    async def apply(self, region: Region, desired: Mapping[str, ZoneTraffic], fence: Fence) -> None:
        look = await self._look(region)
        here = {zone.id: desired[zone.id] for zone in region.zones if zone.id in desired}
        for write in next_writes(look.front, here):
            await self._perform(region, look, write, fence)

    # Reading

    async def _look(self, region: Region) -> _Look:
        at = self._endpoint(region)
        steady_arn, ramp_arn = region.front["steady_target_group_arn"], region.front["ramp_target_group_arn"]
        actions, groups, steady, ramp = await asyncio.gather(
            self._actions(at, region),
            self._groups(at, region),
            self._health(at, region, steady_arn),
            self._health(at, region, ramp_arn),
        )
        await self._learn_zones(at, region, groups, steady.keys() | ramp.keys())
        weights = _weights(actions, region)

        def targets(arn: str, states: Mapping[str, str]) -> dict[str, Targets]:
            return {
                zone.id: Targets(
                    attached=arn in groups[zone.id].get("TargetGroupARNs", []),
                    states={i: state for i, state in states.items() if self._zone_of.get(i) == zone.id},
                )
                for zone in region.zones
            }

        sizes = {zone: sum(_stays(i["LifecycleState"]) for i in group["Instances"]) for zone, group in groups.items()}
        return _Look(FrontSeen(weights, sizes, targets(steady_arn, steady), targets(ramp_arn, ramp)), actions)

    async def _actions(self, at: AwsEndpoint, region: Region) -> list[ActionOutputTypeDef]:
        arn = region.front["listener_arn"]
        answer = await at.read(
            region.id, "DescribeListeners", lambda aws: aws.elbv2.describe_listeners(ListenerArns=[arn])
        )
        return answer["Listeners"][0]["DefaultActions"]

    async def _groups(self, at: AwsEndpoint, region: Region) -> dict[str, AutoScalingGroupTypeDef]:
        names = {zone.fleet["auto_scaling_group"]: zone.id for zone in region.zones}
        answer = await at.read(
            region.id,
            "DescribeAutoScalingGroups",
            lambda aws: aws.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=list(names)),
        )
        found = {names[group["AutoScalingGroupName"]]: group for group in answer["AutoScalingGroups"]}
        missing = sorted(name for name, zone in names.items() if zone not in found)
        if missing:
            raise Rejected(f"{region.id}: no Auto Scaling group {', '.join(missing)}")
        return found

    async def _health(self, at: AwsEndpoint, region: Region, arn: str) -> dict[str, str]:
        answer = await at.read(
            region.id, "DescribeTargetHealth", lambda aws: aws.elbv2.describe_target_health(TargetGroupArn=arn)
        )
        return {t["Target"]["Id"]: t["TargetHealth"]["State"] for t in answer["TargetHealthDescriptions"]}

    async def _learn_zones(
        self, at: AwsEndpoint, region: Region, groups: Mapping[str, AutoScalingGroupTypeDef], targets: Iterable[str]
    ) -> None:
        for zone, group in groups.items():
            self._zone_of.update({i["InstanceId"]: zone for i in group["Instances"]})
        strangers = sorted(i for i in targets if i not in self._zone_of)[:STRANGERS_MAX]
        if not strangers:
            return
        # Targets of instances that left their group before this process started. EC2 remembers them for about an hour.
        answer = await at.read(
            region.id,
            "DescribeInstances",
            lambda aws: aws.ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": strangers}]),
        )
        zones = {zone.name: zone.id for zone in region.zones}
        self._zone_of.update(dict.fromkeys(strangers, ""))
        for reservation in answer["Reservations"]:
            for instance in reservation["Instances"]:
                self._zone_of[instance["InstanceId"]] = zones.get(instance["Placement"]["AvailabilityZone"], "")

    # Writing

    async def _perform(self, region: Region, look: _Look, write: Write, fence: Fence) -> None:
        match write:
            case SetWeights(weights):
                await self._set_weights(region, look.actions, weights, fence)
            case Attach(zone, group):
                name, arns = _auto_scaling_group(region, zone), [_arn(region, group)]
                await self._endpoint(region).write(
                    zone,
                    "AttachLoadBalancerTargetGroups",
                    fence,
                    lambda aws: aws.autoscaling.attach_load_balancer_target_groups(
                        AutoScalingGroupName=name, TargetGroupARNs=arns
                    ),
                )
            case Detach(zone, group):
                await self._detach(region, zone, group, fence)
            case Deregister(zone, group, instances):
                await self._endpoint(region).write(
                    zone,
                    "DeregisterTargets",
                    fence,
                    lambda aws: aws.elbv2.deregister_targets(
                        TargetGroupArn=_arn(region, group), Targets=[{"Id": instance} for instance in instances]
                    ),
                )

    async def _detach(self, region: Region, zone: str, group: Group, fence: Fence) -> None:
        name, arns = _auto_scaling_group(region, zone), [_arn(region, group)]
        try:
            await self._endpoint(region).write(
                zone,
                "DetachLoadBalancerTargetGroups",
                fence,
                lambda aws: aws.autoscaling.detach_load_balancer_target_groups(
                    AutoScalingGroupName=name, TargetGroupARNs=arns
                ),
            )
        except Rejected as error:
            # A read may lag behind a detach of ours: AWS then says that there is nothing to remove, as wanted.
            if "not part of the group" not in str(error):
                raise

    async def _set_weights(
        self, region: Region, actions: list[ActionOutputTypeDef], weights: Weights, fence: Fence
    ) -> None:
        arn, given = region.front["listener_arn"], _with_weights(actions, region, weights)
        await self._endpoint(region).write(
            region.id,
            "ModifyListener",
            fence,
            lambda aws: aws.elbv2.modify_listener(ListenerArn=arn, DefaultActions=given),
        )

    def _endpoint(self, region: Region) -> AwsEndpoint:
        return self._session.endpoint(region.name, region.api)


def _arn(region: Region, group: Group) -> str:
    return region.front[f"{group}_target_group_arn"]


def _auto_scaling_group(region: Region, zone: str) -> str:
    return next(z.fleet["auto_scaling_group"] for z in region.zones if z.id == zone)


def _stays(lifecycle: str) -> bool:
    return not lifecycle.startswith(("Terminat", "Detach"))


def _weights(actions: list[ActionOutputTypeDef], region: Region) -> Weights:
    found = {
        group["TargetGroupArn"]: group.get("Weight", 1)
        for action in actions
        for group in action.get("ForwardConfig", {}).get("TargetGroups", [])
    }
    try:
        return Weights(found[_arn(region, Group.STEADY)], found[_arn(region, Group.RAMP)])
    except KeyError as missing:
        raise Rejected(f"{region.id}: the listener does not forward to target group {missing}") from None


def _with_weights(actions: list[ActionOutputTypeDef], region: Region, weights: Weights) -> list[ActionTypeDef]:
    """Return all of the listener's actions with the two weights changed and nothing else (authentication, stickiness)."""
    wanted = {_arn(region, Group.STEADY): weights.steady, _arn(region, Group.RAMP): weights.ramp}
    given: list[ActionTypeDef] = []
    for action in actions:
        copy: ActionTypeDef = {**action}
        if forward := action.get("ForwardConfig"):
            # A single TargetGroupArn beside a ForwardConfig of several is refused.
            copy.pop("TargetGroupArn", None)
            groups: list[TargetGroupTupleTypeDef] = [
                {**group, "Weight": wanted.get(group["TargetGroupArn"], group.get("Weight", 1))}
                for group in forward["TargetGroups"]
            ]
            config: ForwardActionConfigTypeDef = {"TargetGroups": groups}
            if stickiness := forward.get("TargetGroupStickinessConfig"):
                config["TargetGroupStickinessConfig"] = stickiness
            copy["ForwardConfig"] = config
        given.append(copy)
    return given
