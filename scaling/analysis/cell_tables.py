"""Tables of the report with a row per cell: scores, what stays unequal, money, turns, optimism, what is missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from scaling.analysis.findings import Findings
from scaling.analysis.results import Results, folder_name
from scaling.analysis.stats import Estimate
from scaling.analysis.text import UNKNOWN, Table, count, interval_text, percent, plural, table_of, usd
from scaling.analysis.turns import TurnedCell
from scaling.records.record import TOKEN_KINDS

ADOPTED_BY_LUCK = 0.05
# What an estimate is held against: columns of the cells' table, both phases together.
USED = {
    "calls": ["optimize_calls", "evaluate_calls"],
    "tokens": [f"{phase}_{part}_tokens" for phase in ("optimize", "evaluate") for part in ("prompt", "completion")],
    "usd": ["optimize_list_cost_usd", "evaluate_list_cost_usd"],
}


def scores(f: Findings) -> Table:
    """Every cell's score before and after, with intervals."""
    changed = f.summary[f.summary["adopt"] != ""]
    adopted = int((changed["adopt"] == "yes").sum())
    half = ((f.summary["final_high"] - f.summary["final_low"]) / 2).median()
    runs = f.summary["runs"]
    level = "Numbers from several runs are about the pipeline and its optimizer, those from one run about one program."
    if (runs == 1).all():
        level = "All cells have one run: the numbers are about these programs on these rows, not about the optimizers."
    adopt = (
        f" 'Adopt' is a decision aid (one-sided p at most 5 %) and no verdict; 'not shown' does not mean 'useless'. It "
        f"is 'yes' for {adopted} of {len(changed)} changed cells; luck alone would give "
        f"{ADOPTED_BY_LUCK * len(changed):.1f}."
        if len(changed)
        else ""
    )
    note = (
        f"Points on rows that no optimizer saw. Half a 95 % interval is {100 * half:.0f} points (median). {level}"
        f"{adopt} The best of many cells looks better than it is."
    )
    return table_of("Scores", note, [_score(row) for _, row in f.summary.iterrows()])


def _score(row: pd.Series) -> dict[str, str]:
    skewed = " skewed, interval too narrow" if row["skewed"] else ""
    return {
        "benchmark": row["benchmark"],
        "cell": folder_name(row),
        "series": row["line"],
        "before": percent(row["baseline_score"]),
        "after": percent(row["final_score"]),
        "95 % interval": interval_text(row["final_low"], row["final_high"]) + skewed,
        "change": _change(row),
        "its interval": interval_text(row["improvement_low"], row["improvement_high"], sign=True),
        "n": f"{row['n']} {row['split']}",
        "runs": str(row["runs"]),
        "adopt": row["adopt"],
    }


def _change(row: pd.Series) -> str:
    if row["optimizer"] == "none":
        return UNKNOWN
    return "unchanged" if row["unchanged"] else percent(row["improvement"], sign=True)


def unequal(f: Findings) -> Table:
    """What equal budgets leave unequal: calls, proposals, tokens, dollars, and the score at equal calls."""
    note = (
        "Equal rollouts are not equal calls. A program of k steps makes k times the task calls, and each of its "
        "prompts gets 1/k of the proposals. 'At equal calls' is the test score of the best candidate after "
        "budget / steps rollouts. 'Vote' is the test score of as many votes as the program has steps."
    )
    rows = [row for _, row in f.summary.iterrows()]
    votes = {
        (entry.series, entry.steps): row["final_score"]
        for entry, row in zip(f.entries, rows, strict=True)
        if entry.series.pipeline == "vote"
    }
    own_votes = [votes.get((entry.series.same_but(pipeline="vote"), entry.steps)) for entry in f.entries]
    return table_of("What stays unequal", note, map(_unequal, rows, own_votes))


def _unequal(row: pd.Series, vote: float | None) -> dict[str, str]:
    optimized = row["optimizer"] != "none"
    flagged = " (flagged)" if row["flagged"] else ""
    rollouts = f"{count(row['rollouts_used'])} of {row['rollout_budget']}{flagged}" if optimized else UNKNOWN
    proposals = [count(row[f"proposals_{name}"]) for name in ("tried", "unparsed", "accepted")]
    return {
        "benchmark": row["benchmark"],
        "cell": folder_name(row),
        "series": row["line"],
        "rollouts": rollouts,
        "task calls": count(row["optimize_calls"] - row["proposal_calls"]) if optimized else UNKNOWN,
        "proposal calls": count(row["proposal_calls"]) if optimized else UNKNOWN,
        "tried, unparsed, accepted": ", ".join(proposals),
        "USD optimize": usd(row["usd_optimize"]),
        "calls per example": count(row["calls_per_example"], "{:.2f}"),
        "tokens per example": count(row["tokens_per_example"]),
        "final": percent(row["final_score"]),
        "at equal calls": percent(row["at_equal_calls_score"]),
        "vote": percent(vote),
    }


