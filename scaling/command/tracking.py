"""`--track`: a tracker of experiments is told of each cell as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from scaling.command.options import Options
from scaling.export.follow import Order
from scaling.export.live import Follower
from scaling.export.targets import TARGETS
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
    licences = {name: entry.get("licence") for name, entry in entries.items()}
    order = Order(target.function, results.resolve().name, licences)
    follower = Follower(order, say, later=f"Type: python export_results.py {results} --to {target.name}")
    try:
        yield lambda cell: follower.ended(record_of[cell.cell_id])
    except BaseException:
        follower.close(INTERRUPTED_PATIENCE_SECONDS)
        raise
    follower.close()
