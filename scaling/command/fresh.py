"""`--fresh`: a new start that an interruption does not throw away. The same command goes on where it stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from scaling.records.store import FRESH, read_json, write_json
from scaling.run.task import CellTask
from scaling.types import UsageError


@dataclass(frozen=True)
class FreshStart:
    """When a fresh sweep began, in seconds since 1970, and when its cells' records of then were written (ns)."""

    since: float
    records_before: dict[str, int | None]

    def has_run(self, task: CellTask) -> bool:
        """Whether the cell's record was written after the fresh start."""
        return _written(task) != self.records_before[task.cell.cell_id]


def fresh_start(results: Path, tasks: Sequence[CellTask]) -> FreshStart:
    """The fresh start of these cells that was interrupted, or a new one."""
    cells = {task.cell.cell_id for task in tasks}
    with suppress(UsageError, KeyError, TypeError, ValueError):
        if (results / FRESH).exists():
            earlier = read_json(results / FRESH)
            if set(earlier["records_before"]) == cells:
                return FreshStart(float(earlier["since"]), earlier["records_before"])
    return FreshStart(time.time(), {task.cell.cell_id: _written(task) for task in tasks})


def remember(results: Path, start: FreshStart) -> None:
    """Keep the start until all of its cells are settled."""
    write_json(results / FRESH, asdict(start))


def forget(results: Path) -> None:
    """All cells of the fresh start are settled: the next --fresh begins anew."""
    (results / FRESH).unlink(missing_ok=True)


def _written(task: CellTask) -> int | None:
    """When the cell's record was written; None where there is none."""
    with suppress(FileNotFoundError):
        return os.stat(task.files.record).st_mtime_ns
    return None
