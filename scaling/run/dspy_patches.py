"""What DSPy does that evaluations in many threads side by side cannot have, undone while a sweep runs."""

from __future__ import annotations

import contextlib
import inspect
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dspy
import tqdm
from dspy.evaluate import evaluate
from dspy.propose import utils as proposing
from dspy.utils.parallelizer import ParallelExecutor

from scaling.run.pipelines import MultiStepClassifier, SelfCorrection, ToolUser


@contextlib.contextmanager
def side_by_side() -> Iterator[None]:
    """Let optimizers of many threads run beside each other while the block runs. Enter it before there are threads.

    DSPy clears tqdm's one register of bars at each evaluation: a bar of another thread that then takes itself off
    it would end its cell with a KeyError. It runs an example again that is among the last three and two minutes
    old: in a sweep a call may wait that long for its place, and a rollout must count once. And MIPROv2 shows its
    proposer the program's source, for which `inspect` parses whole files: parsing in two threads can fail ("AST
    constructor recursion depth mismatch", Python 3.11), and a proposer that does not see the program proposes
    something else.
    """
    bars, executor, inspector = tqdm.tqdm._instances, evaluate.ParallelExecutor, proposing.inspect
    tqdm.tqdm._instances = _NoBars()
    evaluate.ParallelExecutor = _OnceEach
    proposing.inspect = SimpleNamespace(**vars(inspect) | {"getsource": source_of})
    for known in (MultiStepClassifier, SelfCorrection, ToolUser, dspy.Signature("question -> answer")):
        with contextlib.suppress(OSError):
            source_of(known)
    try:
        yield
    finally:
        tqdm.tqdm._instances, evaluate.ParallelExecutor, proposing.inspect = bars, executor, inspector


def source_of(kind: type) -> str:
    """`inspect.getsource` of a class, read once; raises OSError, also from then on, where it has no source."""
    name = (kind.__module__, kind.__qualname__)
    with _READING:
        if name not in _SOURCES:
            try:
                _SOURCES[name] = inspect.getsource(kind)
            except OSError as error:
                _SOURCES[name] = error
        found = _SOURCES[name]
    if isinstance(found, OSError):
        raise found
    return found


def known_source(kind: type) -> str | None:
    """The same; None where it has none."""
    with contextlib.suppress(OSError, TypeError):
        return source_of(kind)
    return None


def remember_source(kind: type, source: str | None) -> None:
    """What `source_of` gives for a class that came here without its file; None changes nothing."""
    if source is not None:
        with _READING:
            _SOURCES.setdefault((kind.__module__, kind.__qualname__), source)


_SOURCES: dict[tuple[str, str], str | OSError] = {}
_READING = threading.Lock()


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
