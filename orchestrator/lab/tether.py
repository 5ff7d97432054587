"""Run a program that must not outlive its parent: `python -I -S tether.py PROGRAM ARG...`.

For programs that cannot watch for their parent's end themselves (HAProxy). Linux only; elsewhere it just runs them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:  # it may have ended before the promise was made
        os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 no shell is wanted
