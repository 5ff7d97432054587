"""What can be wrong: one closed list. The same word stands in code, in alerts, in docs and, as `zone-down.md`, on the runbook."""

from __future__ import annotations

import re
from enum import StrEnum


class Diagnosis(StrEnum):
    """Each has a runbook of its name; `file_stem` says which."""

    ZONE_DOWN = "ZoneDown"  # Its instances answer nobody: peers and load balancer agree (I6).
    ZONE_GRAY = "ZoneGray"  # It answers, but worse than the others do.
    REGION_DOWN = "RegionDown"
    CLOUD_DOWN = "CloudDown"
    DEPLOY_HELD = "DeployHeld"  # A deploy waits for a person.
    CAPACITY_SHORTAGE = "CapacityShortage"  # The survivors could not carry the load of a zone that is lost (I3).
    MANAGEMENT_API_OUTAGE = "ManagementApiOutage"  # The cloud serves users but takes no orders (I10).
    ORCHESTRATOR_LOST = "OrchestratorLost"  # The machine with Failout's state is gone (I16).

    @property
    def file_stem(self) -> str:
        """ZoneDown -> zone-down."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.value).lower()
