"""RQ1 to RQ4 of plan.txt: does correcting itself help larger models more, on which tasks, and when does it pay?

Units are models. gain is the last turn minus the first, mean over items and runs; every function takes the frame
that `gains_of` makes.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from scaling.analysis.comparisons import Entry
from scaling.analysis.fits import Line, regression, zero_set
from scaling.analysis.hypotheses import TEST_COLUMNS
from scaling.analysis.results import Results
from scaling.analysis.self_correction import Correction, correction
from scaling.analysis.stats import SIGNIFICANCE, holm
from scaling.store import CALLS, read_lines

SMALLEST_SLOPE = 0.01  # of gain a tenfold of size
FEWEST_MODELS = 4
MOST_PERMUTED = 8  # models up to which all orders are tried
PROPERTIES = ("size", "price", "context_length", "first_turn_of_other_runs")


def corrections_of(results: Results, entries: list[Entry]) -> list[tuple[Entry, Correction, np.ndarray]]:
    """Every self-correcting cell with what its turns did, and its turn scores (n, turns, runs)."""
    redraws = {_terms(e): e for e in entries if e.fields["pipeline"] == "resample" and e.steps >= 2}
    found = []
    for entry in entries:
        turns = results.turns(entry.keys) if entry.fields["pipeline"] == "self_correct" else None
        if turns is None or entry.steps < 2:
            continue
        control = redraws.get(_terms(entry))
        again = results.turns(control.keys) if control else None
        pair = (again[:, 0], again[:, 1]) if again is not None and again.shape[::2] == turns.shape[::2] else None
        groups = results.answers(entry.keys[0])["final"].groups
        found.append((entry, correction(turns[:, 0], turns[:, -1], pair, groups), turns))
    return found


def gains_of(results: Results, entries: list[Entry]) -> pd.DataFrame:
    """A row a model and task: gain and its variance, the vote's gain, dollars more an example, and properties.

    Intrinsic self-correction of the program without an optimizer, at the largest number of turns there is.
    """
    votes = {_terms(e): e for e in entries if e.fields["pipeline"] == "vote"}
    rows = []
    for entry, what, turns in corrections_of(results, entries):
        if entry.fields["feedback"] != "none" or entry.fields["optimizer"] != "none":
            continue
        cell = results.cells.loc[entry.keys[0]]
        vote = votes.get(_terms(entry))
        first_by_run = turns[:, 0].mean(axis=0)
        rows.append(
            {
                "model": entry.fields["model"],
                "benchmark": entry.fields["benchmark"],
                "turns": entry.steps,
                "gain": what.gain.effect,
                "variance": what.gain.se**2,
                "vote_gain": vote.final.mean - float(first_by_run.mean()) if vote is not None else np.nan,
                "extra_usd": extra_usd(results, entry),
                "size": entry.size[0] if entry.size[0] is not None else np.nan,
                "status": entry.size[1],
                "price": cell["output_usd_per_million"],
                "context_length": cell["context_length"],
                "first_turn_of_other_runs": _first_of_others(first_by_run),
            }
        )
    frame = pd.DataFrame(rows)
    return frame if frame.empty else frame[frame["turns"] == frame["turns"].max()]


def extra_usd(results: Results, entry: Entry) -> float:
    """List cost of the later turns of one example, from the calls of the evaluation."""
    dollars = examples = 0.0
    for key in entry.keys:
        calls = [c for c in read_lines(results.folders[key] / CALLS) if c["phase"] == "evaluate"]
        dollars += sum(c["list_cost_usd"] or 0.0 for c in calls if c["role"] == "review")
        examples += sum(c["role"] == "answer" for c in calls)
    return dollars / examples if examples else float("nan")


def test_research(gains: pd.DataFrame, value: float | None) -> list[dict[str, Any]]:
    """Rows of summary_tests.csv for RQ1 to RQ4; RQ1 and RQ3 are one Holm family."""
    if gains.empty:
        return []
    one, three = _rq1(gains), _rq3(gains)
    adjusted = holm([one["p"] if one["p"] is not None else 1.0, three["p"] if three["p"] is not None else 1.0])
    for row, p in zip((one, three), adjusted, strict=True):
        row["p_holm"] = p if row["p"] is not None else None
        if row["p"] is not None and p < SIGNIFICANCE and (row is three or row["effect"] > 0):
            row["verdict"] = "supported"
    return [one, *_rq2(gains), three, *_rq4(gains, value)]


def size_line_of(gains: pd.DataFrame, statuses: tuple[str, ...] = ("published",)) -> tuple[pd.DataFrame, Line | None]:
    """Mean gain over tasks by model against log10 size, models of these statuses; the line from three models on."""
    if gains.empty:
        return gains, None
    known = gains[gains["status"].isin(statuses) & gains["size"].notna()]
    tasks = known["benchmark"].nunique()
    by_model = known.groupby("model").agg(
        size=("size", "first"), gain=("gain", "mean"), variance=("variance", "sum"), tasks=("benchmark", "nunique"),
        extra_usd=("extra_usd", "mean"), vote_gain=("vote_gain", "mean"), price=("price", "first"),
    )  # fmt: skip
    by_model = by_model[by_model["tasks"] == tasks]  # a model that lacks a task has another mean
    by_model["variance"] /= max(tasks, 1) ** 2
    if len(by_model) < 3 or by_model["size"].nunique() < 3:
        return by_model, None
    return by_model, regression(np.log10(by_model["size"]), by_model["gain"], by_model["variance"])


def threshold(gains: pd.DataFrame, value: float) -> tuple[str, str]:
    """(verdict, sentence) on the sizes from which correcting pays at `value` dollars a right answer (plan.txt, RQ4)."""
    by_model, _ = size_line_of(gains)
    if len(by_model) < 3:
        return "cannot tell", f"not run: {len(by_model)} models of published size"
    x = np.log10(by_model["size"].to_numpy(float))
    net = value * by_model["gain"].to_numpy() - by_model["extra_usd"].to_numpy(float)
    line = regression(x, net, value**2 * by_model["variance"].to_numpy())
    parts = zero_set(line, float(x.min()), float(x.max()))
    said = " or ".join(f"{10**low:.3g} to {10**high:.3g} billion" for low, high in parts)
    bounded = len(parts) == 1 and parts[0][0] > x.min() and parts[0][1] < x.max()
    if bounded and line.slope > 0:
        return "supported", f"it pays from a size in {said}"
    if not parts:
        return (
            "contradicted",
            f"it {'pays' if line.intercept + line.slope * x[0] > 0 else 'does not pay'} at any measured size",
        )
    return "cannot tell", f"no bounded threshold (not rejected: {said})"


def _rq1(gains: pd.DataFrame) -> dict[str, Any]:
    row = _row("RQ1, RQ3", "RQ1: Does gain grow with the model's size?", "slope of mean gain a tenfold of size")
    by_model, line = size_line_of(gains)
    if len(by_model) < FEWEST_MODELS or line is None:
        return row | {"reason": f"not run: {len(by_model)} models of published size, 4 are needed"}
    row = row | _of_line(line, by_model)
    if line.p_at_least(SMALLEST_SLOPE) < 0.025:
        row["verdict"] = "contradicted"
    return row


def _rq2(gains: pd.DataFrame) -> list[dict[str, Any]]:
    """Spearman's rank correlations of gain with properties of the models, exact where few, Holm over properties."""
    usable = gains.assign(size=gains["size"].where(gains["status"] == "published"))
    by_model = usable.groupby("model")[["gain", *PROPERTIES]].mean()
    rows = []
    for name in PROPERTIES:
        pairs = by_model[["gain", name]].astype(float).dropna()
        row = _row("RQ2 (exploratory)", "RQ2: Which properties go with gain?", f"Spearman with {name}")
        if len(pairs) < FEWEST_MODELS or pairs[name].nunique() < 2:
            rows.append(row | {"reason": f"not run: {len(pairs)} models have it"})
            continue
        rho, p = spearman(pairs["gain"].to_numpy(), pairs[name].to_numpy())
        note = "models of one family are not independent"
        rows.append(row | {"effect": rho, "p": p, "n": len(pairs), "note": note})
    told = [row for row in rows if row["p"] is not None]
    for row, p in zip(told, holm([row["p"] for row in told]), strict=True):
        row |= {
            "p_holm": p,
            "verdict": "cannot tell" if p >= SIGNIFICANCE else "rises" if row["effect"] > 0 else "falls",
        }
    return rows


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(rho, two-sided p): all orders of up to eight models, above that scipy's t approximation."""
    rho = float(distributions.spearmanr(x, y).statistic)
    if len(x) > MOST_PERMUTED:
        return rho, float(distributions.spearmanr(x, y).pvalue)
    a, b = distributions.rankdata(x), distributions.rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    orders = np.array(list(itertools.permutations(range(len(b)))))
    found = np.abs(b[orders] @ a)
    return rho, float((found >= abs(a @ b) - 1e-9).mean())


