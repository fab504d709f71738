"""Simulated scores with a known truth: items that share a difficulty, runs that shift, groups, partial credit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import special

from scaling.analysis.stats import Arm

ITEM_CORRELATION = 0.6  # of the latent answers; of right and wrong it is about 0.4
Key = tuple[str, str, int]  # benchmark, optimizer, steps
Arms = dict[Key, Arm]
Means = dict[Key, float]
BENCHMARKS = {"alpha": "classification", "beta": "classification", "gamma": "reasoning"}
# Of uneven cells, a fifth; the last two are the pair and the cell whose coverage is simulated.
LOUD: list[Key] = [("alpha", "mipro", 3), ("beta", "gepa", 1), ("gamma", "mipro", 5), ("gamma", "gepa", 5)]
GRID: list[Key] = [(b, o, k) for b in BENCHMARKS for o in ("gepa", "mipro") for k in (1, 3, 5)]


def arms(
    rng: np.random.Generator,
    means: Means,
    items: int,
    runs: int | Mapping[Key, int],
    run_sd: float | Mapping[Key, float] = 0.0,
    group_size: int = 1,
    partial: bool = False,
    deal_sd: float = 0.0,
) -> Arms:
    """Arms by (benchmark, optimizer, steps) with these expected scores; standard deviations are fractions.

    Answers to one item agree over arms and runs by its difficulty; each run of an arm shifts its mean by
    N(0, run_sd); `deal_sd` shifts all arms of a run and benchmark together. partial: answers that are half right
    have 0.5, as F1 scores do; the means are then of the score.
    """
    keys = list(means)
    most = runs if isinstance(runs, int) else max(runs.values())
    benchmarks = sorted({b for b, _, _ in keys})
    place = [benchmarks.index(b) for b, _, _ in keys]
    groups = -(-items // group_size)
    difficulty = rng.standard_normal((len(benchmarks), groups)).repeat(group_size, axis=1)[place, :items]
    deals = rng.normal(0, deal_sd, (len(benchmarks), most))[place]
    sds = np.array([run_sd if isinstance(run_sd, float | int) else run_sd[key] for key in keys])
    shift = rng.standard_normal((len(keys), most)) * sds[:, None] + deals
    level = np.clip(np.array([means[key] for key in keys])[:, None] + shift, 0.001, 0.999)
    own = rng.standard_normal((len(keys), items, most))
    latent = np.sqrt(ITEM_CORRELATION) * difficulty[:, :, None] + np.sqrt(1 - ITEM_CORRELATION) * own
    scores = _scores(latent, level[:, None, :], partial)
    names = np.array([f"i{i}" for i in range(items)])
    labels = names if group_size == 1 else np.array([f"g{i // group_size}" for i in range(items)])
    counts = {key: runs if isinstance(runs, int) else runs[key] for key in keys}
    return {key: Arm(key[0], key[1], names, labels, scores[i, :, : counts[key]]) for i, key in enumerate(keys)}


def _scores(latent: npt.NDArray[np.float64], level: npt.NDArray[np.float64], partial: bool) -> npt.NDArray[np.float64]:
    if not partial:
        return np.where(latent < special.ndtri(level), 1.0, 0.0)
    # Of the right answers' share a fifth is half right: the mean stays.
    right, half = special.ndtri(0.8 * level), special.ndtri(np.minimum(1.2 * level, 1.0))
    return np.where(latent < right, 1.0, np.where(latent < half, 0.5, 0.0))


def without_rows(arm: Arm, lost: npt.NDArray[np.bool_]) -> Arm:
    """The arm without the rows where `lost`, shape (n,), is true; they stay known as rows without a score."""
    kept = arm.at(arm.items[~lost])
    return replace(kept, unscored=arm.items[lost])


def uneven(rng: np.random.Generator) -> dict[str, dict[Key, float]]:
    """Four kinds of run variance that differ between cells, standard deviations as fractions."""
    lognormal = {key: 0.02 * float(np.exp(rng.normal(0, 0.7))) for key in GRID}
    return {
        "7 against 1": {key: 0.07 if key[0] == "gamma" and key[2] == 5 else 0.01 for key in GRID},
        "lognormal": lognormal,
        "1, 2, 3 by steps": {key: {1: 0.01, 3: 0.02, 5: 0.03}[key[2]] for key in GRID},
        "a fifth of the cells at 6": {key: 0.06 if key in LOUD else 0.01 for key in GRID},
    }


def gains(
    rng: np.random.Generator, truth: npt.NDArray[np.float64], items: int, scatter: float, item_sd: float = 0.30
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(observed gains of models, their variances): a model's own gain scatters, items have a spread of `item_sd`."""
    own = truth + rng.normal(0, scatter, len(truth))
    sample = own[:, None] + rng.normal(0, item_sd, (len(truth), items))
    return sample.mean(axis=1), sample.var(axis=1, ddof=1) / items
