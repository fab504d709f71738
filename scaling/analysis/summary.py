"""The summary frame: one row per series and number of steps, each number with its interval and its level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.money import cost_column, mean_of, usd_per_answer
from scaling.analysis.pairs import adoption_p, difference
from scaling.analysis.results import Results
from scaling.analysis.series import SHARED, SHARED_IN_BENCHMARK
from scaling.analysis.stats import (
    THIS_OPTIMIZER,
    THIS_PROGRAM,
    Estimate,
    RunVariance,
    is_skewed,
    run_variances,
    score_interval,
)
from scaling.analysis.text import plain
from scaling.planning.optimizers import label_of
from scaling.records.record import TOKEN_KINDS

ADOPTION_LEVEL = 0.05
FEWEST_CHECK_ROWS = 30  # of a run, below which no cell is recommended
NORMAL = 1.96  # 97.5 % point of the normal distribution
NO_INTERVAL = (math.nan, math.nan)
# Terms of a series that are named in a line where they differ; others are named by their field.
TERM_FORMS = {
    "optimizer_options": "{}",
    "optimizer_model": "proposer {}",
    "train_size": "train {}",
    "select_size": "select {}",
}
_NAMED_APART = ("model", "rollout_budget", "test_sha256")  # terms that names already tell, or that are too long


@dataclass(frozen=True)
class Scores:
    """Scores of one series at one number of steps with their 95 % intervals, recomputed from predictions."""

    baseline_score: float
    baseline_low: float
    baseline_high: float
    final_score: float
    final_low: float
    final_high: float
    improvement: float
    improvement_low: float
    improvement_high: float
    optimism: float  # (final - baseline on select) - (final - baseline on test)
    optimism_low: float
    optimism_high: float


@dataclass(frozen=True)
class Means:
    """Means over the runs of a series at one number of steps; what no run knows is NaN."""

    at_equal_calls_score: float
    check_score: float
    val_baseline_score: float
    val_final_score: float
    rollouts_used: float
    proposals_tried: float
    proposals_unparsed: float
    proposals_accepted: float
    optimize_calls: float
    proposal_calls: float
    usd_optimize: float
    usd_proposals: float
    parse_error_rate: float
    elapsed_seconds: float
    parameters_billions: float


# Columns of the cells' table that have another name there.
_COLUMN_OF = {
    "usd_optimize": "optimize_list_cost_usd",
    "usd_proposals": "proposal_list_cost_usd",
    "parse_error_rate": "error_rate_parse",
}
MEANS = {field.name: _COLUMN_OF.get(field.name, field.name) for field in fields(Means)}


@dataclass(frozen=True)
class Answering:
    """What an answer of the final program takes, means over runs. usd_is_average: see `usd_per_answer`."""

    calls_per_example: float
    tokens_per_example: float
    prompt_tokens_per_example: float
    cached_tokens_per_example: float
    completion_tokens_per_example: float
    reasoning_tokens_per_example: float
    usd_per_example: float
    usd_is_average: bool


@dataclass(frozen=True)
class Facts:
    """What a series at one number of steps is, and what may be said of it."""

    steps: int
    run_list: str
    runs: int
    n: int
    split: str
    level: str
    sample: bool
    task_class: str | None
    status: str
    unchanged: bool
    skewed: bool
    adopt: str  # yes, not shown, or "" where there is nothing to adopt
    flagged: bool
    records: str


def summarise(results: Results, entries: list[Entry]) -> pd.DataFrame:
    """Rows of summary_results.csv: a series' fields, Facts, Answering, Scores and Means, and how a line is named."""
    between = run_variances([entry.final for entry in entries])
    numbers = results.cells[list(dict.fromkeys(MEANS.values()))].astype(float)
    summary = pd.DataFrame([_row(results, entry, between, numbers.loc[entry.keys]) for entry in entries])
    if not summary.empty:
        summary["terms"] = _differing_terms(summary)
        summary["line"] = labels_of(summary).map(plain)
        summary["row_name"] = _row_names(summary).map(plain)
    return summary


