"""Estimands and their intervals (the plan is plan.txt; the sources are in the docstrings). Scores are fractions.

Level "this program on these rows": one run, the program is fixed and its rows are the sample. Level "this
optimizer" (or pipeline): rows and runs are samples, from at least two runs. Verdicts are in `verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from statsmodels.stats.proportion import proportion_confint

from scaling.intervals import LEVEL, Interval, is_binary, mean_interval

SIGNIFICANCE = 0.05
FEWEST_RUN_DF = 4  # degrees of freedom between runs, over an optimizer's cells
FEWEST_GROUPS = 10  # independent rows of a benchmark that a test needs
NO_VARIATION = 1e-9  # a variance below this part of its scale is rounding
MOST_LEFT_OUT = 0.02  # share of a benchmark's rows without a score in some arm, above which nothing is compared
FEWEST_OFF_COMMONEST = 10  # below it a t interval of a mean is too narrow
NAMED_ROWS = 5  # rows left out that a sentence names
THIS_PROGRAM, THIS_OPTIMIZER = "this program on these rows", "this optimizer"

Scores = npt.NDArray[np.float64]
Names = npt.NDArray[Any]  # strings
NO_NAMES: Names = np.array([], dtype=str)


@dataclass(frozen=True, eq=False)
class Arm:
    """One cell of the grid with all its runs.

    items: (n,) ids; groups: (n,) names of what is independent; scores: (n, runs), fractions; unscored: ids of rows
    that were asked and have no score in some run.
    """

    benchmark: str
    optimizer: str
    items: Names
    groups: Names
    scores: Scores
    unscored: Names = field(default_factory=lambda: NO_NAMES)

    @property
    def runs(self) -> int:
        return int(self.scores.shape[1])

    @cached_property
    def mean(self) -> float:
        return float(self.scores.mean())

    @cached_property
    def item_means(self) -> Scores:
        """Mean over runs of each item, shape (n,)."""
        return np.asarray(self.scores.mean(axis=1))

    @cached_property
    def run_variance(self) -> float:
        """Variance between the means of the runs; needs two runs."""
        means: Scores = self.scores.mean(axis=0)
        return float(means.var(ddof=1))

    @cached_property
    def residual_mean_square(self) -> float:
        """Of the two-way items x runs table without interaction; 0 for one item or one run."""
        items, runs = self.scores.shape
        if items < 2 or runs < 2:
            return 0.0
        residual: Scores = self.scores - self.item_means[:, None] - self.scores.mean(axis=0) + self.mean
        return float((residual**2).sum() / ((items - 1) * (runs - 1)))

    @property
    def varies_by_run(self) -> bool:
        """Whether a new run may give another program: not without an optimizer, not known from one run."""
        return self.runs >= 2 and self.optimizer != "none"

    def at(self, items: Names) -> Arm:
        """The same arm on these items, in their order. Raises KeyError for an item that it lacks."""
        if items is self.items or np.array_equal(items, self.items):
            return self
        place = {item: i for i, item in enumerate(self.items)}
        rows = np.array([place[item] for item in items], dtype=int)
        groups = items if self.groups is self.items else self.groups[rows]
        return replace(self, items=items, groups=groups, scores=self.scores[rows])


Weighted = Sequence[tuple[float, Arm]]


@dataclass(frozen=True)
class RunVariance:
    """Variance between run means of an optimizer's cells, pooled, and its degrees of freedom."""

    variance: float
    df: int


@dataclass(frozen=True)
class MissingRows:
    """Rows of a benchmark that lack a score in some arm of a contrast, out of how many."""

    benchmark: str
    rows: tuple[str, ...]
    of: int

    @property
    def share(self) -> float:
        return len(self.rows) / self.of if self.of else 0.0

    @property
    def sentence(self) -> str:
        named = ", ".join(self.rows[:NAMED_ROWS]) + (", ..." if len(self.rows) > NAMED_ROWS else "")
        return f"{len(self.rows)} of {self.of} rows of {self.benchmark} lack a score in some cell ({named})"


