"""Trackers for the tests: one that keeps what it is told in a file, and others that fail in their own ways."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

from scaling.export.tracked import TrackedCell

NOTES = "TRACKER_NOTES"  # the variable that names the file


class Notes:
    """A tracker that keeps what it is told."""

    def __init__(self, sweep: str, folder: Path | None):
        self._file = Path(os.environ[NOTES])

    def log(self, cell: TrackedCell) -> None:
        with self._file.open("a") as out:
            out.write(json.dumps(asdict(cell)) + "\n")

    def close(self) -> None:
        with self._file.open("a") as out:
            out.write('"closed"\n')


class Raising(Notes):
    """A tracker whose server is not there."""

    def log(self, cell: TrackedCell) -> None:
        raise ConnectionError("no server at all")


class Hanging(Notes):
    """A tracker that never comes back."""

    def log(self, cell: TrackedCell) -> None:
        threading.Event().wait()


class Dying(Notes):
    """A tracker that ends its process."""

    def log(self, cell: TrackedCell) -> None:
        os._exit(3)
