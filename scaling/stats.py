"""Estimands, intervals and verdicts (the plan is plan.txt; the sources are in the docstrings). Scores are fractions.

Level "this program": one run, items are the sample. Level "this optimizer" (or pipeline): items and runs
are samples, from at least two runs. One run never gives a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as distributions
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from scaling.intervals import LEVEL, Interval, is_binary, mean_interval, paired_interval

SIGNIFICANCE = 0.05
FEWEST_RUN_DF = 4  # degrees of freedom between runs, pooled over an optimizer's cells


@dataclass(frozen=True)
class Arm:
    """One cell of the grid with all its runs. scores: items x runs, fractions; groups: by item; optimizer's name."""

    benchmark: str
    optimizer: str
    scores: pd.DataFrame
    groups: pd.Series

    @property
    def mean(self) -> float:
        return float(self.scores.to_numpy().mean())

    @property
    def runs(self) -> int:
        return self.scores.shape[1]


@dataclass(frozen=True)
class RunVariance:
    """Variance between run means of an optimizer's cells, pooled, and its degrees of freedom."""

    variance: float
    df: int


@dataclass(frozen=True)
class Estimate:
    """An effect with its 95 % interval; p is two-sided for no effect; df and se make one-sided tests possible."""

    effect: float
    low: float
    high: float
    p: float
    se: float
    df: float
    level: str
    n: int
    runs: int

    def p_at_least(self, smallest: float) -> float:
        """One-sided p of 'the effect is `smallest` or more': small when such an effect is excluded."""
        if self.se == 0:
            return 1.0 if self.effect >= smallest else 0.0
        return float(distributions.t.cdf((self.effect - smallest) / self.se, self.df))


def run_variances(arms: list[Arm]) -> dict[str, RunVariance]:
    """By optimizer, the mean over its cells of the variance between run means; `none` has no optimizer's variance."""
    found: dict[str, list[tuple[float, int]]] = {}
    for arm in arms:
        if arm.runs >= 2 and arm.optimizer != "none":
            means = arm.scores.to_numpy().mean(axis=0)
            found.setdefault(arm.optimizer, []).append((float(means.var(ddof=1)), arm.runs - 1))
    return {
        name: RunVariance(float(np.mean([v for v, _ in parts])), sum(df for _, df in parts))
        for name, parts in found.items()
    }


def contrast(weighted: list[tuple[float, Arm]], between_runs: Mapping[str, RunVariance]) -> Estimate:
    """The estimate of sum(w x mu) over new items and new runs.

    V = max(A + B - C, A): A the variance over items of the weighted item means (clustered over groups, summed
    over benchmarks), B the variance between runs by optimizer, C the part of B that is item noise counted
    twice. Interval: t with Satterthwaite's degrees of freedom (Satterthwaite 1946, Biometrics 2:110); the
    variance components are those of an items x runs table (Searle, Casella & McCulloch 1992). With one run
    the level is "this program": V = A.
    """
    effect = sum(w * arm.mean for w, arm in weighted)
    parts = [_item_variance([(w, a) for w, a in weighted if a.benchmark == b]) for b in _benchmarks(weighted)]
    a = sum(variance for variance, _ in parts)
    fewest_runs = min(arm.runs for _, arm in weighted)
    several = fewest_runs >= 2
    b_by_optimizer: dict[str, float] = {}
    c = 0.0
    for w, arm in weighted:
        if several and arm.optimizer in between_runs:
            part = w**2 * between_runs[arm.optimizer].variance / arm.runs
            b_by_optimizer[arm.optimizer] = b_by_optimizer.get(arm.optimizer, 0.0) + part
            c += w**2 * _residual_mean_square(arm.scores) / arm.scores.size
    b = sum(b_by_optimizer.values())
    variance = max(a + b - c, a)
    spread = sum(v**2 / (g - 1) for v, g in parts if g > 1)
    spread += sum(v**2 / between_runs[o].df for o, v in b_by_optimizer.items())
    df = (a + b) ** 2 / spread if spread > 0 else 1.0
    se = math.sqrt(variance)
    half = float(distributions.t.ppf(0.5 + LEVEL / 2, df)) * se
    p = float(2 * distributions.t.sf(abs(effect) / se, df)) if se > 0 else (1.0 if effect == 0 else 0.0)
    level = "this optimizer" if several else "this program"
    n = sum(len(arm.scores) for arm in {id(arm): arm for _, arm in weighted}.values())
    return Estimate(effect, effect - half, effect + half, p, se, df, level, n, fewest_runs)


