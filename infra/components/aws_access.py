"""What the orchestrator may do on AWS, and what instances may: as little as their work needs.

`orchestrator_statements` is tested against the calls that the adapters make (tests/infra/test_access.py): a call that is
not allowed fails the test, and so does a permission that no call needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pulumi import Input, Output, ResourceOptions

from infra.components.settings import Service

Statement = dict[str, object]


def orchestrator_statements(
    account: str, service: str, templates: Sequence[str], front_arns: Sequence[str], instance_role: str
) -> list[Statement]:
    """Name every action and every resource that lets itself be named. Describe calls know no resources (AWS).

    `templates`: ARNs of launch templates; `front_arns`: of listeners and target groups. RunInstances and PassRole are
    asked of whoever makes a group launch from a numbered template version:
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
    """
    groups = f"arn:aws:autoscaling:*:{account}:autoScalingGroup:*:autoScalingGroupName/{service}-*"
    ours = {"StringEquals": {"aws:ResourceTag/failout-service": service}}
    return [
        {
            "Sid": "Read",
            "Effect": "Allow",
            "Action": [
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeInstanceRefreshes",
                "autoscaling:DescribeScalingActivities",
                "cloudwatch:DescribeAlarms",
                "ec2:DescribeInstances",
                "ec2:DescribeLaunchTemplateVersions",
                "elasticloadbalancing:DescribeListeners",
                "elasticloadbalancing:DescribeTargetHealth",
            ],
            "Resource": "*",
        },
        {
            "Sid": "Fleets",
            "Effect": "Allow",
            "Action": [
                "autoscaling:AttachLoadBalancerTargetGroups",
                "autoscaling:CancelInstanceRefresh",
                "autoscaling:DetachLoadBalancerTargetGroups",
                "autoscaling:ResumeProcesses",
                "autoscaling:SetInstanceHealth",
                "autoscaling:StartInstanceRefresh",
                "autoscaling:SuspendProcesses",
                "autoscaling:UpdateAutoScalingGroup",
            ],
            "Resource": groups,
            "Condition": ours,
        },
        {
            "Sid": "Weights",
            "Effect": "Allow",
            "Action": ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:DeregisterTargets"],
            "Resource": list(front_arns),
        },
        *_launching(account, service, templates, instance_role),
    ]


def _launching(account: str, service: str, templates: Sequence[str], instance_role: str) -> list[Statement]:
    """What it takes to make a version of a template, and to have a group launch from it."""
    from_template = {"ArnEquals": {"ec2:LaunchTemplate": list(templates)}}
    return [
        {
            "Sid": "Releases",
            "Effect": "Allow",
            "Action": "ec2:CreateLaunchTemplateVersion",
            "Resource": list(templates),
        },
        {
            "Sid": "LaunchFromOurTemplates",
            "Effect": "Allow",
            "Action": "ec2:RunInstances",
            "Resource": "*",
            "Condition": {**from_template, "Bool": {"ec2:IsLaunchTemplateResource": "true"}},
        },
        {
            "Sid": "LaunchWhatTemplatesName",
            "Effect": "Allow",
            "Action": "ec2:RunInstances",
            "Resource": [
                f"arn:aws:ec2:*:{account}:{kind}/*"
                for kind in ("instance", "volume", "network-interface", "subnet", "security-group")
            ]
            + ["arn:aws:ec2:*::image/*"],
            "Condition": from_template,
        },
        {
            "Sid": "TagWhatIsLaunched",
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": [f"arn:aws:ec2:*:{account}:instance/*", f"arn:aws:ec2:*:{account}:volume/*"],
            "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        },
        {
            "Sid": "GiveInstancesTheirRole",
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": instance_role,
            "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        },
        {
            "Sid": "AskWhatItMayDo",
            "Effect": "Allow",
            "Action": "iam:SimulatePrincipalPolicy",
            "Resource": f"arn:aws:iam::{account}:role/{service}-orchestrator",
        },
    ]


def dns_statements(hosted_zone_id: str, record: str) -> list[Statement]:
    """May change the weights of one name, and nothing else in the zone.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/specifying-rrset-conditions.html
    """
    zone = f"arn:aws:route53:::hostedzone/{hosted_zone_id}"
    only = {
        "route53:ChangeResourceRecordSetsNormalizedRecordNames": [record.rstrip(".").lower()],
        "route53:ChangeResourceRecordSetsRecordTypes": ["A", "AAAA"],
        "route53:ChangeResourceRecordSetsActions": ["UPSERT"],
    }
    return [
        {"Sid": "Read", "Effect": "Allow", "Action": "route53:ListResourceRecordSets", "Resource": zone},
        {"Sid": "Follow", "Effect": "Allow", "Action": "route53:GetChange", "Resource": "arn:aws:route53:::change/*"},
        {
            "Sid": "Weights",
            "Effect": "Allow",
            "Action": "route53:ChangeResourceRecordSets",
            "Resource": zone,
            "Condition": {"ForAllValues:StringEquals": only},
        },
    ]


def secret_statements(secret_arn: str) -> list[Statement]:
    """May read one secret: the token that region agents and orchestrator share."""
    return [{"Sid": "Token", "Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret_arn}]


def document(statements: Sequence[Statement]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@dataclass(frozen=True, slots=True)
class AwsRoleArgs:
    """A role that EC2 instances take, and `principals` (ARNs). `policies`: name -> policy document.

    `sessions`: its instances are reachable by SSM Session Manager.
    """

    service: Service
    role: str
    policies: Mapping[str, Input[str]]
    principals: tuple[str, ...] = ()
    sessions: bool = True


class AwsRole(pulumi.ComponentResource):
    """`name` and `arn` of the role, `profile` the ARN of its instance profile."""

    name: Output[str]
    arn: Output[str]
    profile: Output[str]

    def __init__(self, name: str, args: AwsRoleArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:aws:Role", name, None, opts)
        me, tags = ResourceOptions(parent=self), args.service.labels(args.role)
        trust: list[Statement] = [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}
            for principal in ({"Service": "ec2.amazonaws.com"}, *({"AWS": arn} for arn in args.principals))
        ]
        role = aws.iam.Role(name, name=name, assume_role_policy=document(trust), tags=tags, opts=me)
        if args.sessions:
            # No SSH port and no key pair anywhere: people come in through Session Manager, which logs.
            aws.iam.RolePolicyAttachment(
                name, role=role.name, policy_arn="arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore", opts=me
            )
        for policy, text in args.policies.items():
            aws.iam.RolePolicy(f"{name}-{policy}", role=role.name, name=policy, policy=text, opts=me)
        profile = aws.iam.InstanceProfile(name, name=name, role=role.name, tags=tags, opts=me)
        self.name, self.arn, self.profile = role.name, role.arn, profile.arn
        self.register_outputs({"name": role.name, "arn": role.arn})
