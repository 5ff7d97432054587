"""What failout.yaml says of a signal: one outside opinion on the service (I15). How each is asked: orchestrator/signals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from orchestrator.core.errors import Rejected

TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Good when `url` answers `status`, and `contains` is in the body's first 64 KiB where it is given."""

    name: str
    url: str
    status: int = 200
    contains: str = ""
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Command:
    """Good at exit code 0, bad at 1 or 2, unknown at any other. No shell is between."""

    name: str
    argv: tuple[str, ...]
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class PrometheusQuery:
    """Good while every value of `query` lies within [`min`, `max`] at `url`; no value at all is unknown."""

    name: str
    url: str
    query: str
    max: float = inf
    min: float = -inf
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class CloudWatchAlarm:
    """Good while the alarm is OK, bad in ALARM. `endpoint_url`: a VPC endpoint, or a lab; "" is AWS."""

    name: str
    region: str
    alarm: str
    endpoint_url: str = ""
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class AzureAlert:
    """Good while no alert of the enabled rule is fired. `rule`: the id of a metric alert or a log search alert rule."""

    name: str
    rule: str
    endpoint_url: str = ""
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class LabTraffic:
    """Good while the lab's users fail at most `failed_share_max` of what they sent in the last `window_s` seconds.

    `folder` holds the logs of `failout lab traffic`; the newest counts.
    """

    name: str
    folder: str
    failed_share_max: float = 0.0
    window_s: float = 5.0
    timeout_s: float = TIMEOUT_S


SignalSpec: TypeAlias = HttpCheck | Command | PrometheusQuery | CloudWatchAlarm | AzureAlert | LabTraffic
# kind -> its keys besides `kind`
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "http": ("url", "status", "contains", "timeout_s"),
    "command": ("command", "timeout_s"),
    "prometheus": ("url", "query", "max", "min", "timeout_s"),
    "cloudwatch-alarm": ("region", "alarm", "endpoint_url", "timeout_s"),
    "azure-alert": ("rule", "endpoint_url", "timeout_s"),
    "lab-traffic": ("folder", "failed_share_max", "window_s", "timeout_s"),
}
_RULE: Final = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Insights/(metricAlerts|scheduledQueryRules)/[^/]+",
    re.IGNORECASE,
)


def parse_signal(name: str, given: Mapping[str, Any]) -> SignalSpec:
    """Raises Rejected with what is wrong; whoever read the file has made sure that no key is unknown."""
    limits = {"timeout_s": _number(given, "timeout_s", TIMEOUT_S, low=0.001, high=60.0)}
    match given["kind"]:
        case "command":
            return Command(name, _words(given), limits["timeout_s"])
        case "http":
            status = _number(given, "status", 200, low=100, high=599)
            return HttpCheck(name, _url(given, "url"), int(status), _text(given, "contains", ""), **limits)
        case "prometheus":
            if not {"max", "min"} & given.keys():
                raise Rejected("give 'max', 'min' or both: between them the value is good")
            most, least = _number(given, "max", inf), _number(given, "min", -inf)
            return PrometheusQuery(name, _url(given, "url"), _text(given, "query"), most, least, **limits)
        case "cloudwatch-alarm":
            endpoint = _url(given, "endpoint_url", "")
            return CloudWatchAlarm(name, _text(given, "region"), _text(given, "alarm"), endpoint, **limits)
        case "azure-alert":
            rule = _text(given, "rule")
            if not _RULE.fullmatch(rule):
                raise Rejected(f"'rule' must be the id of a metric alert or a log search alert rule, not {rule!r}")
            return AzureAlert(name, rule, _url(given, "endpoint_url", ""), **limits)
    share = _number(given, "failed_share_max", 0.0, low=0.0, high=1.0)
    window_s = _number(given, "window_s", 5.0, low=1.0, high=600.0)
    return LabTraffic(name, _text(given, "folder"), share, window_s, **limits)


def _number(given: Mapping[str, Any], key: str, default: float, *, low: float = -inf, high: float = inf) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        between = f" from {low:g} to {high:g}" if high < inf else ""
        raise Rejected(f"{key!r} must be a number{between}, not {value!r}")
    return float(value)


def _text(given: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = given.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise Rejected(f"{key!r} must be a text, not {value!r}")
    return value


def _url(given: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = _text(given, key, default)
    if value != default and not value.startswith(("http://", "https://")):
        raise Rejected(f"{key!r} must be an http or https address, not {value!r}")
    try:
        urlsplit(value).port  # noqa: B018 - raises
    except ValueError:
        raise Rejected(
            f"{key!r} is no address: its host or port is wrong; write special characters of a password as %XX"
        ) from None
    return value


def _words(given: Mapping[str, Any]) -> tuple[str, ...]:
    argv = given.get("command")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and word for word in argv):
        raise Rejected(f"'command' must be a list of words, such as [/usr/local/bin/check, users], not {argv!r}")
    return tuple(argv)