@dataclass(frozen=True)
class Estimate:
    """An effect with its 95 % interval; p is two-sided for no effect; df and se make one-sided tests possible.

    n: rows over its benchmarks; runs: the fewest of its cells; from_runs: the part of se^2 that more runs shrink.
    untestable: why no test can be made (then p is 1), "" where one can. Numbers that do not exist are NaN.
    """

    effect: float
    low: float
    high: float
    p: float
    se: float
    df: float
    level: str
    n: int
    runs: int
    from_runs: float = 0.0
    left_out: tuple[MissingRows, ...] = ()
    untestable: str = ""

    def p_at_least(self, smallest: float) -> float:
        """One-sided p of 'the effect is `smallest` or more': small when such an effect is excluded."""
        return 1.0 if self.untestable else float(special.stdtr(self.df, (self.effect - smallest) / self.se))

    def p_at_most(self, largest: float) -> float:
        """One-sided p of 'the effect is `largest` or less': small when such an effect is excluded."""
        return 1.0 if self.untestable else float(special.stdtr(self.df, (largest - self.effect) / self.se))


def run_variances(arms: Sequence[Arm]) -> dict[str, RunVariance]:
    """By optimizer, the variance between run means pooled over its cells; `none` has no optimizer's variance.

    Weighted by runs - 1, so that cells with unequal runs keep their degrees of freedom.
    """
    by_optimizer: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.varies_by_run:
            by_optimizer.setdefault(arm.optimizer, []).append(arm)
    pooled = {}
    for name, cells in by_optimizer.items():
        df = sum(arm.runs - 1 for arm in cells)
        pooled[name] = RunVariance(sum(arm.run_variance * (arm.runs - 1) for arm in cells) / df, df)
    return pooled


def share_rows(weighted: Weighted) -> tuple[list[tuple[float, Arm]], tuple[MissingRows, ...]]:
    """The arms on the rows that all arms of their benchmark have, in one order; and the rows left out."""
    items: dict[str, Names] = {}
    for benchmark in _benchmarks(weighted):
        items[benchmark] = _shared([arm for _, arm in weighted if arm.benchmark == benchmark])
    left_out = []
    for benchmark, shared in items.items():
        arms = [arm for _, arm in weighted if arm.benchmark == benchmark]
        if any(len(arm.items) > len(shared) or len(arm.unscored) for arm in arms):
            asked = sorted(set().union(*(set(arm.items.tolist()) | set(arm.unscored.tolist()) for arm in arms)))
            kept = set(shared.tolist())
            left_out.append(MissingRows(benchmark, tuple(item for item in asked if item not in kept), len(asked)))
    return [(w, arm.at(items[arm.benchmark])) for w, arm in weighted], tuple(left_out)


def contrast(weighted: Weighted, pooled: Mapping[str, RunVariance] | None = None) -> Estimate:
    """The estimate of sum(w x mu) over new items and new runs, on the rows that all its arms share.

    V = max(A + B - C, A): A the variance over items of the weighted item means (clustered over groups, summed
    over benchmarks), B the variance between runs, C the part of B that is item noise counted twice. Interval: t
    with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics 2:110); the variance components are
    those of an items x runs table (Searle, Casella & McCulloch 1992). B takes each cell's own variance between
    runs; with `pooled`, for a contrast of one or two cells, the larger of it and its optimizer's. With one run the
    level is "this program on these rows": V = A. Not compared (NaN) when more than 2 % of a benchmark's rows are
    left out.
    """
    weighted, left_out = share_rows(weighted)
    runs = min(arm.runs for _, arm in weighted)
    level = THIS_OPTIMIZER if runs >= 2 else THIS_PROGRAM
    n = sum({arm.benchmark: len(arm.items) for _, arm in weighted}.values())
    too_many = [rows.sentence for rows in left_out if rows.share > MOST_LEFT_OUT]
    if too_many or n == 0:
        reason = f"not compared: {'; '.join(too_many) or 'no row has a score'}"
        nan = float("nan")
        return Estimate(nan, nan, nan, 1.0, nan, nan, level, n, runs, nan, left_out, reason)
    # Of the weights as they are asked for: those of one sample may cancel but for rounding.
    scale = sum(w**2 * float((arm.item_means**2).mean()) / len(arm.items) for w, arm in weighted)
    weighted = _one_sample_once(weighted)
    by_benchmark = [[(w, arm) for w, arm in weighted if arm.benchmark == b] for b in _benchmarks(weighted)]
    from_items = [_item_variance(arms) for arms in by_benchmark]
    from_runs, c = _run_variance_parts(weighted, pooled) if runs >= 2 else ({}, 0.0)
    a, b = sum(variance for variance, _ in from_items), sum(variance for variance, _ in from_runs.values())
    variance = max(a + b - c, a)
    spread = sum(v**2 / (g - 1) for v, g in from_items if g > 1) + sum(v**2 / df for v, df in from_runs.values())
    df = (a + b) ** 2 / spread if spread > 0 else 1.0
    effect = sum(w * arm.mean for w, arm in weighted)
    estimate = Estimate(effect, effect, effect, 1.0, math.sqrt(variance), df, level, n, runs, variance - a, left_out)
    return _tested(estimate, scale, min(g for _, g in from_items))


