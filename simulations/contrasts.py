"""Coverage of contrasts: each hypothesis', a pair's and one cell's, each inside its band by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scaling.analysis.pairs import difference
from scaling.analysis.stats import Arm, contrast, run_variances, score_interval
from simulations.data import BENCHMARKS, GRID, Arms, Key, Means, arms, uneven, without_rows
from simulations.outcome import Outcome, at_least, covered

OPTIMIZERS = ("gepa", "mipro")
Weights = dict[Key, float]


def _q(steps: int, weight: float, benchmarks: tuple[str, ...] = tuple(BENCHMARKS)) -> Weights:
    return {(b, o, steps): weight / len(benchmarks) / 2 for b in benchmarks for o in OPTIMIZERS}


HYPOTHESES: dict[str, Weights] = {
    "H1": _q(5, 1) | _q(1, -1),
    "H2": _q(3, 1) | _q(1, -0.5) | _q(5, -0.5),
    "H3": {
        (b, o, k): w * v / 3 for b in BENCHMARKS for o, v in (("gepa", 1), ("mipro", -1)) for k, w in ((5, 1), (1, -1))
    },
    "H4": _q(5, 1, ("gamma",)) | _q(1, -1, ("gamma",)) | _q(5, -1, ("alpha", "beta")) | _q(1, 1, ("alpha", "beta")),
}
PAIR: tuple[Key, Key] = (("gamma", "mipro", 5), ("gamma", "gepa", 5))
CELL: Key = ("gamma", "gepa", 5)
CONTRASTS = (*HYPOTHESES, "a pair", "one cell")


def truth() -> Means:
    """Expected scores with levels by benchmark, gains by steps and a better optimizer."""
    levels, gain = {"alpha": 0.7, "beta": 0.75, "gamma": 0.6}, {1: 0.0, 3: 0.03, 5: 0.04}
    return {(b, o, k): levels[b] + gain[k] + (0.02 if o == "gepa" else 0.0) for b, o, k in GRID}


def coverage(
    rng: np.random.Generator, repeats: int, setting: dict[str, Any], lose: Callable[..., Arms] | None = None
) -> dict[str, list[bool]]:
    """Contrast -> whether each repeat's interval holds the truth. lose: takes rows from the arms, or None."""
    means = truth()
    hits: dict[str, list[bool]] = {name: [] for name in CONTRASTS}
    for _ in range(repeats):
        cells = arms(rng, means, **setting)
        cells = cells if lose is None else lose(rng, cells)
        pooled = run_variances(list(cells.values()))
        for name, weights in HYPOTHESES.items():
            estimate = contrast([(w, cells[key]) for key, w in weights.items()])
            hits[name].append(estimate.low <= sum(w * means[key] for key, w in weights.items()) <= estimate.high)
        pair = difference(cells[PAIR[0]], cells[PAIR[1]], pooled)
        hits["a pair"].append(pair.low <= means[PAIR[1]] - means[PAIR[0]] <= pair.high)
        low, high = score_interval(cells[CELL], pooled) or (np.nan, np.nan)
        hits["one cell"].append(low <= means[CELL] <= high)
    return hits


def _outcomes(name: str, hits: dict[str, list[bool]], wide: bool = False) -> Iterator[Outcome]:
    for contrast_name, inside in hits.items():
        may_be_wide = wide or contrast_name not in HYPOTHESES
        yield (at_least if may_be_wide else covered)(f"{contrast_name}: {name}", inside)


def contrasts(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Equal run variance: runs, rows and sds; groups, F1, effects of the deal, unequal runs.

    Without any run variance the rule V = max(A + B - C, A) is too wide, as it must be.
    """
    for runs in (2, 3, 5):
        for items in (100, 500):
            for gepa, mipro in ((0, 0), (2, 2), (1, 5)):
                sds = {key: (gepa if key[1] == "gepa" else mipro) / 100 for key in GRID}
                setting = {"runs": runs, "items": items, "run_sd": sds}
                name = f"R = {runs}, N = {items}, run sd ({gepa}, {mipro})"
                yield from _outcomes(name, coverage(rng, repeats, setting), wide=gepa == mipro == 0)
    plain: dict[str, Any] = {"items": 200, "runs": 3, "run_sd": 0.02}
    for name, more in (
        ("groups of 3", {"group_size": 3}),
        ("F1 scores", {"partial": True}),
        ("effects of the deal", {"deal_sd": 0.015}),
        ("unequal runs", {"runs": {(b, o, k): 2 + (k + len(o)) % 3 for b, o, k in GRID}}),
    ):  # fmt: skip
        # What the cells of a run share cancels in a contrast and is counted in each cell's variance: too wide.
        yield from _outcomes(name, coverage(rng, repeats, plain | more), wide="deal_sd" in more)


def uneven_runs(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Run variance that differs between cells, four kinds."""
    for name, sds in uneven(np.random.default_rng(2)).items():
        yield from _outcomes(f"run sd {name}", coverage(rng, repeats, {"items": 200, "runs": 3, "run_sd": sds}))


def missing_rows(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Up to 2 % of a benchmark's rows without a score in one arm: any rows, or rows that were answered wrongly."""
    setting = {"items": 200, "runs": 3, "run_sd": 0.02}
    for name, wrong in (("at random", False), ("where the answer was wrong", True)):

        def lose(rng: np.random.Generator, cells: Arms, wrong: bool = wrong) -> Arms:
            lost = {(b, o, 5): _lost(rng, cells[b, o, 5], 2, wrong) for b in BENCHMARKS for o in OPTIMIZERS}
            return cells | lost

        yield from _outcomes(f"rows missing {name}", coverage(rng, repeats, setting, lose))


def _lost(rng: np.random.Generator, arm: Arm, count: int, wrong: bool) -> Arm:
    candidates = np.flatnonzero(arm.item_means < 0.5) if wrong else np.arange(len(arm.items))
    lost = np.zeros(len(arm.items), dtype=bool)
    lost[rng.choice(candidates, count, replace=False)] = True
    return without_rows(arm, lost)


def unoptimized(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """A program against the one before its optimization, which has no variance between runs."""
    hits = []
    for _ in range(repeats):
        sds: dict[Key, float] = {("alpha", "none", 1): 0.0, ("alpha", "gepa", 1): 0.02}
        base, final = arms(rng, {("alpha", "none", 1): 0.6, ("alpha", "gepa", 1): 0.7}, 200, 3, sds).values()
        estimate = difference(base, final, run_variances([final]))
        hits.append(estimate.low <= 0.1 <= estimate.high)
    yield at_least("a pair: against a program without an optimizer", hits)


def scores(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """One cell's score at several levels and run sds."""
    for q, sd in ((0.7, 0), (0.7, 2), (0.9, 2)):
        hits = []
        for _ in range(repeats):
            cells = arms(rng, {("alpha", "gepa", k): q for k in (1, 3, 5)}, 200, 3, sd / 100)
            low, high = score_interval(cells["alpha", "gepa", 1], run_variances(list(cells.values()))) or (1, 0)
            hits.append(low <= q <= high)
        yield at_least(f"one cell's score, R = 3, q = {q}, run sd {sd}", hits)
