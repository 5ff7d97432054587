"""The orchestrator may do what its adapters do, and nothing else.

Calls are found three ways: in the adapters' source, in a lab's record of a deploy (recorded_calls.json), and in what
`failout doctor` says it needs.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.session import Session
from stacks import Shape, aws, stacks

from infra.components import azure_access
from infra.components.aws_access import dns_statements, orchestrator_statements, secret_statements
from infra.lab.engine import INFRA, Recorder, run
from orchestrator.clouds.aws import inspect as aws_doctor
from orchestrator.clouds.azure import alarm as azure_alarm
from orchestrator.clouds.azure import inspect as azure_doctor

CLOUDS = Path(__file__).resolve().parents[2] / "orchestrator" / "clouds"
RECORDED = json.loads((Path(__file__).parent / "recorded_calls.json").read_text("utf-8"))
PREFIX = {"elbv2": "elasticloadbalancing"}
FREE = {"sts:GetCallerIdentity"}  # https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
# What AWS asks for beyond the call itself, when a group is told to launch from a numbered template version.
IMPLIED = {"ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"}
SETS = "Microsoft.Compute/virtualMachineScaleSets"
POOLS = "Microsoft.Network/loadBalancers/backendAddressPools"
SETTINGS = "Microsoft.Insights/autoscaleSettings"
# ARM names permissions by path: GET is read, PUT and PATCH are write, POST of X is X/action.
AZURE = {
    "AutoscaleSettings_Get": f"{SETTINGS}/read",
    "AutoscaleSettings_ListByResourceGroup": f"{SETTINGS}/read",
    "AutoscaleSettings_Update": f"{SETTINGS}/write",
    "LoadBalancerBackendAddressPools_CreateOrUpdate": f"{POOLS}/write",
    "LoadBalancerBackendAddressPools_Get": f"{POOLS}/read",
    "NetworkInterfaces_List": "Microsoft.Network/networkInterfaces/read",
    "NetworkInterfaces_ListVirtualMachineScaleSetNetworkInterfaces": f"{SETS}/networkInterfaces/read",
    "Operations_Get": "Microsoft.Compute/locations/operations/read",
    "VirtualMachineScaleSetVMs_List": f"{SETS}/virtualMachines/read",
    "VirtualMachineScaleSets_DeleteInstances": f"{SETS}/delete/action",
    "VirtualMachineScaleSets_Get": f"{SETS}/read",
    "VirtualMachineScaleSets_GetInstanceView": f"{SETS}/instanceView/read",
    "VirtualMachineScaleSets_SetOrchestrationServiceState": f"{SETS}/setOrchestrationServiceState/action",
    "VirtualMachineScaleSets_Update": f"{SETS}/write",
    "VirtualMachineScaleSets_UpdateInstances": f"{SETS}/manualUpgrade/action",
}
AZURE_METHODS = re.compile(
    r"\bsets\.begin_(\w+)|virtual_machine_scale_sets\.(?:begin_)?(\w+)\(|_address_pools\.(?:begin_)?(\w+)\("
)
SENT = {"Get": "Get", "List": "ListByResourceGroup", "Patch": "Update"}  # calls that no generated client has
AZURE_GROUPS = ("VirtualMachineScaleSets", "VirtualMachineScaleSets", "LoadBalancerBackendAddressPools")


def aws_policy() -> list[dict[str, object]]:
    zones = orchestrator_statements("123456789012", "gates", ["arn:lt"], ["arn:front"], "arn:role")
    return [*zones, *dns_statements("Z1", "gates.example.com")]


def actions(statements: list[dict[str, object]]) -> set[str]:
    found: set[str] = set()
    for statement in statements:
        one = statement["Action"]
        found |= {one} if isinstance(one, str) else set(one)  # type: ignore[call-overload]
    return found


def aws_calls() -> set[str]:
    """What the adapters' source calls, in IAM's names."""
    methods: set[tuple[str, str]] = set()
    for path in (CLOUDS / "aws").glob("*.py"):
        text = path.read_text("utf-8")
        pages = re.findall(r'\baws\.(\w+)\.get_paginator\(\s*"(\w+)"', text)
        calls = re.findall(r"\baws\.(autoscaling|ec2|elbv2|route53)\.(\w+)\(", text)
        calls += re.findall(r"\b(cloudwatch)\.(\w+)\(", text)
        calls += re.findall(r'_client\("(\w+)"\)\.(\w+)\(', text)
        methods |= {(service, method) for service, method in [*pages, *calls] if method != "get_paginator"}
    names: set[str] = set()
    for service, method in methods:
        operations = {xform_name(o): o for o in Session().get_service_model(service).operation_names}
        names.add(f"{PREFIX.get(service, service)}:{operations[method]}")
    return names


def azure_calls() -> set[str]:
    """What the adapters' source calls, by the operation's name in Azure's specification."""
    found: set[str] = set()
    for path in (CLOUDS / "azure").glob("*.py"):
        text = path.read_text("utf-8")
        found |= {
            f"AutoscaleSettings_{SENT[verb]}" for verb in re.findall(r'"(Get|List|Patch)AutoscaleSettings?"', text)
        }
        for groups in AZURE_METHODS.findall(text):
            for group, method in zip(AZURE_GROUPS, groups, strict=True):
                if method:
                    found.add(f"{group}_{''.join(word.title() for word in method.split('_'))}")
    return found


def test_every_call_of_the_aws_adapters_is_allowed_and_nothing_more() -> None:
    assert aws_calls() - FREE | IMPLIED == actions(aws_policy())


