"""The Auto Scaling API over `groups` and `refresh`: what moto's responses lack or do at once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any
from uuid import UUID

from moto.autoscaling import models as asg
from moto.autoscaling.exceptions import AutoscalingClientError, ValidationError
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.moto_api._internal import mock_random

from orchestrator.lab.aws.graft import add, override
from orchestrator.lab.aws.groups import Group, Member
from orchestrator.lab.aws.refresh import Refresh

DEFAULT_MIN_HEALTHY = 90
NOT_IN_THE_LAB = ("CheckpointPercentages", "CheckpointDelay", "AlarmSpecification", "MaxHealthyPercentage", "BakeTime")


def group_named(backend: asg.AutoScalingBackend, name: str) -> Group:
    group: Group = backend.autoscaling_groups[name]  # type: ignore[assignment]
    return group


def _group(response: AutoScalingResponse) -> Group:
    return group_named(response.autoscaling_backend, response._get_param("AutoScalingGroupName"))  # noqa: SLF001


# Instance refresh.


def _start(self: AutoScalingResponse) -> ActionResult:
    group = _group(self)
    if group.active_refresh() is not None:
        raise AutoscalingClientError(
            "InstanceRefreshInProgress",
            "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.",
        )
    preferences = _preferences(group, self._get_param("Preferences", {}) or {})
    configuration = self._get_param("DesiredConfiguration") or None
    before = str(group.launch_template_version)
    refresh = Refresh(
        id=str(UUID(int=mock_random.getrandbits(128), version=4)),
        group_name=group.name,
        before=before,
        target=_target(group, configuration) if configuration else before,
        preferences=preferences,
        desired_configuration=configuration,
    )
    if preferences["AutoRollback"] and not refresh.reversible():
        raise ValidationError(
            "AutoRollback cannot be set to true when the DesiredConfiguration is not given or a launch template version is $Latest or $Default."
        )
    group.refreshes.insert(0, refresh)
    return ActionResult({"InstanceRefreshId": refresh.id})


def _preferences(group: Group, given: dict[str, Any]) -> dict[str, Any]:
    refused = [key for key in NOT_IN_THE_LAB if given.get(key) is not None]
    if refused:
        raise ValidationError(f"The lab's instance refresh has no {', '.join(refused)}")
    chosen = {
        "MinHealthyPercentage": DEFAULT_MIN_HEALTHY,
        "InstanceWarmup": int(group.health_check_grace_period or 0),
        "SkipMatching": False,
        "AutoRollback": False,
        **given,
    }
    if not 0 <= chosen["MinHealthyPercentage"] <= 100:
        raise ValidationError("MinHealthyPercentage must be between 0 and 100")
    return chosen


def _target(group: Group, configuration: dict[str, Any]) -> str:
    spec, template = configuration.get("LaunchTemplate"), group.ec2_launch_template
    if template is None or not spec:
        raise ValidationError("The lab's instance refresh takes a launch template as desired configuration")
    if template.id != spec.get("LaunchTemplateId", template.id) or template.name != spec.get(
        "LaunchTemplateName", template.name
    ):
        raise ValidationError("The lab's instance refresh does not change to another launch template")
    version = str(spec.get("Version") or "$Default")
    if version.isdigit() and not 1 <= int(version) <= template.latest_version_number:
        raise ValidationError(
            f"You must use a valid fully-formed launch template. Could not find launch template version {version}."
        )
    return version


def _describe(self: AutoScalingResponse) -> ActionResult:
    group, wanted = _group(self), self._get_param("InstanceRefreshIds", [])
    found = [r for r in group.refreshes if not wanted or r.id in wanted]
    start, size = int(self._get_param("NextToken") or 0), self._get_int_param("MaxRecords", 50)
    token = str(start + size) if start + size < len(found) else None
    return ActionResult({"InstanceRefreshes": [r.describe() for r in found[start : start + size]], "NextToken": token})


def _active(group: Group) -> Refresh:
    refresh = group.active_refresh()
    if refresh is None or refresh.status == "Cancelling":
        raise AutoscalingClientError(
            "ActiveInstanceRefreshNotFound",
            "No in progress or pending Instance Refresh found for Auto Scaling group " + group.name,
        )
    return refresh


def _cancel(self: AutoScalingResponse) -> ActionResult:
    refresh = _active(_group(self))
    refresh.cancel()
    return ActionResult({"InstanceRefreshId": refresh.id})


def _rollback(self: AutoScalingResponse) -> ActionResult:
    group = _group(self)
    refresh = _active(group)
    if not refresh.reversible() or refresh.status != "InProgress":
        raise AutoscalingClientError(
            "IrreversibleInstanceRefresh",
            "The Instance Refresh has no desired configuration with a numbered launch template version, or is not in progress.",
        )
    refresh.roll_back(group, "Rolled back due to user request.")
    return ActionResult({"InstanceRefreshId": refresh.id})


# Target groups of a group, under both of their names.


def _attach_target_groups(self: asg.AutoScalingBackend, group_name: str, target_group_arns: list[str]) -> None:
    group_named(self, group_name).attach(target_group_arns)


def _detach_target_groups(self: asg.AutoScalingBackend, group_name: str, target_group_arns: list[str]) -> None:
    group_named(self, group_name).detach(target_group_arns)


def _states(group: Group) -> list[tuple[str, str]]:
    return [(arn, group.state_of(arn)) for arn in group.target_group_arns] + [
        (arn, "Removing") for arn in group.removing
    ]


def _describe_target_groups(self: AutoScalingResponse) -> ActionResult:
    states = [{"LoadBalancerTargetGroupARN": arn, "State": state} for arn, state in _states(_group(self))]
    return ActionResult({"LoadBalancerTargetGroups": states})


def _describe_traffic_sources(self: AutoScalingResponse) -> ActionResult:
    states = [
        {"TrafficSource": arn, "Identifier": arn, "Type": "elbv2", "State": state}
        for arn, state in _states(_group(self))
    ]
    return ActionResult({"TrafficSources": states})


def _attach_traffic_sources(self: AutoScalingResponse) -> ActionResult:
    _group(self).attach([source["Identifier"] for source in self._get_param("TrafficSources", [])])
    return EmptyResult()


def _detach_traffic_sources(self: AutoScalingResponse) -> ActionResult:
    _group(self).detach([source["Identifier"] for source in self._get_param("TrafficSources", [])])
    return EmptyResult()


# Single instances.


def _terminate_instance(
    self: asg.AutoScalingBackend, instance_id: str, should_decrement: bool
) -> asg.TerminateInstanceActivity:
    member = _member(self, instance_id)
    group = member.auto_scaling_group
    before = group.desired_capacity
    if should_decrement:
        group.set_desired_capacity(before - 1)
    group.terminate_member(member, "An instance was taken out of service in response to a user request.")
    return asg.TerminateInstanceActivity(member.instance, before)


def _member(backend: asg.AutoScalingBackend, instance_id: str) -> Member:
    for group in backend.autoscaling_groups.values():
        for member in group.instance_states:
            if isinstance(member, Member) and member.id == instance_id:
                return member
    raise ValidationError(f"Instance Id not found - No managed instance found for instance ID {instance_id}")


def _enter_standby(
    self: asg.AutoScalingBackend, group_name: str, instance_ids: list[str], should_decrement: bool
) -> list[Any]:
    return [
        _standby(group_named(self, group_name), _member(self, i), enter=True, move=should_decrement)
        for i in instance_ids
    ]


def _exit_standby(self: asg.AutoScalingBackend, group_name: str, instance_ids: list[str]) -> list[Any]:
    return [_standby(group_named(self, group_name), _member(self, i), enter=False, move=True) for i in instance_ids]


def _standby(group: Group, member: Member, *, enter: bool, move: bool) -> Any:
    before = group.desired_capacity or 0
    if move:
        group.set_desired_capacity(before + (-1 if enter else 1))
    group.standby(member, enter=enter)
    return (asg.EnterStandbyActivity if enter else asg.ExitStandbyActivity)(member.instance, before)


def _activities(self: AutoScalingResponse) -> ActionResult:
    name = self._get_param("AutoScalingGroupName")
    groups = (
        [_group(self)]
        if name
        else [g for g in self.autoscaling_backend.autoscaling_groups.values() if isinstance(g, Group)]
    )
    return ActionResult({"Activities": [activity for group in groups for activity in group.activities][:100]})


def _delete_group(self: AutoScalingResponse) -> ActionResult:
    """Refuse while the group has instances, unless forced, as AWS does; moto forgets them."""
    group = _group(self)
    if group.instance_states and not self._get_bool_param("ForceDelete", False):
        raise AutoscalingClientError(
            "ResourceInUse",
            "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.",
        )
    if group.instance_states:
        group.ec2_backend.terminate_instances([m.id for m in group.members])
    self.autoscaling_backend.autoscaling_groups.pop(group.name)
    return EmptyResult()


def _not_in_the_lab(*_: Any, **__: Any) -> ActionResult:
    raise ValidationError("The lab's Auto Scaling groups only have instances that they launched")


class Groups(OrderedDict[str, Any]):
    """Groups by name. Asking for an unknown one is the caller's error; moto answers some calls with a KeyError."""

    def __missing__(self, name: str) -> Group:
        raise ValidationError(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")


def _init(self: asg.AutoScalingBackend, region_name: str, account_id: str) -> None:
    _moto_init(self, region_name, account_id)
    self.autoscaling_groups = Groups()


def _create_group(self: asg.AutoScalingBackend, **kwargs: Any) -> asg.FakeAutoScalingGroup:
    """The grace period is 0 unless given; moto makes 300 of 0."""
    group = _moto_create_group(self, **kwargs)
    group.health_check_grace_period = int(kwargs.get("health_check_period") or 0)
    return group


_moto_init = asg.AutoScalingBackend.__init__
_moto_create_group = asg.AutoScalingBackend.create_auto_scaling_group


def install() -> None:
    override(asg, "FakeAutoScalingGroup", Group)
    backend = asg.AutoScalingBackend
    override(backend, "__init__", _init)
    override(backend, "create_auto_scaling_group", _create_group)
    override(backend, "attach_load_balancer_target_groups", _attach_target_groups)
    override(backend, "detach_load_balancer_target_groups", _detach_target_groups)
    override(backend, "update_attached_target_groups", lambda *_: None)  # `Group.tick` registers
    override(backend, "notify_terminate_instances", lambda *_: None)  # `Group.tick` notices
    override(backend, "terminate_instance", _terminate_instance)
    override(backend, "enter_standby_instances", _enter_standby)
    override(backend, "exit_standby_instances", _exit_standby)
    override(AutoScalingResponse, "describe_load_balancer_target_groups", _describe_target_groups)
    override(AutoScalingResponse, "describe_scaling_activities", _activities)
    override(AutoScalingResponse, "delete_auto_scaling_group", _delete_group)
    override(AutoScalingResponse, "attach_instances", _not_in_the_lab)
    override(AutoScalingResponse, "detach_instances", _not_in_the_lab)
    add(AutoScalingResponse, "start_instance_refresh", _start)
    add(AutoScalingResponse, "describe_instance_refreshes", _describe)
    add(AutoScalingResponse, "cancel_instance_refresh", _cancel)
    add(AutoScalingResponse, "rollback_instance_refresh", _rollback)
    add(AutoScalingResponse, "attach_traffic_sources", _attach_traffic_sources)
    add(AutoScalingResponse, "detach_traffic_sources", _detach_traffic_sources)
    add(AutoScalingResponse, "describe_traffic_sources", _describe_traffic_sources)
