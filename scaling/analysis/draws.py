"""What one more draw, run or row would take off the variance of a contrast, from the variances of earlier records.

The contrast is that of the hypotheses on one benchmark: the largest number of steps minus the smallest, mean over
optimizers. Its variance with n rows, R runs and D draws, for c cells of weight 1/c in each of its two arms, is

    items / n + 2 / c * (runs / R + programs / (n R) + noise / (n R D))

Variance components of an items x runs table with repeats (Searle, Casella & McCulloch 1992). Scores are fractions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from scaling.analysis.comparisons import Entry, entries_of
from scaling.analysis.results import Results
from scaling.analysis.stats import Arm, share_rows
from scaling.intervals import LEVEL, Interval
from scaling.planning.optimizers import NONE
from scaling.wordings import OWN

MOST_DRAWS = 5
ASSUMED_RUN_SD = 0.02  # of an optimizer's runs, where the records have one run


@dataclass(frozen=True)
class Variances:
    """Variances on one benchmark with one model. rows: how many they were measured on.

    items: of the contrast over rows. runs: between the runs of a cell; None where nothing is known of it. programs:
    of row by run, above the noise. noise: of one answer to a row, with its 95 % interval over rows.
    """

    benchmark: str
    model: str
    rows: int
    items: float
    runs: float | None
    programs: float
    noise: float
    noise_interval: Interval

    def of(self, size: Size) -> float:
        """The variance of the contrast at this size."""
        runs = ASSUMED_RUN_SD**2 if self.runs is None else self.runs
        within = (self.programs + self.noise / size.draws) / size.rows
        return self.items / size.rows + 2 / size.cells * (runs + within) / size.runs


@dataclass(frozen=True)
class Size:
    """How much a study buys of a benchmark: rows, runs, draws, and the cells of an arm (optimizers)."""

    rows: int
    runs: int
    draws: int
    cells: int


@dataclass(frozen=True)
class Prices:
    """Calls on one benchmark: of one more draw of every row, of one more run, of one more row (None: there is none)."""

    draw: float
    run: float
    row: float | None


@dataclass(frozen=True)
class Proposal:
    """As many draws as buy more than a row or a run, and what is expected of them. half: of a 95 % interval."""

    variances: Variances
    draws: int
    calls: float
    half_now: float
    half_then: float


def variances_of(results: Results) -> list[Variances]:
    """The variances of each benchmark and model whose records tell how much answers to one row vary."""
    chains = [e for e in entries_of(results) if e.series.pipeline == "chain" and e.series.wording == OWN]
    found = []
    for benchmark, model in sorted({(entry.series.benchmark, entry.series.model) for entry in chains}):
        own = [e for e in chains if (e.series.benchmark, e.series.model) == (benchmark, model)]
        optimized = [e for e in own if e.series.optimizer != NONE.name]
        measured = _measured(results, _ends(optimized) or _ends(own), benchmark, model)
        found += [measured] if measured is not None else []
    return found


def proposal(variances: Variances, size: Size, prices: Prices) -> Proposal | None:
    """More draws than the study has, while the next one buys more a call than a row or a run; None where none does."""
    best = size
    while best.draws < MOST_DRAWS and _draw_is_best(variances, best, prices):
        best = replace(best, draws=best.draws + 1)
    if best.draws == size.draws:
        return None
    now, then = (float(special.ndtri(0.5 + LEVEL / 2)) * math.sqrt(variances.of(each)) for each in (size, best))
    return Proposal(variances, best.draws, (best.draws - size.draws) * prices.draw, now, then)


def _draw_is_best(variances: Variances, size: Size, prices: Prices) -> bool:
    now = variances.of(size)
    draw = (now - variances.of(replace(size, draws=size.draws + 1))) / prices.draw
    run = (now - variances.of(replace(size, runs=size.runs + 1))) / prices.run
    row = 0.0 if prices.row is None else (now - variances.of(replace(size, rows=size.rows + 1))) / prices.row
    return draw > max(run, row)


def _ends(entries: Sequence[Entry]) -> list[tuple[float, Entry]]:
    """The entries at the largest and the smallest number of steps, with their weights; [] where there is one only."""
    steps = {entry.steps for entry in entries}
    last, first = ([e for e in entries if e.steps == end(steps)] for end in (max, min)) if steps else ([], [])
    if len(steps) < 2:
        return []
    return [(1 / len(last), entry) for entry in last] + [(-1 / len(first), entry) for entry in first]


def _measured(
    results: Results, weighted: Sequence[tuple[float, Entry]], benchmark: str, model: str
) -> Variances | None:
    noises = [noise for _, entry in weighted for noise in _noises(results, entry)]
    if not weighted or not noises or any(len(entry.final.items) < 2 for _, entry in weighted):
        return None
    noise = float(np.mean([each.mean() for each in noises]))
    arms, _ = share_rows([(w, entry.final) for w, entry in weighted])
    several = [arm for _, arm in arms if arm.runs > 1]
    draws = {entry.series.draws for _, entry in weighted}
    answer_noise = noise / max(draws)
    within = float(np.mean([arm.residual_mean_square for arm in several])) if several else answer_noise
    contrast = np.sum([w * arm.item_means for w, arm in arms], axis=0)
    noise_of_contrast = sum(w**2 * within / arm.runs for w, arm in arms)
    return Variances(
        benchmark, model, len(contrast),
        items=max(0.0, float(contrast.var(ddof=1)) - noise_of_contrast),
        runs=float(np.mean([_between_runs(arm) for arm in several])) if several else None,
        programs=max(0.0, within - answer_noise),
        noise=noise,
        noise_interval=_interval(np.concatenate(noises)),
    )  # fmt: skip


def _noises(results: Results, entry: Entry) -> Iterator[np.ndarray]:
    """Variances between answers of one program to each row, (n,) each: of draws, else of a baseline's runs."""
    drawn = [answers.noise for key in entry.keys if (answers := results.answers(key)["final"]).noise is not None]
    yield from drawn
    if not drawn and entry.base.runs > 1:
        yield entry.base.scores.var(axis=1, ddof=1)


def _between_runs(arm: Arm) -> float:
    """The variance between runs without the part that rows make."""
    return max(0.0, arm.run_variance - arm.residual_mean_square / len(arm.items))


def _interval(values: np.ndarray) -> Interval:
    """A t interval of the mean of variances, from 0 on."""
    half = float(special.stdtrit(len(values) - 1, 0.5 + LEVEL / 2) * values.std(ddof=1) / math.sqrt(len(values)))
    return max(0.0, float(values.mean()) - half), float(values.mean()) + half