def test_every_call_that_a_deploy_made_in_the_lab_is_allowed() -> None:
    recorded = {f"{PREFIX.get(s, s)}:{call}" for s, call in (c.split(".") for c in RECORDED["aws"])}
    assert "autoscaling:StartInstanceRefresh" in recorded, "the record is of no deploy"
    assert recorded <= actions(aws_policy()) | FREE
    allowed = {*azure_access.ORCHESTRATOR_ACTIONS, *azure_access.SUBSCRIPTION_ACTIONS}
    assert {AZURE[call] for call in RECORDED["azure"]} <= allowed


def test_every_call_of_the_azure_adapters_is_allowed_and_nothing_more() -> None:
    calls = azure_calls() | set(RECORDED["azure"])
    assert {"VirtualMachineScaleSets_UpdateInstances", "AutoscaleSettings_Update"} <= calls
    needed = {AZURE[call] for call in calls} | {AZURE["NetworkInterfaces_List"]}
    linked = {a for a in azure_access.ORCHESTRATOR_ACTIONS if a.endswith("/join/action")}
    of_doctor = {"Microsoft.Authorization/permissions/read", "Microsoft.Compute/locations/operations/read"}
    of_network = {"Microsoft.Network/locations/operations/read", f"{SETS}/virtualMachines/instanceView/read"}
    granted = {*azure_access.ORCHESTRATOR_ACTIONS, *azure_access.SUBSCRIPTION_ACTIONS}
    of_signals = {f"Microsoft.Insights/{kind}/read" for kind in ("metricAlerts", "scheduledQueryRules")}
    of_signals |= {"Microsoft.AlertsManagement/alerts/read"}
    assert {kind.lower() for kind in azure_alarm.RULES} == {action.split("/")[1].lower() for action in of_signals} - {
        "alerts"
    }
    needed |= of_signals
    assert needed | linked | of_doctor | of_network == granted


def test_what_doctor_looks_for_is_what_the_programs_grant() -> None:
    wanted = {action for named in aws_doctor.WRITES.values() for action in named}
    assert wanted <= actions(aws_policy())
    assert set(azure_doctor.ACTIONS) <= set(azure_access.ORCHESTRATOR_ACTIONS)


def test_only_reads_that_know_no_resources_are_allowed_everywhere() -> None:
    for statement in aws_policy():
        if statement["Resource"] == "*" and "Condition" not in statement:
            named = actions([statement])
            assert all(fnmatchcase(action, "*:Describe*") for action in named), named
    assert not [a for a in actions(aws_policy()) if "*" in a]


def test_fleets_of_another_service_are_out_of_reach() -> None:
    writes = next(s for s in aws_policy() if s["Sid"] == "Fleets")
    assert str(writes["Resource"]).endswith(":autoScalingGroupName/gates-*")
    assert {"StringEquals": {"aws:ResourceTag/failout-service": "gates"}} == writes["Condition"]


def test_dns_may_change_the_weights_of_one_name_only() -> None:
    weights = next(s for s in dns_statements("Z1", "Gates.example.com.") if s["Sid"] == "Weights")
    condition = weights["Condition"]["ForAllValues:StringEquals"]  # type: ignore[index]
    assert ["gates.example.com"] == condition["route53:ChangeResourceRecordSetsNormalizedRecordNames"]
    assert ["UPSERT"] == condition["route53:ChangeResourceRecordSetsActions"]


def test_the_orchestrators_role_is_taken_by_machines_of_ours_and_by_whom_the_settings_name() -> None:
    person = "arn:aws:iam::123456789012:role/operators"
    run_ = run("aws", aws(orchestrator_principals=[person]), Recorder())
    trusted = {r.name: json.loads(r.inputs["assumeRolePolicy"])["Statement"] for r in run_.of("iam/role:Role")}
    machines, people = {"Service": "ec2.amazonaws.com"}, {"AWS": person}
    assert [machines, people] == [statement["Principal"] for statement in trusted.pop("gates-orchestrator")]
    assert [[machines]] * 2 == [[s["Principal"] for s in statements] for statements in trusted.values()]


def test_what_the_stack_makes_in_iam_and_s3_is_within_the_deploy_policy() -> None:
    text = (INFRA / "aws" / "deploy-policy.json").read_text("utf-8")
    policy = json.loads(text.replace("ACCOUNT", "123456789012").replace("SERVICE", "gates"))["Statement"]
    allowed = [arn for s in policy for arn in ([s["Resource"]] if isinstance(s["Resource"], str) else s["Resource"])]
    run_ = stacks(Shape(1, 1))["aws"]
    made = [r.outputs["arn"] for kind in ("iam/role:Role", ":InstanceProfile", ":Bucket") for r in run_.of(kind)]
    assert 7 == len(made)
    assert [] == [arn for arn in made if not any(fnmatchcase(arn, pattern) for pattern in allowed)]


def test_region_agents_may_read_their_token_and_nothing_of_the_clouds() -> None:
    run_ = stacks(Shape(1, 1))["aws"]
    policies = [r for r in run_.of("iam/rolePolicy:RolePolicy") if "agent" in r.name]
    assert ["secretsmanager:GetSecretValue"] == [
        action for r in policies for action in actions(json.loads(r.inputs["policy"])["Statement"])
    ]
    assert {"secretsmanager:GetSecretValue"} == actions(secret_statements("arn"))


@pytest.mark.parametrize("scope", ["eastus", "operations"])
def test_the_azure_role_holds_on_the_services_own_groups_only(scope: str) -> None:
    roles = {r.name: r for r in stacks(Shape(1, 1))["azure"].of(":RoleDefinition")}
    assert {"gates-orchestrator-eastus", "gates-orchestrator-operations"} == set(roles)
    role = roles[f"gates-orchestrator-{scope}"].inputs
    assert [role["scope"]] == role["assignableScopes"]
    assert ("/resourceGroups/gates-eastus" in role["scope"]) == (scope == "eastus")
