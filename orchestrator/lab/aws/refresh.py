"""Instance refresh: replace a group's instances by a launch template version, in batches, with rollback.

Closes: moto has none. Source: Auto Scaling API (StartInstanceRefresh and its kin) and User Guide, "instance refresh":
terminate then launch; an instance counts as updated when it is healthy and has warmed up; the desired configuration
becomes the group's own only when the refresh succeeds; a cancel rolls nothing back.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.lab.aws import ec2
from orchestrator.lab.aws.world import here, now
from orchestrator.lab.azure.faults import Fault, FaultKind

if TYPE_CHECKING:
    from orchestrator.lab.aws.groups import Group, Member

REPLACING = ("InProgress", "RollbackInProgress")
ACTIVE = ("Pending", "Cancelling", *REPLACING)
TIMELINE = {
    "Successful": "finished",
    "RollbackSuccessful": "failed",
    "RollbackFailed": "failed",
    "Failed": "failed",
    "Cancelled": "cancelled",
}
# The fault that spoils the refresh that a call is about to start; set for the time of that call.
spoiled_by: ContextVar[Fault | None] = ContextVar("spoiled_by", default=None)


@dataclass(slots=True)
class Refresh:
    """One refresh of one group. `target` is the template version that it brings, `before` the one the group had."""

    id: str
    group_name: str
    before: str
    target: str
    preferences: dict[str, Any]
    desired_configuration: dict[str, Any] | None
    status: str = "Pending"
    reason: str | None = None
    start_time: datetime = field(default_factory=lambda: datetime.now(UTC))
    end_time: datetime | None = None
    old: set[str] = field(default_factory=set)
    total: int = 0
    updated: int = 0
    progress_at: float = field(default_factory=now)
    rollback: dict[str, Any] | None = None
    spoilt: Fault | None = field(default_factory=spoiled_by.get)

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def replacing(self) -> bool:
        return self.status in REPLACING

    @property
    def left(self) -> int:
        return max(0, self.total - self.updated)

    @property
    def percent(self) -> int:
        if self.total == 0:
            return 100 if self.status == "Successful" else 0
        return 100 * self.updated // self.total

    def begin(self, group: Group) -> None:
        """Choose what is replaced: all instances, or with SkipMatching those at another version."""
        target = group.ec2_launch_template.get_version(self.target).number  # type: ignore[union-attr]
        skip = self.preferences["SkipMatching"]
        self.old = {m.id for m in group.members if m.counts and not (skip and m.version == target)}
        self.total, self.updated, self.progress_at = len(self.old), 0, now()

    def step(self, group: Group) -> None:
        if self.status == "Pending" and now() >= self.progress_at + here().times.refresh_start_s:
            self.status = "InProgress"
            self.begin(group)
            self._record(group, "started")
        elif self.status == "Cancelling":
            if not any(m.lifecycle_state in ("Pending", "Terminating") for m in group.members):
                self._end(group, "Cancelled", self.reason)
        elif self.spoilt is not None and self.status == "InProgress":
            self._spoil(group, self.spoilt)
        elif self.replacing:
            self._replace(group)

    def cancel(self) -> None:
        self.status, self.reason = "Cancelling", "Cancelled due to user request."

    def roll_back(self, group: Group, why: str) -> None:
        self.rollback = {
            "RollbackReason": why,
            "RollbackStartTime": datetime.now(UTC),
            "PercentageCompleteOnRollback": self.percent,
            "InstancesToUpdateOnRollback": self.left,
        }
        self.status, self.reason, self.target = "RollbackInProgress", why, self.before
        self.preferences = {**self.preferences, "SkipMatching": True}
        self.begin(group)

    def reversible(self) -> bool:
        return self.desired_configuration is not None and self.before.isdigit() and self.target.isdigit()

    def describe(self) -> dict[str, Any]:
        return {
            "InstanceRefreshId": self.id,
            "AutoScalingGroupName": self.group_name,
            "Status": self.status,
            "StatusReason": self.reason,
            "StartTime": self.start_time,
            "EndTime": self.end_time,
            "PercentageComplete": self.percent,
            "InstancesToUpdate": self.left,
            "Preferences": self.preferences,
            "DesiredConfiguration": self.desired_configuration,
            "RollbackDetails": self.rollback,
            "Strategy": "Rolling",
        }

    def _replace(self, group: Group) -> None:
        alive = [
            m for m in group.members if m.id not in self.old and m.lifecycle_state not in ("Terminating", "Standby")
        ]
        old = [m for m in group.members if m.id in self.old]
        new = [m for m in alive if m.refresh == self.id]
        kept = [m for m in alive if m.refresh != self.id]
        ready = [m for m in new if self._ready(group, m)]
        sick = [m for m in new if m not in ready and not (m.lifecycle_state == "InService" and group.well(m))]
        leaving = any(m.lifecycle_state == "Terminating" for m in old)
        updated = min(self.total, len(ready))
        if updated > self.updated or leaving or len(sick) < len(new) - len(ready):
            self.progress_at = now()  # so are draining and warming up; a new instance that does not get well is none
        self.updated = updated
        if not old and len(ready) >= (group.desired_capacity or 0) - len(kept):
            self._succeed(group)
        elif now() >= self.progress_at + here().times.refresh_stalled_s:
            self._fail(group, sick)
        elif not group.suspended("Terminate"):
            self._take_out(group, old, new, ready, kept)

    def _ready(self, group: Group, member: Member) -> bool:
        warm = member.in_service_at is not None and now() >= member.in_service_at + self.preferences["InstanceWarmup"]
        return member.lifecycle_state == "InService" and warm and group.well(member)

    def _take_out(
        self, group: Group, old: list[Member], new: list[Member], ready: list[Member], kept: list[Member]
    ) -> None:
        """Terminate as many old instances as the minimum healthy percentage allows; one at a time if it allows none."""
        waiting = [m for m in old if m.lifecycle_state == "InService"]
        healthy = [m for m in waiting if group.well(m)]
        least = math.ceil((group.desired_capacity or 0) * self.preferences["MinHealthyPercentage"] / 100)
        spare = len(healthy) + len(ready) + sum(group.well(m) for m in kept) - least
        batch = [m for m in waiting if m not in healthy] + healthy[: max(0, spare)]
        if not batch and len(waiting) == len(old) and len(ready) == len(new):
            batch = waiting[:1]
        for member in batch:
            group.terminate_member(member, "An instance was taken out of service in response to an instance refresh.")

    def _succeed(self, group: Group) -> None:
        if self.status == "RollbackInProgress":
            self._end(group, "RollbackSuccessful", self.reason)
            return
        if self.desired_configuration is not None:
            group.launch_template_version = group.provided_launch_template_version = self.target
        self._end(group, "Successful", None)

    def _spoil(self, group: Group, fault: Fault) -> None:
        """Replace nothing: fail at once, or hang until there was no progress for too long."""
        if fault.kind is FaultKind.FAIL:
            self._end(group, "Failed", fault.message or "An internal error occurred.")
        elif now() >= self.progress_at + here().times.refresh_stalled_s:
            self._fail(group, [])

    def _fail(self, group: Group, sick: list[Member]) -> None:
        last = next((a["StatusMessage"] for a in group.activities if a["StatusCode"] == "Failed"), None)
        names = ", ".join(m.id for m in sick) or "none launched"
        why = f"The following instances did not become healthy: {names}." + (f" {last}" if last and not sick else "")
        if self.status == "InProgress" and self.preferences["AutoRollback"]:
            self.roll_back(group, why)
        else:
            self._end(group, "Failed" if self.status == "InProgress" else "RollbackFailed", why)

    def _end(self, group: Group, status: str, reason: str | None) -> None:
        self.status, self.reason, self.end_time = status, reason, datetime.now(UTC)
        self._record(group, TIMELINE[status])

    def _record(self, group: Group, state: str) -> None:
        version = ec2.release_version(group.ec2_launch_template.get_version(self.target).user_data)  # type: ignore[union-attr]
        for zone in group.availability_zones:
            here().record("refresh", zone=f"aws/{zone}", state=state, version=version, status=self.status)
