"""Does a later turn correct, or does it only draw again? Flips beyond those of a redraw (plan.txt, section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.analysis.stats import SIGNIFICANCE, Arm, Estimate, contrast, holm, run_variances

EQUIVALENCE_MARGIN = 0.03  # of gain and of flips: what is smaller counts as no more than a redraw
CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Correction:
    """What turns did to the answers: gain, flips, and flips beyond those of drawing the first turn again.

    wrong_to_right and right_to_wrong are shares of all items; their difference is the gain. The excesses are None
    where the control (resample) was not run.
    """

    gain: Estimate
    wrong_to_right: float
    right_to_wrong: float
    excess_wrong_to_right: Estimate | None = None
    excess_right_to_wrong: Estimate | None = None
    excess_flips: Estimate | None = None

    @property
    def p_values(self) -> dict[str, float]:
        """Label -> p of its null hypothesis; 1 where the label is not possible. The order is that of precedence.

        corrects: a gain, and more wrong answers turned right than by a redraw (the larger of both p). churns: more
        flips in all than by a redraw. no more than a redraw: gain and both excesses are inside the margin, by two
        one-sided tests each (Schuirmann 1987, J Pharmacokinet Biopharm 15:657).
        """
        p = {"harms": _p_negative(self.gain), "corrects": 1.0, "churns": 1.0, "no more than a redraw": 1.0}
        if self.excess_wrong_to_right and self.excess_right_to_wrong and self.excess_flips:
            compared = (self.gain, self.excess_wrong_to_right, self.excess_right_to_wrong)
            p["corrects"] = max(_p_positive(self.gain), _p_positive(self.excess_wrong_to_right))
            p["churns"] = _p_positive(self.excess_flips)
            p["no more than a redraw"] = max(_p_outside_margin(estimate) for estimate in compared)
        return p


def labels(corrections: Sequence[Correction]) -> list[str]:
    """The label of each correction of one table; all labels of all rows are one Holm family."""
    p_values = [correction.p_values for correction in corrections]
    adjusted = iter(holm([p for row in p_values for p in row.values()]))
    chosen = []
    for row in p_values:
        shown = [label for label in row if next(adjusted) < SIGNIFICANCE]
        chosen.append(shown[0] if shown else CANNOT_TELL)
    return chosen


def correction(
    first: np.ndarray,
    last: np.ndarray,
    redraw: tuple[np.ndarray, np.ndarray] | None,
    groups: np.ndarray,
    optimizer: str = "none",
) -> Correction:
    """Gain and flips from the first to the last turn on the same items; arrays (n, runs) of scores.

    redraw: the first turn and the same drawn again, the control; None where it was not run. optimizer: whose program
    it is; that of an optimizer differs from run to run, and its runs keep their variance.
    """

    def mean(values: np.ndarray) -> Estimate:
        arm = Arm("", optimizer, np.arange(len(values)), groups, values)
        return contrast([(1.0, arm)], run_variances([arm]))

    up, down = np.maximum(last - first, 0.0), np.maximum(first - last, 0.0)
    if redraw is None:
        return Correction(mean(last - first), float(up.mean()), float(down.mean()))
    once, again = redraw
    excess_up, excess_down = up - np.maximum(again - once, 0.0), down - np.maximum(once - again, 0.0)
    return Correction(
        mean(last - first), float(up.mean()), float(down.mean()),
        mean(excess_up), mean(excess_down), mean(excess_up + excess_down),
    )  # fmt: skip


def _p_positive(estimate: Estimate) -> float:
    """Two-sided p of no effect; 1 for an effect that is not positive or does not vary."""
    return estimate.p if estimate.effect > 0 and estimate.se > 0 else 1.0


def _p_negative(estimate: Estimate) -> float:
    return estimate.p if estimate.effect < 0 and estimate.se > 0 else 1.0


def _p_outside_margin(estimate: Estimate) -> float:
    """p of 'the effect is the margin or more, in either direction'; 1 where nothing varies, as nothing can be told."""
    if estimate.se == 0:
        return 1.0
    return max(estimate.p_at_least(EQUIVALENCE_MARGIN), 1.0 - estimate.p_at_least(-EQUIVALENCE_MARGIN))
