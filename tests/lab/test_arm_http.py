"""The emulated Azure over real HTTP, up to a deploy of real processes behind a real load balancer."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from arm_world import GROUP, SET, new_model
from azure.core.exceptions import IncompleteReadError, ServiceRequestError, ServiceResponseError
from dataplane_world import free_octets

from orchestrator.lab.azure import EmulatedAzure, Fault, FaultKind, RegionPlan, provision
from orchestrator.lab.azure.client import clients
from orchestrator.lab.dataplane import DataPlane
from orchestrator.lab.model import FRONT_PORT, Process
from orchestrator.lab.timeline import Timeline


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def serving() -> Iterator[tuple[EmulatedAzure, str]]:
    azure = EmulatedAzure({"eastus": 21})
    url = azure.start()
    group = f"/subscriptions/{azure.subscription_id}/resourceGroups/{GROUP}"
    query = {"api-version": "2024-11-01"}
    azure.handle("PUT", group, query, {"authorization": "Bearer x"}, b'{"location": "eastus"}')
    try:
        yield azure, url
    finally:
        azure.stop()


def test_a_stopped_stand_in_leaves_its_port():
    with serving() as (_, url):
        port = int(url.rsplit(":", 1)[-1])
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.CUT])
def test_a_broken_connection_is_an_error_of_the_transport_after_which_the_call_had_its_effect(kind):
    with serving() as (azure, url):
        made = clients(url, azure.subscription_id, retry_total=0)
        body = {"location": "eastus", "properties": {"addressSpace": {"addressPrefixes": ["127.21.0.0/16"]}}}
        azure.faults.add(Fault(kind, "PUT"))
        with pytest.raises((ServiceRequestError, ServiceResponseError, IncompleteReadError)):
            made.network.virtual_networks.begin_create_or_update(GROUP, "gates", body)
        assert "gates" == made.network.virtual_networks.get(GROUP, "gates").name
        made.close()


def test_a_delayed_call_keeps_the_client_waiting_but_nobody_else():
    with serving() as (azure, url):
        made = clients(url, azure.subscription_id)
        azure.faults.add(Fault(None, "GET", "publicIPAddresses", delay_s=2.0))
        slow = threading.Thread(target=lambda: list(made.network.public_ip_addresses.list(GROUP)))
        began = time.monotonic()
        slow.start()
        assert [] == list(made.network.load_balancers.list(GROUP))
        assert slow.is_alive()
        slow.join()
        assert time.monotonic() - began >= 2.0
        made.close()


class Lab:
    """An emulated Azure and a data plane that does what it wants."""

    def __init__(self, folder: Path) -> None:
        self.octet = free_octets(1)[0]
        self.azure = EmulatedAzure({"eastus": self.octet}, Timeline(folder / "timeline.jsonl"))
        timeline = Timeline(folder / "timeline.jsonl")
        self.plane = DataPlane([self.azure], timeline, folder, dns_address=f"127.{self.octet}.0.53")
        self._thread = threading.Thread(target=lambda: asyncio.run(self.plane.run()))
        self.url = self.azure.start()

    def __enter__(self) -> Self:
        self._thread.start()
        provision(
            self.url, self.azure.subscription_id, RegionPlan("eastus", self.octet, "v1", zones=("1", "2"), instances=2)
        )
        self.made = clients(self.url, self.azure.subscription_id)
        return self

    def __exit__(self, *_: object) -> None:
        self.plane.stop()
        self._thread.join()
        self.azure.stop()
        self.made.close()

    def versions(self, requests: int) -> set[str]:
        """Who answers on the front, over fresh connections. Raises on the first that fails."""
        return self.answers("X-Version", requests)

    def answers(self, header: str, requests: int) -> set[str]:
        found = set()
        for _ in range(requests):
            with urllib.request.urlopen(f"http://127.{self.octet}.0.20:{FRONT_PORT}/", timeout=2) as answer:
                found.add(answer.headers[header])
        return found

    def serves(self) -> bool:
        """Whether every instance takes part: one that does not yet could be stopped without a lost request."""
        try:
            return 4 == len(self.answers("X-Instance", 12))
        except OSError:
            return False

    def set_admin(self, scale_set: str, state: str) -> None:
        pools = self.made.network.load_balancer_backend_address_pools
        pool = pools.get(GROUP, GROUP, "gates")
        for address in pool.properties.load_balancer_backend_addresses:
            if f"_{scale_set}_" in address.name:
                address.properties.admin_state = state
        headers = {"If-Match": pool.etag}
        pools.begin_create_or_update(GROUP, GROUP, "gates", pool, headers=headers).result()


def test_a_zone_that_is_taken_out_by_admin_state_is_upgraded_in_place_and_comes_back_without_a_lost_request(tmp_path):
    with Lab(tmp_path) as lab:
        until(lab.serves)
        assert {"v1"} == lab.versions(20)
        lab.set_admin(SET, "Down")
        time.sleep(0.3)  # the balancer follows within a few ticks; connections here are short
        sets = lab.made.compute.virtual_machine_scale_sets
        sets.begin_update(GROUP, SET, new_model("v2")).result()
        poller = sets.begin_update_instances(GROUP, SET, {"instanceIds": ["*"]})
        while not poller.done():
            assert {"v1"} == lab.versions(5)
        poller.result()
        lab.set_admin(SET, "None")
        until(lambda: lab.versions(12) == {"v1", "v2"})
        running = {i.id: (i.version, i.process) for i in lab.plane.status().instances}
        assert ("v2", Process.RUNNING) == running[f"{SET}_0"]
        assert ("v1", Process.RUNNING) == running["gates-eastus-2_0"]


def test_an_upgrade_of_a_zone_that_still_takes_traffic_costs_requests(tmp_path):
    with Lab(tmp_path) as lab:
        until(lab.serves)
        sets = lab.made.compute.virtual_machine_scale_sets
        sets.begin_update(GROUP, SET, new_model("v2")).result()
        poller = sets.begin_update_instances(GROUP, SET, {"instanceIds": ["*"]})
        failed = 0
        while not poller.done():
            try:
                lab.versions(1)
            except OSError:
                failed += 1
        assert failed > 0
