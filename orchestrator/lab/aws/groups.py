"""Auto Scaling groups that take time: launch, register, judge health, drain, terminate, replace.

Closes: moto changes a group at once, uses its first subnet only, says every instance has the template's default version,
leaves terminated instances registered, never replaces an unhealthy one and ignores suspended processes.
`tick` is the service's own loop; the API only changes what is wanted. Source: Auto Scaling User Guide, "instance
lifecycle", "health checks", "suspend processes"; termination waits for the deregistration delay of attached groups.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from moto.autoscaling import models as asg
from moto.autoscaling.exceptions import ValidationError
from moto.core.exceptions import ServiceException
from moto.ec2.models.instances import Instance
from moto.ec2.models.launch_templates import LaunchTemplateVersion
from moto.elbv2.exceptions import TargetGroupNotFoundError
from moto.moto_api._internal import mock_random

from orchestrator.lab.aws.refresh import Refresh
from orchestrator.lab.aws.targets import TargetGroup
from orchestrator.lab.aws.world import here, now
from orchestrator.lab.model import ScaledFleet

PENDING, IN_SERVICE, TERMINATING, STANDBY = "Pending", "InService", "Terminating", "Standby"


class Member(asg.InstanceState):
    """One instance of a group. `in_service_at`, `sick_at`, `drained_at` are monotonic seconds; None when not so."""

    def __init__(self, instance: Instance, group: Group, version: int, *, protected: bool | None) -> None:
        super().__init__(instance, PENDING, protected_from_scale_in=protected, autoscaling_group=group)
        self.version = version
        self.in_service_at: float | None = None
        self.sick_at: float | None = None
        self.drained_at: float | None = None
        self.refresh: str | None = None

    @property
    def id(self) -> str:
        return str(self.instance.id)

    @property
    def launch_template(self) -> dict[str, Any] | None:
        template = self.auto_scaling_group.ec2_launch_template
        return {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": str(self.version)}

    @property
    def counts(self) -> bool:
        """Say whether it fills one of the group's places; a terminating instance does until it is gone."""
        return self.lifecycle_state in (PENDING, IN_SERVICE, TERMINATING)


def _fitting(wanted: int | None, low: int | None, high: int | None) -> int:
    """Return `wanted`, the minimum if None; raises ValidationError when it is not within the limits."""
    desired = (low or 0) if wanted is None else wanted
    if not (low or 0) <= desired <= (high or 0):
        raise ValidationError(
            f"Desired capacity:{desired} must be between the specified min size:{low} and max size:{high}"
        )
    return desired


