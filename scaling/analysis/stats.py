"""Estimands, intervals and verdicts (the plan is plan.txt; the sources are in the docstrings). Scores are fractions.

Level "this program": one run, items are the sample. Level "this optimizer" (or pipeline): items and runs
are samples, from at least two runs. One run never gives a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint

from scaling.intervals import LEVEL, Interval, is_binary, mean_interval, paired_interval

SIGNIFICANCE = 0.05
FEWEST_RUN_DF = 4  # degrees of freedom between runs, pooled over an optimizer's cells
POWER = 0.80
FEWEST_OFF_COMMONEST = 10  # below it a t interval of a mean is too narrow


@dataclass(frozen=True)
class Arm:
    """One cell of the grid with all its runs.

    items: (n,) ids; groups: (n,) names of what is independent; scores: (n, runs), fractions.
    """

    benchmark: str
    optimizer: str
    items: np.ndarray
    groups: np.ndarray
    scores: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def runs(self) -> int:
        return self.scores.shape[1]

    def at(self, items: np.ndarray) -> Arm:
        """The same arm on these items, in their order."""
        if np.array_equal(items, self.items):
            return self
        place = {item: i for i, item in enumerate(self.items)}
        rows = np.array([place[item] for item in items], dtype=int)
        return replace(self, items=items, groups=self.groups[rows], scores=self.scores[rows])


@dataclass(frozen=True)
class RunVariance:
    """Variance between run means of an optimizer's cells, pooled, and its degrees of freedom."""

    variance: float
    df: int


@dataclass(frozen=True)
class Estimate:
    """An effect with its 95 % interval; p is two-sided for no effect; df and se make one-sided tests possible.

    n: rows over its benchmarks; runs: the fewest of its cells; from_runs: the part of se^2 that more runs shrink.
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

    def p_at_least(self, smallest: float) -> float:
        """One-sided p of 'the effect is `smallest` or more': small when such an effect is excluded."""
        if self.se == 0:
            return 1.0 if self.effect >= smallest else 0.0
        return float(distributions.t.cdf((self.effect - smallest) / self.se, self.df))

    @property
    def detectable(self) -> float:
        """The effect that a two-sided 5 % test finds with 80 % power, a fraction (before Holm)."""
        return self.se * float(distributions.t.ppf(0.975, self.df) + distributions.t.ppf(POWER, self.df))


def run_variances(arms: Sequence[Arm]) -> dict[str, RunVariance]:
    """By optimizer, the variance between run means pooled over its cells; `none` has no optimizer's variance.

    Weighted by runs - 1, so that cells with unequal runs keep their degrees of freedom.
    """
    found: dict[str, list[tuple[float, int]]] = {}
    for arm in arms:
        if arm.runs >= 2 and arm.optimizer != "none":
            found.setdefault(arm.optimizer, []).append((_between(arm), arm.runs - 1))
    return {
        name: RunVariance(sum(v * df for v, df in parts) / sum(df for _, df in parts), sum(df for _, df in parts))
        for name, parts in found.items()
    }


def contrast(
    weighted: Sequence[tuple[float, Arm]], between_runs: Mapping[str, RunVariance], pooled: bool = True
) -> Estimate:
    """The estimate of sum(w x mu) over new items and new runs.

    V = max(A + B - C, A): A the variance over items of the weighted item means (clustered over groups, summed
    over benchmarks), B the variance between runs by optimizer, C the part of B that is item noise counted
    twice. Interval: t with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics 2:110); the
    variance components are those of an items x runs table (Searle, Casella & McCulloch 1992). With one run
    the level is "this program": V = A. pooled=False takes each cell's own variance between runs (a check).
    """
    effect = sum(w * arm.mean for w, arm in weighted)
    parts = [_item_variance([(w, a) for w, a in weighted if a.benchmark == b]) for b in _benchmarks(weighted)]
    a = sum(variance for variance, _ in parts)
    fewest_runs = min(arm.runs for _, arm in weighted)
    several = fewest_runs >= 2
    by_source: dict[str, tuple[float, int]] = {}
    c = 0.0
    for number, (w, arm) in enumerate(weighted):
        if several and arm.optimizer in between_runs:
            source = arm.optimizer if pooled else str(number)
            shared = between_runs[arm.optimizer]
            variance, df = (shared.variance, shared.df) if pooled else (_between(arm), arm.runs - 1)
            by_source[source] = (by_source.get(source, (0.0, 0))[0] + w**2 * variance / arm.runs, df)
            c += w**2 * _residual_mean_square(arm.scores) / arm.scores.size
    b = sum(part for part, _ in by_source.values())
    variance = max(a + b - c, a)
    spread = sum(v**2 / (g - 1) for v, g in parts if g > 1) + sum(v**2 / df for v, df in by_source.values())
    df = (a + b) ** 2 / spread if spread > 0 else 1.0
    n = sum({arm.benchmark: len(arm.items) for _, arm in weighted}.values())
    level = "this optimizer" if several else "this program"
    return _estimate(effect, variance, df, level, n, fewest_runs, variance - a)


def covariance(arms: Sequence[Arm], between_runs: Mapping[str, RunVariance]) -> np.ndarray:
    """Covariance of the arms' means on one benchmark, shape (k, k): items shared, runs apart (as in `contrast`)."""
    items = _shared([arm for arm in arms])
    means = np.column_stack([arm.at(items).scores.mean(axis=1) for arm in arms])
    sums = _sums_by_group(means - means.mean(axis=0), arms[0].at(items).groups)
    g = len(sums)
    matrix = g / (g - 1) * sums.T @ sums / len(items) ** 2
    for i, arm in enumerate(arms):
        if arm.runs >= 2 and arm.optimizer in between_runs:
            extra = (
                between_runs[arm.optimizer].variance / arm.runs - _residual_mean_square(arm.scores) / arm.scores.size
            )
            matrix[i, i] += max(0.0, extra)
    return matrix


