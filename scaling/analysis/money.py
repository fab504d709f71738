"""What quality costs: gains beside dollars and tokens, what is worth paying, and when an optimization pays.

Gains are over one unoptimized call on the same rows. Dollars are list cost; where prices are 0 or unknown, tokens
stand alone.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.results import Results
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
                "usd_per_example": row["usd_per_example"],
                "extra_tokens": row["tokens_per_example"] - single[1] if single else np.nan,
                "usd_optimize": row["usd_optimize"],
                "usd_proposals": row["usd_proposals"],
                "breakeven": _breakeven_text(results, entry, row, between, value),
            }
        )
    frame = pd.DataFrame(rows)
    if not frame.empty:
        more = frame["extra_tokens"] > LEAST_EXTRA_SHARE * frame["tokens_per_example"]
        frame["points_per_1000_tokens"] = (100 * frame["gain"] / (frame["extra_tokens"] / 1000)).where(more)
        frame["points_per_usd"] = (100 * frame["gain"] / (1000 * _extra_usd(frame))).where(more)
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


def _single_calls(results: Results, entries: list[Entry]) -> dict[str, tuple[Arm, float]]:
    """Terms -> the unoptimized one-step arm on those terms, and its tokens an example."""
    found: dict[str, tuple[Arm, float]] = {}
    for entry in entries:
        if entry.steps == 1 and entry.fields["pipeline"] == "chain":
            tokens = np.mean([results.answers(key)["baseline"].tokens for key in entry.keys])
            found.setdefault(_terms(entry), (entry.base, float(tokens)))
    return found


def _terms(entry: Entry) -> str:
    fields = {name: value for name, value in entry.fields.items() if name not in ("pipeline", "optimizer")}
    return str(fields)


def _extra_usd(frame: pd.DataFrame) -> pd.Series:
    """Dollars an example more than one unoptimized call, by the tokens they use."""
    share = frame["extra_tokens"] / frame["tokens_per_example"]
    return frame["usd_per_example"] * share


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
    base_tokens = np.mean([results.answers(key)["baseline"].tokens for key in entry.keys])
    extra = row["usd_per_example"] * (1 - base_tokens / row["tokens_per_example"])
    gain = contrast([(-1.0, entry.base), (1.0, entry.final)], between)
    texts = []
    for worth in (value,) if value is not None else VALUES:
        requests = breakeven(row["usd_optimize"], gain, extra, worth)
        texts.append("never shown" if math.isinf(requests) else f"{math.ceil(requests):,}")
    if value is not None:
        return texts[0]
    return "; ".join(f"${worth:g}: {text}" for worth, text in zip(VALUES, texts, strict=True))
