"""Microsoft.Insights/metricAlerts, and what Microsoft.AlertsManagement lists of them. A rule fires when the lab says so.

https://learn.microsoft.com/rest/api/monitor/alertsmanagement/alerts/get-all
"""

# ruff: noqa: ARG002  (every handler has the signature that the router calls)
from __future__ import annotations

import copy
from datetime import UTC, datetime

from orchestrator.lab.azure.arm import GROUP, SUBSCRIPTION, Body, Params, Reply, Request, Route, not_found

TYPE = "Microsoft.Insights/metricAlerts"
RULE = GROUP + "/providers/Microsoft.Insights/metricAlerts/{name}"
ALERTS = SUBSCRIPTION + "/providers/Microsoft.AlertsManagement/alerts"
DAYS_S = {"1h": 3600.0, "1d": 86400.0, "7d": 7 * 86400.0, "30d": 30 * 86400.0}


class Alerts:
    def __init__(self) -> None:
        self._rules: dict[str, Body] = {}
        self._fired: dict[str, list[Body]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("PUT", RULE, "MetricAlerts_CreateOrUpdate", self._put),
            Route("GET", RULE, "MetricAlerts_Get", self._get),
            Route("GET", ALERTS, "Alerts_GetAll", self._list),
        ]

    def fire(self, rule: str, now: float) -> None:
        """The rule's condition holds from now on: a new alert, fired."""
        at = datetime.fromtimestamp(now, UTC).isoformat()
        told = {"alertRule": rule, "alertState": "New", "monitorCondition": "Fired", "startDateTime": at, "t": now}
        self._fired.setdefault(rule.lower(), []).append(told)

    def resolve(self, rule: str) -> None:
        for alert in self._fired.get(rule.lower(), []):
            alert["monitorCondition"] = "Resolved"

    def _put(self, request: Request, params: Params) -> Reply:
        known = request.path.lower() in self._rules
        body = {**copy.deepcopy(request.body), "id": request.path, "name": params["name"], "type": TYPE}
        self._rules[request.path.lower()] = body
        return Reply(200 if known else 201, body)

    def _get(self, request: Request, params: Params) -> Reply:
        rule = self._rules.get(request.path.lower())
        if rule is None:
            raise not_found(TYPE, params["name"], params["group"])
        return Reply(200, rule)

    def _list(self, request: Request, params: Params) -> Reply:
        """Newest first; without a time range only the last day's, as Azure does."""
        since = request.now - DAYS_S[request.query.get("timeRange", "1d")]
        condition, rule = request.query.get("monitorCondition"), request.query.get("alertRule", "").lower()
        found = [
            alert
            for name, alerts in self._fired.items()
            for alert in alerts
            if rule in ("", name) and condition in (None, alert["monitorCondition"]) and since <= alert["t"]
        ]
        found.sort(key=lambda alert: float(alert["t"]), reverse=True)
        essentials = [{k: v for k, v in alert.items() if k != "t"} for alert in found]
        return Reply(200, {"value": [{"properties": {"essentials": told}} for told in essentials]})
