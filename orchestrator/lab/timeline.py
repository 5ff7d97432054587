"""What the lab itself saw, as JSON lines: the demo's critical path is computed from this, never from the orchestrator."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path


class Timeline:
    """Append-only and thread-safe; the file is private (0600) and line-buffered so that a killed lab loses nothing."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", buffering=1)

    def write(self, kind: str, **fields: object) -> None:
        line = json.dumps({"t": round(time.time(), 4), "kind": kind, **fields}, separators=(",", ":"))
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        with self._lock:
            self._file.close()