def _one_sample_once(weighted: Weighted) -> list[tuple[float, Arm]]:
    """Arms with the same answers in all runs are one sample, with their weights added.

    Programs that optimizers left unchanged answer alike; taken as independent, their run noise would not cancel.
    """
    samples: dict[tuple[str, bytes], tuple[float, Arm]] = {}
    for w, arm in weighted:
        sample = arm.benchmark, arm.scores.tobytes()
        before, kept = samples.get(sample, (0.0, arm))
        samples[sample] = before + w, kept if kept.varies_by_run else arm
    return list(samples.values())


def _tested(estimate: Estimate, scale: float, groups: int) -> Estimate:
    """The estimate with its interval and p, or with the reason why it has none.

    scale: the variance that unrelated scores of this size would have; groups: the fewest of a benchmark.
    """
    few = f"too few rows: {groups} independent ones on a benchmark, {FEWEST_GROUPS} are needed"
    few = few if groups < FEWEST_GROUPS else ""
    if estimate.se**2 <= NO_VARIATION * scale:
        nan = float("nan")
        effect = 0.0 if abs(estimate.effect) <= NO_VARIATION else estimate.effect
        why = few or "no variation: the difference is the same on all rows"
        return replace(estimate, effect=effect, low=nan, high=nan, se=0.0, from_runs=0.0, untestable=why)
    half = float(special.stdtrit(estimate.df, 0.5 + LEVEL / 2)) * estimate.se
    p = float(2 * special.stdtr(estimate.df, -abs(estimate.effect) / estimate.se))
    estimate = replace(estimate, low=estimate.effect - half, high=estimate.effect + half, p=p)
    return replace(estimate, p=1.0, untestable=few) if few else estimate


def _run_variance_parts(
    weighted: Weighted, pooled: Mapping[str, RunVariance] | None
) -> tuple[dict[int | str, tuple[float, int]], float]:
    """(B in parts that are independent of each other, with their degrees of freedom; C).

    A part is a cell, or an optimizer where the pooled variance is the larger one. A cell's own variance that was
    taken because it is the larger one is not reduced by C: with it reduced, cells with a large sd are covered in
    91 to 92 % of simulations.
    """
    parts: dict[int | str, tuple[float, int]] = {}
    c = 0.0
    for number, (w, arm) in enumerate(weighted):
        if not arm.varies_by_run:
            continue
        source: int | str = number
        variance, df = arm.run_variance, arm.runs - 1
        shared = (pooled or {}).get(arm.optimizer)
        if shared is not None and shared.variance >= variance:
            source, variance, df = arm.optimizer, shared.variance, shared.df
        if pooled is None or source == arm.optimizer:
            c += w**2 * arm.residual_mean_square / arm.scores.size
        parts[source] = parts.get(source, (0.0, df))[0] + w**2 * variance / arm.runs, df
    return parts, c


