"""Adapters of the Signal port: how each kind of signal in failout.yaml is asked. Alarms of clouds are in orchestrator/clouds."""

from __future__ import annotations

from orchestrator.core.errors import Bug
from orchestrator.core.signal import Command, HttpCheck, LabTraffic, PrometheusQuery, SignalSpec
from orchestrator.ports import Signal


def open_signal(spec: SignalSpec) -> Signal:
    """Nothing is connected before the first reading."""
    match spec:
        case Command():
            from orchestrator.signals.command import CommandSignal  # noqa: PLC0415

            return CommandSignal(spec)
        case HttpCheck():
            from orchestrator.signals.http import HttpSignal  # noqa: PLC0415

            return HttpSignal(spec)
        case PrometheusQuery():
            from orchestrator.signals.prometheus import PrometheusSignal  # noqa: PLC0415

            return PrometheusSignal(spec)
        case LabTraffic():
            from orchestrator.signals.traffic import TrafficSignal  # noqa: PLC0415

            return TrafficSignal(spec)
    raise Bug(f"{type(spec).__name__} is the alarm of a cloud: its adapter opens it")
