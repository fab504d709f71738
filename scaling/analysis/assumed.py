"""Results of cells that have not run: what is known of them beforehand, with scores as plan.txt (section 11) assumes.

The analysis' own rules then say which questions the cells can answer, and the smallest effect that each can show. The
scores are about 0.7 everywhere, so they say nothing about what will come out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from scaling.analysis.loading import cell_row
from scaling.analysis.reading import Answers, CellData
from scaling.analysis.results import Results
from scaling.planning.optimizers import NONE
from scaling.records.record import TOKEN_KINDS, CallRecord, Record

SCORE = 0.7
RUN_SD = 0.02  # of an optimizer's runs
ITEM_CORRELATION = 0.6  # of the latent answers to one row; of right and wrong it is about 0.4
TURNS = ("self_correct", "resample")  # pipelines whose later draws are scored, too
UNKNOWN_TOKENS = dict.fromkeys(TOKEN_KINDS, math.nan)
USD_A_CALL = 0.001

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that cells are scored on: ids and groups, (n,) each. Equal to itself only."""

    items: np.ndarray
    groups: np.ndarray

    def difficulty(self, rng: np.random.Generator) -> Draws:
        """How hard each row is, standard normal, shape (n,); the same for the rows of a group."""
        labels, place = np.unique(self.groups, return_inverse=True)
        return np.asarray(rng.standard_normal(len(labels))[place])


@dataclass(frozen=True)
class Planned:
    """A cell with what is known before it runs: a record without scores, and its rows."""

    record: Record
    rows: Rows


@dataclass
class AssumedResults(Results):
    """Results whose calls are assumed, too: with a price where the cell's model has one."""

    priced: frozenset[str] = field(default_factory=frozenset)  # row keys

    def calls(self, key: str) -> list[CallRecord]:
        """A first answer and a review."""
        usd = USD_A_CALL if key in self.priced else None
        return [CallRecord(phase="evaluate", role=role, list_cost_usd=usd) for role in ("answer", "review")]


def assumed_results(planned: Sequence[Planned], rng: np.random.Generator) -> AssumedResults:
    """The cells as if they had run, each with scores drawn by `rng`. For one cell or more."""
    keys = [f"{cell.record.cell_id}#{number}" for number, cell in enumerate(planned)]
    cells = pd.DataFrame([cell_row(cell.record) for cell in planned], index=pd.Index(keys, name="key"))
    cells = cells.astype({name: float for name in cells.columns if str(name).startswith("evaluate_")})  # not known yet
    difficulty = {rows: rows.difficulty(rng) for rows in dict.fromkeys(cell.rows for cell in planned)}
    data = {
        key: CellData(dict(_programs(cell, difficulty[cell.rows], rng)), {}, {}, [], None)
        for key, cell in zip(keys, planned, strict=True)
    }
    priced = cells["output_usd_per_million"].notna()
    return AssumedResults(cells, {}, {}, data, [], None, priced=frozenset(cells.index[priced]))


def _programs(planned: Planned, difficulty: Draws, rng: np.random.Generator) -> Iterator[tuple[str, Answers]]:
    cell = planned.record.cell
    turns = cell.steps if cell.pipeline in TURNS else 1

    priced = planned.record.model is not None and planned.record.model.output_usd_per_million is not None

    def answers(run_shift: float) -> Answers:
        draws = _draws(difficulty, turns, SCORE + run_shift, rng)
        return _answers(planned.rows, draws, turns * USD_A_CALL if priced else math.nan)

    baseline = answers(0.0)
    yield "baseline", baseline
    if cell.optimizer == NONE.name:
        yield "final", baseline
        return
    for program in ("final", *(["at_equal_calls"] if cell.steps > 1 else [])):
        yield program, answers(rng.normal(0, RUN_SD))


def _draws(difficulty: Draws, turns: int, score: float, rng: np.random.Generator) -> Draws:
    """Right (1) and wrong answers to the rows, shape (n, turns)."""
    own = rng.standard_normal((len(difficulty), turns))
    latent = np.sqrt(ITEM_CORRELATION) * difficulty[:, None] + np.sqrt(1 - ITEM_CORRELATION) * own
    return np.asarray(latent < special.ndtri(score), dtype=float)


def _answers(rows: Rows, draws: Draws, usd: float) -> Answers:
    turns = draws if draws.shape[1] > 1 else None
    return Answers(
        rows.items, rows.groups, draws[:, -1], {}, turns, calls=math.nan, tokens=math.nan, usd=usd,
        tokens_by_kind=UNKNOWN_TOKENS,
    )  # fmt: skip
