"""Traffic Manager profiles: weights of 1..1000, Disabled instead of 0, and the records that they amount to."""

from __future__ import annotations

import pytest
from arm_world import GROUP, World, provisioned
from azure.core.exceptions import HttpResponseError

from orchestrator.lab.model import DnsHealthCheck, DnsRecord

KIND = "ExternalEndpoints"


def endpoint(name: str, target: str, weight: int):
    kind = "Microsoft.Network/trafficManagerProfiles/externalEndpoints"
    return {"name": name, "type": kind, "properties": {"target": target, "weight": weight}}


def create(world: World, *, weight: int = 100):
    monitor = {
        "protocol": "HTTP",
        "port": 8000,
        "path": "/healthz",
        "intervalInSeconds": 10,
        "toleratedNumberOfFailures": 2,
    }
    endpoints = [endpoint("aws", "127.20.0.10", weight), endpoint("azure", "127.21.0.20", 200)]
    dns = {"relativeName": "gates", "ttl": 5}
    properties = {
        "trafficRoutingMethod": "Weighted",
        "dnsConfig": dns,
        "monitorConfig": monitor,
        "endpoints": endpoints,
    }
    return world.clients().traffic.profiles.create_or_update(
        GROUP, "gates", {"location": "global", "properties": properties}
    )


def test_a_profile_becomes_weighted_records_with_health_checks_in_lab_time():
    with provisioned() as world:
        assert "gates.trafficmanager.net" == create(world).properties.dns_config.fqdn
        dns = world.azure.desired_dns()
    name = "gates.trafficmanager.net."
    assert (
        DnsRecord(name, "aws", 100, 5.0, addresses=("127.20.0.10",), health_check="gates/aws"),
        DnsRecord(name, "azure", 200, 5.0, addresses=("127.21.0.20",), health_check="gates/azure"),
    ) == dns.records
    assert DnsHealthCheck("gates/aws", "127.20.0.10", "", "/healthz", 0.4, 3) == dns.checks[0]


def test_creating_is_201_and_writing_again_200():
    with provisioned() as world:
        create(world)
        create(world)
        puts = [a.status for method, path, a in world.answers if "trafficmanager" in path.lower() and method == "PUT"]
    assert [201, 200] == puts


def test_an_endpoint_is_weighted_and_disabled_at_once():
    with provisioned() as world:
        create(world)
        endpoints = world.clients().traffic.endpoints
        endpoints.update(GROUP, "gates", KIND, "aws", {"properties": {"weight": 1000}})
        assert [1000, 200] == [r.weight for r in world.azure.desired_dns().records]
        endpoints.update(GROUP, "gates", KIND, "aws", {"properties": {"endpointStatus": "Disabled"}})
        assert ["azure"] == [r.set_id for r in world.azure.desired_dns().records]
        assert 1000 == endpoints.get(GROUP, "gates", KIND, "aws").properties.weight


@pytest.mark.parametrize("weight", [0, 1001])
def test_a_weight_is_1_to_1000(weight):
    with provisioned() as world:
        with pytest.raises(HttpResponseError) as caught:
            create(world, weight=weight)
        assert 400 == caught.value.status_code
        create(world)
        with pytest.raises(HttpResponseError):
            world.clients().traffic.endpoints.update(GROUP, "gates", KIND, "aws", {"properties": {"weight": weight}})
        assert [100, 200] == [r.weight for r in world.azure.desired_dns().records]


def test_endpoints_come_and_go():
    with provisioned() as world:
        create(world)
        endpoints = world.clients().traffic.endpoints
        endpoints.create_or_update(GROUP, "gates", KIND, "third", endpoint("third", "127.22.0.20", 5))
        assert ["aws", "azure", "third"] == [r.set_id for r in world.azure.desired_dns().records]
        endpoints.delete(GROUP, "gates", KIND, "aws")
        assert ["azure", "third"] == [r.set_id for r in world.azure.desired_dns().records]
        world.clients().traffic.profiles.delete(GROUP, "gates")
        assert () == world.azure.desired_dns().records
