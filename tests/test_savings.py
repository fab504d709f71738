"""What a sequential study saved: the cells that it left out, each at the price of its other runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scaling.records.record import CellPlan, PhaseUsage, Usage
from scaling.records.savings import saved
from scaling.types import Cell
from tests.support.made_up import record_of

CELL = Cell("banking77", "chain", 1, "gepa", "toy/a", "toy/a")


def record(cell: Cell, calls: int, usd: float | None = 1.0):
    made = record_of(cell, np.ones(4), np.ones(4))
    made.usage = PhaseUsage(Usage(calls=calls - 10, list_cost_usd=usd), Usage(calls=10, list_cost_usd=0.0))
    return made


def test_a_cell_counts_as_the_mean_of_its_other_runs() -> None:
    runs = [record(replace(CELL, run=run), calls) for run, calls in enumerate((100, 300))]
    other = record(replace(CELL, steps=5), 5000)
    found = saved([replace(CELL, run=2)], [*runs, other], {})

    assert (found.cells, found.work.calls, found.work.usd) == (1, 200, 1.0)
    assert found.of.calls == 5600
    assert found.share == 200 / 5600
    assert found.more_runs == pytest.approx(3 * 200 / 5600)


def test_a_cell_without_other_runs_counts_as_it_was_planned() -> None:
    held_back = replace(CELL, steps=3)
    plans = {held_back.cell_id: CellPlan((100, 200), (1, 1), held_back, usd=(1.0, 3.0))}
    found = saved([held_back], [record(CELL, 100)], plans)

    assert (found.work.calls, found.work.usd) == (150, 2.0)


def test_dollars_are_unknown_where_one_price_is() -> None:
    found = saved([replace(CELL, run=1)], [record(CELL, 100, usd=None)], {})

    assert found.work.calls == 100
    assert found.work.usd is None


def test_where_nothing_was_left_out_nothing_is_saved() -> None:
    assert saved([], [], {}).share == 0.0
