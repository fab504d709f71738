"""Shapes and fits: scores against steps, gains against model size. Sets of what is not rejected, never one winner.

With 3 or 4 numbers of steps no family of curves can be told from another, so the shape is named from slopes. With
5, the families whose misfit is not rejected are all named. An exponent is a set, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize
from scipy import stats as distributions

from scaling.analysis.stats import SIGNIFICANCE, Estimate, Scores, holm
from scaling.analysis.text import plural
from scaling.intervals import LEVEL, Interval

RATES = np.geomspace(0.02, 8.0, 400)  # of the saturating curve, per call
ALPHAS = np.linspace(-2.0, 2.0, 4001).round(3)
FEWEST_SIZES, FEWEST_DECADES = 5, 1.5  # for an exponent


@dataclass(frozen=True)
class Family:
    """A family of curves fitted to the means: does it fit, with which parameters, and what it draws."""

    name: str
    misfit: float  # (y - f)' V^-1 (y - f)
    parameters: dict[str, float]
    curve: Callable[[Scores], Scores]
    p: float = float("nan")  # of the misfit

    @property
    def rejected(self) -> bool:
        return self.p < SIGNIFICANCE


@dataclass(frozen=True)
class Curve:
    """A fitted curve at some points: heights and their 95 % limits, shape (k,) each."""

    height: Scores
    low: Scores
    high: Scores


@dataclass(frozen=True)
class Line:
    """y = intercept + slope x over units that scatter around it; `cov` of (intercept, slope), t with `df`."""

    intercept: float
    slope: float
    cov: Scores
    df: int
    between: float  # variance of the units around the line

    @property
    def slope_interval(self) -> Interval:
        half = _t(self.df) * math.sqrt(self.cov[1, 1])
        return self.slope - half, self.slope + half

    @property
    def p(self) -> float:
        """Two-sided, of slope = 0."""
        return float(2 * distributions.t.sf(abs(self.slope) / math.sqrt(self.cov[1, 1]), self.df))

    def p_at_least(self, smallest: float) -> float:
        """One-sided, of slope >= smallest."""
        return float(distributions.t.cdf((self.slope - smallest) / math.sqrt(self.cov[1, 1]), self.df))

    def band(self, x: Scores) -> Curve:
        """The line at each x, shape (k,), with the 95 % interval of its height there."""
        height = self.intercept + self.slope * x
        half = _t(self.df) * np.sqrt(self.cov[0, 0] + 2 * x * self.cov[0, 1] + x**2 * self.cov[1, 1])
        return Curve(height, height - half, height + half)


@dataclass(frozen=True)
class PowerLaw:
    """value = A size^alpha on the raw scale: the set of alpha that is not rejected, and whether it says anything.

    unit: the sizes' geometric mean, in which the amplitude is. grid: the amplitude, the sum of squared shapes and the
    misfit at each exponent of ALPHAS; limit: misfits up to it are not rejected. unbounded: why nothing may be said of
    other sizes, "" where it may; refused: why no exponent may be named.
    """

    alpha: float
    low: float
    high: float
    amplitude: float
    r2: float
    unbounded: str
    refused: str
    unit: float
    grid: tuple[Scores, Scores, Scores]
    limit: float

    def curve(self, sizes: Scores) -> Curve:
        """A size^alpha at each size, shape (k,), with the 95 % band of the curve."""
        return self._limits(sizes, 0.0)

    def expected(self, size: float) -> tuple[float, Interval]:
        """The value that a further model of this size can be expected to have, and its 95 % interval.

        The values y for which a model (size, y) beside the measured ones is not rejected by the profile F test that
        gives the set of alpha; for a known alpha it is the prediction interval of the regression.
        """
        found = self._limits(np.array([size]), 1.0)
        return float(found.height[0]), (float(found.low[0]), float(found.high[0]))

    def _limits(self, sizes: Scores, own_scatter: float) -> Curve:
        amplitudes, squares, misfits = (values[:, None] for values in self.grid)
        at = (sizes / self.unit)[None, :] ** ALPHAS[:, None]
        room = np.clip(self.limit - misfits, 0.0, None) * (own_scatter + at**2 / squares)
        inside = misfits <= self.limit
        low = np.where(inside, amplitudes * at - np.sqrt(room), np.inf).min(axis=0)
        high = np.where(inside, amplitudes * at + np.sqrt(room), -np.inf).max(axis=0)
        return Curve(self.amplitude * (sizes / self.unit) ** self.alpha, low, high)


def shape_label(early: Estimate, late: Estimate, bend: Estimate) -> str:
    """The shape of a curve in words, from the slopes per step before and after a middle step and their difference.

    early, late: the two slopes; bend: early - late. Holm over the three. Levelling needs a rise, no rise shown after
    it, and a bend: a straight line whose second half is measured less well is not levelling.
    """
    p_early, p_late, p_bend = holm([early.p, late.p, bend.p])
    up, down = _signs(early, p_early)
    later_up, later_down = _signs(late, p_late)
    if up and later_down:
        return "rise then fall"
    if down and later_up:
        return "fall then rise"
    if up and not later_up and p_bend < SIGNIFICANCE and bend.effect > 0:
        return "levelling"
    if up or later_up:
        return "rising"
    return "falling" if down or later_down else "flat not rejected"


def _signs(slope: Estimate, p: float) -> tuple[bool, bool]:
    """(rise shown, fall shown)."""
    shown = p < SIGNIFICANCE
    return shown and slope.effect > 0, shown and slope.effect < 0


def log_line(steps: Sequence[int], scores: Sequence[float]) -> tuple[float, float, float]:
    """(intercept, slope a doubling, R2) of scores on log2(steps) by least squares: a description, no verdict."""
    x, y = np.log2(np.asarray(steps, float)), np.asarray(scores, float)
    slope, intercept = np.polyfit(x, y, 1)
    return float(intercept), float(slope), _r2(y, intercept + slope * x)


def families(steps: Sequence[int], means: Sequence[float], covariance: Scores, df: float) -> list[Family]:
    """flat, log, saturating and peaked curves fitted by generalized least squares, each with the p of its misfit.

    The misfit (y - f)' V^-1 (y - f) with k minus parameters is judged as Hotelling's T2 with the `df` on which V
    rests: the chi-square that holds for a known V rejected a flat truth in 12 % of simulations with 3 runs. The
    saturating curve's rate is found on a grid with the rest solved linearly: a local optimizer misses it.
    """
    k, y = np.asarray(steps, float), np.asarray(means, float)
    columns = {
        "flat": (("level",), lambda x: np.column_stack([np.ones_like(x)])),
        "log": (("start", "a doubling"), lambda x: np.column_stack([np.ones_like(x), np.log2(x)])),
        "peaked": (
            ("start", "log2", "log2 squared"),
            lambda x: np.column_stack([np.ones_like(x), np.log2(x), np.log2(x) ** 2]),
        ),
    }
    linear = [_linear(name, names, shape, k, y, covariance) for name, (names, shape) in columns.items()]
    fitted = [*linear, _saturating(k, y, covariance)]
    return [replace(f, p=_misfit_p(f.misfit, len(k) - len(f.parameters), df)) for f in fitted]


def family_set(fitted: Sequence[Family]) -> str:
    """The families that are not rejected at 5 %, in words."""
    kept = [family.name for family in fitted if not family.rejected]
    if not kept:
        return "none of these"
    return ("not told from flat: " if "flat" in kept else "") + ", ".join(kept)


def size_line(sizes: Sequence[float], gains: Sequence[float], variances: Sequence[float] | None = None) -> Line:
    """Gain on log10(size) by random-effects meta-regression with Knapp and Hartung's variance and t(m - 2).

    Between-unit variance by Paule and Mandel's equation (1982, J Res NBS 87:377) for a regression; Knapp & Hartung
    2003, Stat Med 22:2693. variances: of each gain; None takes them as equal (ordinary least squares).
    """
    return regression(np.log10(np.asarray(sizes, float)), gains, variances)


def regression(x: Sequence[float], y: Sequence[float], variances: Sequence[float] | None = None) -> Line:
    """The line of `size_line` on any x, shape (m,), m >= 3."""
    at, values = np.asarray(x, float), np.asarray(y, float)
    design, df = np.column_stack([np.ones_like(at), at]), len(at) - 2
    own = np.zeros_like(values) if variances is None else np.asarray(variances, float)

    def fit(between: float) -> tuple[Scores, Scores, float]:
        w = 1 / (own + between)
        bread = np.linalg.inv(design.T @ (w[:, None] * design))
        beta = bread @ design.T @ (w * values)
        return beta, bread, float(w @ (values - design @ beta) ** 2)

    def excess(between: float) -> float:
        return fit(between)[2] - df

    between = 1.0
    if variances is not None:
        smallest, largest = 1e-12, float(np.var(values)) * 10 + 2e-12
        between = smallest if excess(smallest) <= 0 else float(optimize.brentq(excess, smallest, largest))
    beta, bread, q = fit(between)
    cov = bread * max(q, 1e-300) / df
    return Line(float(beta[0]), float(beta[1]), cov, df, between if variances is not None else 0)


def zero_set(line: Line, low: float, high: float) -> list[Interval]:
    """The x in [low, high] at which the line's value 0 is not rejected (Fieller 1954, JRSS B 16:175), by its t test."""
    x = np.linspace(low, high, 2001)
    value = line.intercept + line.slope * x
    se = np.sqrt(line.cov[0, 0] + 2 * x * line.cov[0, 1] + x**2 * line.cov[1, 1])
    inside = np.abs(value) <= _t(line.df) * se
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(int), [0]])))
    return [(float(x[a]), float(x[b - 1])) for a, b in edges.reshape(-1, 2)]


