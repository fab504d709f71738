"""Many simulated studies at once: scores with a known truth, and the contrasts of H1 to H4 from their sums.

The contrasts are those of scaling/analysis/stats.py for arrays of studies; tests/test_simulations.py holds them to it.
Arrays have the axes (studies, cells of a benchmark, rows, runs). The cells are two optimizers by 1, 3 and 5 steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from scaling.analysis.hypotheses import SMALLEST

Array = npt.NDArray[np.float64]
OPTIMIZERS, STEPS = ("gepa", "mipro"), (1, 3, 5)
CELLS = [(optimizer, steps) for optimizer in OPTIMIZERS for steps in STEPS]
NAMES = tuple(SMALLEST)
# Of the latent answer to a row: how hard it is for all programs, and how well a program of one run happens to fit it.
# The rest is the draw: two draws of a program then agree as a redraw does (STATISTICS 6).
DIFFICULTY, FIT = 0.6, 0.2


@dataclass(frozen=True)
class Rows:
    """The rows of a benchmark, how many answers of the final program a row has, and whether it is the reasoning one."""

    rows: int
    draws: int = 1
    is_reasoning: bool = False


Benchmarks = Mapping[str, Rows]


@dataclass(frozen=True)
class Sums:
    """What contrasts need of a benchmark: means, variances between run means and residual mean squares, (studies,
    cells) each, the covariance of the cells' means over rows, (studies, cells, cells), and the runs of each cell."""

    mean: Array
    of_runs: Array
    residual: Array
    covariance: Array
    runs: Array
    rows: int


@dataclass(frozen=True)
class Contrast:
    """Effect, standard error and degrees of freedom, (studies,) each."""

    effect: Array
    se: Array
    df: Array

    def p_two_sided(self) -> Array:
        return np.asarray(2 * special.stdtr(self.df, -np.abs(self.effect) / self.se))

    def p_at_least(self, smallest: float) -> Array:
        return np.asarray(special.stdtr(self.df, (self.effect - smallest) / self.se))

    def p_at_most(self, largest: float) -> Array:
        return np.asarray(special.stdtr(self.df, (largest - self.effect) / self.se))


def scores(
    rng: np.random.Generator, means: Array, run_sd: Array, rows: Rows, studies: int, runs: int
) -> npt.NDArray[np.float32]:
    """Scores of one benchmark, means of a row's draws: (studies, cells, rows, runs). means and run_sd: (cells,)."""

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        return rng.standard_normal(shape, dtype=np.float32)

    shape = (studies, len(CELLS), rows.rows, runs)
    shift = rng.standard_normal((studies, len(CELLS), runs)) * run_sd[:, None]
    level = special.ndtri(np.clip(means[:, None] + shift, 0.001, 0.999)).astype(np.float32)[:, :, None, :]
    level = level - np.float32(DIFFICULTY**0.5) * normal(studies, 1, rows.rows, 1)
    if rows.draws == 1:
        return (np.float32((1 - DIFFICULTY) ** 0.5) * normal(*shape) < level).astype(np.float32)
    level = level - np.float32(FIT**0.5) * normal(*shape)
    own = np.float32((1 - DIFFICULTY - FIT) ** 0.5)
    right = sum((own * normal(*shape) < level).astype(np.float32) for _ in range(rows.draws))
    return np.asarray(right / np.float32(rows.draws))


@dataclass(frozen=True)
class _Part:
    """Sums over a number of runs: as in `Sums`, and the rows' means over runs (studies, cells, rows)."""

    mean: Array
    of_runs: Array
    residual: Array
    items: npt.NDArray[np.float32]


def sums_of(all_runs: npt.NDArray[np.float32], patterns: Sequence[Sequence[int]]) -> list[Sums]:
    """The sums of each cell's first runs, for several patterns of how many runs each cell has."""
    parts = {count: _part(all_runs[..., :count]) for count in {runs for pattern in patterns for runs in pattern}}
    return [_assembled([parts[count] for count in pattern], np.array(pattern, float)) for pattern in patterns]


def _assembled(by_cell: Sequence[_Part], runs: Array) -> Sums:
    def pick(values: Sequence[Array]) -> Array:
        return np.stack([value[:, cell] for cell, value in enumerate(values)], axis=1)

    items = np.stack([part.items[:, cell] for cell, part in enumerate(by_cell)], axis=1)
    items = items - items.mean(axis=2, keepdims=True)
    n = items.shape[2]
    covariance = np.matmul(items, items.transpose(0, 2, 1)).astype(float) / (n - 1) / n
    mean, of_runs = pick([part.mean for part in by_cell]), pick([part.of_runs for part in by_cell])
    return Sums(mean, of_runs, pick([part.residual for part in by_cell]), covariance, runs, n)


def _part(y: npt.NDArray[np.float32]) -> _Part:
    n, runs = y.shape[2:]
    items = y.mean(axis=3)
    means = y.mean(axis=2, dtype=float)
    mean, of_runs = means.mean(axis=2), means.var(axis=2, ddof=1)
    square = np.einsum("scnr,scnr->sc", y, y, dtype=float) - n * runs * mean**2
    of_items = runs * (np.einsum("scn,scn->sc", items, items, dtype=float) - n * mean**2)
    residual = (square - of_items - n * (runs - 1) * of_runs) / ((n - 1) * (runs - 1))
    return _Part(mean, of_runs, residual, items)


def contrast(sums: Mapping[str, Sums], weights: Mapping[str, Array]) -> Contrast:
    """As scaling.analysis.stats.contrast, by each cell's own variance between runs. weights: (cells,) by benchmark."""
    effect = a = b = c = spread = np.zeros(1)
    for name, w in weights.items():
        part = sums[name]
        from_items = np.einsum("c,scd,d->s", w, part.covariance, w)
        from_runs = w**2 * part.of_runs / part.runs
        effect = effect + part.mean @ w
        a, b = a + from_items, b + from_runs.sum(axis=1)
        c = c + (w**2 * part.residual / (part.rows * part.runs)).sum(axis=1)
        spread = spread + from_items**2 / (part.rows - 1) + (from_runs**2 / (part.runs - 1)).sum(axis=1)
    return Contrast(effect, np.sqrt(np.maximum(a + b - c, a)), (a + b) ** 2 / spread)


def weights_of(benchmarks: Benchmarks) -> dict[str, dict[str, Array]]:
    """The weights of H1 to H4 and of H2's rise: contrast -> benchmark -> (cells,)."""
    steps = {k: np.array([float(s == k) for _, s in CELLS]) / len(OPTIMIZERS) for k in STEPS}
    sign = np.array([1.0 if o == "gepa" else -1.0 for o, _ in CELLS]) * len(OPTIMIZERS)
    five_one = steps[5] - steps[1]
    reasoning = sum(part.is_reasoning for part in benchmarks.values())
    share = {n: 1 / reasoning if r.is_reasoning else -1 / (len(benchmarks) - reasoning) for n, r in benchmarks.items()}
    equal = 1 / len(benchmarks)
    return {
        "H1": dict.fromkeys(benchmarks, equal * five_one),
        "H2": dict.fromkeys(benchmarks, equal * (steps[3] - (steps[1] + steps[5]) / 2)),
        "H3": dict.fromkeys(benchmarks, equal * sign * five_one),
        "H4": {name: part * five_one for name, part in share.items()},
        "rise": dict.fromkeys(benchmarks, equal * (steps[3] - steps[1])),
    }
