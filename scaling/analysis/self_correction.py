"""Does a later turn correct, or does it only draw again? Flips beyond those of a redraw (STATISTICS 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.analysis.stats import SIGNIFICANCE, Arm, Estimate, contrast


@dataclass(frozen=True)
class Correction:
    """What turns did to the answers: gain, flips, and flips beyond those of drawing the first turn again.

    wrong_to_right and right_to_wrong are shares of all items; their difference is the gain.
    """

    gain: Estimate
    wrong_to_right: float
    right_to_wrong: float
    excess_wrong_to_right: Estimate | None
    excess_right_to_wrong: Estimate | None

    @property
    def label(self) -> str:
        """corrects, harms, churns or cannot tell."""
        if self.gain.p < SIGNIFICANCE and self.gain.effect < 0:
            return "harms"
        if self.excess_wrong_to_right is None:
            return "cannot tell"
        more = self.excess_wrong_to_right
        if self.gain.p < SIGNIFICANCE and self.gain.effect > 0 and more.p < SIGNIFICANCE and more.effect > 0:
            return "corrects"
        return "churns" if self.wrong_to_right + self.right_to_wrong > 0 else "cannot tell"


def correction(
    first: np.ndarray, last: np.ndarray, redraw: tuple[np.ndarray, np.ndarray] | None, groups: np.ndarray
) -> Correction:
    """Gain and flips from the first to the last turn on the same items; arrays (n, runs) of scores.

    redraw: the first turn and the same drawn again, the control; None where it was not run.
    """
    up, down = np.maximum(last - first, 0.0), np.maximum(first - last, 0.0)
    excess = [None, None]
    if redraw is not None:
        once, again = redraw
        by_chance = np.maximum(again - once, 0.0), np.maximum(once - again, 0.0)
        excess = [_mean(turned - chance, groups) for turned, chance in zip((up, down), by_chance, strict=True)]
    return Correction(_mean(last - first, groups), float(up.mean()), float(down.mean()), *excess)


def _mean(values: np.ndarray, groups: np.ndarray) -> Estimate:
    """Mean of (n, runs) values over items; the program is fixed, so runs add no variance of their own."""
    items = np.arange(len(values))
    return contrast([(1.0, Arm("", "none", items, groups, values))], {})
