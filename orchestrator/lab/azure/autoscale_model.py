"""The shape of autoscale settings, api-version 2022-10-01: no SDK package that is installed has models of them.

https://learn.microsoft.com/rest/api/monitor/autoscale-settings
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_WHOLE: Final[Schema] = {"type": "string", "pattern": "^[0-9]+$"}  # numbers of instances are texts on this wire
_TIME: Final[Schema] = {"type": "string", "pattern": "^P"}  # ISO 8601 duration
_TAGS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}


def _one_of(*names: str) -> Schema:
    return {"enum": list(names)}


def _many(item: Schema, most: int) -> Schema:
    return {"type": "array", "items": item, "maxItems": most}


def _object(required: str, **fields: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": fields, "additionalProperties": False}


_CAPACITY = _object("minimum maximum default", minimum=_WHOLE, maximum=_WHOLE, default=_WHOLE)
_TRIGGER = _object(
    "metricName metricResourceUri timeGrain statistic timeWindow timeAggregation operator threshold",
    metricName=_TEXT,
    metricNamespace=_TEXT,
    metricResourceUri=_TEXT,
    metricResourceLocation=_TEXT,
    timeGrain=_TIME,
    statistic=_one_of("Average", "Min", "Max", "Sum", "Count"),
    timeWindow=_TIME,
    timeAggregation=_one_of("Average", "Minimum", "Maximum", "Total", "Count", "Last"),
    operator=_one_of("Equals", "NotEquals", "GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"),
    threshold={"type": "number"},
    dimensions={"type": "array"},
    dividePerInstance=_FLAG,
)
_ACTION = _object(
    "direction type cooldown",
    direction=_one_of("None", "Increase", "Decrease"),
    type=_one_of("ChangeCount", "PercentChangeCount", "ExactCount", "ServiceAllowedNextValue"),
    value=_WHOLE,
    cooldown=_TIME,
)
_PROFILE = _object(
    "name capacity rules",
    name=_TEXT,
    capacity=_CAPACITY,
    rules=_many(_object("metricTrigger scaleAction", metricTrigger=_TRIGGER, scaleAction=_ACTION), 10),
    fixedDate={"type": "object"},
    recurrence={"type": "object"},
)
# The specification has one type for what is written whole and for what is patched: `profiles` is required in both.
_SETTING = _object(
    "profiles",
    profiles=_many(_PROFILE, 20),
    notifications={"type": "array"},
    enabled=_FLAG,
    predictiveAutoscalePolicy={"type": "object"},
    name=_TEXT,
    targetResourceUri=_TEXT,
    targetResourceLocation=_TEXT,
)
_RESOURCE = _object(
    "location properties",
    id=_TEXT,
    name=_TEXT,
    type=_TEXT,
    location=_TEXT,
    tags=_TAGS,
    properties=_SETTING,
    systemData={"type": "object"},
)

SETTING: Final = "monitor:AutoscaleSettingResource"
PATCH: Final = "monitor:AutoscaleSettingResourcePatch"
LIST: Final = "monitor:[AutoscaleSettingResource]"
# By name, as schema.py serves those that it derives from SDKs.
DOCUMENTS: Final[dict[str, Schema]] = {
    SETTING: {**_RESOURCE, "$defs": {}},
    PATCH: {**_object("", tags=_TAGS, properties=_SETTING), "$defs": {}},
    LIST: {**_object("value", value={"type": "array", "items": _RESOURCE}, nextLink=_TEXT), "$defs": {}},
}
