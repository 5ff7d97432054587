"""How we use the Azure SDK: its clients, its retries and its long-running operations. Imported on a thread (see arm.py).

Writes are never repeated by the client: the fence must be read again before each (I1), and none outlives a takeover's
grace (3 s). Reads are repeated once when Azure could not be reached or failed. Waits that ARM asks for are the caller's.
"""

from __future__ import annotations

from threading import RLock
from typing import Any

from azure.core.credentials import TokenCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import RetryPolicy, SansIOHTTPPolicy
from azure.core.pipeline.transport import RequestsTransport  # noqa: F401 - what the clients load otherwise, unguarded
from azure.core.polling import PollingMethod
from azure.core.rest import HttpRequest
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute import models as compute_models
from azure.mgmt.core.exceptions import ARMErrorFormat
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.network import models as network_models
from azure.mgmt.trafficmanager import TrafficManagerManagementClient
from azure.mgmt.trafficmanager import models as traffic_manager_models

from orchestrator.clouds import IMPORTING
from orchestrator.clouds.azure.arm import Progress
from orchestrator.clouds.azure.errors import retry_after_s

CONNECT_S = 0.8
READ_S = 2.0
NOT_FOUND = 404
RETRIED = frozenset({500, 502, 503, 504})


def _one_class_at_a_time(model: type) -> None:
    """Guard the SDK that `model` is of: a class finds out about its fields when the first of it is made.

    Two threads that do so at once leave fields that answer with plain dicts, or fail: "dictionary changed size during
    iteration" (seen in one of ten cold starts with eight threads; azure-mgmt-compute and -network have it alike).
    """
    base = next(kind for kind in model.__mro__ if kind.__name__ == "Model")
    make, finding_out = base.__new__, RLock()

    def guarded(cls: type, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with finding_out:
            return make(cls, *args, **kwargs)

    base.__new__ = guarded  # type: ignore[method-assign, assignment]


for _model in (compute_models.SubResource, network_models.SubResource, traffic_manager_models.Profile):
    _one_class_at_a_time(_model)


class Clients:
    """One set for a subscription and an endpoint."""

    def __init__(self, subscription_id: str, endpoint_url: str, credential: TokenCredential | None) -> None:
        if credential is None:
            with IMPORTING:
                from azure.identity import DefaultAzureCredential  # noqa: PLC0415  (0.4 s, and the lab never needs it)

            credential = DefaultAzureCredential()
        options: dict[str, Any] = {
            "base_url": endpoint_url,
            "credential_scopes": [f"{endpoint_url}/.default"],
            "connection_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retry_policy": ReadsOnly(
                retry_total=1,
                retry_connect=1,
                retry_status=1,
                retry_read=0,
                retry_on_methods=["GET"],
                retry_backoff_max=0.2,
            ),
        }
        if endpoint_url.startswith("http://"):
            options["per_call_policies"] = [PlainHttp()]
        self.compute = ComputeManagementClient(credential, subscription_id, **options)
        self.network = NetworkManagementClient(credential, subscription_id, **options)
        self.traffic_manager = TrafficManagerManagementClient(credential, subscription_id, **options)

    def close(self) -> None:
        for client in (self.compute, self.network, self.traffic_manager):
            client.close()


class ReadsOnly(RetryPolicy[Any, Any]):
    """The SDK's own policy repeats POST and PATCH on 5xx and sleeps as long as Retry-After says; ours does neither."""

    def is_retry(self, settings: dict[str, Any], response: PipelineResponse[Any, Any]) -> bool:
        answer = response.http_response
        return (
            response.http_request.method == "GET"
            and answer.status_code in RETRIED
            and retry_after_s(answer.headers) is None
            and settings["total"] > 0
        )


class PlainHttp(SansIOHTTPPolicy[Any, Any]):
    """The bearer policy refuses http://. Only an endpoint that the topology itself names with http gets this."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        request.context.options.setdefault("enforce_https", False)


class Started(PollingMethod[str]):
    """Takes note of where to ask after an operation, and never asks: the SDK's own polling would hold a thread."""

    url = ""

    def initialize(self, client: Any, initial_response: Any, deserialization_callback: Any) -> None:  # noqa: ANN401, ARG002
        headers = initial_response.http_response.headers
        self.url = headers.get("Azure-AsyncOperation") or headers.get("Location") or ""

    def run(self) -> None:
        return None

    def status(self) -> str:
        return "Started"

    def finished(self) -> bool:
        return True

    def resource(self) -> str:
        return self.url


def get_json(client: ComputeManagementClient, path: str) -> dict[str, Any]:
    return send_json(client, "GET", path)


def send_json(
    client: ComputeManagementClient, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Ask a path of ARM that no generated client of ours knows, with the same credential and retries."""
    response = client.send_request(HttpRequest(method, path, json=body))
    if response.status_code >= 400:  # noqa: PLR2004
        raise HttpResponseError(response=response, error_format=ARMErrorFormat)
    told: dict[str, Any] = response.json()
    return told


def read_progress(client: ComputeManagementClient, url: str) -> Progress:
    """Read an operation's resource; a body without `status` (a Location) is running while it answers 202.

    https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
    """
    response = client.send_request(HttpRequest("GET", url))
    if response.status_code == NOT_FOUND:
        return Progress(known=False)
    if response.status_code >= 400:  # noqa: PLR2004
        raise HttpResponseError(response=response, error_format=ARMErrorFormat)
    body = response.json() if response.text() else {}
    status = str(body.get("status") or ("InProgress" if response.status_code == 202 else "Succeeded"))  # noqa: PLR2004
    if status == "Succeeded":
        return Progress(known=True)
    if status not in {"Failed", "Canceled"}:
        return Progress(known=True, running=True, retry_after_s=retry_after_s(response.headers))
    error = body.get("error") or {}
    return Progress(known=True, code=str(error.get("code") or status), message=str(error.get("message") or ""))
