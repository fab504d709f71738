"""The summary frame: one row a series and number of steps, each number with its interval and its level."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.money import mean_of, usd_per_answer
from scaling.analysis.results import TOKEN_KINDS, Results
from scaling.analysis.stats import (
    Estimate,
    RunVariance,
    adoption_p,
    difference,
    is_skewed,
    run_variances,
    score_interval,
)

ADOPTION_LEVEL = 0.05
# Where the optimizers' names are written out for people.
OPTIMIZER_NAMES = {
    "none": "no optimizer",
    "gepa": "GEPA",
    "mipro": "MIPROv2",
    "mipro_instruct": "MIPROv2, instructions",
    "bootstrap": "bootstrap",
    "synth_mipro": "Synth MIPRO",
}
# Means over the runs of a series at one number of steps, by the names that the summary gives them.
MEANS = {
    "at_equal_calls_score": "at_equal_calls_score",
    "check_score": "check_score",
    "val_baseline_score": "val_baseline_score",
    "val_final_score": "val_final_score",
    "rollouts_used": "rollouts_used",
    "proposals_tried": "proposals_tried",
    "proposals_unparsed": "proposals_unparsed",
    "proposals_accepted": "proposals_accepted",
    "optimize_calls": "optimize_calls",
    "proposal_calls": "proposal_calls",
    "usd_optimize": "optimize_list_cost_usd",
    "usd_proposals": "proposal_list_cost_usd",
    "parse_error_rate": "error_rate_parse",
    "elapsed_seconds": "elapsed_seconds",
    "parameters_billions": "parameters_billions",
}


def summarise(results: Results, entries: list[Entry]) -> pd.DataFrame:
    """Rows of summary_results.csv: scores as fractions, costs in USD, tokens and calls an example.

    Intervals are recomputed from predictions. Cells without a score stand at the end with their status and
    null scores.
    """
    between = run_variances([entry.final for entry in entries])
    numbers = results.cells[list(dict.fromkeys(MEANS.values()))].astype(float)
    summary = pd.DataFrame([_row(results, entry, between, numbers.loc[entry.keys]) for entry in entries])
    if not summary.empty:
        summary["terms"] = _differing_terms(summary)
        summary["line"] = labels_of(summary)
        summary["row_name"] = _row_names(summary)
    return summary


def labels_of(summary: pd.DataFrame) -> pd.Series:
    """A line's name: the optimizer, with pipeline, model and terms only where they differ within the frame."""
    names = summary["optimizer"].map(lambda o: OPTIMIZER_NAMES.get(o, o)).astype(str)
    names = names + summary["synth_mode"].map(lambda mode: ", online" if mode == "online" else "")
    for column, form in (("pipeline", "{}"), ("model", "{}"), ("rollout_budget", "budget {}"), ("terms", "{}")):
        if summary[column].nunique() > 1 and not (column == "pipeline" and set(summary[column]) == {"chain"}):
            names = names + ", " + summary[column].map(form.format)
    return names


def recommended(summary: pd.DataFrame, per_dollar: bool) -> pd.DataFrame:
    """The summary's rows that are recommended, one a benchmark, with `of`: the number of cells chosen among.

    The best on check rows; per dollar, the cheapest within one standard error of it. The test score takes no part in
    the choice (STATISTICS 7); the second is the rule of Breiman et al. 1984 (CART, 3.4.3). Benchmarks whose final
    score is on check itself have no such choice. A redraw is a control, and a model that is told which answers are
    right is not one that anybody can use: neither is recommended.
    """
    usable = (summary["pipeline"] != "resample") & (summary["feedback"] != "oracle") & summary["check_score"].notna()
    priced = summary["usd_per_example"].where(summary["usd_per_example"] > 0, summary["tokens_per_example"])
    cells = summary[usable].assign(cost=priced, effort=summary["optimizer"] != "none")  # of equals, the plain one
    choices = [part for _, part in cells.groupby("benchmark") if len(part) > 1]
    chosen = [_best(part, per_dollar).name for part in choices]
    return summary.loc[chosen].assign(of=[len(part) for part in choices])


