"""What the orchestrator may do on Azure: a role of its own, assigned on the service's resource groups only.

`ORCHESTRATOR_ACTIONS` is tested against the calls that the adapters make (tests/infra/test_access.py).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import pulumi
from pulumi import Input, ResourceOptions
from pulumi_azure_native import authorization

ORCHESTRATOR_ACTIONS = (
    "Microsoft.Compute/virtualMachineScaleSets/read",
    "Microsoft.Compute/virtualMachineScaleSets/write",
    "Microsoft.Compute/virtualMachineScaleSets/instanceView/read",
    "Microsoft.Compute/virtualMachineScaleSets/delete/action",
    "Microsoft.Compute/virtualMachineScaleSets/manualUpgrade/action",
    "Microsoft.Compute/virtualMachineScaleSets/setOrchestrationServiceState/action",
    "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
    "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/instanceView/read",
    "Microsoft.Compute/virtualMachineScaleSets/networkInterfaces/read",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/loadBalancers/backendAddressPools/read",
    "Microsoft.Network/loadBalancers/backendAddressPools/write",
    # Switching a zone's autoscaler off while the zone is out, and keeping it from undoing a scale-out.
    "Microsoft.Insights/autoscaleSettings/read",
    "Microsoft.Insights/autoscaleSettings/write",
    "Microsoft.Authorization/permissions/read",
    # Signals of drills: whether an alert rule of the service is enabled; what has fired is the subscription's to say.
    "Microsoft.Insights/metricAlerts/read",
    "Microsoft.Insights/scheduledQueryRules/read",
    # Writing a scale set writes what it is linked to, and ARM asks for the right to join that.
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
    "Microsoft.Network/networkSecurityGroups/join/action",
)
# Operations and fired alerts are asked of the subscription, outside of any resource group.
SUBSCRIPTION_ACTIONS = (
    "Microsoft.Compute/locations/operations/read",
    "Microsoft.Network/locations/operations/read",
    "Microsoft.AlertsManagement/alerts/read",
)
KEY_VAULT_SECRETS_USER = "4633458b-17de-408a-b874-0445c86b69e6"  # built-in role: read the values of secrets
NAMESPACE = uuid.UUID("5e9b3a3c-7f0d-4a67-9e63-0f7b3cb0c8a1")  # names of assignments: the same at every run


@dataclass(frozen=True, slots=True)
class AzureRoleArgs:
    """`scope` is an ARM id, `actions` what is allowed there, to `principal` (an object id)."""

    service: str
    scope: Input[str]
    scope_name: str
    actions: tuple[str, ...]
    principal: Input[str]


class AzureRole(pulumi.ComponentResource):
    """A custom role and its assignment at one scope."""

    def __init__(self, name: str, args: AzureRoleArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:Role", name, None, opts)
        me = ResourceOptions(parent=self)
        role = authorization.RoleDefinition(
            name,
            role_definition_id=str(uuid.uuid5(NAMESPACE, f"{name} {args.scope_name}")),
            role_name=f"Failout {args.service} {args.scope_name}",
            role_type="CustomRole",
            description="What `failout` needs to deploy, drain and restore zones; made by Pulumi.",
            scope=args.scope,
            assignable_scopes=[args.scope],
            permissions=[{"actions": list(args.actions), "not_actions": []}],
            opts=me,
        )
        assign(name, role.id, args.scope, args.principal, me)
        self.register_outputs({})


def assign(
    name: str, role_id: Input[str], scope: Input[str], principal: Input[str], opts: ResourceOptions | None = None
) -> None:
    authorization.RoleAssignment(
        name,
        role_assignment_name=str(uuid.uuid5(NAMESPACE, name)),
        scope=scope,
        role_definition_id=role_id,
        principal_id=principal,
        principal_type="ServicePrincipal",
        opts=opts,
    )
