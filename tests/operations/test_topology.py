"""`failout topology import` and `check`: stacks' parts become one document, and what is not as written is named."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import pytest
from click.testing import CliRunner

from orchestrator.cli.topology import command
from orchestrator.config import parse_topology
from orchestrator.core.errors import NotFound, Rejected, Transient
from orchestrator.core.traffic import Placement, ZoneSeen
from orchestrator.operations.topology import FLEET_KEYS, FRONT_KEYS, Drift, drift, merge
from orchestrator.ports import Autoscaler, FleetSeen, GlobalSeen
from orchestrator.workflows.world import World

SCALER = Autoscaler(3, 9, enabled=True)
SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "topology.json").read_text("utf-8"))
AWS = {
    "schema": 1.0,
    "service": "gates",
    "regions": [
        {
            "id": "aws/us-east-1",
            "cloud": "aws",
            "name": "us-east-1",
            "weight": 100.0,
            "agent_url": "http://agent.internal:7070",
            "front": {key: f"arn:{key}" for key in FRONT_KEYS["aws"]},
            "zones": [
                {
                    "id": f"aws/us-east-1{letter}",
                    "name": f"us-east-1{letter}",
                    "instances": 3.0,
                    "instances_max": 9.0,
                    "rps_per_instance": 40.0,
                    "fleet": {"auto_scaling_group": f"gates-us-east-1{letter}", "launch_template_id": "lt-1"},
                }
                for letter in "abc"
            ],
        }
    ],
}
AZURE = {
    "schema": 1,
    "service": "gates",
    "regions": [
        {
            "id": "azure/eastus",
            "cloud": "azure",
            "name": "eastus",
            "weight": 50,
            "agent_url": "http://10.30.31.254:7070",
            "front": dict.fromkeys(FRONT_KEYS["azure"], "x"),
            "zones": [
                {
                    "id": "azure/eastus-1",
                    "name": "1",
                    "instances": 3,
                    "instances_max": 9,
                    "rps_per_instance": 40.5,
                    "fleet": {"scale_set": "gates-eastus-1", "autoscale_setting": "gates-eastus-1"},
                }
            ],
        }
    ],
}
DNS = {
    "schema": 1,
    "service": "gates",
    "regions": [],
    "global": {"kind": "route53", "ttl_s": 60, "record": "gates.example.com", "attributes": {"hosted_zone_id": "Z1"}},
}
PARTS: list[tuple[str, dict[str, Any]]] = [("org/aws/prod", AWS), ("org/azure/prod", AZURE), ("org/global/prod", DNS)]


def changed(index: int, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    parts = copy.deepcopy(PARTS)
    parts[index][1].update(more)
    return parts


def test_three_stacks_make_one_document_that_the_schema_and_the_reader_take() -> None:
    document = merge(PARTS)
    jsonschema.validate(document, SCHEMA)
    topology = parse_topology(document)
    assert ["aws/us-east-1", "azure/eastus"] == [r.id for r in topology.regions]
    assert (3, 40.5) == (topology.zone("aws/us-east-1c").instances, topology.zone("azure/eastus-1").rps_per_instance)
    assert '"instances": 3,' in json.dumps(document), "Pulumi's 3.0 is written as 3"


def test_each_part_alone_is_of_the_schema_too() -> None:
    for _, part in PARTS:
        jsonschema.validate(part, SCHEMA)


def test_the_importers_required_keys_are_the_schemas() -> None:
    either = SCHEMA["$defs"]["region"]["allOf"][0]
    for cloud, branch in (("aws", either["then"]), ("azure", either["else"])):
        assert list(FRONT_KEYS[cloud]) == branch["properties"]["front"]["required"]
        assert list(FLEET_KEYS[cloud]) == branch["properties"]["zones"]["items"]["properties"]["fleet"]["required"]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (changed(0, service="doors"), "one service at a time: 'doors' from org/aws/prod, 'gates'"),
        (PARTS[:2], "none of the stacks; name the global one too"),
        ([*PARTS, ("org/global/dev", DNS)], "it comes from org/global/prod and org/global/dev"),
        ([*PARTS, ("org/aws/dev", AWS)], "region aws/us-east-1 comes from org/aws/prod and from org/aws/dev"),
        (changed(0, schema=2), "org/aws/prod: not a topology of schema 1"),
        (changed(0, regions=[AWS["regions"][0] | {"front": {}}]), "aws/us-east-1: its front does not name load_bal"),
        (changed(0, regions=[AWS["regions"][0] | {"cloud": "gcp"}]), "is of cloud 'gcp'; there are aws and azure"),
        (changed(1, regions=[{"id": "azure/eastus"}]), "not whole: KeyError"),
        ([PARTS[2]], "zones must be some"),
    ],
)
def test_what_does_not_fit_is_rejected_with_the_stack_that_it_comes_from(parts: Any, told: str) -> None:
    with pytest.raises(Rejected, match=re.escape(told)):
        merge(parts)


def test_import_writes_the_document_from_files(tmp_path: Path) -> None:
    files = []
    for name, part in PARTS:
        file = tmp_path / f"{name.split('/')[1]}.json"
        # As `pulumi stack output --json` writes it, and the bare output.
        file.write_text(json.dumps({"topology": part, "fronts": {}} if "aws" in name else part))
        files += ["--file", str(file)]
    out = tmp_path / "topology.json"
    result = CliRunner().invoke(command, ["import", *files, "--out", str(out)])
    assert (0, "") == (result.exit_code, result.stderr)
    assert merge(PARTS) == json.loads(out.read_text())


def test_import_never_writes_over_another_services_topology(tmp_path: Path) -> None:
    config, old = tmp_path / "failout.yaml", tmp_path / "topology.json"
    config.write_text("service: doors\n")
    old.write_text("{}")
    files = [arg for i, (_, part) in enumerate(PARTS) for arg in ("--file", _saved(tmp_path / f"{i}.json", part))]
    result = CliRunner().invoke(command, ["import", *files, "--config", str(config)])
    assert isinstance(result.exception, Rejected)
    assert "{}" == old.read_text()


def _saved(file: Path, part: dict[str, Any]) -> str:
    file.write_text(json.dumps(part))
    return str(file)


class _Clouds:
    """The ports that `drift` reads, as small fakes: what each zone has, which records there are, what Azure's scales by."""

    def __init__(
        self,
        desired: dict[str, int | Exception],
        weights: dict[str, int] | Exception,
        scaler: Autoscaler | str | None,
        placement: Placement,
    ) -> None:
        self._desired, self._weights, self._scaler, self._placement = desired, weights, scaler, placement

    async def describe(self, zone: Any) -> FleetSeen:
        answer = self._desired.get(zone.id, 3)
        if isinstance(answer, Exception):
            raise answer
        scaler = self._scaler if zone.cloud == "azure" else None
        bounds, unread = (None, scaler) if isinstance(scaler, str) else (scaler, "")
        return FleetSeen((), answer, "v1", autoscaling=True, autoscaler=bounds, unread=unread)

    async def read(self, region: Any = None) -> Any:
        if region is not None:
            seen = ZoneSeen(self._placement, 1.0, 3, 0, 3, 3)
            return {zone.id: seen for zone in region.zones}
        if isinstance(self._weights, Exception):
            raise self._weights
        return GlobalSeen(self._weights, in_sync=True)


