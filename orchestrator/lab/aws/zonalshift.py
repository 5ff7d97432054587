"""ARC zonal shift, which moto lacks: start, update, cancel and list.

Source: ARC zonal shift API 2022-10-30. One active shift per resource; it must expire, within 72 h; a load balancer can
be shifted only when its attribute zonal_shift.config.enabled is true. Autoshift and practice runs are not here.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from moto import backend_index
from moto.core.base_backend import BackendDict, BaseBackend
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.moto_api._internal import mock_random

EXPIRES = re.compile(r"(\d+)([hm])")
LONGEST = timedelta(hours=72)


class ShiftError(ServiceException):
    def __init__(self, code: str, message: str, reason: str | None = None, shift: str | None = None) -> None:
        super().__init__(code, message)
        self.reason = reason
        self.zonal_shift_id = shift


@dataclass(slots=True)
class Shift:
    zonal_shift_id: str
    resource_identifier: str
    away_from: str
    expiry_time: datetime
    start_time: datetime
    comment: str
    ended: str | None = None
    shift_type: str = "ZONAL_SHIFT"

    @property
    def status(self) -> str:
        if self.ended is not None:
            return self.ended
        return "ACTIVE" if self.expiry_time > datetime.now(UTC) else "EXPIRED"


class ZonalShiftBackend(BaseBackend):
    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.shifts: dict[str, Shift] = {}

    @property
    def _url_module(self) -> Any:
        return sys.modules[__name__]

    def start(self, resource: str, away_from: str, expires_in: str, comment: str) -> Shift:
        self._managed(resource)
        zones = ec2_backends[self.account_id][self.region_name].describe_availability_zones()
        if away_from not in {zone.zone_id for zone in zones}:
            raise ShiftError("ValidationException", f"Unknown Availability Zone id {away_from}", "InvalidAz")
        active = next(
            (s for s in self.shifts.values() if s.resource_identifier == resource and s.status == "ACTIVE"), None
        )
        if active is not None:
            raise ShiftError(
                "ConflictException",
                "A zonal shift already exists for the resource",
                "ZonalShiftAlreadyExists",
                active.zonal_shift_id,
            )
        now = datetime.now(UTC)
        shift = Shift(
            zonal_shift_id=str(UUID(int=mock_random.getrandbits(128), version=4)),
            resource_identifier=resource,
            away_from=away_from,
            expiry_time=now + _expires(expires_in),
            start_time=now,
            comment=comment,
        )
        self.shifts[shift.zonal_shift_id] = shift
        return shift

    def update(self, shift_id: str, expires_in: str | None, comment: str | None) -> Shift:
        shift = self._active(shift_id)
        if expires_in:
            shift.expiry_time = datetime.now(UTC) + _expires(expires_in)
        shift.comment = comment or shift.comment
        return shift

    def cancel(self, shift_id: str) -> Shift:
        shift = self._active(shift_id)
        shift.ended = "CANCELED"
        return shift

    def away(self, resource: str) -> set[str]:
        """Return the zone ids that traffic of the resource is shifted away from now."""
        return {
            s.away_from
            for s in list(self.shifts.values())
            if s.resource_identifier == resource and s.status == "ACTIVE"
        }

    def _active(self, shift_id: str) -> Shift:
        shift = self.shifts.get(shift_id)
        if shift is None:
            raise ShiftError("ResourceNotFoundException", f"Zonal shift {shift_id} not found")
        if shift.status != "ACTIVE":
            raise ShiftError(
                "ConflictException", "The zonal shift is not active", "ZonalShiftStatusNotActive", shift_id
            )
        return shift

    def _managed(self, resource: str) -> None:
        balancer = elbv2_backends[self.account_id][self.region_name].load_balancers.get(resource)
        if balancer is None or balancer.attrs.get("zonal_shift.config.enabled") != "true":
            raise ShiftError("ResourceNotFoundException", f"{resource} is not a resource managed by zonal shift")


def _expires(text: str) -> timedelta:
    found = EXPIRES.fullmatch(text or "")
    span = timedelta(minutes=int(found.group(1)) * (60 if found.group(2) == "h" else 1)) if found else timedelta(0)
    if not timedelta(minutes=1) <= span <= LONGEST:
        raise ShiftError("ValidationException", f"expiresIn {text!r} is not between 1m and 72h", "InvalidExpiresIn")
    return span


class ZonalShiftResponse(BaseResponse):
    def __init__(self) -> None:
        super().__init__(service_name="arc-zonal-shift")
        self.automated_parameter_parsing = True

    @property
    def backend(self) -> ZonalShiftBackend:
        return arczonalshift_backends[self.current_account][self.region]

    def start_zonal_shift(self) -> ActionResult:
        keys = ("resourceIdentifier", "awayFrom", "expiresIn", "comment")
        return ActionResult(self.backend.start(*(self._get_param(key) for key in keys)))

    def update_zonal_shift(self) -> ActionResult:
        shift_id = self._get_param("zonalShiftId")
        return ActionResult(self.backend.update(shift_id, self._get_param("expiresIn"), self._get_param("comment")))

    def cancel_zonal_shift(self) -> ActionResult:
        return ActionResult(self.backend.cancel(self._get_param("zonalShiftId")))

    def list_zonal_shifts(self) -> ActionResult:
        status, resource = self._get_param("status"), self._get_param("resourceIdentifier")
        shifts = [
            s
            for s in self.backend.shifts.values()
            if status in (None, s.status) and resource in (None, s.resource_identifier)
        ]
        return ActionResult({"items": shifts})


arczonalshift_backends = BackendDict(ZonalShiftBackend, "ec2")
url_bases = [r"https?://arc-zonal-shift\.(.+)\.amazonaws\.com"]
url_paths = {
    "{0}/zonalshifts$": ZonalShiftResponse.dispatch,
    "{0}/zonalshifts/(?P<zonalShiftId>[^/]+)$": ZonalShiftResponse.dispatch,
}


def install() -> None:
    """Make moto find this module as its service `arczonalshift`."""
    if "moto.arczonalshift" not in sys.modules:
        sys.modules["moto.arczonalshift"] = sys.modules[__name__]
        backend_index.backend_url_patterns.append(("arczonalshift", re.compile(url_bases[0])))
