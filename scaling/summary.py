"""The summary frame: one row a series and number of steps, each number with its interval and its level."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.figures import labels_of
from scaling.stats import Arm, RunVariance, difference, run_variances, score_interval
from scaling.tables import (
    Results,
    folder_name,
    interval_text,
    matrix,
    name_of,
    percent,
    series_cells,
)

# What an estimate is held against: columns of the cells' table, both phases together.
USED = {
    "calls": ["optimize_calls", "evaluate_calls"],
    "tokens": [f"{phase}_{part}_tokens" for phase in ("optimize", "evaluate") for part in ("prompt", "completion")],
    "usd": ["optimize_list_cost_usd", "evaluate_list_cost_usd"],
}


def summarise(results: Results) -> pd.DataFrame:
    """Rows of summary_results.csv: scores as fractions, costs in USD, tokens and calls an example.

    Intervals are recomputed from predictions. Cells without a score stand at the end with their status and
    null scores.
    """
    arms = {}
    for series, by_steps in series_cells(results).items():
        for steps, keys in by_steps.items():
            fields = name_of(series)
            groups = results.groups(keys[0])
            final = Arm(fields["benchmark"], fields["optimizer"], matrix(results, keys), groups)
            base = Arm(fields["benchmark"], "none", matrix(results, keys, "baseline"), groups)
            if not final.scores.empty:
                arms[(series, steps)] = (keys, base, final)
    between = run_variances([final for _, _, final in arms.values()])
    rows = [_row(results, series, steps, *arm, between) for (series, steps), arm in arms.items()]
    summary = pd.DataFrame(rows)
    if not summary.empty:
        summary["terms"] = _differing_terms(summary)
        summary["line"] = labels_of(summary)
        summary["row_name"] = summary["benchmark"] + _when_varied(summary, "model") + _when_varied(summary, "terms")
    return summary


def missing(results: Results) -> pd.DataFrame:
    """Cells without a score: status and reason; never a 0."""
    bad = results.cells[results.cells["status"] != "ok"]
    columns = ["benchmark", "pipeline", "steps", "optimizer", "model", "run", "status", "error"]
    return bad[columns].reset_index(drop=True)


def readable(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary as text for people: points with intervals."""
    if summary.empty:
        return pd.DataFrame()
    rows = []
    for _, row in summary.iterrows():
        rows.append(
            {
                "benchmark": row["benchmark"],
                "cell": folder_name(row),
                "series": row["line"],
                "before": percent(row["baseline_score"]),
                "after": percent(row["final_score"]),
                "95 % interval": interval_text(row["final_low"], row["final_high"]),
                "change": "unchanged" if row["unchanged"] else percent(row["improvement"], sign=True),
                "its interval": interval_text(row["improvement_low"], row["improvement_high"], sign=True),
                "n": f"{row['n']} {row['split']}",
                "runs": row["runs"],
                "rollouts": _rollouts(row),
                "USD optimize": _usd(row["usd_optimize"]),
                "tokens/example": f"{row['tokens_per_example']:.0f}",
            }
        )
    return pd.DataFrame(rows)


def against_estimate(results: Results) -> pd.DataFrame:
    """Calls, tokens and dollars of each settled cell beside what was estimated before it ran, as text for people."""
    rows, sums = [], []
    for _, row in results.cells[results.cells["status"] == "ok"].iterrows():
        planned = results.estimates.get(row["cell_id"])
        if planned is None:
            continue
        used = {what: row[parts].astype(float).sum(skipna=False) for what, parts in USED.items()}
        names = {"benchmark": row["benchmark"], "cell": folder_name(row), "optimizer": row["optimizer"]}
        rows.append(names | {"run": str(row["run"])} | _beside(planned, used))
        sums.append((planned, used))
    if rows:
        planned = {what: _sum_of_pairs([one[what] for one, _ in sums]) for what in USED}
        used = {what: sum(one[what] for _, one in sums) for what in USED}
        rows.append({"benchmark": "all", "cell": "", "optimizer": "", "run": ""} | _beside(planned, used))
    return pd.DataFrame(rows)


def _beside(planned: dict, used: dict[str, float]) -> dict[str, str]:
    cells = {}
    for what, value in used.items():
        text = _usd if what == "usd" else lambda number: f"{number:,.0f}"
        name = what.replace("usd", "USD")
        cells[f"{name} estimated"] = "—" if planned[what] is None else " to ".join(text(end) for end in planned[what])
        cells[f"{name} used"] = "—" if np.isnan(value) else text(value)
    return cells


