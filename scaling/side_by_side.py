"""What DSPy does that evaluations in many threads side by side cannot have, undone while a sweep runs."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import dspy.evaluate.evaluate
import tqdm
from dspy.utils.parallelizer import ParallelExecutor


@contextlib.contextmanager
def side_by_side() -> Iterator[None]:
    """Let optimizers of many threads run beside each other while the block runs.

    DSPy clears tqdm's one register of bars at each evaluation: a bar of another thread that then takes itself off
    it would end its cell with a KeyError. And it runs an example again that is among the last three and two
    minutes old: in a sweep a call may wait that long for its place, and a rollout must count once.
    """
    bars, executor = tqdm.tqdm._instances, dspy.evaluate.evaluate.ParallelExecutor
    tqdm.tqdm._instances = _NoBars()
    dspy.evaluate.evaluate.ParallelExecutor = _OnceEach
    try:
        yield
    finally:
        tqdm.tqdm._instances, dspy.evaluate.evaluate.ParallelExecutor = bars, executor


class _OnceEach(ParallelExecutor):
    """Every example once, however long it takes."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs | {"timeout": 0})


class _NoBars(weakref.WeakSet):
    """A register of progress bars that keeps none."""

    def add(self, item: Any) -> None:
        pass

    def remove(self, item: Any) -> None:
        pass
