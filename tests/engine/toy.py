"""A toy run for the engine's tests: a machine with three effects on a world of files.

Run as a program it is the process that the tests kill: `toy.py STATE WORLD RUN [--die POINT]`. With `--serve NAME` it
carries whatever runs there are, as `failout serve` does, until it is told to end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.core.errors import IllegalTransition, Transient
from orchestrator.core.machine import Effect, Event, Facts, Json
from orchestrator.engine.carry import Interrupted
from orchestrator.engine.place import Place
from orchestrator.engine.runtime import Carried, open_engine
from orchestrator.ports import Fence

STEPS = ("drain", "upgrade", "restore")


@dataclass(frozen=True)
class Toy:
    """`step` indexes STEPS; `paused` waits for a person."""

    step: int = 0
    paused: bool = False
    zone: str = "aws/a"
    refusals: int = 0


class ToyMachine:
    kind = "toy"

    def __init__(self, *, knows_refusals: bool = False) -> None:
        self._knows_refusals = knows_refusals

    def parse(self, data: Json) -> Toy:
        assert isinstance(data, dict)
        return Toy(**data)  # type: ignore[arg-type]

    def dump(self, state: Toy) -> Json:
        return {"step": state.step, "paused": state.paused, "zone": state.zone, "refusals": state.refusals}

    def decide(self, state: Toy, facts: Facts) -> Effect | Event | None:
        if facts.orders:
            return Event(facts.orders[0].kind, order=facts.orders[0].id)
        if state.paused or facts.killed or self.finished(state):
            return None
        return Effect(STEPS[state.step], state.zone)

    def apply(self, state: Toy, event: Event, now: datetime) -> Toy:
        match event.kind:
            case "pause":
                return replace(state, paused=True)
            case "resume":
                return replace(state, paused=False)
            case "interrupted":
                return state
            case "refused" if self._knows_refusals:
                return replace(state, refusals=state.refusals + 1, paused=True)
            case kind if not self.finished(state) and kind == f"{STEPS[state.step]}-done":
                return replace(state, step=state.step + 1)
        raise IllegalTransition(f"{event.kind} at step {state.step}")

    def finished(self, state: Toy) -> bool:
        return state.step == len(STEPS)

    def status(self, state: Toy) -> str:
        return "succeeded" if self.finished(state) else "paused" if state.paused else "active"

    def leased_zone(self, state: Toy) -> str | None:
        return state.zone if 0 < state.step else None

    def extra_slot(self, state: Toy) -> bool:
        return False


class FileWorld:
    """Each effect makes a file, idempotently as a cloud would; `log` has a line for each time it was performed."""

    def __init__(self, folder: Path, die: str | None = None, name: str = "", slow: str | None = None) -> None:
        """`slow`: this effect waits for a file of the name `go`."""
        self.folder = folder
        self._die, self._name, self._slow = die, name, slow

    def log(self, event: str, /, **fields: Any) -> None:
        if event == "effect-began":
            self._point(f"intended-{fields['step']}")
        if event.endswith("-done"):
            self._point(f"committed-{fields['step']}")

    def _point(self, name: str) -> None:
        if self._die == name:
            os.kill(os.getpid(), signal.SIGKILL)

    async def perform(self, state: Toy, effect: Effect, fence: Fence, interrupted: Interrupted) -> Event:
        with (self.folder / "log").open("a") as log:
            log.write(f"{effect.kind} {fence.number} {self._name}".strip() + "\n")
        self._point(f"during-{effect.kind}")
        while effect.kind == self._slow and not (self.folder / "go").exists():
            await asyncio.sleep(0.02)
            with contextlib.suppress(Transient):
                await interrupted()
        await fence.check()
        (self.folder / effect.kind).write_text(effect.zone or "")
        self._point(f"after-{effect.kind}")
        return Event(f"{effect.kind}-done", effect.zone)


async def serve(arguments: argparse.Namespace) -> None:
    world = FileWorld(arguments.world, name=arguments.serve, slow=arguments.slow)
    kinds = {"toy": Carried(ToyMachine(), world)}

    def log(event: str, /, **fields: Any) -> None:
        with (arguments.world / f"{arguments.serve}.log").open("a") as file:
            file.write(f"{event} {fields}\n")

    place = Place.of(arguments.state)
    async with open_engine(place, lambda _: kinds, executor=arguments.serve, serving=True, log=log) as engine:
        (arguments.world / f"{arguments.serve}.up").touch()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        while not ended.is_set():
            engine.check()
            await asyncio.sleep(0.05)


async def main(arguments: argparse.Namespace) -> None:
    world = FileWorld(arguments.world, arguments.die)
    kinds = {"toy": Carried(ToyMachine(), world)}
    async with open_engine(Place.of(arguments.state), lambda _: kinds, log=world.log) as engine:
        if not await engine.store.runs():
            now = datetime.now(UTC)
            await engine.store.create_run(
                arguments.run, "gates", "toy", ToyMachine().dump(Toy()), "active", author="test", reason="", now=now
            )
            await engine.start_run(arguments.run)
        run = await engine.await_run(arguments.run)
    sys.stdout.write(run.status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("world", type=Path)
    parser.add_argument("run")
    parser.add_argument("--die")
    parser.add_argument("--serve", metavar="NAME")
    parser.add_argument("--slow", metavar="STEP")
    given = parser.parse_args()
    asyncio.run(serve(given) if given.serve else main(given))
