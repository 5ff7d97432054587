"""A zone's fleet on AWS: one Auto Scaling group, upgraded by instance refresh to a numbered launch template version."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.clouds.aws.session import AwsEndpoint, AwsSession
from orchestrator.clouds.aws.templates import LaunchTemplates
from orchestrator.core.errors import NoCapacity, NotFound, Rejected, Transient
from orchestrator.core.release import Image
from orchestrator.core.topology import Region, Zone
from orchestrator.ports import Autoscaler, Fence, FleetSeen, Instance, Replacement

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import (
        ActivityTypeDef,
        AutoScalingGroupTypeDef,
        InstanceRefreshTypeDef,
        InstanceTypeDef,
    )
    from mypy_boto3_ec2.type_defs import FilterTypeDef

# What would change a fleet by itself. An idle zone would be scaled in by its alarms or by schedule; a repair
# (ReplaceUnhealthy) would exchange instances while they are verified. HealthCheck goes on: it only marks. Launch,
# Terminate and InstanceRefresh must go on too, or no upgrade moves; AddToLoadBalancer, or new instances serve nobody.
REPAIRS = frozenset({"ReplaceUnhealthy"})
FROZEN = REPAIRS | {"AlarmNotification", "AZRebalance", "ScheduledActions"}

NO_ROOM = re.compile(r"sufficient .*capacity|sufficient free addresses|(vCPU|instance) limit", re.IGNORECASE)
RUNNING = frozenset({"Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress"})
GIVING_WAY = frozenset({"Cancelling", "RollbackInProgress"})


class AwsFleet:
    """The fleets of `regions`, which say where each zone's API is. A pass costs 2 to 4 calls."""

    def __init__(self, session: AwsSession, regions: Iterable[Region]) -> None:
        self._at: dict[str, AwsEndpoint] = {}
        self._templates: dict[str, LaunchTemplates] = {}
        for region in regions:
            at = session.endpoint(region.name, region.api)
            templates = LaunchTemplates(at)
            for zone in region.zones:
                self._at[zone.id], self._templates[zone.id] = at, templates
        # zone -> the newest refresh (None: there was none) when `replace` found nothing left to do: past is past.
        self._settled: dict[str, str | None] = {}
        self._known_addresses: dict[str, dict[str, str]] = {}
        self._told: dict[str, str] = {}  # zone -> its newest activity when `scale` looked last: told once, then past

    async def describe(self, zone: Zone) -> FleetSeen:
        """Addresses are private IPv4 addresses without a port. Instances that are going away are not `running`."""
        group = await self._group(zone)
        model = await self._model(zone, group)
        addresses = await self._addresses(zone, {i["InstanceId"] for i in group["Instances"]})
        instances = [
            Instance(
                id=instance["InstanceId"],
                address=addresses.get(instance["InstanceId"], ""),
                version=await self._release(zone, _number(zone, instance)),
                running=instance["LifecycleState"] == "InService",
                on_model=_number(zone, instance) == model,
            )
            for instance in sorted(group["Instances"], key=lambda i: i["InstanceId"])
        ]
        return FleetSeen(
            instances=tuple(instances),
            desired=group["DesiredCapacity"],
            model_version=await self._release(zone, model),
            autoscaling=not _suspended(group) >= FROZEN,
            autoscaler=Autoscaler(
                group["MinSize"], group["MaxSize"], enabled="AlarmNotification" not in _suspended(group)
            ),
            no_room=await self._no_room(zone) if len(group["Instances"]) < group["DesiredCapacity"] else "",
        )

    async def replace(self, zone: Zone, version: str, image: Image, fence: Fence) -> None:
        """Also points the group at `version` when there is nothing to replace, so that what is launched later runs it.

        An instance that was marked unhealthy stays so (Auto Scaling User Guide, "health checks") and would be replaced
        in traffic once the fleet thaws: it is replaced now, and a refresh that waits for one begins anew.
        """
        group, refresh = await self._group(zone), await self._newest_refresh(zone)
        template, model = zone.fleet["launch_template_id"], await self._model(zone, group)
        number = await self._templates[zone.id].find(zone.id, template, version, image)
        lost = any(_is_lost(instance) and _number(zone, instance) == number for instance in group["Instances"])
        if refresh and refresh["Status"] in RUNNING:
            if refresh["Status"] in GIVING_WAY or number is None or _target(refresh) != number or lost:
                await self._give_way(zone, refresh, fence)
            return
        if number is None:
            number = await self._templates[zone.id].create(zone.id, template, model, version, image, fence)
        if lost or any(_number(zone, instance) != number for instance in group["Instances"]):
            await self._refresh(zone, number, fence, skip_matching=not lost)
            return
        if model != number:
            await self._set_model(zone, number, fence)
        self._settled[zone.id] = refresh["InstanceRefreshId"] if refresh else None

    async def replacement(self, zone: Zone) -> Replacement:
        """Tell of the newest refresh, or of the fleet as it stands when the last `replace` had nothing to do."""
        refresh, group = await self._newest_refresh(zone), await self._group(zone)
        total = len(group["Instances"])
        if refresh is None or refresh["InstanceRefreshId"] == self._settled.get(zone.id):
            model = await self._model(zone, group)
            done = sum(_number(zone, instance) == model for instance in group["Instances"])
            return Replacement(running=False, version=await self._release(zone, model), done=done, total=total)
        status = refresh["Status"]
        left = 0 if status == "Successful" else refresh.get("InstancesToUpdate", total)
        failure = None
        if status not in RUNNING and status != "Successful":
            reason = " ".join(refresh.get("StatusReason", "no reason given").split())
            failure = f"{zone.id}: instance refresh {status}: {reason}"
        return Replacement(
            running=status in RUNNING,
            version=await self._release(zone, _target(refresh)),
            # A refresh that waits to start has not counted yet: AWS says 0 left then.
            done=0 if status == "Pending" else max(0, total - left),
            total=total,
            failure=failure,
        )

    async def scale(self, zone: Zone, instances: int, fence: Fence) -> None:
        """Set minimum and desired size: with a lower minimum an alarm could take away again what was asked for.

        MaxSize is the bound that people set for cost and quota. It is never raised: NoCapacity, and another zone must
        carry the load. Ask again to learn that there was no room: NoCapacity once; AWS itself goes on trying.
        """
        group = await self._group(zone)
        if instances > group["MaxSize"]:
            raise NoCapacity(f"{zone.id}: {instances} instances asked, {_name(zone)} allows {group['MaxSize']}")
        newest = await self._newest_activity(zone)
        if group["MinSize"] == group["DesiredCapacity"] == instances:
            told, self._told[zone.id] = self._told.get(zone.id), newest["ActivityId"] if newest else ""
            short = len(group["Instances"]) < instances
            if short and newest and newest["ActivityId"] != told and (why := _lack_of_room(newest)):
                raise NoCapacity(f"{zone.id}: {why}")
            return
        self._told[zone.id] = newest["ActivityId"] if newest else ""
        await self._at[zone.id].write(
            zone.id,
            "UpdateAutoScalingGroup",
            fence,
            lambda aws: aws.autoscaling.update_auto_scaling_group(
                AutoScalingGroupName=_name(zone), MinSize=instances, DesiredCapacity=instances
            ),
        )

    async def set_minimum(self, zone: Zone, instances: int, fence: Fence) -> None:
        if (await self._group(zone))["MinSize"] == instances:
            return
        await self._at[zone.id].write(
            zone.id,
            "UpdateAutoScalingGroup",
            fence,
            lambda aws: aws.autoscaling.update_auto_scaling_group(AutoScalingGroupName=_name(zone), MinSize=instances),
        )

    async def set_autoscaling(self, zone: Zone, *, enabled: bool, fence: Fence, repairs: bool | None = None) -> None:
        """Suspend or resume FROZEN: thaw only what `describe` called autoscaling before it was frozen.

        What was marked unhealthy while the zone was dead stays marked (Auto Scaling User Guide, "health checks"), and
        would be replaced in traffic at the thaw (I13): the marks go first. The group's next check marks what is sick.
        """
        group = await self._group(zone)
        suspended = _suspended(group)
        repairs = enabled if repairs is None else repairs
        wanted = {p for p in FROZEN if not (repairs if p in REPAIRS else enabled)}
        thaw, freeze = sorted(FROZEN & suspended - wanted), sorted(wanted - suspended)
        if thaw:
            for marked in (i["InstanceId"] for i in group["Instances"] if REPAIRS & set(thaw) and _is_lost(i)):
                await self._call_healthy(zone, marked, fence)
            await self._at[zone.id].write(
                zone.id,
                "ResumeProcesses",
                fence,
                lambda aws: aws.autoscaling.resume_processes(AutoScalingGroupName=_name(zone), ScalingProcesses=thaw),
            )
        if freeze:
            await self._at[zone.id].write(
                zone.id,
                "SuspendProcesses",
                fence,
                lambda aws: aws.autoscaling.suspend_processes(
                    AutoScalingGroupName=_name(zone), ScalingProcesses=freeze
                ),
            )

    async def _call_healthy(self, zone: Zone, instance: str, fence: Fence) -> None:
        await self._at[zone.id].write(
            zone.id,
            "SetInstanceHealth",
            fence,
            lambda aws: aws.autoscaling.set_instance_health(InstanceId=instance, HealthStatus="Healthy"),
        )

    async def _refresh(self, zone: Zone, number: str, fence: Fence, *, skip_matching: bool) -> None:
        """Start the refresh. When it succeeds AWS makes `number` the group's own template version.

        MinHealthyPercentage 0: the zone takes no traffic (I13), so all instances may go at once. AutoRollback off:
        a rollback is Failout's, gated and recorded; two that undo each other's work would never end. InstanceWarmup
        0: whether instances work is asked by the region agent before any user's request.
        """
        await self._at[zone.id].write(
            zone.id,
            "StartInstanceRefresh",
            fence,
            lambda aws: aws.autoscaling.start_instance_refresh(
                AutoScalingGroupName=_name(zone),
                DesiredConfiguration={
                    "LaunchTemplate": {"LaunchTemplateId": zone.fleet["launch_template_id"], "Version": number}
                },
                Preferences={
                    "MinHealthyPercentage": 0,
                    "InstanceWarmup": 0,
                    "SkipMatching": skip_matching,
                    "AutoRollback": False,
                },
            ),
        )

    async def _give_way(self, zone: Zone, refresh: InstanceRefreshTypeDef, fence: Fence) -> None:
        """Cancel an upgrade that leads elsewhere or nowhere; Transient until it has ended, since two cannot run."""
        if refresh["Status"] not in GIVING_WAY:
            await self._at[zone.id].write(
                zone.id,
                "CancelInstanceRefresh",
                fence,
                lambda aws: aws.autoscaling.cancel_instance_refresh(AutoScalingGroupName=_name(zone)),
            )
        raise Transient(f"{zone.id}: an instance refresh that must give way has not ended yet ({refresh['Status']})")

    async def _set_model(self, zone: Zone, number: str, fence: Fence) -> None:
        await self._at[zone.id].write(
            zone.id,
            "UpdateAutoScalingGroup",
            fence,
            lambda aws: aws.autoscaling.update_auto_scaling_group(
                AutoScalingGroupName=_name(zone),
                LaunchTemplate={"LaunchTemplateId": zone.fleet["launch_template_id"], "Version": number},
            ),
        )

    async def _group(self, zone: Zone) -> AutoScalingGroupTypeDef:
        answer = await self._at[zone.id].read(
            zone.id,
            "DescribeAutoScalingGroups",
            lambda aws: aws.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[_name(zone)]),
        )
        if not answer["AutoScalingGroups"]:
            raise NotFound(f"{zone.id}: no Auto Scaling group {_name(zone)}")
        return answer["AutoScalingGroups"][0]

    async def _newest_refresh(self, zone: Zone) -> InstanceRefreshTypeDef | None:
        answer = await self._at[zone.id].read(
            zone.id,
            "DescribeInstanceRefreshes",
            lambda aws: aws.autoscaling.describe_instance_refreshes(AutoScalingGroupName=_name(zone), MaxRecords=1),
        )
        return next(iter(answer["InstanceRefreshes"]), None)

    async def _no_room(self, zone: Zone) -> str:
        newest = await self._newest_activity(zone)
        return _lack_of_room(newest) if newest else ""

    async def _newest_activity(self, zone: Zone) -> ActivityTypeDef | None:
        answer = await self._at[zone.id].read(
            zone.id,
            "DescribeScalingActivities",
            lambda aws: aws.autoscaling.describe_scaling_activities(AutoScalingGroupName=_name(zone), MaxRecords=1),
        )
        return next(iter(answer["Activities"]), None)

    async def _addresses(self, zone: Zone, instances: set[str]) -> dict[str, str]:
        """Ask EC2 only when an instance is new: a private address stays with its instance."""
        known = self._known_addresses.get(zone.id, {})
        if not instances <= known.keys():
            # By the tag that Auto Scaling sets: naming an id that EC2 does not know yet would be an error.
            filters: list[FilterTypeDef] = [{"Name": "tag:aws:autoscaling:groupName", "Values": [_name(zone)]}]
            found = await self._at[zone.id].read(
                zone.id,
                "DescribeInstances",
                lambda aws: list(aws.ec2.get_paginator("describe_instances").paginate(Filters=filters)),
            )
            told = [i for page in found for reservation in page["Reservations"] for i in reservation["Instances"]]
            known = {i["InstanceId"]: i["PrivateIpAddress"] for i in told if "PrivateIpAddress" in i}
            self._known_addresses[zone.id] = known
        return known

    async def _model(self, zone: Zone, group: AutoScalingGroupTypeDef) -> str:
        """Return the number of the template version that the group launches from."""
        template, ours = group.get("LaunchTemplate", {}), zone.fleet["launch_template_id"]
        if template.get("LaunchTemplateId") != ours:
            raise Rejected(f"{zone.id}: {_name(zone)} does not launch from {ours}, the template in the topology")
        return await self._templates[zone.id].number(zone.id, ours, template.get("Version", "$Default"))

    async def _release(self, zone: Zone, number: str) -> str | None:
        if not number:
            return None
        return await self._templates[zone.id].release(zone.id, zone.fleet["launch_template_id"], number)


def _lack_of_room(activity: ActivityTypeDef) -> str:
    """Why a launch failed, if for want of capacity: it names no error code, only the reason in words."""
    why = " ".join(activity.get("StatusMessage", "").split())
    return why if activity["StatusCode"] == "Failed" and NO_ROOM.search(why) else ""


def _name(zone: Zone) -> str:
    return zone.fleet["auto_scaling_group"]


def _number(zone: Zone, instance: InstanceTypeDef) -> str:
    """Return the template version of an instance; "" for one that was launched from anything else."""
    template = instance.get("LaunchTemplate", {})
    ours = template.get("LaunchTemplateId") == zone.fleet["launch_template_id"]
    return template.get("Version", "") if ours else ""


def _is_lost(instance: InstanceTypeDef) -> bool:
    return instance["HealthStatus"] == "Unhealthy" and instance["LifecycleState"] == "InService"


def _target(refresh: InstanceRefreshTypeDef) -> str:
    return refresh.get("DesiredConfiguration", {}).get("LaunchTemplate", {}).get("Version", "")


def _suspended(group: AutoScalingGroupTypeDef) -> frozenset[str]:
    return frozenset(process["ProcessName"] for process in group["SuspendedProcesses"])