def _best(cells: pd.DataFrame, per_dollar: bool) -> pd.Series:
    """One benchmark's recommended row."""
    best = cells.sort_values(["check_score", "cost", "effort"], ascending=[False, True, True]).iloc[0]
    if not per_dollar:
        return best
    score, rows = best["check_score"], (best["val_size"] - best["select_size"]) * best["runs"]
    near = cells[cells["check_score"] >= score - np.sqrt(score * (1 - score) / rows)]
    return near.sort_values(["cost", "effort"]).iloc[0]


def _row(results: Results, entry: Entry, between: dict[str, RunVariance], numbers: pd.DataFrame) -> dict:
    cells, first = results.cells.loc[entry.keys], results.cells.loc[entry.keys[0]]
    final, base = entry.final, entry.base
    unchanged = bool(cells["unchanged"].astype(bool).all())
    change = difference(base, final, between)
    adopted = None if unchanged or entry.fields["optimizer"] == "none" else adoption_p(base, final, between)
    answers = [results.answers(key)["final"] for key in entry.keys]
    usd, averaged = usd_per_answer(results, entry.keys, "final")
    return (
        entry.fields
        | {
            "steps": entry.steps,
            "run_list": " ".join(str(r) for r in cells["run"]),
            "runs": len(entry.keys),
            "n": len(final.items),
            "split": first["split"],
            "level": "this program" if len(entry.keys) == 1 else "this optimizer",
            "sample": bool(cells["sample"].astype(bool).any()),
            "task_class": first["task_class"],
            "status": "ok",
            "unchanged": unchanged,
            "skewed": is_skewed(final),
            "adopt": "" if adopted is None else "yes" if adopted <= ADOPTION_LEVEL else "not shown",
            "flagged": bool(cells["flagged"].astype(bool).any()),
            "calls_per_example": float(np.mean([one.calls for one in answers])),
            "tokens_per_example": float(np.mean([one.tokens for one in answers])),
            "usd_per_example": usd,
            "usd_is_average": averaged,
            **{f"{kind}_per_example": mean_of(answers, kind) for kind in TOKEN_KINDS},
            "records": " ".join(str(results.folders[key]) for key in entry.keys),
        }
        | _interval("baseline_score", base.mean, score_interval(base, {}))
        | _interval("final_score", final.mean, score_interval(final, between))
        | _interval(
            "improvement", 0.0 if unchanged else change.effect, None if unchanged else (change.low, change.high)
        )
        | (means := _means(numbers))
        | _optimism(entry, means, change)
    )


def _interval(name: str, value: float, interval: tuple[float, float] | None) -> dict[str, float]:
    low, high = interval or (np.nan, np.nan)
    short = name.removesuffix("_score")
    return {name: value, f"{short}_low": low, f"{short}_high": high}


def _means(numbers: pd.DataFrame) -> dict[str, float]:
    """Means over runs; what no run knows is unknown."""
    values = dict(zip(numbers.columns, numbers.mean().to_numpy(), strict=True))
    return {name: float(values[column]) for name, column in MEANS.items()}


def _optimism(entry: Entry, means: dict[str, float], test: Estimate) -> dict[str, float]:
    """(final - baseline on select) - (final - baseline on test): how much better selection made it look.

    The select part has no items on file: its variance is that of a difference of two proportions on as many rows,
    an upper bound as the programs share them.
    """
    shares = means["val_final_score"], means["val_baseline_score"]
    on_select = shares[0] - shares[1]
    if np.isnan(on_select):
        return _interval("optimism", np.nan, None)
    rows = float(entry.fields["select_size"]) * len(entry.keys)
    half = 1.96 * np.sqrt(test.se**2 + sum(q * (1 - q) for q in shares) / rows)
    gap = on_select - test.effect
    return _interval("optimism", gap, (gap - half, gap + half))


def _differing_terms(summary: pd.DataFrame) -> pd.Series:
    """Selection rows, temperature and proposer, named where they are not the same for all rows of a benchmark."""
    text = pd.Series("", index=summary.index)
    for column, form in (
        ("temperature", "temperature {}"), ("optimizer_model", "proposer {}"), ("feedback", "feedback {}"),
        ("train_size", "train {}"), ("select_size", "select {}"),
    ):  # fmt: skip
        if summary.groupby(["benchmark", "model", "optimizer"])[column].nunique().max() > 1:
            text = text + " " + summary[column].map(form.format)
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
