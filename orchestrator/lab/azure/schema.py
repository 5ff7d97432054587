"""JSON schemas derived from the installed SDK's own models, so that they are always of the api-version in use.

A schema's name is "compute:VirtualMachineScaleSet" (an object) or "compute:[VirtualMachineScaleSetVM]" (a page of a
list). Validators are built once per name, on first use: the models' modules take most of a second to import. What no
installed SDK has models of is written by hand (autoscale_model.py).
"""

from __future__ import annotations

import datetime as dt
import enum
import importlib
import inspect
import sys
import threading
import types
import typing
from typing import Any

import jsonschema

from orchestrator.lab.azure.autoscale_model import DOCUMENTS

Schema = dict[str, Any]
_SCALARS: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    bytes: "string",
    dt.datetime: "string",
    dt.date: "string",
    dt.timedelta: "string",
}


class Schemas:
    """Checks bodies against the SDK's models. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[str, _Service] = {}
        self._validators: dict[str, Any] = {}

    def errors(self, name: str, body: object) -> list[str]:
        """Return what is wrong with `body`, at most three sentences, each with the place; [] when it conforms."""
        found = []
        for error in self._validator(name).iter_errors(body):
            place = ".".join(str(part) for part in error.absolute_path) or "the body"
            found.append(f"{place}: {error.message[:200]}")
            if len(found) == 3:
                break
        return found

    def document(self, name: str) -> Schema:
        """Return the JSON schema itself, as others read the shape of ARM's bodies from it."""
        schema: Schema = self._validator(name).schema
        return schema

    def _validator(self, name: str) -> Any:  # noqa: ANN401  (jsonschema's validators share no useful static type)
        with self._lock:
            if name not in self._validators:
                schema = DOCUMENTS.get(name) or self._derived(name)
                self._validators[name] = jsonschema.Draft202012Validator(schema)
            return self._validators[name]

    def _derived(self, name: str) -> Schema:
        service, _, model = name.partition(":")
        if service not in self._services:
            self._services[service] = _Service(service)
        return self._services[service].schema(model)


class _Service:
    """The models of one SDK package, walked on demand. One `$defs` is shared by all schemas of the service."""

    def __init__(self, service: str) -> None:
        self._models = importlib.import_module(f"azure.mgmt.{service}.models")
        self._base: type = importlib.import_module(f"azure.mgmt.{service}._utils.model_base").Model
        self._defs: dict[str, Schema] = {}

    def schema(self, model: str) -> Schema:
        one = self._model(getattr(self._models, model.strip("[]")))
        if model.startswith("["):
            page = {"value": {"type": "array", "items": one}, "nextLink": {"type": "string"}}
            one = {"type": "object", "properties": page, "required": ["value"], "additionalProperties": False}
        return {**one, "$defs": self._defs}

    def _model(self, cls: Any) -> Schema:  # noqa: ANN401
        name = cls.__name__
        if name not in self._defs:
            self._defs[name] = {}  # models refer to each other in circles
            cls.__new__(cls)  # fills in the map from attributes to names on the wire
            fields: dict[str, Any] = getattr(cls, "_attr_to_rest_field", {})
            hints = typing.get_type_hints(cls, {**vars(sys.modules[cls.__module__]), "_models": self._models})
            required = [f._rest_name for attr, f in fields.items() if not _optional(hints[attr])]  # noqa: SLF001
            # A polymorphic base is open: its subtypes add what it does not know.
            closed = not getattr(cls, "__mapping__", None)
            self._defs[name] = {
                "type": ["object", "null"],
                "properties": {f._rest_name: self._type(hints[attr]) for attr, f in fields.items()},  # noqa: SLF001
                "required": required,
                "additionalProperties": not closed,
            }
        return {"$ref": f"#/$defs/{name}"}

    def _type(self, hint: Any) -> Schema:  # noqa: ANN401
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return self._union([arg for arg in args if arg is not type(None)])
        if origin is list:
            return {"type": ["array", "null"], "items": self._type(args[0])}
        if origin is dict:
            return {"type": ["object", "null"], "additionalProperties": self._type(args[1])}
        if inspect.isclass(hint):
            if issubclass(hint, self._base):
                return self._model(hint)
            if issubclass(hint, enum.Enum):
                return {"enum": [member.value for member in hint] + [None]}
            if hint in _SCALARS:
                return {"type": [_SCALARS[hint], "null"]}
        return {}

    def _union(self, members: list[Any]) -> Schema:
        """`Union[str, SomeEnum]` is how the SDK writes an enum; the lab accepts its known values only."""
        enums = [m for m in members if inspect.isclass(m) and issubclass(m, enum.Enum)]
        if enums:
            return self._type(enums[0])
        return self._type(members[0]) if len(members) == 1 else {"anyOf": [self._type(m) for m in members]}


def _optional(hint: Any) -> bool:  # noqa: ANN401
    return type(None) in typing.get_args(hint)