def score_interval(arm: Arm, between_runs: Mapping[str, RunVariance]) -> Interval | None:
    """95 % interval of one cell's expected score.

    One run: `mean_interval` (Wilson for 0/1). More runs, 0/1 scores: Wilson with the effective number of
    items n_eff = q (1 - q) / V and t in place of z (Korn & Graubard 1998, Surv Methodol 24:193, for V from a
    clustered design). Other scores: the contrast's t interval.
    """
    if arm.runs == 1:
        return mean_interval(arm.scores[:, 0], arm.groups)
    one = contrast([(1.0, arm)], between_runs)
    q = one.effect
    if one.se == 0 or not 0 < q < 1:
        return mean_interval(arm.scores[:, 0], arm.groups)
    if not is_binary(arm.scores.ravel()):
        return max(0.0, one.low), min(1.0, one.high)
    z, t = distributions.norm.ppf(0.5 + LEVEL / 2), distributions.t.ppf(0.5 + LEVEL / 2, one.df)
    n_eff = q * (1 - q) / one.se**2 * (z / t) ** 2
    low, high = proportion_confint(q * n_eff, n_eff, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def is_skewed(arm: Arm) -> bool:
    """Scores that are no 0/1 and of which fewer than ten differ from the commonest: a t interval is too narrow."""
    scores = arm.scores.mean(axis=1)
    if is_binary(arm.scores.ravel()):
        return False
    commonest = np.unique(scores, return_counts=True)[1].max()
    return len(scores) - commonest < FEWEST_OFF_COMMONEST


def difference(first: Arm, second: Arm, between_runs: Mapping[str, RunVariance]) -> Estimate:
    """second - first on the items both have.

    One run and 0/1 scores of ungrouped items: mid-p McNemar's p and Newcombe's interval; else the contrast's.
    """
    items = _shared([first, second])
    first, second = first.at(items), second.at(items)
    one = contrast([(-1.0, first), (1.0, second)], between_runs)
    if min(first.runs, second.runs) > 1:
        return one
    interval = paired_interval(first.scores[:, 0], second.scores[:, 0], first.groups)
    low, high = interval if interval else (float("nan"), float("nan"))
    p = one.p
    if _is_binary_pair(first, second):
        p = midp_mcnemar(first.scores[:, 0], second.scores[:, 0])
    return replace(one, low=low, high=high, p=p)


def adoption_p(base: Arm, final: Arm, between_runs: Mapping[str, RunVariance]) -> float:
    """One-sided p of 'final is no better than its baseline': mid-p McNemar for one run of 0/1 scores, else t."""
    items = _shared([base, final])
    base, final = base.at(items), final.at(items)
    if min(base.runs, final.runs) == 1 and _is_binary_pair(base, final):
        return midp_mcnemar_better(base.scores[:, 0], final.scores[:, 0])
    one = contrast([(-1.0, base), (1.0, final)], between_runs)
    if one.se == 0:
        return 0.0 if one.effect > 0 else 1.0
    return float(distributions.t.sf(one.effect / one.se, one.df))


def midp_mcnemar(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided mid-p McNemar test on 0/1 pairs (Fagerland, Lydersen & Laake 2013, BMC Med Res Methodol 13:91)."""
    better = midp_mcnemar_better(first, second)
    return min(1.0, 2 * min(better, 1.0 - better))


def midp_mcnemar_better(first: Sequence[float], second: Sequence[float]) -> float:
    """One-sided mid-p of the same test: small when `second` is right more often than `first`."""
    first, second = np.asarray(first), np.asarray(second)
    won, lost = int((first < second).sum()), int((first > second).sum())
    tail = distributions.binom(won + lost, 0.5)
    return float(tail.sf(won) + 0.5 * tail.pmf(won))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p (Holm 1979, Scand J Stat 6:65); statsmodels' collects garbage at every call."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    adjusted = np.empty_like(p)
    adjusted[order] = steps
    return adjusted.tolist()


def verdict(estimate: Estimate, p_holm: float, p_con_holm: float) -> str:
    """supported, contradicted or cannot tell, for a hypothesis whose effect should be positive (plan.txt)."""
    if p_holm < SIGNIFICANCE and estimate.effect > 0:
        return "supported"
    if p_con_holm < SIGNIFICANCE / 2 or (p_holm < SIGNIFICANCE and estimate.effect < 0):
        return "contradicted"
    return "cannot tell"


def direction(estimate: Estimate, p_holm: float) -> str:
    """better, worse or cannot tell, for a table of comparisons (Holm's p within the table)."""
    if p_holm >= SIGNIFICANCE:
        return "cannot tell"
    return "better" if estimate.effect > 0 else "worse"


def settling_size(estimate: Estimate, smallest: float) -> str:
    """The rows or runs at which an effect of `smallest` would be found with 80 % power, from the measured variances.

    Rows shrink the part of the variance that is over items, runs the part that is between runs; degrees of
    freedom are kept as they are. A guide, not a promise.
    """
    from_items = estimate.se**2 - estimate.from_runs
    wanted = (smallest / (estimate.detectable / estimate.se)) ** 2 if estimate.se > 0 else math.inf
    if estimate.se**2 <= wanted:
        return "these rows and runs"
    if estimate.from_runs < 0.9 * wanted:
        return f"{_nicely(estimate.n * from_items / (wanted - estimate.from_runs))} rows x {estimate.runs} runs"
    runs = math.ceil(estimate.runs * estimate.from_runs / (0.5 * wanted))
    return f"{_nicely(max(estimate.n, estimate.n * from_items / (0.5 * wanted)))} rows x {runs} runs"


def bands(baseline: np.ndarray, change: np.ndarray) -> dict[str, float]:
    """Mean change by difficulty, each run's items banded by the baseline answers of the *other* runs; (n, runs) each.

    Bands from the same answers would show regression to the mean (STATISTICS 5.6). Needs three runs or more.
    """
    n, runs = baseline.shape
    found: dict[str, list[float]] = {"hard": [], "some": [], "easy": []}
    for run in range(runs):
        others = np.delete(baseline, run, axis=1).mean(axis=1)
        for name, chosen in (("hard", others == 0), ("some", (others > 0) & (others < 1)), ("easy", others == 1)):
            found[name] += change[chosen, run].tolist()
    return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}


def _estimate(effect: float, variance: float, df: float, level: str, n: int, runs: int, from_runs: float) -> Estimate:
    se = math.sqrt(variance)
    half = float(distributions.t.ppf(0.5 + LEVEL / 2, df)) * se
    p = float(2 * distributions.t.sf(abs(effect) / se, df)) if se > 0 else (1.0 if effect == 0 else 0.0)
    return Estimate(effect, effect - half, effect + half, p, se, df, level, n, runs, from_runs)


def _benchmarks(weighted: Sequence[tuple[float, Arm]]) -> list[str]:
    return sorted({arm.benchmark for _, arm in weighted})


def _is_binary_pair(first: Arm, second: Arm) -> bool:
    grouped = len(np.unique(first.groups)) < len(first.items)
    return not grouped and is_binary(first.scores.ravel()) and is_binary(second.scores.ravel())


def _shared(arms: Sequence[Arm]) -> np.ndarray:
    """Items that all arms have, in the order of the first."""
    items = arms[0].items
    for arm in arms[1:]:
        if not np.array_equal(arm.items, items):
            items = items[np.isin(items, arm.items)]
    return items


def _between(arm: Arm) -> float:
    return float(arm.scores.mean(axis=0).var(ddof=1))


def _item_variance(weighted: Sequence[tuple[float, Arm]]) -> tuple[float, int]:
    """(variance of the benchmark's part of the estimate over items, number of groups)."""
    items = _shared([arm for _, arm in weighted])
    u = sum(w * arm.at(items).scores.mean(axis=1) for w, arm in weighted)
    sums = _sums_by_group((u - u.mean())[:, None], weighted[0][1].at(items).groups)
    g = len(sums)
    return (g / (g - 1) * float((sums**2).sum()) / len(items) ** 2 if g > 1 else 0.0), g


def _sums_by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums of (n, k) values over groups, shape (g, k)."""
    labels, inverse = np.unique(groups, return_inverse=True)
    if len(labels) == len(groups):
        return values
    return np.column_stack([np.bincount(inverse, weights=column) for column in values.T])


def _residual_mean_square(scores: np.ndarray) -> float:
    """Of the two-way items x runs table without interaction."""
    items, runs = scores.shape
    if items < 2 or runs < 2:
        return 0.0
    residual = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
    return float((residual**2).sum()) / ((items - 1) * (runs - 1))


def _nicely(number: float) -> str:
    """A number of rows, rounded up to two digits."""
    size = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return f"{math.ceil(number / size) * size:,.0f}"
