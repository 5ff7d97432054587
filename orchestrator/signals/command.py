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
TAIL_BYTES: Final = 4096
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
            told = await asyncio.wait_for(_last_line(process), self.spec.timeout_s)
        except TimeoutError:
            return Reading("unknown", f"{name} did not end within {self.spec.timeout_s:g} s")
        finally:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # What it left running too.
            await process.wait()
        code = process.returncode if process.returncode is not None else -1
        return Reading(_STATES.get(code, "unknown"), f"{name} ended with {code}" + (f": {told}" if told else ""))


async def _last_line(process: asyncio.subprocess.Process) -> str:
    """What it said last, once it has ended; no more is kept of what may be endless."""
    assert process.stdout is not None
    tail = b""
    while chunk := await process.stdout.read(TAIL_BYTES):
        tail = (tail + chunk)[-TAIL_BYTES:]
    await process.wait()
    lines = [line for line in tail.decode("utf-8", "replace").splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:TOLD_MAX] if lines else ""