def labels_of(summary: pd.DataFrame) -> pd.Series:
    """A line's name: the optimizer, with pipeline, model and terms only where they differ within the frame."""
    names: pd.Series[str] = summary["optimizer"].map(label_of).astype(str)
    names = names + summary["synth_mode"].map(lambda mode: ", online" if mode == "online" else "")
    for column, form in (("start", ", {}"), ("frozen_roles", ", frozen {}")):
        names = names + summary[column].map(lambda text, form=form: form.format(text) if text else "")
    for column, form in (("pipeline", "{}"), ("model", "{}"), ("rollout_budget", "budget {}"), ("terms", "{}")):
        if summary[column].nunique() > 1 and not (column == "pipeline" and set(summary[column]) == {"chain"}):
            names = names + ", " + summary[column].map(form.format)
    return names


def recommended(summary: pd.DataFrame, per_dollar: bool) -> pd.DataFrame:
    """The summary's rows that are recommended, one per benchmark; `of` cells were chosen among, `tied` are as good.

    The best on check rows; per dollar, the cheapest within one standard error of it. The test score takes no part in
    the choice (STATISTICS 7); the second is the rule of Breiman et al. 1984 (CART, 3.4.3). Cells with fewer than
    FEWEST_CHECK_ROWS take no part, and a benchmark with one cell left has no such choice.
    """
    if summary.empty:
        return summary
    cells = _to_choose_among(summary)
    cells = cells[cells["check_rows"] >= FEWEST_CHECK_ROWS]
    choices = [part for _, part in cells.groupby("benchmark") if len(part) > 1]
    chosen = [_best(part, per_dollar) for part in choices]
    tied = [
        int((part["check_score"] == part["check_score"].loc[best]).sum())
        for part, best in zip(choices, chosen, strict=True)
    ]
    return cells.loc[chosen].assign(of=[len(part) for part in choices], tied=tied)


def too_few_check_rows(summary: pd.DataFrame) -> dict[str, int]:
    """Benchmark -> the most check rows that a cell of it has, where that is too few to recommend one."""
    cells = _to_choose_among(summary) if not summary.empty else summary.reindex(columns=["benchmark"])
    choices = {str(name): part for name, part in cells.groupby("benchmark") if len(part) > 1}
    most = {name: int(part["check_rows"].max()) for name, part in choices.items()}
    return {name: rows for name, rows in most.items() if rows < FEWEST_CHECK_ROWS}


