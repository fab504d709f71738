"""Two programs on the same rows: their difference, and whether the second is better than the first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import special

from scaling.analysis.stats import Arm, Estimate, RunVariance, contrast, share_rows
from scaling.intervals import is_binary, paired_interval


def difference(first: Arm, second: Arm, pooled: Mapping[str, RunVariance]) -> Estimate:
    """second - first on the items both have.

    One run and 0/1 scores of ungrouped items: mid-p McNemar's p and Newcombe's interval; else the contrast's.
    """
    weighted, _ = share_rows([(-1.0, first), (1.0, second)])
    estimate = contrast([(-1.0, first), (1.0, second)], pooled)
    if estimate.runs > 1 or math.isnan(estimate.effect):
        return estimate
    before, after = (arm for _, arm in weighted)
    interval = paired_interval(before.scores[:, 0], after.scores[:, 0], before.groups)
    low, high = interval if interval and not _no_t_interval(estimate, before, after) else (math.nan, math.nan)
    p = estimate.p
    if _is_binary_pair(before, after) and not estimate.untestable:
        p = midp_mcnemar(before.scores[:, 0], after.scores[:, 0])
    return replace(estimate, low=low, high=high, p=p)


def adoption_p(base: Arm, final: Arm, pooled: Mapping[str, RunVariance]) -> float:
    """One-sided p of 'final is no better than its baseline': mid-p McNemar for one run of 0/1 scores, else t."""
    estimate = contrast([(-1.0, base), (1.0, final)], pooled)
    if estimate.untestable:
        return 1.0
    (_, base), (_, final) = share_rows([(-1.0, base), (1.0, final)])[0]
    if estimate.runs == 1 and _is_binary_pair(base, final):
        return midp_mcnemar_better(base.scores[:, 0], final.scores[:, 0])
    return estimate.p_at_most(0.0)


def midp_mcnemar(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Two-sided mid-p McNemar test on 0/1 pairs (Fagerland, Lydersen & Laake 2013, BMC Med Res Methodol 13:91)."""
    better = midp_mcnemar_better(first, second)
    return min(1.0, 2 * min(better, 1.0 - better))


def midp_mcnemar_better(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """One-sided mid-p of the same test: small when `second` is right more often than `first`."""
    before, after = np.asarray(first), np.asarray(second)
    won, lost = int((before < after).sum()), int((before > after).sum())
    # bdtrc is the binomial's upper tail: half of 'more than won' and half of 'won or more'.
    return float(special.bdtrc([won, won - 1], won + lost, 0.5).mean())


def _is_binary_pair(first: Arm, second: Arm) -> bool:
    grouped = first.groups is not first.items and len(np.unique(first.groups)) < len(first.items)
    return not grouped and is_binary(first.scores.ravel()) and is_binary(second.scores.ravel())


def _no_t_interval(estimate: Estimate, first: Arm, second: Arm) -> bool:
    """Without variation a t interval is a point; Newcombe's is not."""
    return estimate.se == 0 and not _is_binary_pair(first, second)