def money(f: Findings) -> Table:
    """What each cell's gain over one unoptimized call costs."""
    worth = (
        f"${f.value:g} a right answer"
        if f.value is not None
        else "several values of a right answer (name yours with --value-per-correct)"
    )
    averaged = int(f.summary["usd_is_average"].sum())
    average = (
        f" The answers of {plural(averaged, 'cell')} are priced at the average of all tokens of the cell, as the "
        f"records do not price each answer."
        if averaged
        else ""
    )
    note = (
        f"Gains are over one unoptimized call on the same rows. Points for more tokens or dollars are estimates "
        f"without an interval: where the gain's interval holds 0, they may have the other sign. 'Pays after requests' "
        f"is for {worth}; it says 'never shown' where the gain's interval does not cover the extra cost. Dollars are "
        f"list cost: input, cached input and output tokens each at their own price. Cached tokens are part of the "
        f"input, reasoning tokens of the output. 'Input read from a cache' is the hit rate of the provider's prompt "
        f"cache.{average}"
    )
    return table_of("Money", note, [_money(row) for _, row in f.costs.iterrows()])


def _money(row: pd.Series) -> dict[str, str]:
    return {
        "benchmark": row["benchmark"],
        "cell": folder_name(row),
        "series": row["line"],
        "gain over one call": percent(row["gain"], sign=True),
        "its interval": interval_text(row["gain_low"], row["gain_high"], sign=True),
        "tokens an answer": count(row["tokens_per_example"]),
        "input (cached) + output (reasoning)": _token_kinds(row),
        "USD for 1,000 answers": usd(1000 * row["usd_per_example"]),
        "points for 1,000 more tokens": count(row["points_per_1000_tokens"], "{:+.1f}"),
        "points for a USD more on 1,000 answers": count(row["points_per_usd"], "{:+.1f}"),
        "USD optimize": usd(row["usd_optimize"]),
        "of it proposals": usd(row["usd_proposals"]),
        "pays after requests": row["breakeven"],
        "cheapest at its score": "yes" if row["best_for_the_money"] else "",
        "input read from a cache": percent(_hit_rate(row)),
    }


def _hit_rate(row: pd.Series) -> float:
    """The share of the input that the provider read from its prompt cache; NaN where it does not say."""
    whole = row["prompt_tokens_per_example"]
    return float(row["cached_tokens_per_example"] / whole) if whole > 0 else np.nan


def _token_kinds(row: pd.Series) -> str:
    """'312 (20) + 45 (3)': input tokens an answer, those of them cached, output tokens, those of them reasoning."""
    whole, cached, output, reasoning = (row[f"{kind}_per_example"] for kind in TOKEN_KINDS)
    if np.isnan(whole) or np.isnan(output):
        return UNKNOWN
    parts = ["" if np.isnan(part) else f" ({part:.0f})" for part in (cached, reasoning)]
    return f"{whole:.0f}{parts[0]} + {output:.0f}{parts[1]}"


def corrections(f: Findings) -> Table:
    """What the turns of self-correction did to the answers."""
    note = (
        "Gain is the last turn minus the first on the same items. A mere redraw turns answers too, so 'beyond a "
        "redraw' subtracts the flips between two draws of the first turn (resample). 'Corrects': a gain, and more "
        "wrong answers turned right than by a redraw. 'Harms': a loss. 'Churns': more flips than a redraw makes, with "
        "neither a gain nor a loss shown. 'No more than a redraw': the gain and both kinds of flips beyond a redraw "
        "are shown to lie within 3 points of 0. All labels of this table are one Holm family; an interval is 95 % for "
        "its number alone. Feedback 'oracle' tells the model which of its answers are right: that is cheating, "
        "and it gets no verdict. 'Beyond the vote' is the last turn minus the majority of as many answers; of an even "
        "number there is no vote to compare with, as a tie goes to the first."
    )
    return table_of("Self-correction", note, [_turned(cell) for cell in f.turned])


def _turned(cell: TurnedCell) -> dict[str, str]:
    series, what = cell.entry.series, cell.correction
    return {
        "benchmark": series.benchmark,
        "model": series.model,
        "optimizer": series.optimizer,
        "turns": str(cell.entry.steps),
        "feedback": series.feedback + (" (cheating)" if series.feedback == "oracle" else ""),
        "score by turn": ", ".join(percent(score) for score in cell.turns.mean(axis=(0, 2))),
        "verdict": cell.label,
        "gain": percent(what.gain.effect, sign=True),
        "its interval": _spread(what.gain),
        "wrong to right": percent(what.wrong_to_right),
        "right to wrong": percent(what.right_to_wrong),
        "wrong to right beyond a redraw": _excess(what.excess_wrong_to_right),
        "right to wrong beyond a redraw": _excess(what.excess_right_to_wrong),
        "beyond the vote at equal calls": _excess(cell.beyond_vote),
        "n x runs": f"{cell.turns.shape[0]} x {cell.turns.shape[2]}",
    }


