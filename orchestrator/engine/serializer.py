"""What DBOS may write and read: JSON, never pickle.

DBOS tags each row with its format and unpickles any row that says `py_pickle`, whatever serializer is configured: that is
code execution for whoever can write the database. `forbid_pickle` closes it.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import dbos._serialization as dbos_serialization
from dbos import Serializer

from orchestrator.core.errors import Bug


class Recalled(Exception):
    """An error that a carrier ended with, read back. Only its words survive: the run's own history has the rest."""


class JsonOnly(Serializer):
    """JSON values; exceptions as their words, because nothing may turn a row into a class of its choice."""

    def name(self) -> str:
        return "failout_json_v1"

    def serialize(self, data: Any) -> str:  # noqa: ANN401 - the signature of DBOS
        return json.dumps(data, default=_encode, separators=(",", ":"))

    def deserialize(self, serialized_data: str) -> Any:  # noqa: ANN401 - the signature of DBOS
        return json.loads(serialized_data, object_hook=_decode)


def _encode(value: object) -> dict[str, str]:
    if isinstance(value, BaseException):
        return {"__error__": f"{type(value).__name__}: {value}"}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _decode(value: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever JSON holds
    return Recalled(value["__error__"]) if value.keys() == {"__error__"} else value


def forbid_pickle() -> None:
    """Make DBOS's own serializer raise, for the whole process. Idempotent; call before DBOS is launched."""
    for name in ("serialize", "deserialize"):
        setattr(dbos_serialization.DefaultSerializer, name, _refuse)


def _refuse(*_: object) -> NoReturn:
    raise Bug("a row of the system database asks for pickle: refused")
