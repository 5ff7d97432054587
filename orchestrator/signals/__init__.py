"""Adapters of the Signal port: how each kind of signal in failout.yaml is asked."""

from __future__ import annotations

from orchestrator.core.signal import Command, SignalSpec
from orchestrator.ports import Signal


def open_signal(spec: SignalSpec) -> Signal:
    """Nothing is connected before the first reading."""
    if isinstance(spec, Command):
        from orchestrator.signals.command import CommandSignal  # noqa: PLC0415

        return CommandSignal(spec)
    from orchestrator.signals.http import HttpSignal  # noqa: PLC0415

    return HttpSignal(spec)
