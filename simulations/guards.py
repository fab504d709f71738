"""Guards: a redraw is no correction, an optimizer that does nothing is not adopted, bands do not fake a gain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scaling.analysis.fits import bands
from scaling.analysis.pairs import adoption_p
from scaling.analysis.self_correction import correction, labels
from scaling.analysis.stats import Arm
from simulations.data import arms
from simulations.outcome import Outcome, at_most


def guards(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """A redraw is no correction, an optimizer that does nothing is not adopted, and bands do not fake a gain."""
    corrects, adopted = [], []
    differences: dict[str, list[float]] = {"hard": [], "easy": []}
    same_draw: list[float] = []
    for _ in range(repeats):
        cells = arms(rng, {("alpha", "none", k): 0.6 for k in (1, 2, 3)}, 200, 3)
        first, last, again = (arm.scores for arm in cells.values())
        turned = correction(first, last, (first, again), cells["alpha", "none", 1].groups)
        corrects.append(labels([turned]) == ["corrects"])
        base, final = (
            Arm("alpha", optimizer, arm.items, arm.groups, arm.scores[:, :1])
            for optimizer, arm in zip(("none", "gepa"), list(cells.values())[:2], strict=True)
        )
        adopted.append(adoption_p(base, final, {}) <= 0.05)
        by_band = bands(first, last - first)
        for name, values in differences.items():
            values.append(by_band[name])
        same_draw.append(float((last - first)[first == 0].mean()))
    yield at_most("redraw called a correction", corrects, 0.05)
    yield at_most("null optimizer adopted", adopted, 0.05)
    slack = 0.5 if repeats >= 1000 else 1.5
    for name, values in differences.items():
        yield Outcome(f"bands of other runs, {name}: bias in points", 100 * float(np.nanmean(values)), -slack, slack)
    yield Outcome("bands of the same draw fake a gain on hard items (points)", 100 * float(np.mean(same_draw)), 5, 100)