def power_law(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw:
    """The profile set of alpha in value = A size^alpha, least squares on the raw scale, values of any sign.

    {alpha in [-2, 2]: (Q(alpha) - Qmin) / (Qmin / (m - 2)) <= F.95(1, m - 2)} with A solved (Donaldson & Schnabel
    1987, Technometrics 29:67, likelihood regions). Refused unless 5 different sizes over 1.5 decades
    give a bounded set without 0.
    """
    s, y = np.asarray(sizes, float), np.asarray(values, float)
    m = len(y)
    unit = float(np.exp(np.log(s).mean()))  # the exponent does not depend on the unit
    shapes = (s / unit)[None, :] ** ALPHAS[:, None]
    squares = (shapes**2).sum(axis=1)
    amplitudes = shapes @ y / squares
    q = ((y - amplitudes[:, None] * shapes) ** 2).sum(axis=1)
    best = int(q.argmin())
    limit = float(q[best] * (1 + distributions.f.ppf(LEVEL, 1, max(1, m - 2)) / max(1, m - 2)) + 1e-300)
    inside = ALPHAS[q <= limit]
    low, high = float(inside.min()), float(inside.max())
    unbounded = too_few_sizes(sizes)
    if not unbounded and (low <= ALPHAS[0] or high >= ALPHAS[-1]):
        unbounded = "the set of exponents has no end"
    refused = unbounded or ("the set of exponents holds 0" if low <= 0 <= high else "")
    r2 = _r2(y, amplitudes[best] * shapes[best])
    return PowerLaw(
        float(ALPHAS[best]), low, high, float(amplitudes[best]), r2, unbounded, refused, unit,
        (amplitudes, squares, q), limit,
    )  # fmt: skip


def too_few_sizes(sizes: Sequence[float]) -> str:
    """Why these sizes, one or more, give no exponent whatever the gains are; "" where they may."""
    decades = math.log10(max(sizes) / min(sizes))
    different = len(set(sizes))
    if different >= FEWEST_SIZES and decades >= FEWEST_DECADES:
        return ""
    given = f"{plural(different, 'size')} over {decades:.1f} decades"
    return f"{given}: {FEWEST_SIZES} over {FEWEST_DECADES} are needed"


def bands(baseline: Scores, change: Scores) -> dict[str, float]:
    """Mean change by difficulty, each run's items banded by the baseline answers of the *other* runs; (n, runs) each.

    Bands from the same answers would show regression to the mean (STATISTICS 5.6). Needs three runs or more.
    """
    values: dict[str, list[float]] = {"hard": [], "some": [], "easy": []}
    for run in range(baseline.shape[1]):
        others = np.delete(baseline, run, axis=1).mean(axis=1)
        for name, chosen in (("hard", others == 0), ("some", (others > 0) & (others < 1)), ("easy", others == 1)):
            values[name] += change[chosen, run].tolist()
    return {name: float(np.mean(changes)) if changes else float("nan") for name, changes in values.items()}


def _misfit_p(misfit: float, free: int, df: float) -> float:
    """Hotelling's T2 (1931, Ann Math Stat 2:360) for an estimated covariance with `df` degrees of freedom."""
    rest = max(1.0, df - free + 1)
    return float(distributions.f.sf(misfit * rest / (df * free), free, rest))


def _linear(
    name: str, names: tuple[str, ...], columns: Callable[[Scores], Scores], k: Scores, y: Scores, covariance: Scores
) -> Family:
    beta, misfit = _gls(columns(k), y, covariance)
    return Family(
        name, misfit, dict(zip(names, beta.tolist(), strict=True)), lambda x: columns(np.asarray(x, float)) @ beta
    )


def _saturating(k: Scores, y: Scores, covariance: Scores) -> Family:
    """The best rate of a grid; for each, the two linear parameters by least squares after whitening."""
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(y)))
    level, z = np.linalg.solve(root, np.column_stack([np.ones_like(k), y])).T
    bends = np.linalg.solve(root, np.exp(-np.outer(k - 1, RATES)))  # (points, rates)
    bends = bends - np.outer(level, level @ bends) / (level @ level)
    left = z - level * (level @ z) / (level @ level)
    best = int(np.argmax((left @ bends) ** 2 / (bends**2).sum(axis=0)))
    beta, misfit = _gls(_saturating_columns(k, RATES[best]), y, covariance)
    parameters = {"asymptote": float(beta[0]), "start": float(beta[0] + beta[1]), "rate": float(RATES[best])}
    return Family(
        "saturating", misfit, parameters, lambda x: _saturating_columns(np.asarray(x, float), RATES[best]) @ beta
    )


def _saturating_columns(k: Scores, rate: float) -> Scores:
    return np.column_stack([np.ones_like(k), np.exp(-rate * (k - 1))])


def _gls(columns: Scores, y: Scores, covariance: Scores) -> tuple[Scores, float]:
    """(coefficients, misfit) of generalized least squares."""
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(y)))
    x, z = np.linalg.solve(root, columns), np.linalg.solve(root, y)
    beta = np.linalg.lstsq(x, z, rcond=None)[0]
    return beta, float(((z - x @ beta) ** 2).sum())


def _r2(y: Scores, fitted: Scores) -> float:
    total = float(((y - y.mean()) ** 2).sum())
    return 1.0 - float(((y - fitted) ** 2).sum()) / total if total > 0 else float("nan")


def _t(df: int) -> float:
    return float(distributions.t.ppf(0.5 + LEVEL / 2, df))
