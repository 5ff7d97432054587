"""Whole programs, without a cloud: what they register for two to four zones, one to three regions, either cloud or both."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy
from stacks import AWS_REGIONS, SHAPES, Shape, aws, azure, everything, fleets, region, stacks

from infra.components.settings import SettingsError
from infra.lab.engine import INFRA, Recorder, Resource, Run, run
from infra.lab.run import merged, whole
from infra.policy import rules
from orchestrator.config import parse_topology

BOTH = Shape(1, 1)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Seen:
    """A recorded resource as the policy engine shows it."""

    def __init__(self, resource: Resource, **changed: Any) -> None:
        self.resource_type, self.name, self.props = resource.kind, resource.name, {**resource.inputs, **changed}


def broken(things: list[Seen]) -> dict[str, list[str]]:
    found = {name: [v.what for v in rule(things)] for name, (rule, _, _) in rules.RULES.items()}
    return {name: what for name, what in found.items() if what}


def without_zone(value: Any, zone: str) -> str:
    return json.dumps(value, sort_keys=True).replace(zone, "ZONE")


@every_shape
def test_there_is_one_fleet_for_each_zone_of_each_region(shape: Shape) -> None:
    count = sum(len(fleets(r)) for name, r in stacks(shape).items() if name != "global")
    assert (shape.aws + shape.azure) * shape.zones == count


@every_shape
def test_every_zone_is_identical_but_for_its_name_and_its_own_network(shape: Shape) -> None:
    for name, r in stacks(shape).items():
        if name == "global":
            continue
        by_region: dict[str, set[str]] = {}
        for fleet in fleets(r):
            where, zone, inputs = _place(fleet)
            by_region.setdefault(where, set()).add(without_zone(inputs, zone))
        assert {1} == {len(shapes) for shapes in by_region.values()}


def _place(fleet: Resource) -> tuple[str, str, Any]:
    """Region, zone, and the inputs without what must differ: subnets."""
    if fleet.kind.startswith("aws:"):
        zone = next(t["value"] for t in fleet.inputs["tags"] if t["key"] == "failout-zone")
        return fleet.inputs["region"], zone, {k: v for k, v in fleet.inputs.items() if k != "vpcZoneIdentifiers"}
    zone = fleet.inputs["tags"]["failout-zone"]
    inputs = json.loads(json.dumps(fleet.inputs))
    nic = inputs["virtualMachineProfile"]["networkProfile"]["networkInterfaceConfigurations"][0]
    del nic["ipConfigurations"][0]["subnet"], inputs["zones"]
    number = zone.rsplit("-", 1)[-1]
    inputs["virtualMachineProfile"]["osProfile"]["computerNamePrefix"] = "" if f"-{number}-" in str(nic) else "prefix"
    return fleet.inputs["location"], zone, inputs


@every_shape
def test_the_policies_hold_and_only_two_zones_are_too_few(shape: Shape) -> None:
    expected = {"three-zones"} if shape.zones < 3 else set()
    assert expected == set(broken([Seen(r) for r in everything(shape)]))


@every_shape
def test_zones_share_no_subnet_no_route_out_and_no_address(shape: Shape) -> None:
    runs = stacks(shape)
    if "aws" in runs:
        wanted = shape.aws * shape.zones
        assert wanted == len({r.inputs["allocationId"] for r in runs["aws"].of(":NatGateway")})
        private = [r for r in runs["aws"].of(":RouteTable") if "natGatewayId" in str(r.inputs)]
        assert wanted == len({r.inputs["routes"][0]["natGatewayId"] for r in private})
    if "azure" in runs:
        assert shape.azure * shape.zones == len({str(r.inputs["natGateway"]) for r in runs["azure"].of(":Subnet")})
        assert {1} == {len(r.inputs["zones"]) for r in runs["azure"].of(":NatGateway")}


@every_shape
def test_each_stack_says_what_it_owns_and_together_it_is_a_topology(shape: Shape) -> None:
    document = merged(list(stacks(shape).values()))
    topology = parse_topology(document)
    assert shape.aws + shape.azure == len(topology.regions)
    assert (shape.aws + shape.azure) * shape.zones == len(list(topology.zones()))
    assert {"gates"} == {whole(r.outputs)["topology"]["service"] for r in stacks(shape).values()}


@every_shape
def test_each_region_has_one_weighted_record_with_a_health_check_on_the_data_plane(shape: Shape) -> None:
    runs = stacks(shape)["global"]
    checks = {r.id: r for r in runs.of(":HealthCheck")}
    records = runs.of(":Record")
    assert shape.aws + shape.azure == len(records) == len({r.inputs["setIdentifier"] for r in records})
    for record in records:
        assert "/readyz" == checks[record.inputs["healthCheckId"]].inputs["resourcePath"]
        assert record.protect
        assert ("weightedRoutingPolicies",) == record.ignore_changes
        if record.inputs["setIdentifier"].startswith("aws/"):
            assert record.inputs["aliases"][0]["evaluateTargetHealth"] is False


def test_what_failout_owns_is_ignored_by_pulumi() -> None:
    runs = stacks(BOTH)
    owned = {"desiredCapacity", "minSize", "launchTemplate", "targetGroupArns", "trafficSources", "suspendedProcesses"}
    for group in fleets(runs["aws"]):
        assert owned == set(group.ignore_changes)
    listener = next(r for r in runs["aws"].of("lb/listener:Listener") if r.name == "gates-us-east-1")
    assert ("defaultActions",) == listener.ignore_changes
    for scale_set in fleets(runs["azure"]):
        assert "sku.capacity" in scale_set.ignore_changes
        assert "virtualMachineProfile.storageProfile.imageReference" in scale_set.ignore_changes
        assert 'tags["failout-release"]' in scale_set.ignore_changes
    balancer = next(r for r in runs["azure"].of(":LoadBalancer") if r.name == "gates-eastus")
    assert ("backendAddressPools",) == balancer.ignore_changes


def test_steady_takes_all_and_ramp_nothing_and_both_ask_the_admission_path() -> None:
    run_ = stacks(BOTH)["aws"]
    groups = {r.outputs["arn"]: r for r in run_.of("lb/targetGroup:TargetGroup")}
    listener = next(r for r in run_.of("lb/listener:Listener") if r.name == "gates-us-east-1")
    weights = {
        groups[g["arn"]].inputs["name"]: whole(g["weight"])
        for g in listener.inputs["defaultActions"][0]["forward"]["targetGroups"]
    }
    assert {"gates-steady": 100, "gates-ramp": 0} == weights
    http = [g for g in groups.values() if g.inputs["protocol"] == "HTTP"]
    assert ["/admit", "/admit"] == [g.inputs["healthCheck"]["path"] for g in http]
    steady = next(arn for arn, g in groups.items() if g.inputs["name"] == "gates-steady")
    assert [[steady]] * 3 == [fleet.inputs["targetGroupArns"] for fleet in fleets(run_)]


@every_shape
def test_a_zone_scales_out_early_enough_that_a_lost_zones_load_still_fits(shape: Shape) -> None:
    for policy in stacks(shape).get("aws", Run()).of("autoscaling/policy:Policy"):
        target = policy.inputs["targetTrackingConfiguration"]["targetValue"]
        assert 75.0 == pytest.approx(target * shape.zones / (shape.zones - 1), abs=0.2)


def test_no_instance_has_a_public_address_a_password_or_an_open_metadata_service() -> None:
    runs = stacks(BOTH)
    for template in runs["aws"].of(":LaunchTemplate"):
        assert "required" == template.inputs["metadataOptions"]["httpTokens"]
        assert "false" == template.inputs["networkInterfaces"][0]["associatePublicIpAddress"]
    for scale_set in runs["azure"].of(":VirtualMachineScaleSet"):
        profile = scale_set.inputs["virtualMachineProfile"]
        assert profile["osProfile"]["linuxConfiguration"]["disablePasswordAuthentication"] is True
        assert profile["securityProfile"]["encryptionAtHost"] is True
        assert "publicIPAddressConfiguration" not in json.dumps(profile)


def test_instances_are_reached_by_front_and_agents_only() -> None:
    run_ = stacks(BOTH)["aws"]
    guards = {r.name: r for r in run_.of(":SecurityGroup")}
    sources = guards["gates-us-east-1-instances"].inputs["ingress"][0]
    assert "cidrBlocks" not in sources
    wanted = {guards[f"gates-us-east-1-{kind}"].id for kind in ("front", "agents")}
    assert wanted == set(sources["securityGroups"])


def test_no_secret_passes_through_only_its_name() -> None:
    boots = [r.inputs["userData"] for r in stacks(BOTH)["aws"].of(":LaunchTemplate") if "agent" in r.name]
    import base64  # noqa: PLC0415

    assert all("get_secret_value" in base64.b64decode(b).decode() for b in boots)


def test_logs_are_kept_and_expire_on_both_clouds() -> None:
    runs = stacks(BOTH)
    assert 1 == len(runs["aws"].of("ec2/flowLog:FlowLog")) == len(runs["azure"].of("network:FlowLog"))
    balancer = next(r for r in runs["aws"].of("lb/loadBalancer:LoadBalancer") if r.name == "gates-us-east-1")
    assert balancer.inputs["accessLogs"]["enabled"] is True
    rule = runs["aws"].of(":BucketLifecycleConfiguration")[0].inputs["rules"][0]
    assert (30, "Enabled") == (rule["expiration"]["days"], rule["status"])


def test_production_protects_what_cannot_be_made_again() -> None:
    run_ = run("aws", aws(protect=True, orchestrator=None), Recorder())
    protected = {r.kind.rsplit(":", 1)[-1] for r in run_.resources if r.protect}
    assert {"Bucket", "LoadBalancer"} == protected


def test_a_certificate_makes_https_and_a_redirect() -> None:
    only = [region("aws", 0, 3, certificate_arn="arn:aws:acm:us-east-1:123456789012:certificate/x")]
    run_ = run("aws", aws(orchestrator=None) | {"regions": only}, Recorder())
    ports = {whole(r.inputs["port"]): r.inputs["protocol"] for r in run_.of("lb/listener:Listener")}
    assert {443: "HTTPS", 80: "HTTP", 7070: "TCP"} == ports


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"zones": ["us-east-1a", "us-east-1a"]}, "each named once"),
        ({"zones": "us-east-1a"}, "a list is expected"),
        (
            {"capacity": {"instances": 3, "instances_max": 9, "rps_per_instance": 40, "peak_rps": 200}},
            "4 instances a zone",
        ),
        ({"capacity": {"instances": 3, "instances_max": 2, "rps_per_instance": 40}}, "instances must be 1 to"),
        ({"agent": None}, "either agent"),
        ({"cidr": "10.0.0.0/19"}, "blocks of /20"),
        ({"weight": 300}, "0 to 255"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"capacity": {"instances": 3, "instances_max": 9}}, "'rps_per_instance' is missing"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_registered(change: dict[str, Any], told: str) -> None:
    recorder = _Counting()
    with pytest.raises(SettingsError, match=told):
        run("aws", aws() | {"regions": [region("aws", 0, 3) | change]}, recorder)
    assert 0 == recorder.made


class _Counting(Recorder):
    made = 0

    def create(self, kind: str, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        self.made += 1
        return super().create(kind, name, inputs)


@pytest.mark.parametrize(
    ("kind", "name", "change", "rule"),
    [
        ("autoscaling/group:Group", "gates-us-east-1a", {"vpcZoneIdentifiers": ["s1", "s2"]}, "fleet-in-one-zone"),
        (":VirtualMachineScaleSet", "gates-eastus-1", {"zones": ["1", "2"]}, "fleet-in-one-zone"),
        ("autoscaling/group:Group", "gates-us-east-1a", {"maxSize": 3}, "headroom"),
        ("autoscaling/group:Group", "gates-us-east-1a", {"healthCheckType": "ELB"}, "health-path"),
        ("lb/targetGroup:TargetGroup", "gates-us-east-1-steady", {"healthCheck": {"path": "/healthz"}}, "health-path"),
        (":LoadBalancer", "gates-eastus", {"probes": [{"protocol": "Http", "requestPath": "/"}]}, "health-path"),
        ("ec2/subnet:Subnet", "gates-us-east-1-us-east-1a-private", {"mapPublicIpOnLaunch": True}, "private-instances"),
        (":Record", "gates-azure-eastus", {"ttl": 300}, "short-ttl"),
        (":VirtualMachineScaleSet", "gates-eastus-1", {"sku": {"capacity": 0}}, "headroom"),
        (":AutoscaleSetting", "gates-eastus-1", {"profiles": [{"capacity": {"maximum": "4"}}]}, "headroom"),
    ],
)
def test_each_policy_refuses_what_it_is_for(kind: str, name: str, change: dict[str, Any], rule: str) -> None:
    things = [Seen(r, **(change if r.kind.endswith(kind) and r.name == name else {})) for r in everything(BOTH)]
    assert [rule] == list(broken(things))


def test_an_autoscaler_without_headroom_is_refused_in_a_first_preview_too() -> None:
    """Its target has no id then, and Pulumi ends a rule that reads what is not known."""
    for maximum, told in (("9", []), ("4", ["headroom"])):
        unknown = {"targetResourceUri": UNKNOWN_STRING_VALUE, "profiles": [{"capacity": {"maximum": maximum}}]}
        things = [Seen(r, **(unknown if r.kind.endswith(":AutoscaleSetting") else {})) for r in everything(BOTH)]
        for thing in things:
            thing.props = unknown_checking_proxy(thing.props)
        assert told == list(broken(things))


def test_policies_refuse_a_shared_nat_gateway_and_a_shared_subnet() -> None:
    everything_ = everything(BOTH)
    one = next(r for r in everything_ if r.kind.endswith(":RouteTable") and "natGatewayId" in str(r.inputs))
    things = [
        Seen(r, **({"routes": one.inputs["routes"]} if r.kind == one.kind and "private" in r.name else {}))
        for r in everything_
    ]
    assert ["nat-per-zone"] == list(broken(things))
    same = {"vpcZoneIdentifiers": ["subnet-1"]}
    things = [Seen(r, **(same if r.kind.endswith("autoscaling/group:Group") else {})) for r in everything_]
    assert ["subnet-per-zone"] == list(broken(things))


def test_every_policy_cites_its_vendors_document() -> None:
    for name, (_, demands, source) in rules.RULES.items():
        assert source.startswith(("https://docs.aws.amazon.com/", "https://learn.microsoft.com/")), name
        assert demands.endswith(".")


def test_a_second_region_adds_a_whole_region_and_changes_no_other() -> None:
    one, two = stacks(Shape(1, 1))["aws"], stacks(Shape(2, 1))["aws"]
    kept = {(r.kind, r.name): r.inputs for r in two.resources}
    changed = [(r.kind, r.name) for r in one.resources if kept.get((r.kind, r.name)) != r.inputs]
    assert [("aws:iam/rolePolicy:RolePolicy", "gates-orchestrator-zones")] == changed
    assert AWS_REGIONS[1] in {r.inputs.get("region") for r in two.resources}


@every_shape
def test_each_scale_set_has_a_setting_of_its_own_that_scales_it_as_aws_scales(shape: Shape) -> None:
    run_ = stacks(shape).get("azure", Run())
    settings = {r.inputs["targetResourceUri"]: r for r in run_.of(":AutoscaleSetting")}
    assert {r.id for r in fleets(run_)} == set(settings)
    out_at = 75 * (shape.zones - 1) / shape.zones
    for setting in settings.values():
        (profile,) = setting.inputs["profiles"]
        assert {"minimum": "3", "maximum": "9", "default": "3"} == profile["capacity"]
        rules = {r["scaleAction"]["direction"]: r["metricTrigger"] for r in profile["rules"]}
        assert out_at == pytest.approx(rules["Increase"]["threshold"], abs=0.1)
        assert out_at / 2 == pytest.approx(rules["Decrease"]["threshold"], abs=0.1)
        assert {setting.inputs["targetResourceUri"]} == {r["metricResourceUri"] for r in rules.values()}


def test_the_orchestrator_owns_whether_an_autoscaler_is_on_and_its_minimum() -> None:
    for setting in stacks(BOTH)["azure"].of(":AutoscaleSetting"):
        assert setting.inputs["enabled"] is True
        owned = {"enabled", "profiles[0].capacity.minimum", "profiles[0].capacity.default"}
        assert owned == set(setting.ignore_changes)


def test_azures_fleets_carry_the_peak_without_a_zone_before_anything_scales_them() -> None:
    low = [
        region("azure", 0, 3, capacity={"instances": 1, "instances_max": 9, "rps_per_instance": 40, "peak_rps": 100})
    ]
    with pytest.raises(SettingsError, match="the peak is"):
        run("azure", azure() | {"regions": low}, Recorder())


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_stack_files_are_whole_and_their_three_programs_run_together(stack: str) -> None:
    runs = {}
    for program in ("aws", "azure", "global"):
        references = {f"organization/failout-{name}/{stack}": whole(r.outputs) for name, r in runs.items()}
        runs[program] = run(program, stack_file(program, stack), Recorder(), references)
    things = [Seen(r) for r_ in runs.values() for r in r_.resources]
    assert {} == broken(things)
    parse_topology(merged(list(runs.values())))
    assert (stack == "prod") == any(r.protect for r_ in runs.values() for r in r_.resources)


def stack_file(program: str, stack: str) -> dict[str, Any]:
    config = yaml.safe_load((INFRA / program / f"Pulumi.{stack}.yaml").read_text("utf-8"))["config"]
    return {key.removeprefix(f"failout-{program}:"): value for key, value in config.items()}


@pytest.mark.parametrize("program", ["aws", "azure", "global"])
def test_what_a_project_file_declares_is_in_its_settings_and_in_its_stacks(program: str) -> None:
    declared = yaml.safe_load((INFRA / program / "Pulumi.yaml").read_text("utf-8"))["config"]
    for stack in ("dev", "prod"):
        assert set(declared) <= set(stack_file(program, stack))


def test_the_policy_pack_reports_through_pulumis_own_classes() -> None:
    policies = runpy.run_path(str(INFRA / "policy" / "__main__.py"))["POLICIES"]
    assert list(rules.RULES) == [policy.name for policy in policies]
    told: list[str] = []
    things = [Thing(r) for r in everything(Shape(1, 1, 2))]
    for policy in policies:
        policy.validate(SimpleNamespace(resources=things), lambda message, _urn=None: told.append(message))
    assert 2 == len(told)
    assert told[0].startswith("the stack: aws/us-east-1 has 2 zones")
    assert told[1].startswith("the stack: azure/eastus has 2 zones")


class Thing(Seen):
    def __init__(self, resource: Resource) -> None:
        super().__init__(resource)
        self.urn = resource.urn
