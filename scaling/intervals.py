"""Intervals of one cell's numbers, shared by the runner (records) and the analysis (which recomputes them).

Scores are fractions 0 to 1. All intervals are 95 % and for the level "this program": the program is
fixed, the items are a sample.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Interval = tuple[float, float]
LEVEL = 0.95


def is_binary(scores: npt.ArrayLike) -> bool:
    """Whether every score is 0 or 1."""
    return bool(np.isin(scores, (0.0, 1.0)).all())


def mean_interval(scores: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Interval | None:
    """Interval of a mean score, shape (n,): Wilson for 0/1 scores of ungrouped items, else t over groups.

    groups: (n,) names of what is independent. None for fewer than two items (or groups): nothing can be said. Wilson
    (1927) by statsmodels.
    """
    values = np.asarray(scores, float)
    n = len(values)
    independent = n if groups is None else len(np.unique(np.asarray(groups)))
    if n < 2:
        return None
    if is_binary(values) and (independent == n or len(np.unique(values)) == 1):
        # All right or all wrong, in groups: as many independent answers as groups, and no interval of one point.
        right = round(float(values.sum()) * independent / n)
        return _wilson(right, independent)
    return _t_interval(values, groups, bounds=(0.0, 1.0))


def paired_interval(
    first: npt.ArrayLike, second: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> Interval | None:
    """Interval of mean(second) - mean(first) on the same items, shape (n,) each.

    0/1 scores of ungrouped items: Newcombe's hybrid score interval for paired proportions (1998, Stat Med
    17:2635, method 10), so that no discordant pair gives an interval and not a point. Else t over groups. None for
    fewer than two items or groups. Raises ValueError for arrays of different lengths.
    """
    before, after = np.asarray(first, float), np.asarray(second, float)
    if len(before) < 2:
        return None
    grouped = groups is not None and len(np.unique(np.asarray(groups))) < len(before)
    if is_binary(before) and is_binary(after) and not grouped:
        return newcombe_paired(before, after)
    return _t_interval(after - before, groups, bounds=(-1.0, 1.0))


def newcombe_paired(first: npt.ArrayLike, second: npt.ArrayLike) -> Interval:
    """Method 10 of Newcombe 1998 for p2 - p1: Wilson limits of both, joined with the continuity-corrected phi."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    n = len(a)
    both, only_b = int((a & b).sum()), int((~a & b).sum())
    only_a, neither = int((a & ~b).sum()), int((~a & ~b).sum())
    p1, p2 = (both + only_a) / n, (both + only_b) / n
    low1, high1 = _wilson(both + only_a, n)
    low2, high2 = _wilson(both + only_b, n)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    cross = float(both * neither - only_a * only_b)
    if cross > n / 2:
        cross -= n / 2
    elif cross >= 0:
        cross = 0.0
    phi = cross / math.sqrt(margins) if margins else 0.0
    down, up = p2 - low2, high1 - p1
    low = p2 - p1 - math.sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    up2, down1 = high2 - p2, p1 - low1
    high = p2 - p1 + math.sqrt(max(0.0, up2**2 - 2 * phi * up2 * down1 + down1**2))
    return max(-1.0, low), min(1.0, high)


def _t_interval(values: npt.NDArray[np.float64], groups: npt.ArrayLike | None, bounds: Interval) -> Interval | None:
    """t interval of the mean, over groups where items share one (ratio estimator of the mean)."""
    mean = float(values.mean())
    labels = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    residuals = np.bincount(labels, weights=values - mean)
    g = len(residuals)
    if g < 2:
        return None
    error = math.sqrt(g / (g - 1) * float((residuals**2).sum())) / len(values)
    half = float(stdtrit(g - 1, 0.5 + LEVEL / 2)) * error
    return max(bounds[0], mean - half), min(bounds[1], mean + half)


def _wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval (1927) of a proportion."""
    from statsmodels.stats.proportion import proportion_confint  # half a second, which no sweep starts with

    low, high = proportion_confint(successes, n, alpha=1 - LEVEL, method="wilson")
    return float(low), float(high)