def look(
    desired: dict[str, int | Exception] | None = None,
    weights: dict[str, int] | Exception | None = None,
    scaler: Autoscaler | str | None = SCALER,
    placement: Placement = Placement.STEADY,
) -> list[Drift]:
    standing = {"aws/us-east-1": 100, "azure/eastus": 50}
    clouds = _Clouds(desired or {}, standing if weights is None else weights, scaler, placement)
    both = {"aws": clouds, "azure": clouds}
    world = SimpleNamespace(topology=parse_topology(merge(PARTS)), fleets=both, traffics=both, global_tier=clouds)
    return asyncio.run(drift(cast(World, world)))


def test_nothing_is_told_when_the_clouds_are_as_written() -> None:
    assert [] == look()


def test_a_size_a_fleet_a_record_and_a_weight_that_differ_are_named() -> None:
    found = look(
        {"aws/us-east-1a": 4, "aws/us-east-1b": NotFound("no Auto Scaling group")}, {"aws/us-east-1": 90, "x/y": 1}
    )
    assert [
        ("aws/us-east-1a", "instances", "3", "4"),
        ("aws/us-east-1b", "fleet", "gates-us-east-1b, lt-1", "no Auto Scaling group"),
        ("global", "weight of aws/us-east-1", "100", "90"),
        ("global", "record of azure/eastus", "weight 50", "none"),
        ("global", "record of x/y", "none", "weight 1"),
    ] == [(d.where, d.what, d.expected, d.found) for d in found]
    assert all(d.checked for d in found)


@pytest.mark.parametrize(
    ("scaler", "told"),
    [
        (None, ("autoscaler", "gates-eastus-1", "none", True)),
        ("throttled", ("autoscaler", "gates-eastus-1", "throttled", False)),
        (Autoscaler(4, 9, enabled=True), ("autoscaler's minimum", "3", "4", True)),
        (Autoscaler(3, 6, enabled=True), ("autoscaler's maximum", "9", "6", True)),
        (Autoscaler(3, 9, enabled=False), ("autoscaler", "on, since the zone is not out", "frozen", True)),
    ],
    ids=["gone", "not read", "minimum", "maximum", "frozen"],
)
def test_an_autoscaler_that_is_not_as_written_is_named(
    scaler: Autoscaler | str | None, told: tuple[str, str, str, bool]
) -> None:
    assert [("azure/eastus-1", *told)] == [
        (d.where, d.what, d.expected, d.found, d.checked) for d in look(None, None, scaler)
    ]


def test_an_autoscaler_is_frozen_while_its_zone_is_out_and_that_is_no_drift() -> None:
    assert [] == look(scaler=Autoscaler(3, 9, enabled=False), placement=Placement.OUT)


def test_sizes_between_the_bounds_are_an_autoscalers_own_business() -> None:
    assert [] == look({"azure/eastus-1": 5})
    assert [("instances", "3 to 9", "2")] == [(d.what, d.expected, d.found) for d in look({"azure/eastus-1": 2})]
    frozen = look({"azure/eastus-1": 5}, scaler=Autoscaler(3, 9, enabled=False), placement=Placement.OUT)
    assert [("instances", "3", "5")] == [(d.what, d.expected, d.found) for d in frozen]


def test_what_could_not_be_asked_is_not_called_drift() -> None:
    found = look({"azure/eastus-1": Transient("no answer")}, Transient("throttled"))
    assert [("azure/eastus-1", False), ("global", False)] == [(d.where, d.checked) for d in found]
