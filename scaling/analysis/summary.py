"""The summary frame: one row a series and number of steps, each number with its interval and its level."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.money import mean_of, usd_per_answer
from scaling.analysis.results import TOKEN_KINDS, Results, folder_name, interval_text, percent
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
# What an estimate is held against: columns of the cells' table, both phases together.
USED = {
    "calls": ["optimize_calls", "evaluate_calls"],
    "tokens": [f"{phase}_{part}_tokens" for phase in ("optimize", "evaluate") for part in ("prompt", "completion")],
    "usd": ["optimize_list_cost_usd", "evaluate_list_cost_usd"],
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
        summary["row_name"] = summary["benchmark"] + _when_varied(summary, "model") + _when_varied(summary, "terms")
    return summary


def labels_of(summary: pd.DataFrame) -> pd.Series:
    """A line's name: the optimizer, with pipeline, model and terms only where they differ within the frame."""
    names = summary["optimizer"].map(lambda o: OPTIMIZER_NAMES.get(o, o)).astype(str)
    names = names + summary["synth_mode"].map(lambda mode: ", online" if mode == "online" else "")
    for column, form in (("pipeline", "{}"), ("model", "{}"), ("rollout_budget", "budget {}"), ("terms", "{}")):
        if summary[column].nunique() > 1 and not (column == "pipeline" and set(summary[column]) == {"chain"}):
            names = names + ", " + summary[column].map(form.format)
    return names


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
                "95 % interval": interval_text(row["final_low"], row["final_high"])
                + (" skewed, interval too narrow" if row["skewed"] else ""),
                "change": "unchanged" if row["unchanged"] else percent(row["improvement"], sign=True),
                "its interval": interval_text(row["improvement_low"], row["improvement_high"], sign=True),
                "n": f"{row['n']} {row['split']}",
                "runs": row["runs"],
                "adopt": row["adopt"],
            }
        )
    return pd.DataFrame(rows)


def unequal(summary: pd.DataFrame) -> pd.DataFrame:
    """What equal budgets leave unequal: calls, proposals, tokens, dollars, and the score at equal calls."""
    votes = {
        (row["benchmark"], row["optimizer"], row["model"], row["steps"]): row["final_score"]
        for _, row in summary[summary["pipeline"] == "vote"].iterrows()
    }
    rows = []
    for _, row in summary.iterrows():
        vote = votes.get((row["benchmark"], row["optimizer"], row["model"], row["steps"]))
        optimized = row["optimizer"] != "none"
        rows.append(
            {
                "benchmark": row["benchmark"],
                "cell": folder_name(row),
                "series": row["line"],
                "rollouts": _rollouts(row),
                "task calls": _count(row["optimize_calls"] - row["proposal_calls"]) if optimized else "—",
                "proposal calls": _count(row["proposal_calls"]) if optimized else "—",
                "tried, unparsed, accepted": ", ".join(
                    _count(row[f"proposals_{name}"]) for name in ("tried", "unparsed", "accepted")
                ),
                "USD optimize": _usd(row["usd_optimize"]),
                "calls an example": f"{row['calls_per_example']:.2f}",
                "tokens an example": f"{row['tokens_per_example']:.0f}",
                "final": percent(row["final_score"]),
                "at equal calls": percent(row["at_equal_calls_score"]),
                "vote": percent(vote),
            }
        )
    return pd.DataFrame(rows)


def recommended(summary: pd.DataFrame, per_dollar: bool) -> list[dict]:
    """A row a benchmark: the best on check rows; per dollar, the cheapest within one standard error of it.

    The test score takes no part in the choice (STATISTICS 7); the second is the rule of Breiman et al. 1984 (CART,
    3.4.3). Benchmarks whose final score is on check itself have no such choice.
    """
    found = []
    for _, part in summary[summary["check_score"].notna()].groupby("benchmark"):
        cost = part["usd_per_example"].where(part["usd_per_example"] > 0, part["tokens_per_example"])
        part = part.assign(cost=cost, effort=part["optimizer"] != "none", of=len(part))  # of equals, the plain one
        part = part.sort_values(["check_score", "cost", "effort"], ascending=[False, True, True])
        if len(part) < 2:
            continue  # nothing to choose from
        best = part.iloc[0]
        if per_dollar:
            q, rows = best["check_score"], (best["val_size"] - best["select_size"]) * best["runs"]
            near = part[part["check_score"] >= q - np.sqrt(q * (1 - q) / rows)]
            best = near.sort_values(["cost", "effort"]).iloc[0]
        found.append(best.to_dict())
    return found


def against_estimate(results: Results) -> pd.DataFrame:
    """Calls, tokens and dollars of each settled cell beside what was estimated before it ran, as text for people."""
    rows, sums = [], []
    for _, row in results.cells[results.cells["status"] == "ok"].iterrows():
        planned = results.estimates.get(row["cell_id"])
        if planned is None:
            continue
        used = {what: row[parts].astype(float).sum(skipna=False) for what, parts in USED.items()}
        names = {"benchmark": row["benchmark"], "cell": folder_name(row), "optimizer": row["optimizer"]}
        rows.append(names | {"model": row["model"], "run": str(row["run"])} | _beside(planned, used))
        sums.append((planned, used))
    if rows:
        planned = {what: _sum_of_pairs([one[what] for one, _ in sums]) for what in USED}
        used = {what: sum(one[what] for _, one in sums) for what in USED}
        rows.append(dict.fromkeys(rows[0], "") | {"benchmark": "all"} | _beside(planned, used))
    found = pd.DataFrame(rows)
    return found.drop(columns="model") if rows and results.cells["model"].nunique() == 1 else found


def _beside(planned: dict, used: dict[str, float]) -> dict[str, str]:
    cells = {}
    for what, value in used.items():
        text = _usd if what == "usd" else lambda number: f"{number:,.0f}"
        name = what.replace("usd", "USD")
        ends = dict.fromkeys(map(text, planned[what])) if planned[what] else ["—"]  # once where they are equal
        cells[f"{name} estimated"] = " to ".join(ends)
        cells[f"{name} used"] = "—" if np.isnan(value) else text(value)
    return cells


def _sum_of_pairs(pairs: list) -> tuple[float, float] | None:
    return None if None in pairs else (sum(low for low, _ in pairs), sum(high for _, high in pairs))


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


def _when_varied(summary: pd.DataFrame, column: str) -> pd.Series:
    varied = summary[column].nunique() > 1
    return "\n" + summary[column].astype(str) if varied else pd.Series("", index=summary.index)


def _rollouts(row: pd.Series) -> str:
    if row["optimizer"] == "none":
        return "—"
    return f"{row['rollouts_used']:.0f} of {row['rollout_budget']}" + (" (flagged)" if row["flagged"] else "")


def _count(value: float) -> str:
    return "—" if pd.isna(value) else f"{value:.0f}"


def _usd(value: float) -> str:
    return "—" if value is None or np.isnan(value) else f"{value:.4f}"