def score_interval(arm: Arm, between_runs: Mapping[str, RunVariance]) -> Interval | None:
    """95 % interval of one cell's expected score.

    One run: `mean_interval` (Wilson for 0/1). More runs, 0/1 scores: Wilson with the effective number of
    items n_eff = q (1 - q) / V and t in place of z (Korn & Graubard 1998, Surv Methodol 24:193, for V from a
    clustered design). Other scores: the contrast's t interval.
    """
    if arm.runs == 1:
        groups = arm.groups.reindex(arm.scores.index)
        return mean_interval(arm.scores.iloc[:, 0].tolist(), groups.tolist())
    one = contrast([(1.0, arm)], between_runs)
    q = one.effect
    if not is_binary(arm.scores.to_numpy().ravel().tolist()) or one.se == 0 or not 0 < q < 1:
        if one.se == 0 or not 0 < q < 1:
            return mean_interval(arm.scores.iloc[:, 0].tolist())
        return max(0.0, one.low), min(1.0, one.high)
    n_eff = q * (1 - q) / one.se**2
    z, t = distributions.norm.ppf(0.5 + LEVEL / 2), distributions.t.ppf(0.5 + LEVEL / 2, one.df)
    n_eff *= (z / t) ** 2
    low, high = proportion_confint(q * n_eff, n_eff, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)


def difference(first: Arm, second: Arm, between_runs: Mapping[str, RunVariance]) -> tuple[float, Interval | None]:
    """second - first on the items both have, with its 95 % interval."""
    first, second = on_shared_items(first, second)
    effect = second.mean - first.mean
    if min(first.runs, second.runs) == 1:
        groups = first.groups.reindex(first.scores.index).tolist()
        return effect, paired_interval(first.scores.iloc[:, 0].tolist(), second.scores.iloc[:, 0].tolist(), groups)
    one = contrast([(-1.0, first), (1.0, second)], between_runs)
    return effect, (one.low, one.high)


def on_shared_items(first: Arm, second: Arm) -> tuple[Arm, Arm]:
    """Both arms on the items that both have, in one order."""
    shared = first.scores.index.intersection(second.scores.index)
    return (
        Arm(first.benchmark, first.optimizer, first.scores.loc[shared], first.groups),
        Arm(second.benchmark, second.optimizer, second.scores.loc[shared], second.groups),
    )


def midp_mcnemar(first: list[float], second: list[float]) -> float:
    """Two-sided mid-p McNemar test on 0/1 pairs (Fagerland, Lydersen & Laake 2013, BMC Med Res Methodol 13:91)."""
    b = sum(x < y for x, y in zip(first, second, strict=True))
    c = sum(x > y for x, y in zip(first, second, strict=True))
    tail = distributions.binom(b + c, 0.5)
    return min(1.0, float(2 * tail.cdf(min(b, c)) - tail.pmf(min(b, c))))


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p (Holm 1979, Scand J Stat 6:65), by statsmodels."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def verdict(estimate: Estimate, smallest: float, p_holm: float, p_con_holm: float) -> str:
    """supported, contradicted or cannot tell, for a hypothesis whose effect should be positive (plan.txt)."""
    if p_holm < SIGNIFICANCE and estimate.effect > 0:
        return "supported"
    if p_con_holm < SIGNIFICANCE / 2 or (p_holm < SIGNIFICANCE and estimate.effect < 0):
        return "contradicted"
    return "cannot tell"


def _benchmarks(weighted: list[tuple[float, Arm]]) -> list[str]:
    return sorted({arm.benchmark for _, arm in weighted})


def _item_variance(weighted: list[tuple[float, Arm]]) -> tuple[float, int]:
    """(variance of the benchmark's part of the estimate over items, number of groups)."""
    shared = weighted[0][1].scores.index
    for _, arm in weighted[1:]:
        shared = shared.intersection(arm.scores.index)
    u = sum(w * arm.scores.loc[shared].to_numpy().mean(axis=1) for w, arm in weighted)
    labels = np.unique(weighted[0][1].groups.reindex(shared).to_numpy().astype(str), return_inverse=True)[1]
    residuals = np.bincount(labels, weights=u - u.mean())
    g = len(residuals)
    if g < 2:
        return 0.0, g
    return g / (g - 1) * float((residuals**2).sum()) / len(shared) ** 2, g


def _residual_mean_square(scores: pd.DataFrame) -> float:
    """Of the two-way items x runs table without interaction."""
    y = scores.to_numpy()
    items, runs = y.shape
    if items < 2 or runs < 2:
        return 0.0
    residual = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0, keepdims=True) + y.mean()
    return float((residual**2).sum()) / ((items - 1) * (runs - 1))
