"""What shape the scores have over steps: a label where there are three or four points, never an exponent.

With 3 or 4 points no family of curves can be told from another (plan.txt), so the shape is named from the
two contrasts q3 - q1 and q5 - q3.
"""

from __future__ import annotations

import numpy as np

from scaling.stats import SIGNIFICANCE, Estimate, holm


def shape_label(early: Estimate, late: Estimate) -> str:
    """flat not rejected, rising, levelling, rise then fall, or falling; Holm over the two contrasts."""
    p_early, p_late = holm([early.p, late.p])
    up = p_early < SIGNIFICANCE and early.effect > 0
    down = p_early < SIGNIFICANCE and early.effect < 0
    later_up = p_late < SIGNIFICANCE and late.effect > 0
    later_down = p_late < SIGNIFICANCE and late.effect < 0
    if up and later_down:
        return "rise then fall"
    if up and not later_up:
        return "levelling"
    if (up and later_up) or (later_up and not down):
        return "rising"
    if down or later_down:
        return "falling"
    return "flat not rejected"


def log_line(steps: list[int], scores: list[float]) -> tuple[float, float, float]:
    """(intercept, slope a doubling, R2) of scores on log2(steps) by least squares: a description, no verdict."""
    x, y = np.log2(np.asarray(steps, float)), np.asarray(scores, float)
    slope, intercept = np.polyfit(x, y, 1)
    residual, total = y - (intercept + slope * x), y - y.mean()
    r2 = 1.0 - float(residual @ residual) / float(total @ total) if float(total @ total) > 0 else float("nan")
    return float(intercept), float(slope), r2
