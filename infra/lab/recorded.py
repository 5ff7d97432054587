"""What a resource would answer that nothing in the lab needs: it is written down, not made.

IAM, buckets, NAT gateways, flow logs and their like do not exist in the lab. Their outputs are made up here, in the
form that the clouds give them, so that programs run whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

ACCOUNT = "123456789012"
SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
Json = dict[str, Any]

# azure-native's own words for the name of a resource of that type
_AZURE_NAMES = {
    "VirtualMachineScaleSet": "vmScaleSetName",
    "PublicIPAddress": "publicIpAddressName",
    "DiagnosticSetting": "name",
    "StorageAccount": "accountName",
    "UserAssignedIdentity": "resourceName",
    "RoleDefinition": "roleDefinitionId",
    "RoleAssignment": "roleAssignmentName",
}


def answer(kind: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, Json]:
    """Return id and outputs for a resource of type `kind` with logical name `name`."""
    if kind.startswith("azure-native:"):
        return _azure(kind, name, inputs)
    if kind.startswith("aws:"):
        return _aws(kind, name, inputs)
    raise ValueError(f"{name}: nothing is known of type {kind}")


def call(token: str) -> Json:
    """Answer a function call. Raises KeyError for one that the programs are not known to make."""
    return {"aws:index/getCallerIdentity:getCallerIdentity": {"accountId": ACCOUNT, "id": ACCOUNT}}[token]


def token(*parts: str, length: int = 17) -> str:
    """A name that looks like a cloud's and is the same at every run."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:length]


def _aws(kind: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, Json]:
    service, what = kind.split(":")[1].split("/", maxsplit=1)[0], kind.rsplit(":", 1)[-1]
    physical = str(inputs.get("name") or name)
    unique = token(kind, name, str(inputs.get("region", "")))
    region = str(inputs.get("region") or "")
    made: Json = {
        "name": physical,
        "arn": f"arn:aws:{service}:{region}:{ACCOUNT}:{what.lower()}/{physical}",
        "bucket": physical,
        "dnsName": f"{physical}-{unique}.{region}.elb.amazonaws.com",
        "zoneId": f"Z{unique[:13].upper()}",
        "latestVersion": 1,
    }
    if service == "s3":
        made["arn"] = f"arn:aws:s3:::{physical}"
    if service == "iam":
        made["arn"] = f"arn:aws:iam::{ACCOUNT}:{'role' if what == 'Role' else 'instance-profile'}/{physical}"
    prefix = {"Vpc": "vpc", "Subnet": "subnet", "SecurityGroup": "sg", "LaunchTemplate": "lt", "NatGateway": "nat"}
    by_name = {"Role", "Bucket", "Group", "InstanceProfile"}
    found = (
        made["arn"]
        if service == "lb"
        else physical
        if what in by_name
        else f"{prefix.get(what, what.lower())}-{unique}"
    )
    if what == "Zone":
        found = made["zoneId"]
    return found, {**made, **inputs, "name": physical}


def _azure(kind: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, Json]:
    made: Json = {**inputs, "name": azure_name(kind, name, inputs)}
    if "identity" in inputs:  # named in a list, answered as a map
        named: Json = {identity: {} for identity in inputs["identity"]["userAssignedIdentities"]}
        made["identity"] = {**inputs["identity"], "userAssignedIdentities": named}
    if kind.endswith("UserAssignedIdentity"):
        made |= {"principalId": token(name, "principal", length=32), "clientId": token(name, "client", length=32)}
    if kind.endswith(":PublicIPAddress"):
        number = int(token(name, length=4), 16)
        made["ipAddress"] = f"203.0.113.{number % 250 + 1}"
    return azure_id(kind, name, inputs), made


def azure_name(kind: str, name: str, inputs: Mapping[str, Any]) -> str:
    what = kind.rsplit(":", 1)[-1]
    key = _AZURE_NAMES.get(what, what[0].lower() + what[1:] + "Name")
    return str(inputs.get(key) or name)


def azure_id(kind: str, name: str, inputs: Mapping[str, Any]) -> str:
    """Return the ARM id, which is also the path of its API."""
    _, provider, what = kind.split(":")
    physical = azure_name(kind, name, inputs)
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{inputs.get('resourceGroupName') or physical}"
    if what == "ResourceGroup":
        return group
    if what == "Subnet":
        return f"{group}/providers/Microsoft.Network/virtualNetworks/{inputs['virtualNetworkName']}/subnets/{physical}"
    namespace = {"monitor": "Microsoft.Insights"}
    plural = {"PublicIPAddress": "publicIPAddresses"}.get(what, what[0].lower() + what[1:] + "s")
    scope = str(inputs.get("scope") or inputs.get("resourceUri") or group)
    return f"{scope}/providers/{namespace.get(provider, 'Microsoft.' + provider.capitalize())}/{plural}/{physical}"