def _rq3(gains: pd.DataFrame) -> dict[str, Any]:
    row = _row("RQ1, RQ3", "RQ3: Does size matter more on some tasks?", "slopes of gain differences by pairs of tasks")
    known = gains[gains["status"] == "published"].set_index("model")
    by_task = {task: part for task, part in known.groupby("benchmark")}
    found = []
    for a, b in itertools.combinations(sorted(by_task), 2):
        both = by_task[a].join(by_task[b], how="inner", rsuffix="_b")
        if len(both) >= FEWEST_MODELS:
            variance = both["variance"] + both["variance_b"]
            found.append((a, b, regression(np.log10(both["size"]), both["gain"] - both["gain_b"], variance), both))
    if not found:
        return row | {"reason": "not run: no pair of tasks has 4 models of published size"}
    adjusted = holm([line.p for _, _, line, _ in found])
    said = [
        f"{a if line.slope > 0 else b} more than {b if line.slope > 0 else a}"
        for (a, b, line, _), p in zip(found, adjusted, strict=True) if p < SIGNIFICANCE
    ]  # fmt: skip
    best = int(np.argmin(adjusted))
    line, models = found[best][2], found[best][3]
    return row | _of_line(line, models) | {"p": adjusted[best], "comparison": f"{found[best][0]} - {found[best][1]}",
                                           "note": "; ".join(said) or "no pair of tasks is told apart"}  # fmt: skip


