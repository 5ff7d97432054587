"""Effects, events and traffic documents as JSON text, instants as sortable text: what the rows hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from orchestrator.core.machine import Effect, Event, Json
from orchestrator.core.traffic import DesiredTraffic, ZoneTraffic
from orchestrator.ports import Peer

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_write, _read = msgspec.json.Encoder(order="sorted").encode, msgspec.json.Decoder().decode


def text_of(value: Json | Mapping[str, Json]) -> str:
    """Canonical: the same value is the same text. Raises TypeError or ValueError for what is not JSON, NaN included."""
    return _encode(value)


def as_kept(value: Any) -> Any:  # noqa: ANN401 JSON, as a row gives it back
    """The same as `json.loads(text_of(value))`, in a third of the time; what is not JSON raises what that raises."""
    told = _read(_write(value))
    return told if told == value else json.loads(text_of(value))  # a tuple, a NaN, a key that is no string


def instant_text(at: datetime) -> str:
    """UTC with microseconds, always the same width: text sorts as time does."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def day_text(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()


def effect_text(effect: Effect) -> str:
    return text_of({"kind": effect.kind, "zone": effect.zone, "args": dict(effect.args)})


def effect_of(text: str) -> Effect:
    return Effect(**json.loads(text))


def event_text(event: Event) -> str:
    return text_of(
        {
            "kind": event.kind,
            "zone": event.zone,
            "evidence": event.evidence,
            "args": dict(event.args),
            "order": event.order,
        }
    )


def event_of(text: str) -> Event:
    return Event(**json.loads(text))


class _Traffic(msgspec.Struct):
    zones: dict[str, ZoneTraffic]
    region_weights: dict[str, int]


_read_traffic = msgspec.json.Decoder(_Traffic).decode


def traffic_text(desired: DesiredTraffic) -> str:
    zones: dict[str, Json] = {
        zone: {"placement": str(traffic.placement), "share": traffic.share, "least": traffic.least}
        for zone, traffic in desired.zones.items()
    }
    return text_of({"zones": zones, "region_weights": dict(desired.region_weights)})


def traffic_of(text: str, version: int, fence: int) -> DesiredTraffic:
    document = _read_traffic(text)
    return DesiredTraffic(version, fence, document.zones, document.region_weights)


def peers_text(peers: Sequence[Peer]) -> str:
    return text_of([[peer.id, peer.address] for peer in peers])


def peers_of(text: str) -> list[Peer]:
    return [Peer(*row) for row in json.loads(text)]
