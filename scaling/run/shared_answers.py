"""What the cells of a sweep have in common: one of them pays for it, and the others find it in the cache.

Cells that differ in the pipeline or in the number of steps only draw answers of the same one-step program: a vote of
three and a redraw draw the same three, and self-correction starts from the first. Cells
that score transferred programs score the same plain one beside them.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import replace

from scaling.pipelines import PIPELINES
from scaling.planning.optimizers import NONE, TRANSFER
from scaling.run.estimate import Estimate, estimate
from scaling.run.task import CellTask
from scaling.types import Cell


def shared(tasks: Sequence[CellTask]) -> Estimate | None:
    """What the cells would use twice if each were run by itself; None where they share nothing."""
    groups: dict[str, list[CellTask]] = {}
    for task in tasks:
        if _answers(task.cell):
            groups.setdefault(_one_step(task.cell).cell_id, []).append(task)
    twice = [part for group in groups.values() if len(group) > 1 for part in _twice(group)]
    counted = {task.cell.cell_id for group in groups.values() if len(group) > 1 for task in group}
    twice += _plain_twice([task for task in tasks if task.cell.cell_id not in counted])
    return functools.reduce(operator.add, twice) if twice else None


def _plain_twice(tasks: Sequence[CellTask]) -> list[Estimate]:
    """The scores of a plain program that are beside several transferred ones, but once."""
    groups: dict[str, list[CellTask]] = {}
    for task in tasks:
        if task.cell.optimizer == TRANSFER.name:
            plain = replace(task.cell, optimizer=NONE.name, start_sha256="", start_cell="")
            alone = replace(task, cell=plain, start=None, splits=replace(task.splits, check=[]))
            groups.setdefault(plain.cell_id, []).append(alone)
    return [estimate(group[0]) for group in groups.values() for _ in group[1:]]


def _answers(cell: Cell) -> int:
    """How many answers of the one-step program a cell draws; an optimizer makes another one of turns than of a step."""
    spec = PIPELINES[cell.pipeline]
    return 0 if spec.takes_feedback and cell.optimizer != NONE.name else spec.one_step_answers(cell.steps)


def _one_step(cell: Cell) -> Cell:
    """The cell that runs the one-step program once."""
    return replace(cell, pipeline="chain", steps=1, feedback="none")


def _twice(group: list[CellTask]) -> list[Estimate]:
    """The optimization and the first answers of all cells but one, and the later answers that another draws, too.

    With an optimizer, later answers are counted for the program before it alone: what it finds is not known.
    """
    once = replace(group[0], cell=_one_step(group[0].cell))
    plain = replace(once, cell=replace(once.cell, optimizer=NONE.name, optimizer_options={}))
    later = [_answers(task.cell) - 1 for task in group]
    return [estimate(once)] * (len(group) - 1) + [estimate(plain)] * (sum(later) - max(later))
