"""How likely a sequential study runs each of its cells, before it spends: its own looks, at assumed scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scaling.analysis.assumed import Planned, assumed_results, same_everywhere
from scaling.analysis.headroom import Headroom, truth_of
from scaling.analysis.looks import gate_z, judge_look
from scaling.analysis.results import Results
from scaling.sequential import SequentialDesign
from scaling.standing import Standing, opened_by
from scaling.types import Cell

SAMPLES = 20  # of assumed scores: a chance is told to about 10 points


def chances_to_run(
    planned: Sequence[Planned], design: SequentialDesign, headrooms: Sequence[Headroom] = ()
) -> dict[str, float]:
    """By cell_id, the chance that the study runs the cell.

    The true scores are drawn from what the pilot of headroom leaves open. Without one, no number of steps changes them.
    """
    counts: Counter[str] = Counter()
    for sample in range(SAMPLES):
        rng = np.random.default_rng(sample)
        results = assumed_results(planned, rng, truth_of(headrooms, rng) if headrooms else same_everywhere)
        cells = {str(key): cell.record.cell for key, cell in zip(results.cells.index, planned, strict=True)}
        counts.update(cells[key].cell_id for key in _keys_run(results, cells, design))
    return {cell.record.cell_id: counts[cell.record.cell_id] / SAMPLES for cell in planned}


def _keys_run(results: Results, cells: Mapping[str, Cell], design: SequentialDesign) -> set[str]:
    """The row keys of the cells that run until the study ends."""
    standing, have_run = Standing(design), set[str]()
    while not standing.is_ended:
        have_run |= {key for key, cell in cells.items() if standing.needs_now(cell)}
        seen = _only(results, have_run)
        if standing.gate_is_next:
            standing = replace(standing, opened=opened_by(gate_z(seen), design))
        else:
            standing = replace(standing, looks=(*standing.looks, judge_look(seen, design, standing.looks)))
    return have_run


def _only(results: Results, keys: set[str]) -> Results:
    cells = results.cells[results.cells.index.isin(keys)]
    return replace(results, cells=cells, data={key: results.data[key] for key in cells.index})
