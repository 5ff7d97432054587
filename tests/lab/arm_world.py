"""The emulated Azure in virtual time, under the real SDK: requests reach the handler without a socket, and the SDK's
waiting between polls moves the clock and lets a told data plane report. A poller polls in a thread of its own: look at
what happens meanwhile with polling=False."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from orchestrator.lab.azure import EmulatedAzure, RegionPlan
from orchestrator.lab.azure.client import Clients, clients
from orchestrator.lab.azure.plane import Answer
from orchestrator.lab.azure.provision import build
from orchestrator.lab.credential import LabCredential
from orchestrator.lab.model import DesiredInstance, DesiredRegion, Process, SeenRegion

URL = "http://azure.lab"
GROUP = "gates-eastus"
SET = "gates-eastus-1"
TICK_S = 0.05
BOOT_S = 0.3


class Told:
    """A timeline that remembers."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, kind: str, **fields: object) -> None:
        self.lines.append({"kind": kind, **fields})

    def close(self) -> None:
        pass

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if k != "kind"} for line in self.lines if line["kind"] == kind]


class World:
    """`stuck`: versions that never boot. `sick`: instances whose /healthz fails. `answers`: all that the API said."""

    def __init__(self, **options: Any) -> None:
        self.now = 1_000_000.0
        self.stuck: set[str] = set()
        self.sick: set[str] = set()
        self.answers: list[tuple[str, str, Answer]] = []
        self.timeline = Told()
        self._booted: dict[tuple[str, int], float] = {}
        ids = itertools.count(1)  # a counter, not a generator: the SDK's pollers ask from threads of their own
        settings = {"clock": lambda: self.now, "new_id": lambda: f"id-{next(ids):06}", **options}
        self.azure = EmulatedAzure({"eastus": 21}, self.timeline, **settings)

    # -- the client's side

    def clients(self, credential: LabCredential | None = None, **options: Any) -> Clients:
        session = requests.Session()
        session.mount(URL, _InProcess(self))
        transport = _VirtualTime(self, session)
        return clients(URL, self.azure.subscription_id, credential, transport=transport, **options)

    def provision(self, version: str = "v1", **plan: Any) -> dict[str, Any]:
        return build(self.clients(), URL, self.azure.subscription_id, RegionPlan("eastus", 21, version, **plan))

    def call(self, method: str, path: str, body: Any = None, *, api: str = "2026-04-01", **headers: str) -> Answer:
        """Send one request as bytes; `path` below the resource group when it starts with "providers"."""
        url = urlsplit(path if path.startswith("/") else f"{self.group}/{path}")
        query = dict(parse_qsl(url.query)) | ({"api-version": api} if api else {})
        sent = {"authorization": "Bearer x", **{k.replace("_", "-").lower(): v for k, v in headers.items()}}
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        fault = self.azure.faults.take(method, url.path)
        answer = self.azure.handle(method, url.path, query, sent, content, URL, fault)
        self.answers.append((method, url.path, answer))
        return answer

    @property
    def group(self) -> str:
        return f"/subscriptions/{self.azure.subscription_id}/resourceGroups/{GROUP}"

    # -- the data plane's side

    def wait(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / TICK_S))):
            self.now += TICK_S
            self.tick()

    def tick(self) -> None:
        for region in self.azure.desired():
            self.azure.observe(self._seen(region))

    def _seen(self, region: DesiredRegion) -> SeenRegion:
        states = {i.id: self._state(i) for i in region.instances}
        healthz = {k: v is Process.RUNNING and k not in self.sick for k, v in states.items()}
        return SeenRegion(region.id, states, healthz, {}, {}, {i.id: i.incarnation for i in region.instances})

    def _state(self, instance: DesiredInstance) -> Process:
        since = self._booted.setdefault((instance.id, instance.incarnation), self.now)
        up = self.now - since >= BOOT_S and instance.version not in self.stuck
        return Process.RUNNING if up else Process.BOOTING

    def instances(self, zone: str = "azure/eastus-1") -> list[DesiredInstance]:
        return [i for r in self.azure.desired() for i in r.instances if i.zone == zone]

    def members(self) -> dict[str, str]:
        """Admin state per member, as the data plane is asked to have it."""
        return {m.instance: str(m.admin) for m in self.azure.desired()[0].fronts[0].pools[0].members}


class _VirtualTime(RequestsTransport):
    def __init__(self, world: World, session: requests.Session) -> None:
        super().__init__(session=session, session_owner=False)
        self._world = world

    def sleep(self, duration: float) -> None:
        self._world.wait(duration)


class _InProcess(BaseAdapter):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def send(self, request: requests.PreparedRequest, *_args: Any, **_options: Any) -> requests.Response:
        assert request.url is not None
        url = urlsplit(request.url)
        headers = {k.lower(): str(v) for k, v in request.headers.items()}
        content = request.body.encode() if isinstance(request.body, str) else request.body or b""
        method = str(request.method)
        fault = self._world.azure.faults.take(method, url.path)
        answer = self._world.azure.handle(method, url.path, dict(parse_qsl(url.query)), headers, content, URL, fault)
        self._world.answers.append((method, url.path, answer))
        response = requests.Response()
        response.status_code, response.reason, response.url, response.request = answer.status, "", request.url, request
        response.headers.update(answer.headers)
        response.raw = HTTPResponse(io.BytesIO(answer.body), answer.headers, answer.status, preload_content=False)
        return response

    def close(self) -> None:
        pass


def new_model(version: str) -> dict[str, Any]:
    """The PATCH that stages a release: image, userData and tag."""
    data = base64.b64encode(f"VERSION={version}\n".encode()).decode()
    image = {"imageReference": {"version": f"{version.removeprefix('v')}.0.0"}}
    profile = {"userData": data, "storageProfile": image}
    return {"tags": {"failout-release": version}, "properties": {"virtualMachineProfile": profile}}


@contextmanager
def provisioned(**options: Any) -> Iterator[World]:
    world = World(**options)
    world.provision()
    world.answers.clear()
    yield world
