"""Programs that were optimized on one model and run on another, against what that model's own programs score.

An entry of the matrix is a program on a model. It is held against the model's plain program, which its own cell scored
beside it, and against the program that the same optimizer made on that model on equal terms, its own optimum. Both are
paired: the rows are the same. Where there is no own optimum, that is said, and nothing stands in its place.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from scaling.analysis.comparisons import Comparison, Entry
from scaling.analysis.families import TRANSFERRED, table_rows
from scaling.analysis.money import usd_per_answer
from scaling.analysis.pairs import difference
from scaling.analysis.results import Results, folder_name
from scaling.analysis.stats import RunVariance, run_variances, score_interval
from scaling.analysis.test_rows import TestRow

NO_INTERVAL = (math.nan, math.nan)
NOT_RUN = TestRow(TRANSFERRED, "", "", verdict="")  # where there is no own optimum
SAME = replace(NOT_RUN, effect=0.0)  # where no answer scores differently: there is nothing to test


@dataclass(frozen=True)
class Move:
    """A program that was optimized elsewhere, on the model of `entry`.

    program: benchmark, steps and optimizer, which all of a matrix share. optimized_on: the model it is from. own: the
    model's own optimum, None where it was not run.
    """

    program: str
    optimized_on: str
    entry: Entry
    own: Entry | None

    @property
    def name(self) -> str:
        return f"{self.program}, optimized on {self.optimized_on}, run on {self.entry.series.model}"


@dataclass(frozen=True)
class MatrixRow:
    """A program on a model; one that was optimized on it is `own`. Scores and differences are fractions.

    improvement: over the model's plain program. against_own: minus the score of its own optimum. p and verdicts are
    Holm's over all transfers; a model's own optimum has none here. usd_per_example: list cost of an answer.
    usd_optimize: what the optimization cost, on the model that it was made on. NaN and "" are unknown, or not run.
    """

    program: str
    optimized_on: str
    run_on: str
    own: bool
    n: int
    runs: int
    score: float
    low: float
    high: float
    baseline_score: float
    improvement: float
    improvement_low: float
    improvement_high: float
    improvement_p_holm: float
    improvement_verdict: str
    unchanged: bool
    own_score: float
    against_own: float
    against_own_low: float
    against_own_high: float
    against_own_p_holm: float
    against_own_verdict: str
    usd_per_example: float
    usd_optimize: float


@dataclass(frozen=True)
class Transfers:
    """The transferred programs among some entries. entries: those of programs that are none."""

    results: Results
    entries: list[Entry]
    moved: list[Entry]

    @property
    def moves(self) -> list[Move]:
        """The transfers; those of one name with what tells their series apart."""
        cells = self.results.cells
        moves = [_move(entry, cells.loc[entry.keys[0]].to_dict(), self.entries) for entry in self.moved]
        names = Counter(move.name for move in moves)
        return [replace(m, program=m.program + m.entry.terms) if names[m.name] > 1 else m for m in moves]

    @property
    def pooled(self) -> dict[str, RunVariance]:
        return run_variances([entry.final for entry in (*self.entries, *self.moved)])


def test_transfers(transfers: Transfers) -> list[TestRow]:
    """Each transferred program against the plain one, then against the model's own optimum where there is one."""
    comparisons = [c for move in transfers.moves for c in (_over_plain(move), _over_own(move)) if c is not None]
    return table_rows(TRANSFERRED, comparisons, transfers.pooled)


def matrix_of(transfers: Transfers) -> pd.DataFrame:
    """The rows (`MatrixRow`) of summary_transfer.csv: each transferred program, and the own optima beside them."""
    moves, tests, pooled = transfers.moves, iter(test_transfers(transfers)), transfers.pooled
    rows = []
    for move in moves:
        of_plain = next(tests) if _over_plain(move) else SAME
        of_own = next(tests) if _over_own(move) else SAME if move.own else NOT_RUN
        rows.append(_row(transfers.results, move, of_plain, of_own, pooled))
    own = {(move.program, move.own.series, move.own.steps): move for move in moves if move.own}
    rows += [_own_row(transfers.results, move, pooled) for move in own.values()]
    frame = pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(MatrixRow)])
    return frame.sort_values(["program", "run_on", "own", "optimized_on"]).reset_index(drop=True)


def _move(entry: Entry, row: Mapping[Any, Any], entries: Sequence[Entry]) -> Move:
    """row: of one of the entry's cells, which says where its program is from."""
    program = f"{entry.series.benchmark} {folder_name(row)}"
    if row["source_model"] is None:  # a file, of which nobody knows who made it
        return Move(f"{program} {entry.series.start}", "a file", entry, None)
    options = f" ({row['source_options']})" if row["source_options"] else ""
    elsewhere = row["source_benchmark"] != entry.series.benchmark
    place = f"{row['source_model']} ({row['source_benchmark']})" if elsewhere else str(row["source_model"])
    own = sorted(_own_optima(entry, row, entries), key=lambda other: _is_other_kind(other, row))
    return Move(f"{program} {row['source_optimizer']}{options}", place, entry, own[0] if own else None)