def _to_choose_among(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows that could be recommended, with their check rows, cost and effort.

    Benchmarks whose final score is on check itself have no check score to choose by. A redraw is a control, and a
    model that is told which answers are right is not one that anybody can use: neither is recommended.
    """
    usable = (summary["pipeline"] != "resample") & (summary["feedback"] != "oracle") & summary["check_score"].notna()
    cells = summary.assign(
        check_rows=summary["val_size"] - summary["select_size"],
        cost=summary[cost_column(summary)[0]],
        effort=summary["optimizer"] != "none",  # of equals, the plain one
    )
    return cells[usable]


def _best(cells: pd.DataFrame, per_dollar: bool) -> int:
    """The index of one benchmark's recommended row."""
    ordered = cells.sort_values(["check_score", "cost", "effort"], ascending=[False, True, True])
    if not per_dollar:
        return int(ordered.index[0])
    best = ordered.iloc[0]
    score, rows = best["check_score"], best["check_rows"] * best["runs"]
    near = cells[cells["check_score"] >= score - np.sqrt(score * (1 - score) / rows)]
    return int(near.sort_values(["cost", "effort"]).index[0])


def _row(
    results: Results, entry: Entry, between: Mapping[str, RunVariance], numbers: pd.DataFrame
) -> dict[str, object]:
    facts = _facts(results, entry, between)
    means = Means(**{name: float(numbers[column].mean()) for name, column in MEANS.items()})
    parts = (facts, _answering(results, entry), _scores(entry, between, facts.unchanged, means), means)
    return asdict(entry.series) | {name: value for part in parts for name, value in asdict(part).items()}


def _facts(results: Results, entry: Entry, between: Mapping[str, RunVariance]) -> Facts:
    cells, first = results.cells.loc[entry.keys], results.cells.loc[entry.keys[0]].to_dict()
    unchanged = bool(cells["unchanged"].astype(bool).all())
    adopt = ""
    if not unchanged and entry.series.optimizer != "none":
        adopt = "yes" if adoption_p(entry.base, entry.final, between) <= ADOPTION_LEVEL else "not shown"
    return Facts(
        steps=entry.steps,
        run_list=" ".join(str(run) for run in cells["run"]),
        runs=len(entry.keys),
        n=len(entry.final.items),
        split=first["split"],
        level=THIS_PROGRAM if len(entry.keys) == 1 else THIS_OPTIMIZER,
        sample=bool(cells["sample"].astype(bool).any()),
        task_class=first["task_class"],
        status="ok",
        unchanged=unchanged,
        skewed=is_skewed(entry.final),
        adopt=adopt,
        flagged=bool(cells["flagged"].astype(bool).any()),
        records=" ".join(str(results.folders[key]) for key in entry.keys),
    )


def _answering(results: Results, entry: Entry) -> Answering:
    answers = [results.answers(key)["final"] for key in entry.keys]
    usd, averaged = usd_per_answer(results, entry.keys, "final")
    kinds = {f"{kind}_per_example": mean_of(answers, kind) for kind in ("calls", "tokens", *TOKEN_KINDS)}
    return Answering(**kinds, usd_per_example=usd, usd_is_average=averaged)


def _scores(entry: Entry, between: Mapping[str, RunVariance], unchanged: bool, means: Means) -> Scores:
    change = difference(entry.base, entry.final, between)
    base, final = score_interval(entry.base, {}) or NO_INTERVAL, score_interval(entry.final, between) or NO_INTERVAL
    gained = (0.0, *NO_INTERVAL) if unchanged else (change.effect, change.low, change.high)
    optimism = _optimism(entry, means, change)
    return Scores(entry.base.mean, *base, entry.final.mean, *final, *gained, *optimism)


def _optimism(entry: Entry, means: Means, test: Estimate) -> tuple[float, float, float]:
    """(final - baseline on select) - (final - baseline on test), with its interval: how much selection flattered.

    The select part has no items on file: its variance is that of a difference of two proportions on as many rows,
    an upper bound as the programs share them.
    """
    shares = means.val_final_score, means.val_baseline_score
    gap = shares[0] - shares[1] - test.effect
    rows = float(entry.series.select_size) * len(entry.keys)
    half = NORMAL * math.sqrt(test.se**2 + sum(share * (1 - share) for share in shares) / rows)
    return gap, gap - half, gap + half


def _differing_terms(summary: pd.DataFrame) -> pd.Series:
    """The terms of a series that are not the same for all rows of a benchmark, model, pipeline and optimizer."""
    text = pd.Series("", index=summary.index)
    for column in [name for name in ("optimizer_options", *SHARED, *SHARED_IN_BENCHMARK) if name not in _NAMED_APART]:
        if summary.groupby(["benchmark", "model", "pipeline", "optimizer"])[column].nunique(dropna=False).max() > 1:
            form = TERM_FORMS.get(column, column.replace("_", " ") + " {}")
            values = summary[column].astype(object).where(summary[column].notna(), None)
            text = text + " " + values.map(form.format)
    if summary.groupby("benchmark")["test_sha256"].nunique().max() > 1:
        text = text + " test " + summary["test_sha256"].astype(str).str[:6]
    return text.str.strip()


def _row_names(summary: pd.DataFrame) -> pd.Series:
    """The benchmark, and under it what else tells two rows of one optimizer apart."""
    names = summary["benchmark"].astype(str)
    for column, form in (("model", "{}"), ("synth_mode", "{}"), ("rollout_budget", "budget {}"), ("terms", "{}")):
        if summary.groupby(["benchmark", "optimizer"])[column].nunique().max() > 1:
            names = names + "\n" + summary[column].map(form.format)
    return names