def covariance(arms: Sequence[Arm], pooled: Mapping[str, RunVariance]) -> Scores:
    """Covariance of the arms' means on one benchmark, shape (k, k): items shared, runs apart (as in `contrast`).

    The arms must be on the same rows (`share_rows`).
    """
    means = np.column_stack([arm.item_means for arm in arms])
    sums = _sums_by_group(means - means.mean(axis=0), arms[0])
    g = len(sums)
    matrix: Scores = g / (g - 1) * sums.T @ sums / len(means) ** 2
    for i, arm in enumerate(arms):
        if arm.varies_by_run:
            variance = max(arm.run_variance, pooled[arm.optimizer].variance if arm.optimizer in pooled else 0.0)
            matrix[i, i] += max(0.0, variance / arm.runs - arm.residual_mean_square / arm.scores.size)
    return matrix


def score_interval(arm: Arm, pooled: Mapping[str, RunVariance]) -> Interval | None:
    """95 % interval of one cell's expected score.

    One run: `mean_interval` (Wilson for 0/1). More runs, 0/1 scores: Wilson with the effective number of
    items n_eff = q (1 - q) / V and t in place of z (Korn & Graubard 1998, Surv Methodol 24:193, for V from a
    clustered design). Other scores: the contrast's t interval. With several runs it is never narrower than the t
    interval of the run means where they spread more than those of the optimizer's other cells.
    """
    if arm.runs == 1:
        return mean_interval(arm.scores[:, 0], arm.groups)
    estimate = contrast([(1.0, replace(arm, unscored=NO_NAMES))], pooled)
    q = estimate.effect
    if estimate.se == 0 or not 0 < q < 1:
        return mean_interval(arm.scores[:, 0], arm.groups)
    low, high = estimate.low, estimate.high
    if is_binary(arm.scores.ravel()):
        z, t = special.ndtri(0.5 + LEVEL / 2), special.stdtrit(estimate.df, 0.5 + LEVEL / 2)
        n_eff = q * (1 - q) / estimate.se**2 * (z / t) ** 2
        low, high = proportion_confint(q * n_eff, n_eff, alpha=1 - LEVEL, method="wilson")
    half = 0.0
    if arm.varies_by_run and arm.run_variance > pooled.get(arm.optimizer, RunVariance(0.0, 1)).variance:
        half = float(special.stdtrit(arm.runs - 1, 0.5 + LEVEL / 2)) * math.sqrt(arm.run_variance / arm.runs)
    return max(0.0, min(float(low), q - half)), min(1.0, max(float(high), q + half))


def is_skewed(arm: Arm) -> bool:
    """Scores that are no 0/1 and of which fewer than ten differ from the commonest: a t interval is too narrow."""
    if is_binary(arm.scores.ravel()):
        return False
    commonest = np.unique(arm.item_means, return_counts=True)[1].max()
    return bool(len(arm.items) - commonest < FEWEST_OFF_COMMONEST)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p (Holm 1979, Scand J Stat 6:65).

    statsmodels' multipletests gives the same numbers (a test holds it) and collects garbage at every call: with
    thousands of tables that takes longer than all tests.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    adjusted = np.empty_like(p)
    adjusted[order] = steps
    return [float(value) for value in adjusted]


def _benchmarks(weighted: Weighted) -> list[str]:
    return sorted({arm.benchmark for _, arm in weighted})


def _shared(arms: Sequence[Arm]) -> Names:
    """Items that all arms have, in the order of the first."""
    items = arms[0].items
    for arm in arms[1:]:
        if arm.items is not items and not np.array_equal(arm.items, items):
            items = items[np.isin(items, arm.items)]
    return items


def _item_variance(weighted: Weighted) -> tuple[float, int]:
    """(variance of the benchmark's part of the estimate over items, number of groups)."""
    u = np.sum([w * arm.item_means for w, arm in weighted], axis=0)
    sums = _sums_by_group((u - u.mean())[:, None], weighted[0][1])
    g = len(sums)
    return (g / (g - 1) * float((sums**2).sum()) / len(u) ** 2 if g > 1 else 0.0), g


def _sums_by_group(values: Scores, arm: Arm) -> Scores:
    """Sums of (n, k) values over the arm's groups, shape (g, k)."""
    if arm.groups is arm.items:  # ids are unique
        return values
    labels, inverse = np.unique(arm.groups, return_inverse=True)
    if len(labels) == len(arm.groups):
        return values
    return np.column_stack([np.bincount(inverse, weights=column) for column in values.T])
