"""What `failout doctor` can tell of AWS: reads that the adapters make, IAM's own simulator and EC2's dry run for writes.

A simulated policy knows no organisation-wide limits (SCPs), so an "ok" of the simulator is worth less than a read that
was answered; the finding says which of the two it is.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from orchestrator.clouds import IMPORTING
from orchestrator.clouds.aws.session import READ_ATTEMPTS, AwsSession
from orchestrator.core.errors import Denied, FailoutError
from orchestrator.core.topology import Region
from orchestrator.ports import Finding

SKEW_MAX_S: Final = 240.0  # AWS refuses a signature that is 5 minutes off
# What fleet.py, traffic.py and templates.py write, by what it is written to; IAM's names. PassRole and RunInstances are
# what an instance refresh needs when the launch template has an instance profile.
WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "group": (
        "autoscaling:AttachLoadBalancerTargetGroups",
        "autoscaling:CancelInstanceRefresh",
        "autoscaling:DetachLoadBalancerTargetGroups",
        "autoscaling:ResumeProcesses",
        "autoscaling:SetInstanceHealth",
        "autoscaling:StartInstanceRefresh",
        "autoscaling:SuspendProcesses",
        "autoscaling:UpdateAutoScalingGroup",
    ),
    "target group": ("elasticloadbalancing:DeregisterTargets",),
    "listener": ("elasticloadbalancing:ModifyListener",),
    "anything": ("ec2:RunInstances", "iam:PassRole"),
    "hosted zone": ("route53:ChangeResourceRecordSets",),
}
NOT_SIMULATED: Final = "IAM's simulator could not be asked ({}); the first deploy will tell"


class AwsInspector:
    """One pass costs about ten calls a region. `hosted_zone` None: the global tier is not on Route 53."""

    def __init__(self, session: AwsSession, hosted_zone: str | None) -> None:
        self._session = session
        self._hosted_zone = hosted_zone

    async def inspect(self, region: Region, now: datetime) -> Sequence[Finding]:
        return await self._session.in_thread(lambda: _Look(self._session, region, self._hosted_zone).findings(now))


class _Look:
    def __init__(self, session: AwsSession, region: Region, hosted_zone: str | None) -> None:
        self._session, self._region, self._hosted_zone = session, region, hosted_zone
        self._clients: dict[str, Any] = {}

    def findings(self, now: datetime) -> list[Finding]:
        try:
            identity = self._ask("GetCallerIdentity", lambda: self._client("sts").get_caller_identity())
        except FailoutError as error:
            return [Finding("credentials", "failed", str(error))]
        found = [Finding("credentials", "ok", f"{self._region.id}: {identity['Arn']}"), self._skew(identity, now)]
        groups, reads = self._reads()
        return [*found, *reads, *self._sizes(groups), self._template_write(), *self._writes(identity["Arn"], groups)]

    def _client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are made at run time
        if service not in self._clients:
            endpoint = self._region.api.get("endpoint_url")
            self._clients[service] = self._session.make_client(service, self._region.name, endpoint, READ_ATTEMPTS)
        return self._clients[service]

    def _ask(self, call: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401
        with IMPORTING:
            from orchestrator.clouds.aws.errors import AWS_ERRORS, translate  # noqa: PLC0415

        try:
            return work()
        except AWS_ERRORS as error:
            raise translate(error, call, self._region.id) from error

    def _skew(self, answer: Mapping[str, Any], now: datetime) -> Finding:
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if told is None:
            return Finding("clock", "unchecked", f"{self._region.id} does not say what time it is")
        skew_s = abs((parsedate_to_datetime(told).astimezone(UTC) - now).total_seconds())
        verdict = "ok" if skew_s <= SKEW_MAX_S else "failed"
        return Finding("clock", verdict, f"{skew_s:.0f} s off {self._region.id}'s, allowed {SKEW_MAX_S:.0f} s")  # type: ignore[arg-type]

    def _reads(self) -> tuple[list[dict[str, Any]], list[Finding]]:
        """Every read that the adapters make, once; the groups are kept for what follows."""
        front, zones, client = self._region.front, self._region.zones, self._client
        names = [zone.fleet["auto_scaling_group"] for zone in zones]
        templates = sorted({zone.fleet["launch_template_id"] for zone in zones})
        both = [front["steady_target_group_arn"], front["ramp_target_group_arn"]]
        reads: dict[str, Callable[[], Any]] = {
            "autoscaling:DescribeAutoScalingGroups": lambda: client("autoscaling").describe_auto_scaling_groups(
                AutoScalingGroupNames=names
            ),
            "autoscaling:DescribeInstanceRefreshes": lambda: [
                client("autoscaling").describe_instance_refreshes(AutoScalingGroupName=name) for name in names
            ],
            "autoscaling:DescribeScalingActivities": lambda: [
                client("autoscaling").describe_scaling_activities(AutoScalingGroupName=name, MaxRecords=1)
                for name in names
            ],
            "ec2:DescribeInstances": lambda: client("ec2").describe_instances(MaxResults=5),
            "ec2:DescribeLaunchTemplateVersions": lambda: [
                client("ec2").describe_launch_template_versions(LaunchTemplateId=t, Versions=["$Latest"])
                for t in templates
            ],
            "elasticloadbalancing:DescribeListeners": lambda: client("elbv2").describe_listeners(
                ListenerArns=[front["listener_arn"]]
            ),
            "elasticloadbalancing:DescribeTargetHealth": lambda: [
                client("elbv2").describe_target_health(TargetGroupArn=arn) for arn in both
            ],
        }
        if self._hosted_zone:
            reads["route53:ListResourceRecordSets"] = lambda: client("route53").list_resource_record_sets(
                HostedZoneId=self._hosted_zone
            )
        groups: list[dict[str, Any]] = []
        found: list[Finding] = []
        for action, work in reads.items():
            try:
                answer = self._ask(action, work)
            except FailoutError as error:
                found.append(Finding(action, "failed", str(error)))
                continue
            found.append(Finding(action, "ok", f"{self._region.id} answered"))
            if action == "autoscaling:DescribeAutoScalingGroups":
                groups = answer["AutoScalingGroups"]
        return groups, found

    def _sizes(self, groups: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """The quota that a deploy meets first: a group that may not grow to what the topology promises (I3)."""
        by_name = {group["AutoScalingGroupName"]: group for group in groups}
        found = []
        for zone in self._region.zones:
            name = zone.fleet["auto_scaling_group"]
            group = by_name.get(name)
            if group is None:
                found.append(Finding("topology", "failed", f"{zone.id}: there is no Auto Scaling group {name}"))
                continue
            told = f"{zone.id}: {name} may have {group['MaxSize']} instances, the topology says {zone.instances_max}"
            enough = group["MaxSize"] >= zone.instances_max
            found.append(Finding("quota", "ok" if enough else "failed", told))
            in_zone = group["AvailabilityZones"] == [zone.name]
            where = f"{zone.id}: {name} is in {', '.join(group['AvailabilityZones'])}"
            found.append(Finding("topology", "ok" if in_zone else "failed", where))
        return found

    def _template_write(self) -> Finding:
        """EC2 itself says whether it would: DryRun answers DryRunOperation, or UnauthorizedOperation."""
        action, template = "ec2:CreateLaunchTemplateVersion", self._region.zones[0].fleet["launch_template_id"]
        data = {"LaunchTemplateId": template, "SourceVersion": "$Latest", "LaunchTemplateData": {}, "DryRun": True}
        try:
            self._ask(action, lambda: self._client("ec2").create_launch_template_version(**data))
        except Denied as error:
            return Finding(action, "failed", str(error))
        except FailoutError as error:
            would = "DryRunOperation" in str(error)
            told = f"{self._region.id} would (dry run)" if would else str(error)
            return Finding(action, "ok" if would else "unchecked", told)
        return Finding(action, "unchecked", f"{self._region.id} did not take it as a dry run")

    def _writes(self, arn: str, groups: Sequence[Mapping[str, Any]]) -> list[Finding]:
        front = self._region.front
        written_to = {
            "group": [group["AutoScalingGroupARN"] for group in groups],
            "target group": [front["steady_target_group_arn"], front["ramp_target_group_arn"]],
            "listener": [front["listener_arn"]],
            "anything": ["*"],
            "hosted zone": [f"arn:aws:route53:::hostedzone/{self._hosted_zone}"] if self._hosted_zone else [],
        }
        found = []
        for kind, actions in WRITES.items():
            if written_to[kind]:
                found += self._simulate(_principal(arn), actions, written_to[kind])
        return found

    def _simulate(self, principal: str, actions: Sequence[str], resources: Sequence[str]) -> list[Finding]:
        try:
            answer = self._ask(
                "SimulatePrincipalPolicy",
                lambda: self._client("iam").simulate_principal_policy(
                    PolicySourceArn=principal, ActionNames=list(actions), ResourceArns=list(resources)
                ),
            )
        except FailoutError as error:
            why = " ".join(str(error).split())[:120]
            return [Finding(action, "unchecked", NOT_SIMULATED.format(why)) for action in actions]
        found = []
        for result in answer["EvaluationResults"]:
            allowed = result["EvalDecision"] == "allowed"
            told = f"{self._region.id}: IAM's simulator says {result['EvalDecision']}"
            found.append(Finding(result["EvalActionName"], "ok" if allowed else "failed", told))
        return found


def _principal(arn: str) -> str:
    """The role behind a session: the simulator knows no sessions. A role with a path is not found, and then unchecked."""
    head, _, rest = arn.partition(":assumed-role/")
    if not rest:
        return arn
    return f"{head.replace(':sts:', ':iam:')}:role/{rest.split('/')[0]}"