class Group(asg.FakeAutoScalingGroup):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.activities: deque[dict[str, Any]] = deque(maxlen=100)
        self.removing: dict[str, float] = {}  # detached target group -> when its last target has drained
        self.refreshes: list[Refresh] = []
        self.launch_again_at = 0.0
        super().__init__(*args, **kwargs)
        if not self.ec2_launch_template or self.mixed_instances_policy:
            raise ValidationError("The lab launches from launch templates only")
        self.target_group_arns = list(self.target_group_arns or [])

    @property
    def members(self) -> list[Member]:
        return list(self.instance_states)  # type: ignore[arg-type]

    @property
    def zone_id(self) -> str:
        return f"aws/{self.availability_zones[0]}"

    def suspended(self, process: str) -> bool:
        return process in self._suspended_processes

    def scaled(self) -> ScaledFleet:
        """What a scaling policy goes by. Without AlarmNotification its alarms tell the group nothing."""
        there = sum(member.counts for member in self.members)
        newest, desired = next(iter(self.activities), None), self.desired_capacity or 0
        short = newest is not None and newest["StatusCode"] == "Failed" and there < desired
        return ScaledFleet(
            self.zone_id,
            desired,
            there,
            self.min_size or 0,
            self.max_size or 0,
            frozen=self.suspended("AlarmNotification"),
            refused=newest["StatusMessage"] if newest is not None and short else "",
        )

    # What the API asks for.

    def set_desired_capacity(self, new_capacity: int | None) -> None:
        self.desired_capacity = _fitting(new_capacity, self.min_size, self.max_size)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Move desired capacity into the new limits when it is not given, as AWS does; refuse before anything changes."""
        low = kwargs["min_size"] if kwargs.get("min_size") is not None else self.min_size
        high = kwargs["max_size"] if kwargs.get("max_size") is not None else self.max_size
        if kwargs.get("desired_capacity") is None:
            kwargs["desired_capacity"] = max(low or 0, min(high or 0, self.desired_capacity or 0))
        _fitting(kwargs["desired_capacity"], low, high)
        super().update(*args, **kwargs)

    def attach(self, arns: list[str]) -> None:
        for arn in arns:
            self._target_group(arn)
        for arn in arns:
            self.removing.pop(arn, None)
            if arn not in self.target_group_arns:
                self.target_group_arns.append(arn)
            if not self.suspended("AddToLoadBalancer"):
                for member in self.members:
                    if member.lifecycle_state == IN_SERVICE:
                        self._register(member, arn)

    def detach(self, arns: list[str]) -> None:
        missing = [arn for arn in arns if arn not in self.target_group_arns]
        if missing:
            raise ValidationError("Trying to remove Target Groups that are not part of the group")
        self.target_group_arns = [arn for arn in self.target_group_arns if arn not in arns]
        for arn in arns:
            self.removing[arn] = self._deregister([m.id for m in self.members], arn)

    def terminate_member(self, member: Member, cause: str) -> None:
        """Take the instance out of its target groups now, terminate it when it has drained."""
        if member.lifecycle_state == TERMINATING:
            return
        member.lifecycle_state = TERMINATING
        member.drained_at = max([now(), *(self._deregister([member.id], arn) for arn in self.target_group_arns)])
        self._note(f"Terminating EC2 instance: {member.id}", cause, "Successful")

    def standby(self, member: Member, *, enter: bool) -> None:
        if enter:
            member.lifecycle_state = STANDBY
            for arn in self.target_group_arns:
                self._deregister([member.id], arn)
        else:
            member.lifecycle_state, member.in_service_at = PENDING, None

    def state_of(self, arn: str) -> str:
        """Return Adding, Added or InService of an attached target group."""
        group, ids = self._target_group(arn), [m.id for m in self.members if m.lifecycle_state == IN_SERVICE]
        if any(i not in group.targets for i in ids):
            return "Adding"
        healthy = any(group.health_for({"Id": i}, self.ec2_backend).status == "healthy" for i in ids)
        return "InService" if healthy else "Added"

    # What the service does by itself.

    def tick(self) -> None:
        existing = self.autoscaling_backend.elbv2_backend.target_groups
        self.target_group_arns = [arn for arn in self.target_group_arns if arn in existing]
        self.removing = {arn: until for arn, until in self.removing.items() if until > now()}
        for member in self.members:
            self._advance(member)
        if not self.suspended("HealthCheck"):
            for member in self.members:
                self._check(member)
        refresh = self.active_refresh()
        if refresh is not None and not self.suspended("InstanceRefresh"):
            refresh.step(self)
        self._fit()

    def active_refresh(self) -> Refresh | None:
        return next((r for r in self.refreshes if r.active), None)

    def well(self, member: Member) -> bool:
        """Say whether the group's own health check passes: EC2 status, and target health when the type is ELB."""
        return (
            member.health_status == "Healthy"
            and here().well(self.region, member.id) in (True, None)
            and not (self.health_check_type == "ELB" and self._unhealthy_target(member))
        )

    def launch_version(self) -> LaunchTemplateVersion:
        refresh = self.active_refresh()
        wanted = refresh.target if refresh is not None and refresh.replacing else self.launch_template_version
        return self.ec2_launch_template.get_version(wanted)  # type: ignore[union-attr]

    def _advance(self, member: Member) -> None:
        state = member.instance.state
        if member.lifecycle_state == PENDING and state == "running":
            member.lifecycle_state, member.in_service_at = IN_SERVICE, now()
            if not self.suspended("AddToLoadBalancer"):
                for arn in self.target_group_arns:
                    self._register(member, arn)
        elif member.lifecycle_state == TERMINATING and state in ("pending", "running", "stopped"):
            if (member.drained_at or 0.0) <= now():
                self.ec2_backend.terminate_instances([member.id])
        elif state == "terminated":
            self.instance_states = [m for m in self.instance_states if m is not member]
        elif state == "shutting-down" and member.lifecycle_state != TERMINATING:
            self.terminate_member(member, "The instance was terminated outside the group.")

    def _check(self, member: Member) -> None:
        """Mark a member unhealthy when its check has failed long enough, and replace it unless that is suspended."""
        if member.lifecycle_state != IN_SERVICE or member.in_service_at is None:
            return
        if self.well(member):
            member.sick_at = None
            return
        member.sick_at = member.sick_at or now()
        if now() < member.in_service_at + float(self.health_check_grace_period or 0):
            return
        if member.health_status == "Healthy":
            if now() < member.sick_at + here().times.status_check_s:
                return
            member.health_status = "Unhealthy"
        if not self.suspended("ReplaceUnhealthy") and not self.suspended("Terminate"):
            self.terminate_member(member, "An instance was taken out of service in response to a health check failure.")

    def _fit(self) -> None:
        """Launch or terminate towards the desired capacity."""
        counted = [m for m in self.members if m.counts]
        missing = (self.desired_capacity or 0) - len(counted)
        if missing > 0 and not self.suspended("Launch"):
            self._launch(missing)
        elif missing < 0 and not self.suspended("Terminate"):
            leaving = sum(m.lifecycle_state == TERMINATING for m in counted)
            spare = [m for m in counted if m.lifecycle_state != TERMINATING and not m.protected_from_scale_in]
            spare.sort(key=lambda m: (m.version, m.instance.launch_time))
            for member in spare[: max(0, -missing - leaving)]:
                self.terminate_member(member, "An instance was taken out of service to shrink the capacity.")

    def _launch(self, count: int) -> None:
        if now() < self.launch_again_at:
            return
        version, refresh = self.launch_version(), self.active_refresh()
        for _ in range(count):
            try:
                instance = self._run(version)
            except ServiceException as refused:
                self.launch_again_at = now() + here().times.launch_retry_s
                self._note(
                    "Launching a new EC2 instance",
                    "Capacity is below desired.",
                    "Failed",
                    f"{refused.message} Launching EC2 instance failed.",
                )
                return
            member = Member(instance, self, version.number, protected=self.new_instances_protected_from_scale_in)
            member.refresh = refresh.id if refresh is not None and refresh.replacing else None
            self.instance_states.append(member)
            self._note(f"Launching a new EC2 instance: {member.id}", "Capacity is below desired.", "Successful")

    def _run(self, version: LaunchTemplateVersion) -> Instance:
        subnets = (self.vpc_zone_identifier or "").split(",")
        placed = [m.instance.subnet_id for m in self.members if m.counts]
        reservation = self.ec2_backend.run_instances(
            version.image_id,
            1,
            version.user_data,
            version.security_groups,
            instance_type=version.instance_type,
            is_instance_type_default=False,
            region_name=self.region,
            subnet_id=min(subnets, key=placed.count),
            tags={"instance": {**self.get_propagated_tags(), **version.instance_tags, asg.ASG_NAME_TAG: self.name}},
            launch_template={"LaunchTemplateId": version.template.id, "Version": str(version.number)},
        )
        return reservation.instances[0]

    def _target_group(self, arn: str) -> TargetGroup:
        group = self.autoscaling_backend.elbv2_backend.target_groups.get(arn)
        if not isinstance(group, TargetGroup):
            raise TargetGroupNotFoundError
        return group

    def _register(self, member: Member, arn: str) -> None:
        group = self._target_group(arn)
        if member.id not in group.targets:
            group.register([{"Id": member.id, "Port": group.port}])

    def _deregister(self, ids: list[str], arn: str) -> float:
        """Deregister those that are registered; return when the last of them has drained."""
        try:
            group = self._target_group(arn)
        except TargetGroupNotFoundError:
            return now()
        registered = [i for i in ids if i in group.targets]
        group.deregister([{"Id": i} for i in registered])
        return now() + group.delay_s if registered else now()

    def _unhealthy_target(self, member: Member) -> bool:
        return any(
            self._target_group(arn).health_for({"Id": member.id}, self.ec2_backend).status == "unhealthy"
            for arn in self.target_group_arns
        )

    def _note(self, what: str, cause: str, status: str, message: str | None = None) -> None:
        at = datetime.now(UTC)
        self.activities.appendleft(
            {
                "ActivityId": str(UUID(int=mock_random.getrandbits(128), version=4)),
                "AutoScalingGroupName": self.name,
                "Description": what,
                "Cause": f"At {at:%Y-%m-%dT%H:%M:%SZ} {cause}",
                "StartTime": at,
                "EndTime": at,
                "StatusCode": status,
                "StatusMessage": message,
                "Progress": 100,
            }
        )