def _rq4(gains: pd.DataFrame, value: float | None) -> list[dict[str, Any]]:
    row = _row("RQ4", "RQ4: From which size does correcting pay?", "sizes where value x gain = extra dollars")
    if value is None:
        return [row | {"reason": "give --value-per-correct USD"}]
    if gains["extra_usd"].isna().any():
        return [row | {"reason": "the price of a model is not known"}]
    verdict, sentence = threshold(gains, value)
    votes = gains["gain"] - gains["vote_gain"]
    note = f"gain beyond the vote at equal calls: {100 * votes.mean():+.1f} points" if votes.notna().all() else ""
    return [row | {"verdict": verdict, "reason": sentence, "note": note}]


def _row(family: str, question: str, comparison: str) -> dict[str, Any]:
    named = {"family": family, "question": question, "comparison": comparison, "verdict": "cannot tell"}
    return dict.fromkeys(TEST_COLUMNS) | named | {"level": "models"}


def _of_line(line: Line, by_model: pd.DataFrame) -> dict[str, Any]:
    low, high = line.slope_interval
    return {"effect": line.slope, "ci_low": low, "ci_high": high, "p": line.p, "n": len(by_model)}


def _terms(entry: Entry) -> str:
    """What a control shares with the self-correcting cell; sizes of the output and calls may differ."""
    fields = {n: v for n, v in entry.fields.items() if n not in ("pipeline", "feedback")}
    return str(fields)


def _first_of_others(first_by_run: np.ndarray) -> float:
    """First-turn score of the runs other than the first: that of the same run correlates with gain by noise alone."""
    return float(first_by_run[1:].mean()) if len(first_by_run) > 1 else math.nan