def _own_optima(entry: Entry, row: Mapping[Any, Any], entries: Sequence[Entry]) -> Iterator[Entry]:
    """What the same optimizer made on the model itself, on the same terms."""
    for other in entries:
        same = other.steps == entry.steps and other.series.across_transfers == entry.series.across_transfers
        made = other.series.terms("optimizer", "optimizer_options")
        if same and made == (row["source_optimizer"], row["source_options"]):
            yield other


def _is_other_kind(own: Entry, row: Mapping[Any, Any]) -> tuple[bool, bool]:
    """Whether an own optimum began elsewhere, or had another kind of proposer than the program that was moved."""
    alone = own.series.optimizer_model == own.series.model
    source_alone = row["source_optimizer_model"] == row["source_model"]
    same = alone if source_alone else own.series.optimizer_model == row["source_optimizer_model"]
    return bool(own.series.start or own.series.frozen_roles), not same


def _over_plain(move: Move) -> Comparison | None:
    """None where no answer scores differently."""
    name = f"{move.name}: minus the plain program"
    return Comparison(name, (move.entry.base,), (move.entry.final,)) if move.entry.changed else None


def _over_own(move: Move) -> Comparison | None:
    """None where there is no own optimum, or no answer scores differently from its."""
    if move.own is None:
        return None
    own, final = move.own.final, move.entry.final
    is_same = own.scores.shape == final.scores.shape and bool((own.scores == final.scores).all())
    return None if is_same else Comparison(f"{move.name}: minus its own optimum", (own,), (final,))


def _row(results: Results, move: Move, of_plain: TestRow, of_own: TestRow, pooled: dict[str, RunVariance]) -> MatrixRow:
    """The row of a transferred program. of_plain, of_own: its tests against the plain program and the own optimum."""
    entry = move.entry
    low, high = score_interval(entry.final, pooled) or NO_INTERVAL
    sources = results.cells[results.cells["cell_id"].isin(results.cells.loc[entry.keys, "start_cell"])]
    return MatrixRow(
        program=move.program, optimized_on=move.optimized_on, run_on=entry.series.model, own=False,
        n=len(entry.final.items), runs=entry.final.runs, score=entry.final.mean, low=low, high=high,
        baseline_score=entry.base.mean, improvement=_known(of_plain.effect),
        improvement_low=_known(of_plain.ci_low), improvement_high=_known(of_plain.ci_high),
        improvement_p_holm=_known(of_plain.p_holm), improvement_verdict=of_plain.verdict,
        unchanged=bool(results.cells.loc[entry.keys, "unchanged"].astype(bool).all()),
        own_score=move.own.final.mean if move.own else math.nan,
        against_own=_known(of_own.effect), against_own_low=_known(of_own.ci_low),
        against_own_high=_known(of_own.ci_high), against_own_p_holm=_known(of_own.p_holm),
        against_own_verdict=of_own.verdict,
        usd_per_example=usd_per_answer(results, entry.keys, "final")[0],
        usd_optimize=_usd_optimize(sources),
    )  # fmt: skip


def _own_row(results: Results, move: Move, pooled: dict[str, RunVariance]) -> MatrixRow:
    """The row of a model's own optimum."""
    entry = move.own
    assert entry is not None
    low, high = score_interval(entry.final, pooled) or NO_INTERVAL
    change, cells = difference(entry.base, entry.final, pooled), results.cells.loc[entry.keys]
    ends = (change.low, change.high) if entry.changed else NO_INTERVAL
    return MatrixRow(
        program=move.program, optimized_on=entry.series.model, run_on=entry.series.model, own=True,
        n=len(entry.final.items), runs=entry.final.runs, score=entry.final.mean, low=low, high=high,
        baseline_score=entry.base.mean, improvement=change.effect, improvement_low=ends[0], improvement_high=ends[1],
        improvement_p_holm=math.nan, improvement_verdict="", unchanged=bool(cells["unchanged"].astype(bool).all()),
        own_score=entry.final.mean, against_own=math.nan, against_own_low=math.nan, against_own_high=math.nan,
        against_own_p_holm=math.nan, against_own_verdict="",
        usd_per_example=usd_per_answer(results, entry.keys, "final")[0], usd_optimize=_usd_optimize(cells),
    )  # fmt: skip


def _usd_optimize(cells: pd.DataFrame) -> float:
    """What the optimization of a cell cost, the mean of these; NaN where one does not know."""
    return float(cells["optimize_list_cost_usd"].astype(float).mean(skipna=False))


def _known(value: float | None) -> float:
    return math.nan if value is None else value