def _excess(estimate: Estimate | None) -> str:
    if estimate is None:
        return "not run"
    return "not compared" if np.isnan(estimate.effect) else f"{percent(estimate.effect, sign=True)} {_spread(estimate)}"


def _spread(estimate: Estimate) -> str:
    """The interval; where every item changed alike there is none."""
    return interval_text(estimate.low, estimate.high, sign=True) if estimate.se > 0 else "(no variation)"


def optimism(f: Findings) -> Table:
    """How much better the rows that candidates were selected on make a program look."""
    note = (
        "The gap is (final - baseline on the rows that candidates were selected on) minus (final - baseline on test). "
        "Above 0, selection made the program look better than it is. Intervals are 95 % and wide by design."
    )
    shown = f.summary[(f.summary["optimizer"] != "none") & ~f.summary["unchanged"] & f.summary["optimism"].notna()]
    return table_of("How much selection flatters", note, [_optimism(row) for _, row in shown.iterrows()])


def _optimism(row: pd.Series) -> dict[str, str]:
    return {
        "benchmark": row["benchmark"],
        "cell": folder_name(row),
        "series": row["line"],
        "on select": percent(row["val_final_score"] - row["val_baseline_score"], sign=True),
        "on test": percent(row["improvement"], sign=True),
        "gap": percent(row["optimism"], sign=True),
        "its interval": interval_text(row["optimism_low"], row["optimism_high"], sign=True),
    }


def missing(results: Results) -> Table:
    """Cells without a score: status and reason; never a 0."""
    columns = ["benchmark", "pipeline", "steps", "optimizer", "model", "run", "status", "error"]
    without = results.cells[results.cells["status"] != "ok"]
    rows = [{name: UNKNOWN if pd.isna(row[name]) else str(row[name]) for name in columns}
            for _, row in without.iterrows()]  # fmt: skip
    return table_of("Cells without a score", "They are missing above, never 0.", rows)


def left_out(results: Results) -> Table:
    """What could not be used: the unit, its file, how many, and why."""
    note = "What could not be used, by the smallest unit that holds it; everything else is analysed."
    rows = [
        {"unit": unit.unit, "file": str(unit.file), "how many": str(unit.count), "why": unit.reason}
        for unit in results.left_out
    ]
    return table_of("Left out", note, rows)


def against_estimate(results: Results) -> Table:
    """Calls, tokens and dollars of each settled cell beside what was estimated before it ran."""
    return table_of("Estimate against actual", "", list(_estimates(results)))


def _estimates(results: Results) -> Iterator[dict[str, str]]:
    several = results.cells["model"].nunique() > 1
    plans, used_by_all = [], []
    for _, row in results.cells[results.cells["status"] == "ok"].iterrows():
        estimate = results.estimates.get(row["cell_id"])
        if estimate is None:
            continue
        planned = {what: getattr(estimate, what) for what in USED}
        used = {what: float(row[parts].astype(float).sum(skipna=False)) for what, parts in USED.items()}
        plans.append(planned)
        used_by_all.append(used)
        names = {"benchmark": row["benchmark"], "cell": folder_name(row), "optimizer": row["optimizer"]}
        model = {"model": row["model"]} if several else {}
        yield names | model | {"run": str(row["run"])} | _beside(planned, used)
    if plans:
        total = {what: _sum_of_ranges([planned[what] for planned in plans]) for what in USED}
        used = {what: sum(used[what] for used in used_by_all) for what in USED}
        names = {"benchmark": "all", "cell": "", "optimizer": ""} | ({"model": ""} if several else {}) | {"run": ""}
        yield names | _beside(total, used)


def _beside(planned: dict[str, tuple[float, float] | None], used: dict[str, float]) -> dict[str, str]:
    cells = {}
    for what, value in used.items():
        form = "{:.4f}" if what == "usd" else "{:,.0f}"
        name = what.replace("usd", "USD")
        expected = planned[what]
        ends = dict.fromkeys(map(form.format, expected)) if expected else [UNKNOWN]  # one where both are equal
        cells[f"{name} estimated"] = " to ".join(ends)
        cells[f"{name} used"] = count(value, form)
    return cells


def _sum_of_ranges(ranges: list[tuple[float, float] | None]) -> tuple[float, float] | None:
    """The sums of the low and of the high ends; None where one is not known."""
    known = [ends for ends in ranges if ends is not None]
    return (sum(low for low, _ in known), sum(high for _, high in known)) if len(known) == len(ranges) else None
