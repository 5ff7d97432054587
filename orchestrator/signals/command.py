"""A command as a signal: it runs without a shell, in a process group of its own that is killed when its time is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.core.signal import Command
from orchestrator.ports import Reading

TOLD_MAX: Final = 200
_STATES: Final[dict[int, Literal["good", "bad"]]] = {0: "good", 1: "bad", 2: "bad"}


@dataclass(frozen=True, slots=True)
class CommandSignal:
    spec: Command

    async def read(self) -> Reading:
        """0 is good, 1 and 2 are bad; any other code, a signal, or no end in time is unknown."""
        name = self.spec.argv[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *self.spec.argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
            )
        except OSError as error:
            return Reading("unknown", f"{name} cannot be run: {error.strerror}")
        try:
            out, _ = await asyncio.wait_for(process.communicate(), self.spec.timeout_s)
        except TimeoutError:
            return Reading("unknown", f"{name} did not end within {self.spec.timeout_s:g} s")
        finally:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # What it left running too.
            await process.wait()
        told = " ".join(out.decode("utf-8", "replace").split())[:TOLD_MAX]
        code = process.returncode if process.returncode is not None else -1
        return Reading(_STATES.get(code, "unknown"), f"{name} ended with {code}" + (f": {told}" if told else ""))
