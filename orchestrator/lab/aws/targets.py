"""Target groups as the load balancer runs them: initial, healthy or unhealthy as seen, draining for the whole delay.

Closes: moto calls every target healthy at once, never drains, leaves dead instances registered, and takes any number
of target groups and any weight. Source: ELB API, TargetHealth; "a deregistered target is displayed as draining until
the deregistration delay expires" (Application Load Balancers, Edit target group attributes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moto.elbv2 import models as elbv2
from moto.elbv2.exceptions import ELBClientError, ValidationError

from orchestrator.lab.aws.graft import override
from orchestrator.lab.aws.world import here, now
from orchestrator.lab.model import TargetHealth

GROUPS_PER_ACTION = 5
WEIGHT_MAX = 999


class TargetGroup(elbv2.FakeTargetGroup):
    """`draining` maps a target to the second (monotonic) at which its deregistration delay ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.draining: dict[str, float] = {}

    @property
    def delay_s(self) -> float:
        return float(str(self.attributes["deregistration_delay.timeout_seconds"]))

    def register(self, targets: list[dict[str, Any]]) -> None:
        super().register(targets)
        for target in targets:
            self.draining.pop(target["Id"], None)

    def deregister(self, targets: list[dict[str, Any]]) -> None:
        """Start the delay for each registered target. Others are ignored, as AWS documents."""
        for target in targets:
            registered = self.targets.pop(target["Id"], None)
            if registered is not None:
                self.deregistered_targets[target["Id"]] = registered
                self.draining[target["Id"]] = now() + self.delay_s

    def deregister_terminated_instances(self, instance_ids: list[str]) -> None:
        self.deregister([{"Id": i} for i in instance_ids])

    def is_draining(self, target: str) -> bool:
        return self.draining.get(target, 0.0) > now()

    def forget_drained(self) -> None:
        for target, until in list(self.draining.items()):
            if until <= now():
                self.draining.pop(target, None)
                self.deregistered_targets.pop(target, None)

    def health_for(self, target: dict[str, Any], ec2_backend: Any) -> elbv2.FakeHealthStatus:
        state, reason, description = self._health(target["Id"], ec2_backend)
        known = self.targets.get(target["Id"]) or self.deregistered_targets.get(target["Id"]) or target
        port = known.get("Port", self.port)
        return elbv2.FakeHealthStatus(target["Id"], port, self.health_check_port, state, reason, description)

    def _health(self, target: str, ec2_backend: Any) -> tuple[str, str | None, str | None]:
        if self.is_draining(target):
            return "draining", "Target.DeregistrationInProgress", "Target deregistration is in progress"
        if target not in self.targets:
            return "unused", "Target.NotRegistered", "Target is not registered to the target group"
        instance = ec2_backend.get_instance_by_id(target)
        if instance is None or instance.state != "running":
            return "unused", "Target.InvalidState", "Target is not in the running state"
        balancer = balancer_of(self)
        if balancer is None:
            return (
                "unused",
                "Target.NotInUse",
                "Target group is not configured to receive traffic from the load balancer",
            )
        if instance.placement.zone not in {subnet.availability_zone for subnet in balancer.subnets}:
            return (
                "unused",
                "Target.NotInUse",
                "Target is in an Availability Zone that is not enabled for the load balancer",
            )
        return self._checked(target)

    def _checked(self, target: str) -> tuple[str, str | None, str | None]:
        seen = here().target(self.region_name, self.name, target)
        if seen is TargetHealth.HEALTHY:
            return "healthy", None, None
        if seen is TargetHealth.UNHEALTHY:
            if here().dead(self.region_name, target):
                return "unhealthy", "Target.FailedHealthChecks", "Health checks failed"
            return "unhealthy", "Target.ResponseCodeMismatch", "Health checks failed with these codes: [503]"
        if seen is TargetHealth.INITIAL:
            return "initial", "Elb.InitialHealthChecking", "Initial health checks in progress"
        return "initial", "Elb.RegistrationInProgress", "Target registration is in progress"


def forwards(balancer: elbv2.FakeLoadBalancer) -> dict[str, int]:
    """Return the weight of every target group that the balancer's first listener forwards to by default."""
    for listener in list(balancer.listeners.values()):
        for action in listener.default_actions:
            if action.type == "forward":
                return action_weights(action.data)
    return {}


def action_weights(action: Mapping[str, Any]) -> dict[str, int]:
    groups = action.get("ForwardConfig", {}).get("TargetGroups") or []
    weights = {group["TargetGroupArn"]: int(group.get("Weight", 1)) for group in groups}
    return weights or ({action["TargetGroupArn"]: 1} if "TargetGroupArn" in action else {})


def balancer_of(group: elbv2.FakeTargetGroup) -> elbv2.FakeLoadBalancer | None:
    """Return the load balancer that sends traffic to the group, at weight 0 as well; None when none does."""
    backend = elbv2.elbv2_backends[group.account_id][group.region_name]
    for balancer in list(backend.load_balancers.values()):
        if group.arn in forwards(balancer):
            return balancer
    return None


def _validate_actions(self: elbv2.ELBv2Backend, actions: list[elbv2.FakeAction]) -> None:
    _moto_validate_actions(self, actions)
    for action in actions:
        weights = action_weights(action.data) if action.type == "forward" else {}
        if len(weights) > GROUPS_PER_ACTION:
            raise ELBClientError(
                "InvalidLoadBalancerAction", f"A forward action takes at most {GROUPS_PER_ACTION} target groups"
            )
        if any(not 0 <= weight <= WEIGHT_MAX for weight in weights.values()):
            raise ValidationError(f"The weight of a target group must be between 0 and {WEIGHT_MAX}")


def _modify_listener(
    self: elbv2.ELBv2Backend,
    arn: str,
    port: str | None = None,
    protocol: str | None = None,
    ssl_policy: str | None = None,
    certificates: list[dict[str, Any]] | None = None,
    actions: list[dict[str, Any]] | None = None,
) -> elbv2.FakeListener:
    """Validate the actions as CreateListener does: moto accepts any, and forgets which balancer a group belongs to."""
    self._validate_actions([elbv2.FakeAction(action) for action in actions or []])
    listener = _moto_modify_listener(self, arn, port, protocol, ssl_policy, certificates, actions)
    for group in self.target_groups.values():
        balancer = balancer_of(group)
        group.load_balancer_arns = [balancer.arn] if balancer is not None else []
    return listener


def _describe_target_health(
    self: elbv2.ELBv2Backend, target_group_arn: str, targets: list[dict[str, Any]]
) -> Iterable[elbv2.FakeHealthStatus]:
    """List draining targets as well, as AWS does."""
    group = self.target_groups.get(target_group_arn)
    if not targets and isinstance(group, TargetGroup):
        targets = [*group.targets.values(), *({"Id": t} for t in group.draining if group.is_draining(t))]
        return [group.health_for(target, self.ec2_backend) for target in targets]
    return _moto_describe_target_health(self, target_group_arn, targets)


_moto_validate_actions = elbv2.ELBv2Backend._validate_actions  # noqa: SLF001
_moto_modify_listener = elbv2.ELBv2Backend.modify_listener
_moto_describe_target_health = elbv2.ELBv2Backend.describe_target_health


def install() -> None:
    override(elbv2, "FakeTargetGroup", TargetGroup)
    override(elbv2.ELBv2Backend, "_validate_actions", _validate_actions)
    override(elbv2.ELBv2Backend, "modify_listener", _modify_listener)
    override(elbv2.ELBv2Backend, "describe_target_health", _describe_target_health)
