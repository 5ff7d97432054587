"""SDK clients for an emulated Azure: plain http and a token that needs no login. For the lab and its tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.trafficmanager import TrafficManagerManagementClient

from orchestrator.lab.credential import LabCredential


class _PlainHttp(SansIOHTTPPolicy[Any, Any]):
    """Lets the bearer policy send its token over http; only ever to 127.0.0.1."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.context.options.setdefault("enforce_https", False)


@dataclass(frozen=True, slots=True)
class Clients:
    compute: ComputeManagementClient
    network: NetworkManagementClient
    traffic: TrafficManagerManagementClient

    def close(self) -> None:
        for client in (self.compute, self.network, self.traffic):
            client.close()


def clients(url: str, subscription_id: str, credential: LabCredential | None = None, **options: Any) -> Clients:  # noqa: ANN401
    """Return clients of the stand-in at `url`; `options` go to every client (retry_total, ...)."""
    arguments: dict[str, Any] = {
        "credential": credential or LabCredential(),
        "subscription_id": subscription_id,
        "base_url": url,
        "credential_scopes": [url + "/.default"],
        "per_call_policies": [_PlainHttp()],
        **options,
    }
    return Clients(
        ComputeManagementClient(**arguments),
        NetworkManagementClient(**arguments),
        TrafficManagerManagementClient(**arguments),
    )
