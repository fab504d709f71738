"""Cells that correct themselves: what their turns did, and what correcting gives a model on a task and costs.

`turned_cells` labels every such cell; `gains_of` makes the frame that the research questions are asked of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.money import usd_per_answer
from scaling.analysis.pairs import difference
from scaling.analysis.results import Results, Turns
from scaling.analysis.self_correction import Correction, correction, labels
from scaling.analysis.stats import Arm, Estimate, RunVariance, run_variances, score_interval
from scaling.analysis.test_rows import TestRow
from scaling.analysis.verdicts import detectable
from scaling.intervals import Interval
from scaling.planning.questions import QUESTIONS

CORRECTIONS = "self-correction against a redraw"
NO_CONTROL = "the redraw control is missing: pipeline resample, two draws or more, as many runs"
CHEATING = "no verdict (cheating)"


@dataclass(frozen=True)
class TurnedCell:
    """A self-correcting cell: its turn scores (n, turns, runs), the interval of each turn's score, what turns did.

    beyond_vote: the last turn minus the vote of as many calls; None where that vote was not run, where the calls are
    even, since the vote of two is the vote of one, and for a model that is told which of its answers are right.
    """

    entry: Entry
    turns: np.ndarray
    intervals: list[Interval | None]
    correction: Correction
    beyond_vote: Estimate | None
    label: str


@dataclass(frozen=True)
class Gain:
    """What correcting itself gives one model on one task, with the properties of the model. Scores are fractions.

    even, odd: over the runs with that index only, so that a property measured on the answers does not share their
    noise with the gain (STATISTICS 9.6). Unknown numbers are NaN.
    """

    model: str
    benchmark: str
    turns: int
    gain: float
    variance: float
    df: float
    gain_even: float
    gain_odd: float
    first_even: float
    first_odd: float
    beyond_vote: float
    extra_usd: float
    size: float
    status: str
    price: float
    context_length: float


def turned_cells(results: Results, entries: list[Entry]) -> list[TurnedCell]:
    """Every self-correcting cell with what its turns did; their labels are one Holm family.

    A model that is told which of its answers are right stops at a right one: a redraw is no control for it, and it
    gets no label.
    """
    pooled = run_variances([entry.final for entry in entries])
    redraws = {e.series.across_controls: e for e in entries if e.series.pipeline == "resample" and e.steps >= 2}
    votes = {(e.series.across_controls, e.steps): e for e in entries if e.series.pipeline == "vote" and e.steps % 2}
    measured = []
    for entry in entries:
        turns = results.turns(entry.keys) if entry.series.pipeline == "self_correct" else None
        if turns is not None and entry.steps >= 2:
            measured.append(
                (entry, turns, _correction(results, entry, turns, redraws.get(entry.series.across_controls)))
            )
    honest = [correction for entry, _, correction in measured if entry.series.feedback != "oracle"]
    told = iter(labels(honest))
    return [
        TurnedCell(entry, turns.scores, _turn_intervals(entry, turns, pooled), correction,
                   _beyond(votes.get((entry.series.across_controls, entry.steps)), entry, pooled),
                   CHEATING if entry.series.feedback == "oracle" else next(told))
        for entry, turns, correction in measured
    ]  # fmt: skip


def test_corrections(turned: list[TurnedCell]) -> list[TestRow]:
    """Rows of summary_tests.csv: the gain of each self-correcting cell, with its label as the verdict."""
    honest = sum(cell.label != CHEATING for cell in turned)
    return [_correction_row(cell, 4 * honest) for cell in turned]


def _correction_row(cell: TurnedCell, labels: int) -> TestRow:
    """labels: those of all cells, which are one Holm family."""
    gain, more = cell.correction.gain, cell.correction.excess_wrong_to_right
    row = TestRow(
        CORRECTIONS, QUESTIONS["correction"].sentence, f"{cell.entry.name}: last turn - first", asks="correction",
        effect=gain.effect, ci_low=gain.low, ci_high=gain.high, p=gain.p, verdict=cell.label, level=gain.level,
        n=gain.n, runs=gain.runs,
    )  # fmt: skip
    if cell.label == CHEATING:
        return row.refused("the model is told which answers are right")
    if more is None:
        return row.refused(NO_CONTROL)
    if untestable := gain.untestable or more.untestable:
        return row.refused(untestable)
    return replace(row, detectable=max(detectable(gain, labels), detectable(more, labels)))


def gains_of(results: Results, turned: list[TurnedCell]) -> pd.DataFrame:
    """A row (`Gain`) a model and task: intrinsic self-correction of the program without an optimizer.

    At the largest number of turns there is.
    """
    plain = [c for c in turned if c.entry.series.feedback == "none" and c.entry.series.optimizer == "none"]
    rows = [_gain(results, cell) for cell in plain]
    most = max((row.turns for row in rows), default=0)
    return pd.DataFrame([row for row in rows if row.turns == most], columns=[field.name for field in fields(Gain)])


def _correction(results: Results, entry: Entry, turns: Turns, control: Entry | None) -> Correction:
    """What the turns did, on the items that the control has as well where there is one with as many runs."""
    again = results.turns(control.keys) if control else None
    pair = None
    if again is not None and again.scores.shape[2] == turns.scores.shape[2]:
        shared = turns.items[np.isin(turns.items, again.items)]
        if len(shared):
            turns, again = turns.at(shared), again.at(shared)
            pair = again.scores[:, 0], again.scores[:, 1]
    return correction(turns.scores[:, 0], turns.scores[:, -1], pair, turns.groups, entry.series.optimizer)


def _beyond(vote: Entry | None, entry: Entry, pooled: Mapping[str, RunVariance]) -> Estimate | None:
    if vote is None or entry.series.feedback == "oracle":
        return None
    return difference(vote.final, entry.final, pooled)


def _turn_intervals(entry: Entry, turns: Turns, pooled: Mapping[str, RunVariance]) -> list[Interval | None]:
    """The interval of each turn's score, by the rules of a cell's score."""
    arms = [
        Arm(entry.series.benchmark, entry.series.optimizer, turns.items, turns.groups, turns.scores[:, turn])
        for turn in range(turns.scores.shape[1])
    ]
    return [score_interval(arm, pooled) for arm in arms]


def _gain(results: Results, cell: TurnedCell) -> Gain:
    entry, record = cell.entry, results.cells.loc[cell.entry.keys[0]].to_dict()
    first_by_run, last_by_run = cell.turns[:, 0].mean(axis=0), cell.turns[:, -1].mean(axis=0)
    gain_by_run = last_by_run - first_by_run
    size, status = entry.size
    return Gain(
        model=entry.series.model,
        benchmark=entry.series.benchmark,
        turns=entry.steps,
        gain=cell.correction.gain.effect,
        variance=cell.correction.gain.se**2,
        df=cell.correction.gain.df,
        gain_even=_mean(gain_by_run[::2]),
        gain_odd=_mean(gain_by_run[1::2]),
        first_even=_mean(first_by_run[::2]),
        first_odd=_mean(first_by_run[1::2]),
        beyond_vote=cell.beyond_vote.effect if cell.beyond_vote is not None else math.nan,
        extra_usd=extra_usd(results, entry),
        size=size if size is not None else math.nan,
        status=status,
        price=_number(record["output_usd_per_million"]),
        context_length=_number(record["context_length"]),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def extra_usd(results: Results, entry: Entry) -> float:
    """List cost in USD of the later turns of one answer; NaN where a price is unknown.

    The answer's cost times the reviews' share of what the evaluation cost: a turn that uses tools is several calls.
    """
    calls = [call for key in entry.keys for call in results.calls(key) if call.phase == "evaluate"]
    costs = [math.nan if call.list_cost_usd is None else call.list_cost_usd for call in calls]
    reviews = [cost for call, cost in zip(calls, costs, strict=True) if call.role == "review"]
    share = sum(reviews) / sum(costs) if any(costs) else 0.0
    return usd_per_answer(results, entry.keys, "final")[0] * share
