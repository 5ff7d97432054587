"""I14 in a person's hand: a freeze starts nothing new, the kill switch stops every automatic act."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from orchestrator.core.errors import Refused
from orchestrator.engine.ports import EVERY_SERVICE, Store, Switch, SwitchName
from orchestrator.operations.audit import recorded


async def turn(
    store: Store, service: str, name: SwitchName, *, on: bool, author: str, reason: str, now: datetime
) -> Switch:
    """Turn a switch for one service, or for all (`*`); turning it twice is turning it once."""
    act = f"{name} {'on' if on else 'off'} for {whose(service)}"
    async with recorded(store, act, author=author, reason=reason, now=now):
        await store.set_switch(service, name, on=on, author=author, reason=reason, now=now)
    return Switch(service, name, on, author, reason, now)


def refuse_switched_off(
    service: str, switches: Iterable[Switch], names: frozenset[str] = frozenset({"freeze", "kill"})
) -> None:
    """I14: raises Refused with who turned it on, and why. `names`: the switches that this act minds."""
    for switch in switches:
        if switch.on and switch.name in names and switch.service in {service, EVERY_SERVICE}:
            why = f"{switch.name} is on for {whose(switch.service)}, set by {switch.author}: {switch.reason}"
            raise Refused("I14", why, next_command=ends(switch.name, switch.service))


async def still_on(store: Store, service: str, name: SwitchName) -> list[Switch]:
    """What is on after a switch was turned off: that of every service beside a service's own, or the other way round."""
    mine = {service, EVERY_SERVICE}
    return [
        s for s in await store.switches() if s.on and s.name == name and (service == EVERY_SERVICE or s.service in mine)
    ]


def ends(name: str, service: str) -> str:
    """The command that turns this switch off: one for every service is no service's own."""
    command = "failout unfreeze --reason ..." if name == "freeze" else "failout kill-switch off --reason ..."
    return command + (" --every-service" if service == EVERY_SERVICE else "")


def whose(service: str) -> str:
    return "every service" if service == EVERY_SERVICE else service