def _sum_of_pairs(pairs: list) -> tuple[float, float] | None:
    return None if None in pairs else (sum(low for low, _ in pairs), sum(high for _, high in pairs))


def _row(
    results: Results,
    series: tuple,
    steps: int,
    keys: list[str],
    base: Arm,
    final: Arm,
    between: dict[str, RunVariance],
) -> dict:
    cells = results.cells.loc[keys]
    fields = name_of(series)
    low, high = score_interval(final, between) or (np.nan, np.nan)
    unchanged = bool(cells["unchanged"].all())
    change, change_interval = difference(base, final, between)
    base_low, base_high = score_interval(base, {}) or (np.nan, np.nan)
    change_low, change_high = change_interval if change_interval and not unchanged else (np.nan, np.nan)
    lines = pd.concat([results._lines(key) for key in keys])
    lines = lines[lines["program"] == "final"]
    return fields | {
        "steps": steps,
        "run_list": " ".join(str(r) for r in cells["run"]),
        "runs": len(keys),
        "n": len(final.scores),
        "split": cells["split"].iloc[0],
        "level": "this program" if len(keys) == 1 else "this optimizer",
        "sample": bool(cells["sample"].any()),
        "task_class": cells["task_class"].iloc[0],
        "status": "ok",
        "baseline_score": base.mean,
        "baseline_low": base_low,
        "baseline_high": base_high,
        "final_score": final.mean,
        "final_low": low,
        "final_high": high,
        "improvement": 0.0 if unchanged else change,
        "improvement_low": change_low,
        "improvement_high": change_high,
        "unchanged": unchanged,
        "at_equal_calls_score": cells["at_equal_calls_score"].mean(),
        "val_baseline_score": cells["val_baseline_score"].mean(),
        "val_final_score": cells["val_final_score"].mean(),
        "rollouts_used": cells["rollouts_used"].mean(),
        "flagged": bool(cells["flagged"].any()),
        "proposals_tried": cells["proposals_tried"].mean(),
        "proposals_unparsed": cells["proposals_unparsed"].mean(),
        "proposals_accepted": cells["proposals_accepted"].mean(),
        "optimize_calls": cells["optimize_calls"].mean(),
        "usd_optimize": cells["optimize_list_cost_usd"].astype(float).mean(),
        "calls_per_example": lines["calls"].mean(),
        "tokens_per_example": lines["tokens"].mean(),
        "usd_per_example": _usd_per_example(cells, results),
        "parse_error_rate": cells["error_rate_parse"].mean(),
        "elapsed_seconds": cells["elapsed_seconds"].mean(),
    }


def _usd_per_example(cells: pd.DataFrame, results: Results) -> float:
    """List cost of answering one example: the evaluation's cost over the program runs that it scored."""
    usd = cells["evaluate_list_cost_usd"].astype(float).sum()
    tokens = (cells["evaluate_prompt_tokens"] + cells["evaluate_completion_tokens"]).astype(float).sum()
    lines = pd.concat([results._lines(key) for key in cells.index])
    per_example = lines[lines["program"] == "final"]["tokens"].mean()
    return float(usd * per_example / tokens) if tokens else float("nan")


def _differing_terms(summary: pd.DataFrame) -> pd.Series:
    """Selection rows, temperature and proposer, named where they are not the same for all rows of a benchmark."""
    text = pd.Series("", index=summary.index)
    for column, form in (("temperature", "temperature {}"), ("optimizer_model", "proposer {}")):
        if summary.groupby(["model", "optimizer"])[column].nunique().max() > 1:
            text = text + " " + summary[column].map(form.format)
    if summary.groupby("benchmark")["test_sha256"].nunique().max() > 1:
        text = text + " test " + summary["test_sha256"].astype(str).str[:6]
    return text.str.strip()


def _when_varied(summary: pd.DataFrame, column: str) -> pd.Series:
    varied = summary[column].nunique() > 1
    return "\n" + summary[column].astype(str) if varied else pd.Series("", index=summary.index)


def _rollouts(row: pd.Series) -> str:
    if row["optimizer"] == "none":
        return "—"
    return f"{row['rollouts_used']:.0f} of {row['rollout_budget']}" + (" (flagged)" if row["flagged"] else "")


def _usd(value: float) -> str:
    return "—" if value is None or np.isnan(value) else f"{value:.4f}"
