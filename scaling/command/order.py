"""The order in which a sweep's cells start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scaling.run.estimate import Estimate
from scaling.run.task import CellTask


def in_order(tasks: Sequence[CellTask], estimates: Mapping[str, Estimate], one_at_a_time: bool) -> list[CellTask]:
    """The tasks of each phase, the longest chain of calls first: it bounds the sweep.

    At one call at a time no order is faster. The shortest cells then go first, for something to read soon, and cells
    of one benchmark and pipeline follow each other: their prompts begin alike, which the model's server makes use of.
    """
    chains = {task.cell.cell_id: estimates[task.cell.cell_id].chain[1] for task in tasks}
    if not one_at_a_time:
        return sorted(tasks, key=lambda task: (task.phase, -chains[task.cell.cell_id]))
    shortest: dict[tuple[str, str], int] = {}
    for task in tasks:
        chain = chains[task.cell.cell_id]
        shortest[_program(task)] = min(chain, shortest.get(_program(task), chain))
    return sorted(
        tasks, key=lambda task: (task.phase, shortest[_program(task)], _program(task), chains[task.cell.cell_id])
    )


def _program(task: CellTask) -> tuple[str, str]:
    return task.cell.benchmark, task.cell.pipeline
