"""One storage account in each region for flow logs and the load balancer's events."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_azure_native import network, storage

from infra.components.settings import Service


@dataclass(frozen=True, slots=True)
class AzureLogsArgs:
    """`account` is the storage account's name: 3 to 24 lower-case letters and digits, unique in the world."""

    service: Service
    location: str
    group: Input[str]
    account: str
    days: int


class AzureLogs(pulumi.ComponentResource):
    """Encrypted (Azure always does), private, TLS 1.2, expiring. `storage_id`."""

    storage_id: Output[str]

    def __init__(self, name: str, args: AzureLogsArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("failout:azure:Logs", name, None, opts)
        account = storage.StorageAccount(
            name,
            account_name=args.account,
            resource_group_name=args.group,
            location=args.location,
            kind="StorageV2",
            sku={"name": "Standard_ZRS"},
            allow_blob_public_access=False,
            enable_https_traffic_only=True,
            minimum_tls_version="TLS1_2",
            tags=args.service.labels("logs"),
            opts=ResourceOptions(parent=self, protect=args.service.protect),
        )
        expire = {"days_after_modification_greater_than": args.days}
        storage.ManagementPolicy(
            name,
            account_name=account.name,
            management_policy_name="default",
            resource_group_name=args.group,
            policy={
                "rules": [
                    {
                        "name": "expire",
                        "enabled": True,
                        "type": "Lifecycle",
                        "definition": {
                            "filters": {"blob_types": ["blockBlob", "appendBlob"]},
                            "actions": {"base_blob": {"delete": expire}},
                        },
                    }
                ]
            },
            opts=ResourceOptions(parent=self),
        )
        self.storage_id = account.id
        self.register_outputs({"storage_id": account.id})


def flow_log(
    name: str, args: AzureLogsArgs, network_id: Input[str], storage_id: Input[str], parent: pulumi.Resource
) -> None:
    """Log the network's flows through the region's network watcher, which Azure makes with the first network there."""
    network.FlowLog(
        name,
        flow_log_name=name,
        network_watcher_name=f"NetworkWatcher_{args.location}",
        resource_group_name="NetworkWatcherRG",
        location=args.location,
        target_resource_id=network_id,
        storage_id=storage_id,
        enabled=True,
        retention_policy={"days": args.days, "enabled": True},
        tags=args.service.labels("logs"),
        opts=ResourceOptions(parent=parent),
    )
