"""Intervals and tests of single proportions and of pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint

from scaling.analysis.pairs import midp_mcnemar
from scaling.analysis.stats import SIGNIFICANCE
from scaling.intervals import newcombe_paired
from simulations.data import arms
from simulations.outcome import Outcome, band, share


def wilson(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Coverage by enumeration, no chance in it."""
    grid = np.arange(0.05, 0.951, 0.01)
    for n in (20, 50, 100, 500):
        k = np.arange(n + 1)
        low, high = proportion_confint(k, n, method="wilson")
        inside = [float(distributions.binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum()) for p in grid]
        yield Outcome(f"Wilson, n = {n}: worst of p 0.05 to 0.95", 100 * min(inside), 91.7 if n < 50 else 92.5, 100)
        if n >= 50:
            yield Outcome(f"Wilson, n = {n}: mean coverage", 100 * float(np.mean(inside)), 94.5, 95.5)


def newcombe(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Coverage of the interval of a paired difference; above the target is allowed."""
    for n, means in ((50, (0.7, 0.7)), (50, (0.95, 0.9)), (200, (0.6, 0.7)), (500, (0.9, 0.92))):
        hits = []
        for _ in range(repeats):
            low, high = newcombe_paired(*_pair(rng, means, n))
            hits.append(low <= means[1] - means[0] <= high)
        yield Outcome(f"Newcombe pair, n = {n}, means {means}", share(hits), band(0.94, repeats)[0], 100)


def mcnemar(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Size of the mid-p test where nothing differs."""
    for n, p in ((20, 0.5), (100, 0.7), (300, 0.9)):
        hits = [midp_mcnemar(*_pair(rng, (p, p), n)) < SIGNIFICANCE for _ in range(10 * repeats)]
        yield Outcome(f"mid-p McNemar on null, n = {n}", share(hits), 0, max(5.5, band(0.05, len(hits), True)[1]))


def _pair(rng: np.random.Generator, means: tuple[float, float], n: int) -> list[npt.NDArray[np.float64]]:
    pair = arms(rng, {("alpha", "none", i): q for i, q in enumerate(means)}, n, 1)
    return [arm.scores[:, 0] for arm in pair.values()]
