"""What quality costs: gains beside dollars and tokens, what is worth paying, and when an optimization pays.

Gains are over one unoptimized call on the same rows. Dollars are list cost: each call is priced when it is made,
with input, cached input and output tokens (reasoning included) at their own prices. Where prices are 0 or unknown,
tokens stand alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.pairs import difference
from scaling.analysis.reading import Answers
from scaling.analysis.results import Results
from scaling.analysis.series import Terms
from scaling.analysis.stats import Arm, Estimate, RunVariance, contrast, run_variances
from scaling.records.record import TOKEN_KINDS

LEAST_EXTRA_SHARE = 0.05  # of a cell's tokens: below it, points for more tokens are noise
VALUES = (0.001, 0.01, 0.1, 1.0, 10.0)  # dollars a right answer, for the curve where the user names none


@dataclass(frozen=True)
class Cost:
    """A series at one number of steps: its gain over one unoptimized call, and what it costs.

    Scores are fractions, dollars list cost, tokens and dollars `_per_example` of one answer. extra_: more than one
    unoptimized call. breakeven: requests after which the optimization has paid, in words. NaN is unknown.
    """

    benchmark: str
    pipeline: str
    optimizer: str
    model: str
    steps: int
    line: str
    gain: float
    gain_low: float
    gain_high: float
    tokens_per_example: float
    prompt_tokens_per_example: float
    cached_tokens_per_example: float
    completion_tokens_per_example: float
    reasoning_tokens_per_example: float
    usd_per_example: float
    extra_tokens: float
    extra_usd: float
    usd_optimize: float
    usd_proposals: float
    breakeven: str


@dataclass(frozen=True)
class SingleCall:
    """The unoptimized one-step program that gains are measured from; tokens and list cost in USD an answer."""

    arm: Arm
    tokens: float
    usd: float


# What a row takes from the summary as it stands there.
_SAME = (
    "benchmark", "pipeline", "optimizer", "model", "steps", "line", "tokens_per_example", "usd_per_example",
    "usd_optimize", "usd_proposals", *(f"{kind}_per_example" for kind in TOKEN_KINDS),
)  # fmt: skip


def costs(results: Results, entries: list[Entry], summary: pd.DataFrame, value: float | None) -> pd.DataFrame:
    """A row (`Cost`) an entry, with points for more tokens and dollars, and whether no cheaper cell scores as high.

    value: dollars that one more right answer is worth (None: break-even for each of VALUES).
    """
    between = run_variances([entry.final for entry in entries])
    singles = _single_calls(results, entries)
    rows = [
        _cost(results, entry, row, singles.get(entry.series.across_programs), between, value)
        for entry, (_, row) in zip(entries, summary.iterrows(), strict=True)
    ]
    frame = pd.DataFrame(rows, columns=[field.name for field in fields(Cost)])
    if not frame.empty:
        more = frame["extra_tokens"] > LEAST_EXTRA_SHARE * frame["tokens_per_example"]
        frame["points_per_1000_tokens"] = (100 * frame["gain"] / (frame["extra_tokens"] / 1000)).where(more)
        frame["points_per_usd"] = (100 * frame["gain"] / (1000 * frame["extra_usd"])).where(
            more & (frame["extra_usd"] > 0)
        )
        frame["best_for_the_money"] = _fronts(frame, summary)
    return frame


def _cost(
    results: Results,
    entry: Entry,
    row: pd.Series,
    single: SingleCall | None,
    between: dict[str, RunVariance],
    value: float | None,
) -> Cost:
    gain = low = high = math.nan
    if entry.steps == 1 and entry.series.pipeline == "chain" and row["unchanged"]:
        gain = 0.0  # it is the unoptimized call itself
    elif single is not None:
        change = difference(single.arm, entry.final, between)
        gain, low, high = change.effect, change.low, change.high
    return Cost(
        **{name: row[name] for name in _SAME},
        gain=gain,
        gain_low=low,
        gain_high=high,
        extra_tokens=row["tokens_per_example"] - single.tokens if single else math.nan,
        extra_usd=row["usd_per_example"] - single.usd if single else math.nan,
        breakeven=_breakeven_text(results, entry, row, between, value),
    )


def breakeven(optimize_usd: float, gain: Estimate, extra_usd: float, value: float) -> float:
    """Requests after which an optimization has paid for itself: C / (value x gain - extra dollars per request).

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
    return ("usd_per_example", "USD per example") if priced else ("tokens_per_example", "tokens per example")


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
    return shared, shared > 0


def mean_of(answers: list[Answers], number: str) -> float:
    """Mean over runs of a number an answer: usd, tokens, calls, or a kind of token; NaN where a run lacks it."""
    values = [a.tokens_by_kind[number] if number in a.tokens_by_kind else getattr(a, number) for a in answers]
    return float(np.mean(values))


def _single_calls(results: Results, entries: list[Entry]) -> dict[Terms, SingleCall]:
    """Terms -> the unoptimized one-step program on those terms."""
    singles: dict[Terms, SingleCall] = {}
    for entry in entries:
        if entry.steps == 1 and entry.series.pipeline == "chain" and entry.series.across_programs not in singles:
            tokens = mean_of([results.answers(key)["baseline"] for key in entry.keys], "tokens")
            usd, _ = usd_per_answer(results, entry.keys, "baseline")
            singles[entry.series.across_programs] = SingleCall(entry.base, tokens, usd)
    return singles


def _fronts(frame: pd.DataFrame, summary: pd.DataFrame) -> list[bool]:
    column, _ = cost_column(frame)
    marks = np.zeros(len(frame), dtype=bool)
    for _, places in frame.reset_index().groupby("benchmark").groups.items():
        where = np.asarray(places)
        front = pareto(frame[column].to_numpy()[where], summary["final_score"].to_numpy()[where])
        marks[where[front]] = True
    return marks.tolist()


def _breakeven_text(
    results: Results, entry: Entry, row: pd.Series, between: dict[str, RunVariance], value: float | None
) -> str:
    if entry.series.optimizer == "none" or row["unchanged"]:
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
