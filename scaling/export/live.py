"""Telling a tracker of each cell as it ends, so that nothing the tracker does can fail or slow a cell.

The tracker works in a process of its own (`follow.py`), after the record is on disk. That it failed is told once: the
records are there, and `export_results.py` tells a tracker of them later. At the end it is waited for, but not for long.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scaling.export import follow
from scaling.export.follow import Order
from scaling.records.codec import encode

PATIENCE_SECONDS = 20.0
LONGEST_REASON = 200


class Follower:
    """The process of a tracker. say: takes a line for the user. later: the command that tells it of all records."""

    def __init__(self, order: Order, say: Callable[[str], None], later: str):
        self._order, self._say, self._later = order, say, later
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._lock, self._is_told = threading.Lock(), False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", follow.__name__],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._output,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        # A process that hangs takes nothing from its pipe: this thread waits for it, and no cell does.
        threading.Thread(target=self._hand_over, daemon=True, name="tracker").start()

    def ended(self, record: Path) -> None:
        """A cell has its record. Returns at once."""
        self._waiting.put(record.resolve())
        self._tell_failure()

    def close(self, patience: float | None = None) -> None:
        """No cell follows; waits at most `patience` seconds (PATIENCE_SECONDS), and says so when it is not done."""
        self._waiting.put(None)
        try:
            self._process.wait(PATIENCE_SECONDS if patience is None else patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._say(f"note: the tracker had not finished and was ended. The records are complete. {self._later}")
        else:
            self._tell_failure()
        self._output.close()

    def _hand_over(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError), pipe:  # where the process has ended, `_tell_failure` says why
            pipe.write(encode(self._order) + b"\n")
            pipe.flush()
            while (record := self._waiting.get()) is not None:
                pipe.write(encode(str(record)) + b"\n")
                pipe.flush()

    def _tell_failure(self) -> None:
        """Say once that the process has ended before its time, and why."""
        with self._lock:
            code = self._process.poll()
            if not code or self._is_told:
                return
            self._is_told = True
        self._say(f"note: the tracker has failed ({self._reason() or code}). Cells go on. {self._later}")

    def _reason(self) -> str:
        """The last line that the process has written."""
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:LONGEST_REASON]
