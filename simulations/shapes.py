"""Shapes over steps, families of curves, and gains against model size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scaling.analysis.fit_table import shape_of
from scaling.analysis.fits import families, power_law, size_line, zero_set
from scaling.analysis.stats import contrast, covariance, run_variances
from simulations.data import Means, arms, gains
from simulations.outcome import Outcome, at_least, at_most, covered, share

SIZES = {5: (1.0, 3.0, 8.0, 20.0, 70.0), 7: (0.5, 1.0, 2.0, 4.0, 9.0, 20.0, 40.0)}


def shapes(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """The set of families holds the truth, and labels of shapes that are not there."""
    steps = np.arange(1, 6)
    truths = {
        "log": 0.6 + 0.05 * np.log2(steps),
        "saturating": 0.75 - 0.15 * np.exp(-0.9 * (steps - 1)),
        "peaked": 0.6 + 0.12 * np.log2(steps) - 0.05 * np.log2(steps) ** 2,
        "flat": np.full(5, 0.7),
    }
    for name, truth in truths.items():
        inside, other_shape = [], []
        for _ in range(repeats):
            means = {("alpha", o, int(k)): q for o in ("gepa", "mipro") for k, q in zip(steps, truth, strict=True)}
            cells = arms(rng, means, 300, 3, 0.02)
            pooled = run_variances(list(cells.values()))
            curve = {int(k): cells["alpha", "gepa", int(k)] for k in steps}
            mine = list(curve.values())
            ends = contrast([(1.0, mine[-1]), (-1.0, mine[0])], pooled)
            fitted = families(steps.tolist(), [arm.mean for arm in mine], covariance(mine, pooled), ends.df)
            inside.append(not next(f for f in fitted if f.name == name).rejected)
            other_shape.append(shape_of(curve, pooled)[0] != "flat not rejected")
        yield at_least(f"family set holds the truth: {name}", inside)
        if name == "flat":
            yield at_most("flat curve given another shape", other_shape, 0.05)


def straight(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """A straight rise is not levelling, with any middle step."""
    for steps in ((1, 2, 3), (1, 3, 5), (1, 2, 5)):
        levelling = []
        for _ in range(repeats):
            means: Means = {("alpha", o, k): 0.6 + 0.06 * (k - 1) for o in ("gepa", "mipro") for k in steps}
            cells = arms(rng, means, 300, 3, 0.02)
            label, _ = shape_of({k: cells["alpha", "gepa", k] for k in steps}, run_variances(list(cells.values())))
            levelling.append(label not in ("rising", "flat not rejected"))
        yield at_most(f"a straight rise over {steps} given another shape", levelling, 0.05)


def sizes(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Coverage of the exponent's set, the slope on log size, and the threshold's set."""
    for m, s in SIZES.items():
        size = np.array(s)
        for scatter in (0.0, 0.01):
            in_alpha, in_slope, in_threshold = [], [], []
            for _ in range(repeats):
                gain, _ = gains(rng, 0.03 * size**0.3, 500, scatter)
                law = power_law(size.tolist(), gain.tolist())
                in_alpha.append(law.low <= 0.3 <= law.high)
                x = np.log10(size)
                gain, variance = gains(rng, 0.03 * (x - 0.7), 500, scatter)
                line = size_line(size.tolist(), gain.tolist(), variance.tolist())
                low, high = line.slope_interval
                in_slope.append(low <= 0.03 <= high)
                parts = zero_set(line, -1.0, 3.0)
                in_threshold.append(any(low <= 0.7 <= high for low, high in parts))
            where = f"m = {m}, scatter {100 * scatter:g} points"
            yield covered(f"alpha set, {where}", in_alpha)
            yield covered(f"slope, {where}", in_slope)
            yield covered(f"threshold set, {where}", in_threshold)


def exponents(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """How often an exponent is named, where there is one and where there is none."""
    size = np.array(SIZES[7])

    def printed(truth: np.ndarray, items: int) -> list[bool]:
        return [not power_law(size.tolist(), gains(rng, truth, items, 0.0)[0].tolist()).refused for _ in range(repeats)]

    slack = 0 if repeats >= 1000 else 4  # percentage points, for the smaller runs in the tests
    yield Outcome("exponent on a flat gain of 3", share(printed(np.full(7, 0.03), 500)), 0, 7.4 + slack)
    yield Outcome("exponent on no gain", share(printed(np.zeros(7), 500)), 0, 2.0 + slack)
    grows = 0.03 * size**0.3
    yield Outcome("exponent recovered, A = 3, alpha 0.3, n = 500", share(printed(grows, 500)), 85 - slack, 100)
    yield Outcome("exponent recovered, n = 100 (mostly not: right)", share(printed(grows, 100)), 20, 60)
