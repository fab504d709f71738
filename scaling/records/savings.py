"""What a sequential study did not have to run, in calls and dollars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from scaling.records.record import CellPlan, Record
from scaling.types import Cell

Kind = tuple[str, str, int, str, str]


@dataclass(frozen=True)
class Work:
    """Calls and their list cost in dollars, None where a price is not known."""

    calls: float
    usd: float | None

    def __add__(self, other: Work) -> Work:
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Work(self.calls + other.calls, usd)


@dataclass(frozen=True)
class Saved:
    """Cells that were left out with the work that they would have been, and that of all cells of the fixed design.

    more_runs: how many further runs of every cell the saved calls would pay for.
    """

    cells: int
    work: Work
    of: Work
    more_runs: float

    @property
    def share(self) -> float:
        return self.work.calls / self.of.calls if self.of.calls else 0.0


def saved(left_out: Sequence[Cell], records: Sequence[Record], plans: Mapping[str, CellPlan]) -> Saved:
    """What the cells that were left out saved.

    A cell counts as much as the mean of its other runs, and as it was planned where none has run. records: all of the
    study. plans: estimates by cell_id.
    """
    by_kind: dict[Kind, list[Work]] = {}
    for record in records:
        by_kind.setdefault(_kind(record.cell), []).append(_work_of(record))
    spared = [_likely(cell, by_kind.get(_kind(cell), []), plans.get(cell.cell_id)) for cell in left_out]
    done = sum((work for works in by_kind.values() for work in works), start=Work(0.0, 0.0))
    less = sum(spared, start=Work(0.0, 0.0))
    runs = len({cell.run for cell in [*left_out, *(record.cell for record in records)]})
    whole = done + less
    return Saved(len(left_out), less, whole, runs * less.calls / whole.calls if whole.calls else 0.0)


def _kind(cell: Cell) -> Kind:
    return cell.benchmark, cell.pipeline, cell.steps, cell.optimizer, cell.model


def _work_of(record: Record) -> Work:
    parts = [part for part in (record.usage and record.usage.optimize, record.usage and record.usage.evaluate) if part]
    return sum((Work(part.calls, part.list_cost_usd) for part in parts), start=Work(0.0, 0.0))


def _likely(cell: Cell, others: Sequence[Work], plan: CellPlan | None) -> Work:
    if others:
        usd = [work.usd for work in others if work.usd is not None]
        return Work(mean(work.calls for work in others), mean(usd) if len(usd) == len(others) else None)
    if plan is None:
        return Work(0.0, None)
    return Work(mean(plan.calls), None if plan.usd is None else mean(plan.usd))
