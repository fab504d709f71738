"""`--track`: a tracker of experiments is told of each cell as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from scaling.command.options import Options
from scaling.export.cells import read_cell
from scaling.export.live import Follower
from scaling.export.targets import TARGETS, open_tracker
from scaling.export.texts import Texts
from scaling.run.task import CellTask
from scaling.types import Cell

INTERRUPTED_PATIENCE_SECONDS = 1.0


@contextmanager
def tracking(
    options: Options, tasks: Sequence[CellTask], say: Callable[[str], None], entries: Mapping[str, dict[str, Any]]
) -> Iterator[Callable[[Cell], None]]:
    """A function that is told of each cell that has its record, while the block runs. It returns at once.

    Without --track it does nothing. say: takes a line for the user. entries: BENCHMARK_CONFIG.
    """
    if options.track is None:
        yield lambda cell: None
        return
    target, results = TARGETS[options.track], options.output_dir
    record_of = {task.cell.cell_id: task.files.record for task in tasks}
    follower = Follower(
        partial(open_tracker, target, results.resolve().name, None),
        partial(read_cell, entries=entries, texts=Texts(), say=say),
        say,
        later=f"Type: python export_results.py {results} --to {target.name}",
    )
    try:
        yield lambda cell: follower.ended(record_of[cell.cell_id])
    except BaseException:
        follower.close(INTERRUPTED_PATIENCE_SECONDS)
        raise
    follower.close()
