"""What quality costs: gains beside dollars and tokens, what is worth paying, and when an optimization pays.

Gains are over one unoptimized call on the same rows. Dollars are list cost: each call is priced when it is made,
with input, cached input and output tokens (reasoning included) at their own prices. Where prices are 0 or unknown,
tokens stand alone.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.results import TOKEN_KINDS, Answers, Results
from scaling.analysis.stats import Arm, Estimate, contrast, difference, run_variances

LEAST_EXTRA_SHARE = 0.05  # of a cell's tokens: below it, points for more tokens are noise
VALUES = (0.001, 0.01, 0.1, 1.0, 10.0)  # dollars a right answer, for the curve where the user names none


def costs(results: Results, entries: list[Entry], summary: pd.DataFrame, value: float | None) -> pd.DataFrame:
    """A row an entry: its gain over one unoptimized call, what it costs more, and after how many requests it pays.

    value: dollars that one more right answer is worth (None: break-even for each of VALUES). Scores are fractions.
    """
    between = run_variances([entry.final for entry in entries])
    singles = _single_calls(results, entries)
    rows = []
    for entry, (_, row) in zip(entries, summary.iterrows(), strict=True):
        single = singles.get(_terms(entry))
        gain = difference(single[0], entry.final, between) if single else None
        rows.append(
            {
                "benchmark": row["benchmark"],
                "pipeline": row["pipeline"],
                "optimizer": row["optimizer"],
                "model": row["model"],
                "steps": row["steps"],
                "line": row["line"],
                "gain": gain.effect if gain else np.nan,
                "gain_low": gain.low if gain else np.nan,
                "gain_high": gain.high if gain else np.nan,
                "tokens_per_example": row["tokens_per_example"],
                "token_kinds": _token_kinds(row),
                "usd_per_example": row["usd_per_example"],
                "extra_tokens": row["tokens_per_example"] - single[1] if single else np.nan,
                "extra_usd": row["usd_per_example"] - single[2] if single else np.nan,
                "usd_optimize": row["usd_optimize"],
                "usd_proposals": row["usd_proposals"],
                "breakeven": _breakeven_text(results, entry, row, between, value),
            }
        )
    frame = pd.DataFrame(rows)
    if not frame.empty:
        more = frame["extra_tokens"] > LEAST_EXTRA_SHARE * frame["tokens_per_example"]
        frame["points_per_1000_tokens"] = (100 * frame["gain"] / (frame["extra_tokens"] / 1000)).where(more)
        frame["points_per_usd"] = (100 * frame["gain"] / (1000 * frame["extra_usd"])).where(more)
        frame["best_for_the_money"] = _fronts(frame, summary)
    return frame


def breakeven(optimize_usd: float, gain: Estimate, extra_usd: float, value: float) -> float:
    """Requests after which an optimization has paid for itself: C / (value x gain - extra dollars a request).

    inf ("never shown") when the denominator's 95 % interval includes 0 or lies below it.
    """
    low = value * gain.low - extra_usd
    return optimize_usd / (value * gain.effect - extra_usd) if low > 0 else math.inf


def pareto(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Indexes, cheapest first, of points that no cheaper or equally cheap point reaches; shape (k,)."""
    best, front = -np.inf, []
    for index in np.lexsort((-score, cost)):
        if score[index] > best:
            best = score[index]
            front.append(index)
    return np.array(front, dtype=int)


def cost_column(frame: pd.DataFrame) -> tuple[str, str]:
    """(column, unit) of what an answer costs: dollars where they are known and not 0, else tokens."""
    usd = frame["usd_per_example"]
    priced = bool(usd.notna().all() and (usd > 0).all())
    return ("usd_per_example", "USD an example") if priced else ("tokens_per_example", "tokens an example")


def usd_per_answer(results: Results, keys: list[str], program: str) -> tuple[float, bool]:
    """(list cost in USD of one answer of a program, whether it is an average price).

    The mean over the answers' own calls. Records written before answers had a cost of their own know only the
    evaluation's cost as a whole: there it is shared out by tokens, and the second value is True.
    """
    answers = [results.answers(key)[program] for key in keys]
    own = mean_of(answers, "usd")
    if not math.isnan(own):
        return own, False
    cells = results.cells.loc[keys]
    usd = float(cells["evaluate_list_cost_usd"].astype(float).sum(skipna=False))
    tokens = float((cells["evaluate_prompt_tokens"] + cells["evaluate_completion_tokens"]).astype(float).sum())
    shared = usd * mean_of(answers, "tokens") / tokens if tokens else math.nan
    return shared, not math.isnan(shared)


def mean_of(answers: list[Answers], number: str) -> float:
    """Mean over runs of a number an answer: usd, tokens, calls, or a kind of token; NaN where a run lacks it."""
    values = [a.tokens_by_kind[number] if number in a.tokens_by_kind else getattr(a, number) for a in answers]
    return float(np.mean(values))


def _single_calls(results: Results, entries: list[Entry]) -> dict[str, tuple[Arm, float, float]]:
    """Terms -> the unoptimized one-step arm on those terms, and its tokens and list cost in USD an answer."""
    found: dict[str, tuple[Arm, float, float]] = {}
    for entry in entries:
        if entry.steps == 1 and entry.fields["pipeline"] == "chain":
            tokens = mean_of([results.answers(key)["baseline"] for key in entry.keys], "tokens")
            usd, _ = usd_per_answer(results, entry.keys, "baseline")
            found.setdefault(_terms(entry), (entry.base, tokens, usd))
    return found


def _terms(entry: Entry) -> str:
    fields = {name: value for name, value in entry.fields.items() if name not in ("pipeline", "optimizer")}
    return str(fields)


def _token_kinds(row: pd.Series) -> str:
    """'312 (20) + 45 (3)': input tokens an answer, those of them cached, output tokens, those of them reasoning."""
    whole, cached, output, reasoning = (row[f"{kind}_per_example"] for kind in TOKEN_KINDS)
    if np.isnan(whole) or np.isnan(output):
        return "—"
    parts = [f" ({part:.0f})" if not np.isnan(part) else "" for part in (cached, reasoning)]
    return f"{whole:.0f}{parts[0]} + {output:.0f}{parts[1]}"


def _fronts(frame: pd.DataFrame, summary: pd.DataFrame) -> list[bool]:
    column, _ = cost_column(frame)
    marks = np.zeros(len(frame), dtype=bool)
    for _, places in frame.reset_index().groupby("benchmark").groups.items():
        where = np.asarray(places)
        front = pareto(frame[column].to_numpy()[where], summary["final_score"].to_numpy()[where])
        marks[where[front]] = True
    return marks.tolist()


def _breakeven_text(results: Results, entry: Entry, row: pd.Series, between: dict, value: float | None) -> str:
    if entry.fields["optimizer"] == "none" or row["unchanged"]:
        return "—"
    if not row["usd_optimize"] > 0:
        return "price 0 or not known"
    extra = row["usd_per_example"] - usd_per_answer(results, entry.keys, "baseline")[0]
    gain = contrast([(-1.0, entry.base), (1.0, entry.final)], between)
    texts = []
    for worth in (value,) if value is not None else VALUES:
        requests = breakeven(row["usd_optimize"], gain, extra, worth)
        texts.append("never shown" if math.isinf(requests) else f"{math.ceil(requests):,}")
    if value is not None:
        return texts[0]
    return "; ".join(f"${worth:g}: {text}" for worth, text in zip(VALUES, texts, strict=True))
