"""Self-correction where nothing happens: labels of whole tables, and correlations with a property of the answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scaling.analysis.research import correlation
from scaling.analysis.self_correction import Correction, correction, labels
from scaling.analysis.stats import SIGNIFICANCE
from simulations.data import arms
from simulations.outcome import Outcome, at_most

CELLS, MODELS = 8, 7  # of a table; of a study
NO_MORE = "no more than a redraw"


def correction_tables(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Tables of eight cells: any label that is false there, and how often a redraw is called what it is."""
    for name, optimizer, run_sd in (("fixed programs", "none", 0.0), ("optimized programs, run sd 2", "gepa", 0.02)):
        tables = [_table(rng, optimizer, run_sd, 200) for _ in range(repeats)]
        false = [not {"corrects", "harms", "churns"}.isdisjoint(labels(table)) for table in tables]
        yield at_most(f"tables of redraws, {name}: any of corrects, harms, churns", false, 0.05)
    tables = [_table(rng, "none", 0.0, 200, changed=0.5) for _ in range(repeats)]
    gains = [not {"corrects", "harms"}.isdisjoint(labels(table)) for table in tables]
    yield at_most("tables of more flips without a gain: any of corrects, harms", gains, 0.05)
    tables = [_table(rng, "none", 0.0, 500, gain=0.03) for _ in range(repeats)]
    equal = [NO_MORE in labels(table) for table in tables]
    yield at_most("tables of gains of 3 points: any 'no more than a redraw'", equal, 0.05)
    told = [label for _ in range(repeats // 4) for label in labels(_table(rng, "none", 0.0, 2000))]
    shown = 100 * told.count(NO_MORE) / len(told)
    yield Outcome(f"redraws of 2,000 rows x 3 runs, called '{NO_MORE}' (chance of it)", shown, 50, 100)


def properties(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """RQ2 where no gain goes with the first turn: seven equal models whose last turn is a redraw."""
    apart, together = [], []
    for _ in range(repeats):
        cells = arms(rng, {("alpha", "none", i): 0.6 for i in range(2 * MODELS)}, 100, 3)
        by_run = np.array([arm.scores.mean(axis=0) for arm in cells.values()])  # (2 x models, runs)
        first, gain = by_run[:MODELS], by_run[MODELS:] - by_run[:MODELS]
        even, odd = (slice(0, None, 2), slice(1, None, 2))
        halves = [(gain[:, a].mean(axis=1), first[:, b].mean(axis=1)) for a, b in ((even, odd), (odd, even))]
        apart.append(correlation(halves)[1] < SIGNIFICANCE)
        together.append(correlation([(gain.mean(axis=1), first.mean(axis=1))])[1] < SIGNIFICANCE)
    yield at_most("RQ2 on null: first turn of the other half of the runs", apart, 0.05)
    yield Outcome("RQ2 on null: first turn of the same runs fakes one", 100 * float(np.mean(together)), 8, 100)


def _table(
    rng: np.random.Generator, optimizer: str, run_sd: float, items: int, gain: float = 0.0, changed: float = 0.0
) -> list[Correction]:
    """Cells whose last turn is a redraw with this gain.

    changed: the share of items whose answer turns for certain, half of them to right and half to wrong.
    """
    table = []
    for _ in range(CELLS):
        means = {("alpha", optimizer, k): 0.6 + gain * (k == 2) for k in (1, 2, 3)}
        first, last, again = (arm.scores for arm in arms(rng, means, items, 3, run_sd).values())
        if changed:
            turned = rng.random(first.shape) < changed
            # Of first answers that are right with 0.6, as many must stay right: 0.6 = 0.6 x 2/3 + 0.4 x 1/2.
            last = np.where(turned, rng.random(first.shape) < np.where(first == 1, 2 / 3, 1 / 2), first)
        table.append(correction(first, last, (first, again), np.arange(items).astype(str), optimizer))
    return table
