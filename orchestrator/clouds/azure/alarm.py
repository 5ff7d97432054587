"""An alert rule of Azure Monitor as a signal: has it fired?

https://learn.microsoft.com/rest/api/monitor/alertsmanagement/alerts/get-all
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from orchestrator.clouds.azure.arm import Azure
from orchestrator.core.errors import FailoutError
from orchestrator.core.signal import AzureAlert
from orchestrator.ports import Reading

if TYPE_CHECKING:
    from orchestrator.clouds.azure.sdk import Clients

ALERTS: Final = "2018-05-05"
RULES: Final = {"metricalerts": "2018-03-01", "scheduledqueryrules": "2021-08-01"}
DAYS: Final = "30d"  # An alert that fired before yesterday is listed only when asked for.


@dataclass(frozen=True, slots=True)
class AzureAlarm:
    azure: Azure
    spec: AzureAlert

    async def read(self) -> Reading:
        """Fired is bad. A rule that is disabled, not there or not readable is unknown: it could not have fired."""
        spec, told = self.spec, f"alert rule {self.spec.rule.rpartition('/')[2]}"
        arm = self.azure.arm(spec.rule.split("/")[2], spec.endpoint_url or None)
        try:
            enabled, fired = await asyncio.wait_for(arm.ask("GetAlerts", told, self._ask), spec.timeout_s)
        except TimeoutError:
            return Reading("unknown", f"{told}: no answer within {spec.timeout_s:g} s")
        except FailoutError as error:
            return Reading("unknown", str(error))
        except (ValueError, KeyError, TypeError):
            return Reading("unknown", f"{told}: Azure answered with something else than alerts")
        if not enabled:
            return Reading("unknown", f"{told} is disabled")
        return (
            Reading("bad", f"{told} has fired since {fired[0]}") if fired else Reading("good", f"{told} has not fired")
        )

    def _ask(self, clients: Clients) -> tuple[bool, list[str]]:
        from orchestrator.clouds.azure.sdk import get_json  # noqa: PLC0415

        rule = self.spec.rule
        enabled = get_json(clients.compute, f"{rule}?api-version={RULES[rule.split('/')[-2].lower()]}")
        asked = {"monitorCondition": "Fired", "alertRule": rule, "timeRange": DAYS, "api-version": ALERTS}
        scope = "/".join(rule.split("/")[:3])
        page: str | None = f"{scope}/providers/Microsoft.AlertsManagement/alerts?{urlencode(asked)}"
        fired: list[str] = []
        while page and not fired:  # A page may be empty and yet not the last one.
            listed = get_json(clients.compute, page)
            alerts = [alert["properties"]["essentials"] for alert in listed["value"]]
            fired = [_since(alert) for alert in alerts if _is_open(alert)]
            page = listed.get("nextLink")
        return bool(enabled["properties"]["enabled"]), fired


def _is_open(alert: dict[str, Any]) -> bool:
    return alert["monitorCondition"] == "Fired" and alert.get("alertState") != "Closed"


def _since(alert: dict[str, Any]) -> str:
    return str(alert.get("startDateTime", "an unknown time"))
