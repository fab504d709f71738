"""The programs that cells start from, each made once: most cells of a sweep differ only in run and optimizer.

A program with several roles makes two dozen signatures, which takes longer than many of its calls. Signatures are never
changed, only replaced, so copies may share them.
"""

from __future__ import annotations

import pkgutil
from functools import lru_cache

import dspy

from scaling.pipelines import PIPELINES
from scaling.run.pipelines import FeedbackFunction, make_core, worded
from scaling.types import Benchmark, PlannedCell

MOST_KEPT = 64


def fresh_core(cell: PlannedCell, bench: Benchmark, feedback: FeedbackFunction | None) -> dspy.Module:
    """As `make_core`, from a copy where neither tools nor feedback are a part of the program."""
    if feedback is not None or bench.tools:
        return make_core(cell, bench, feedback)
    core: dspy.Module = _core(cell.pipeline, cell.steps, bench).deepcopy()
    return worded(core, cell.wording)


@lru_cache(MOST_KEPT)
def _core(pipeline: str, steps: int, bench: Benchmark) -> dspy.Module:
    core: dspy.Module = pkgutil.resolve_name(PIPELINES[pipeline].core)(bench, steps, None)
    return core
