"""Telling a tracker of each cell as it ends, so that nothing the tracker does can fail or slow a cell.

The tracker works in a thread of its own, after the record is on disk. Its first error is told once and ends it: the
records are there, and `export_results.py` tells a tracker of them later. At the end it is waited for, but not for long.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

from scaling.export.cells import ExportedCell
from scaling.export.tracked import Tracker, tracked

PATIENCE_SECONDS = 20.0


class Follower:
    """Tells a tracker of cells. open_tracker: makes it, in the thread. read: the cell whose record is at a path.

    say: takes a line for the user. later: the command that tells the tracker of all records.
    """

    def __init__(
        self,
        open_tracker: Callable[[], Tracker],
        read: Callable[[Path], ExportedCell],
        say: Callable[[str], None],
        later: str,
    ):
        self._open, self._read, self._say, self._later = open_tracker, read, say, later
        self._left_alone = threading.Event()  # from then on it says nothing
        self._waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="tracker")
        self._thread.start()

    def ended(self, record: Path) -> None:
        """A cell has its record. Returns at once."""
        self._waiting.put(record)

    def close(self, patience: float | None = None) -> None:
        """No cell follows; waits at most `patience` seconds (PATIENCE_SECONDS), and says so when it is not done."""
        self._waiting.put(None)
        self._thread.join(PATIENCE_SECONDS if patience is None else patience)
        if self._thread.is_alive():
            self._left_alone.set()
            self._say(f"note: the tracker has not finished and is left alone. The records are complete. {self._later}")

    def _run(self) -> None:
        try:
            tracker = self._open()
            while (record := self._waiting.get()) is not None and not self._left_alone.is_set():
                tracker.log(tracked(self._read(record)))
            tracker.close()
        except BaseException as error:  # whatever it is, it is the tracker's and ends no cell
            if self._left_alone.is_set():
                return
            reason = " ".join(str(error).split())[:200]
            self._say(f"note: the tracker has failed ({type(error).__name__}: {reason}). Cells go on. {self._later}")
