"""Route 53: changes take time to be in sync, and weighted records with health checks become `DesiredDns`.

Closes: moto calls every change in sync at once under one id. Records answer the old way until a change is in sync.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.elbv2.models import FakeLoadBalancer, elbv2_backends
from moto.moto_api._internal import mock_random
from moto.route53 import models as route53
from moto.route53.exceptions import Route53ClientError
from moto.route53.responses import Route53

from orchestrator.lab.aws.graft import override
from orchestrator.lab.aws.world import ACCOUNT, here, now
from orchestrator.lab.model import DesiredDns, DnsHealthCheck, DnsRecord

WEIGHT_MAX = 255


def _change(self: Route53) -> ActionResult:
    for change in self._get_param("ChangeBatch.Changes"):
        weight = change["ResourceRecordSet"].get("Weight")
        if weight is not None and not 0 <= int(weight) <= WEIGHT_MAX:
            raise Route53ClientError("InvalidChangeBatch", f"Invalid weight {weight}: it must be 0..{WEIGHT_MAX}")
    _moto_change(self)
    change_id = "C" + mock_random.get_random_string(length=14).upper()
    here().dns_changes[change_id] = (now(), datetime.now(UTC))
    return ActionResult({"ChangeInfo": _info(change_id)})


def _get_change(self: Route53) -> ActionResult:
    change_id = str(self._get_param("Id")).rsplit("/", 1)[-1]
    if change_id not in here().dns_changes:
        raise Route53ClientError("NoSuchChange", f"A change with id {change_id} was not found")
    return ActionResult({"ChangeInfo": _info(change_id)})


def _info(change_id: str) -> dict[str, Any]:
    at, submitted = here().dns_changes[change_id]
    status = "INSYNC" if now() >= at + here().times.dns_in_sync_s else "PENDING"
    return {"Id": f"/change/{change_id}", "Status": status, "SubmittedAt": submitted}


def in_sync() -> bool:
    """Say whether every change has reached all name servers."""
    return all(now() >= at + here().times.dns_in_sync_s for at, _ in list(here().dns_changes.values()))


def desired() -> DesiredDns:
    """Return the A records of all hosted zones and the health checks that they name."""
    backend = route53.route53_backends[ACCOUNT]["aws"]
    fronts = _fronts()
    records = [
        record
        for zone in list(backend.zones.values())
        for recordset in list(zone.rrsets)
        if recordset.type == "A" and (record := _record(recordset, fronts)) is not None
    ]
    named = {record.health_check for record in records}
    checks = [_check(check, fronts) for check in list(backend.health_checks.values()) if check.id in named]
    return DesiredDns(tuple(records), tuple(checks))


def _fronts() -> dict[str, FakeLoadBalancer]:
    backends = [backend for _, _, backend in elbv2_backends.iter_backends()]
    return {balancer.dns_name.lower(): balancer for b in backends for balancer in list(b.load_balancers.values())}  # type: ignore[attr-defined]


def _front(name: str | None, fronts: dict[str, FakeLoadBalancer]) -> str:
    balancer = fronts.get((name or "").rstrip(".").removeprefix("dualstack.").lower())
    return balancer.name if balancer is not None else ""


def _record(record: route53.RecordSet, fronts: dict[str, FakeLoadBalancer]) -> DnsRecord | None:
    front, addresses, ttl_s = "", (), here().times.alias_ttl_s
    if record.alias_target:
        front = _front(record.alias_target.get("DNSName"), fronts)
        if not front:
            return None
    else:
        addresses, ttl_s = tuple(record.records), float(record.ttl or 0)
    return DnsRecord(
        name=record.name.rstrip(".") + ".",
        set_id=record.set_identifier or "",
        weight=int(record.weight if record.weight is not None else 1),
        ttl_s=ttl_s,
        front=front,
        addresses=addresses,
        health_check=record.health_check_id,
    )


def _check(check: route53.HealthCheck, fronts: dict[str, FakeLoadBalancer]) -> DnsHealthCheck:
    return DnsHealthCheck(
        id=check.id,
        address=check.ip_address or "",
        front=_front(check.fqdn, fronts),
        path=check.resource_path or "/",
        interval_s=int(check.request_interval) * here().times.dns_check_scale,
        failures=int(check.failure_threshold),
    )


_moto_change = Route53.change_resource_record_sets


def install() -> None:
    override(Route53, "change_resource_record_sets", _change)
    override(Route53, "get_change", _get_change)
