"""What of a sweep is sent to workers: a cell's task without what only the plan needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cloudpickle

from scaling.concurrency import Concurrency
from scaling.records.store import CellFiles
from scaling.run.runner import CellTask, Settings
from scaling.run.source import source_or_none
from scaling.types import Benchmark, UsageError


@dataclass(frozen=True)
class WorkerTask:
    """A cell for a worker. rank: whose calls go first; signature_source: which MIPROv2 shows to its proposer."""

    task: CellTask
    settings: Settings
    rank: int
    max_concurrency: Concurrency
    signature_source: str | None


def pickle_task(task: CellTask, settings: Settings, rank: int, max_concurrency: Concurrency) -> bytes:
    """A cell as `worker.run_attempt` unpickles it, with what the user's script defines by value."""
    source = source_or_none(task.bench.signature)
    slim = replace(task, bench=_without_pool(task.bench), files=CellFiles(task.files.folder.absolute()))
    pickled: bytes = cloudpickle.dumps(WorkerTask(slim, settings, rank, max_concurrency, source))
    return pickled


def pickle_benchmarks(tasks: Sequence[CellTask]) -> list[bytes]:
    """Each benchmark of the cells, pickled; UsageError for one that cannot be."""
    benches = {task.cell.benchmark: _without_pool(task.bench) for task in tasks}
    pickled = []
    for name, bench in benches.items():
        source_or_none(bench.signature)  # read while the user's script can be found
        try:
            pickled.append(cloudpickle.dumps(bench))
        except Exception as error:  # pickling runs the user's own code
            raise UsageError(
                f"the benchmark '{name}' cannot be sent to workers ({type(error).__name__}: {error}). "
                f"Open files, locks and connections inside its functions, or type --engine local."
            ) from None
    return pickled


def _without_pool(bench: Benchmark) -> Benchmark:
    """Without the rows that no split holds: little is to be sent."""
    return replace(bench, train=[], test=None)
