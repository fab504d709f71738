"""What DSPy does that evaluations in many threads side by side cannot have, undone while a sweep runs."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import tqdm
from dspy.evaluate import evaluate
from dspy.propose import grounded_proposer
from dspy.utils.parallelizer import ParallelExecutor


@contextlib.contextmanager
def side_by_side() -> Iterator[None]:
    """Let optimizers of many threads run beside each other while the block runs.

    DSPy clears tqdm's one register of bars at each evaluation: a bar of another thread that then takes itself off
    it would end its cell with a KeyError. It runs an example again that is among the last three and two minutes
    old: in a sweep a call may wait that long for its place, and a rollout must count once. And MIPROv2 shows its
    proposer the program's source, read by `inspect`, whose cache of lines is not made for threads: a proposer that
    sometimes does not see the program proposes something else.
    """
    bars, executor = tqdm.tqdm._instances, evaluate.ParallelExecutor
    source_of = grounded_proposer.get_dspy_source_code
    one_at_a_time = threading.Lock()

    def source_alone(module: Any) -> str:
        with one_at_a_time:
            return source_of(module)

    tqdm.tqdm._instances = _NoBars()
    evaluate.ParallelExecutor = _OnceEach
    grounded_proposer.get_dspy_source_code = source_alone
    try:
        yield
    finally:
        tqdm.tqdm._instances, evaluate.ParallelExecutor = bars, executor
        grounded_proposer.get_dspy_source_code = source_of


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
