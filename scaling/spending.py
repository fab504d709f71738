"""Boundaries of group-sequential tests from a spending function (Lan & DeMets 1983, Biometrika 70:659).

One-sided throughout: a symmetric two-sided test at alpha has each side at alpha / 2.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from scaling.sequential import SequentialDesign

NODES = 200  # of the quadrature over a look's statistic; 60 give the same five digits
FARTHEST = 9.0  # standard deviations below zero at which the statistic is cut off

Grid = npt.NDArray[np.float64]


def spent(alpha: float, information: float) -> float:
    """The part of one-sided `alpha` that is spent by this share of information.

    Of the O'Brien-Fleming kind (Lan & DeMets 1983, alpha_1*): little early, all of alpha at the end.
    """
    return float(2 * special.ndtr(special.ndtri(alpha / 2) / math.sqrt(information)))


@lru_cache(maxsize=10_000)
def boundaries(
    alpha: float, information: tuple[float, ...], times: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    """The z at each look above which a one-sided test at `alpha` rejects.

    information: rising shares up to 1. times: the same as a clock for spending, which may be another one (Lan & DeMets
    1989, Stat Med 8:1191); else information. By the recursion of Armitage, McPherson & Rowe (1969, J R Stat Soc A
    132:235): the density of the statistic that has crossed no earlier boundary is carried from look to look, on the
    scale on which its increments are independent (Jennison & Turnbull 2000, chapter 19).
    """
    limits: list[float] = []
    values, density, before, already = np.zeros(1), np.ones(1), 0.0, 0.0
    for share, time in zip(information, times or information, strict=True):
        step, root = math.sqrt(share - before), math.sqrt(share)
        limit = _limit(values, density, step, root, spent(alpha, time) - already)
        limits.append(limit)
        values, density = _carried(values, density, step, -FARTHEST * root, limit * root)
        before, already = share, spent(alpha, time)
    return tuple(limits)


def limits_of(design: SequentialDesign, sharing: int) -> tuple[float, ...]:
    """The z that each look of a design asks for, one-sided at half of alpha, where so many hypotheses share alpha."""
    return boundaries(design.alpha / 2 / sharing, design.information, design.spending_times)


def levels_of(design: SequentialDesign, sharing: int) -> tuple[float, ...]:
    """The same as one-sided p at or below which each look rejects; a two-sided p may be twice as large."""
    return tuple(float(special.ndtr(-limit)) for limit in limits_of(design, sharing))


def conditional_power(z: Grid, information: float, last: Grid) -> Grid:
    """The chance that the final z is above `last`, given z now and a true effect that is the one seen.

    (Lan & Wittes 1988, Biometrics 44:579.) information: the share that there is, below 1; the final look has all.
    """
    return np.asarray(special.ndtr((z / math.sqrt(information) - last) / math.sqrt(1 - information)))


def _limit(values: Grid, density: Grid, step: float, root: float, to_spend: float) -> float:
    """The z beyond which the statistic, now at `values`, lies after its next step with probability `to_spend`."""

    def too_much(limit: float) -> float:
        return float(density @ special.ndtr((values - limit * root) / step)) - to_spend

    return float(optimize.brentq(too_much, -FARTHEST, 4 * FARTHEST, xtol=1e-10))


def _carried(values: Grid, density: Grid, step: float, lower: float, upper: float) -> tuple[Grid, Grid]:
    """(values, their weighted density) of the statistic after its next step, up to `upper`, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = (upper - lower) / 2
    after = lower + half * (nodes + 1)
    moved = np.exp(-(((after[:, None] - values) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
    return after, half * weights * (moved @ density)
