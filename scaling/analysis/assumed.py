"""Results of cells that have not run: what is known of them beforehand, with scores as plan.txt (section 11) assumes.

The analysis' own rules then say which questions the cells can answer, and the smallest effect that each can show. The
scores are about 0.7 everywhere, so they say nothing about what will come out, unless somebody gives a `Truth`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from scaling.analysis.loading import cell_row
from scaling.analysis.reading import Answers, CellData
from scaling.analysis.results import Results
from scaling.pipelines import PIPELINES
from scaling.planning.optimizers import NONE
from scaling.planning.questions import reads_equal_calls
from scaling.records.record import TOKEN_KINDS, CallRecord, Record
from scaling.types import Cell

SCORE = 0.7
RUN_SD = 0.02  # of an optimizer's runs
ITEM_CORRELATION = 0.6  # of the latent answers to one row; of right and wrong it is about 0.4
UNKNOWN_TOKENS = dict.fromkeys(TOKEN_KINDS, math.nan)
USD_A_CALL = 0.001

Draws = npt.NDArray[np.float64]
# The expected score of a cell's program ('baseline' or another), a fraction.
Truth = Callable[[Cell, str], float]


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


def same_everywhere(cell: Cell, program: str) -> float:
    return SCORE


def assumed_results(
    planned: Sequence[Planned], rng: np.random.Generator, truth: Truth = same_everywhere
) -> AssumedResults:
    """The cells as if they had run, each with scores drawn by `rng` around `truth`. For one cell or more."""
    keys = [f"{cell.record.cell_id}#{number}" for number, cell in enumerate(planned)]
    cells = pd.DataFrame([cell_row(cell.record) for cell in planned], index=pd.Index(keys, name="key"))
    cells = cells.astype({name: float for name in cells.columns if str(name).startswith("evaluate_")})  # not known yet
    difficulty = {rows: rows.difficulty(rng) for rows in dict.fromkeys(cell.rows for cell in planned)}
    data = {
        key: CellData(dict(_programs(cell, difficulty[cell.rows], rng, truth)), {}, {}, [], None)
        for key, cell in zip(keys, planned, strict=True)
    }
    priced = cells["output_usd_per_million"].notna()
    return AssumedResults(cells, {}, {}, data, [], None, priced=frozenset(cells.index[priced]))


def _programs(
    planned: Planned, difficulty: Draws, rng: np.random.Generator, truth: Truth
) -> Iterator[tuple[str, Answers]]:
    cell = planned.record.cell
    turns = cell.steps if PIPELINES[cell.pipeline].scores_turns else 1
    priced = planned.record.model is not None and planned.record.model.output_usd_per_million is not None

    def answers(program: str, run_sd: float, draws: int = 1) -> Answers:
        score = truth(cell, program) + (rng.normal(0, run_sd) if run_sd else 0.0)
        drawn = np.mean([_draws(difficulty, turns, score, rng) for _ in range(draws)], axis=0)
        return _answers(planned.rows, drawn, turns * USD_A_CALL if priced else math.nan)

    if cell.optimizer == NONE.name:
        yield from dict.fromkeys(("baseline", "final"), answers("baseline", 0.0, cell.draws)).items()
        return
    yield "baseline", answers("baseline", 0.0)
    yield "final", answers("final", RUN_SD, cell.draws)
    if reads_equal_calls(cell):
        yield "at_equal_calls", answers("at_equal_calls", RUN_SD)


def _draws(difficulty: Draws, turns: int, score: float, rng: np.random.Generator) -> Draws:
    """Right (1) and wrong answers to the rows, shape (n, turns)."""
    own = rng.standard_normal((len(difficulty), turns))
    score = min(max(score, 0.005), 0.995)
    latent = np.sqrt(ITEM_CORRELATION) * difficulty[:, None] + np.sqrt(1 - ITEM_CORRELATION) * own
    return np.asarray(latent < special.ndtri(score), dtype=float)


def _answers(rows: Rows, draws: Draws, usd: float) -> Answers:
    turns = draws if draws.shape[1] > 1 else None
    return Answers(
        rows.items, rows.groups, draws[:, -1], {}, turns, calls=math.nan, tokens=math.nan, usd=usd,
        tokens_by_kind=UNKNOWN_TOKENS,
    )  # fmt: skip
