"""Simulated scores with a known truth: items that share a difficulty, runs that shift, groups, partial credit."""

from __future__ import annotations

import numpy as np
from scipy import stats as distributions

from scaling.analysis.stats import Arm

ITEM_CORRELATION = 0.6  # of the latent answers; of right and wrong it is about 0.4


def arms(
    rng: np.random.Generator,
    means: dict[tuple[str, str, int], float],
    items: int,
    runs: int | dict[tuple[str, str, int], int],
    run_sd: dict[str, float],
    group_size: int = 1,
    partial: bool = False,
    deal_sd: float = 0.0,
) -> dict[tuple[str, str, int], Arm]:
    """Arms by (benchmark, optimizer, steps) with these expected scores.

    Answers to one item agree over arms and runs by its difficulty; each run of an arm shifts its mean by
    N(0, run_sd[optimizer]); `deal_sd` shifts all arms of a run and benchmark together. partial: answers that are
    half right have 0.5, as F1 scores do; the means are then of the score.
    """
    found = {}
    difficulty = {b: np.repeat(rng.normal(size=-(-items // group_size)), group_size)[:items] for b, _, _ in means}
    names = np.array([f"i{i}" for i in range(items)])
    groups = np.array([f"g{i // group_size}" for i in range(items)])
    most = max(runs.values()) if isinstance(runs, dict) else runs
    deals = {b: rng.normal(0, deal_sd, most) for b, _, _ in means}
    for key, mean in means.items():
        benchmark, optimizer, _ = key
        r = runs[key] if isinstance(runs, dict) else runs
        shift = rng.normal(0, run_sd.get(optimizer, 0.0), r) + deals[benchmark][:r]
        level = np.clip(mean + shift, 0.001, 0.999)
        u = distributions.norm.cdf(
            np.sqrt(ITEM_CORRELATION) * difficulty[benchmark][:, None]
            + np.sqrt(1 - ITEM_CORRELATION) * rng.normal(size=(items, r))
        )
        # Of the right answers' share a fifth is half right where there is partial credit: the mean stays.
        scores = np.where(u < 0.8 * level, 1.0, np.where(u < 1.2 * level, 0.5, 0.0)) if partial else (u < level) * 1.0
        found[key] = Arm(benchmark, optimizer, names, groups, scores)
    return found


def gains(
    rng: np.random.Generator, truth: np.ndarray, items: int, scatter: float, item_sd: float = 0.30
) -> tuple[np.ndarray, np.ndarray]:
    """(observed gains of models, their variances): a model's own gain scatters, items have a spread of `item_sd`."""
    own = truth + rng.normal(0, scatter, len(truth))
    sample = own[:, None] + rng.normal(0, item_sd, (len(truth), items))
    return sample.mean(axis=1), sample.var(axis=1, ddof=1) / items
