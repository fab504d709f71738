"""DSPy's optimizers, made fit to run beside each other in threads without a change to the process.

An optimizer of DSPy prints, draws bars on the screen and writes to the process's loggers. Its evaluations clear one
register of bars that all threads share, run an example again that is two minutes old (a call of a sweep may wait
that long, and a rollout must count once), and parse source files in threads, which can fail. Changing DSPy while a
sweep runs would change it for everybody else in the process as well. So the modules that do these things are loaded
a second time, as private copies that nobody else sees, with other `print`, `tqdm`, `logging` and `inspect`.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.util
import inspect
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import dspy

from scaling.redact import RedactingStream
from scaling.run.pipelines import MultiStepClassifier
from scaling.run.self_correction import SelfCorrection
from scaling.run.source import source_of, source_or_none
from scaling.run.steps import ToolUser

COPIED = (
    "dspy.evaluate.evaluate",
    "dspy.propose.dataset_summary_generator",
    "dspy.propose.grounded_proposer",
    "dspy.propose.utils",
    "dspy.teleprompt.bootstrap",
    "dspy.teleprompt.bootstrap_trace",
    "dspy.teleprompt.gepa.gepa",
    "dspy.teleprompt.gepa.gepa_utils",
    "dspy.teleprompt.mipro_optimizer_v2",
    "dspy.teleprompt.random_search",
    "dspy.teleprompt.utils",
    "dspy.utils.parallelizer",
)
LOG_SETTING = "optimizer_log"  # of dspy.context, which DSPy hands on to its threads


def gepa() -> Any:
    """The class `dspy.GEPA`, from private copies."""
    return _copies().load("dspy.teleprompt.gepa.gepa").GEPA


def mipro_v2() -> Any:
    """The class `dspy.MIPROv2`, from private copies."""
    return _copies().load("dspy.teleprompt.mipro_optimizer_v2").MIPROv2


def bootstrap_random_search() -> Any:
    """The class `dspy.BootstrapFewShotWithRandomSearch`, from private copies."""
    return _copies().load("dspy.teleprompt.random_search").BootstrapFewShotWithRandomSearch


def prepare() -> None:
    """Load the copies and read the programs' sources, which is to be done before there are threads."""
    _copies()
    for program in (MultiStepClassifier, SelfCorrection, ToolUser, dspy.Signature("question -> answer")):
        source_or_none(program)


def private_copy(name: str) -> Any:
    """The private copy of one of the `COPIED` modules."""
    return _copies().load(name)


@contextlib.contextmanager
def output_to(log: Path | None) -> Iterator[None]:
    """Append what optimizers print and log to a file while the block runs; None drops it."""
    if log is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file, dspy.context(**{LOG_SETTING: RedactingStream(file)}):
        yield


class _PrivateCopies:
    """Modules loaded a second time; an import inside one of them gives another copy, or what replaces a module."""

    def __init__(self, replaced: Mapping[str, Any]):
        self._modules: dict[str, Any] = dict(replaced)
        self._lock = threading.RLock()

    def load(self, name: str) -> Any:
        """The copy of a module, made when it is first asked for."""
        with self._lock:
            if name not in self._modules:
                spec = importlib.util.find_spec(name)
                if spec is None or spec.loader is None:
                    raise ImportError(f"{name} is not there: this version of DSPy is not supported")
                module = importlib.util.module_from_spec(spec)
                vars(module)["__builtins__"] = vars(builtins) | {"print": _print, "__import__": self._import}
                self._modules[name] = module
                spec.loader.exec_module(module)
            return self._modules[name]

    def _import(
        self,
        name: str,
        importer: Mapping[str, Any] | None = None,
        scope: Mapping[str, Any] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """What `import` and `from ... import` give inside a copy; as `builtins.__import__`."""
        package = (importer or {}).get("__package__")
        full = importlib.util.resolve_name("." * level + name, package) if level else name
        if (wanted or "." not in full) and (full in self._modules or full in COPIED):
            return self.load(full)
        module = builtins.__import__(name, importer, scope, wanted, level)
        copied = {part: self.load(f"{full}.{part}") for part in wanted or () if f"{full}.{part}" in COPIED}
        return SimpleNamespace(**vars(module) | copied) if copied else module


@functools.cache
def _copies() -> _PrivateCopies:
    import gepa as gepa_package
    from dspy import evaluate, propose

    def without_bar(**options: Any) -> Any:
        return vars(gepa_package)["optimize"](**options | {"display_progress_bar": False})

    copies = _PrivateCopies(
        {
            "gepa": _instead(gepa_package, optimize=without_bar),
            "inspect": _instead(inspect, getsource=source_of),
            "logging": _instead(logging, getLogger=lambda name=None: _LOGGER),
            "tqdm": SimpleNamespace(tqdm=_NoBar),
        }
    )

    class Evaluate(dspy.Evaluate):  # DSPy's callbacks ask for this class
        __call__ = copies.load("dspy.evaluate.evaluate").Evaluate.__call__

    class ParallelExecutor(copies.load("dspy.utils.parallelizer").ParallelExecutor):  # type: ignore[misc]
        """Every example once, however long it takes."""

        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **options | {"timeout": 0})

    vars(copies.load("dspy.evaluate.evaluate")).update(Evaluate=Evaluate, ParallelExecutor=ParallelExecutor)
    copies._modules["dspy.evaluate"] = _instead(evaluate, Evaluate=Evaluate)
    proposing = copies.load("dspy.propose.utils")
    vars(proposing)["get_dspy_source_code"] = _with_signature_names(proposing.get_dspy_source_code)
    proposer = copies.load("dspy.propose.grounded_proposer").GroundedProposer
    copies._modules["dspy.propose"] = _instead(propose, GroundedProposer=proposer)
    return copies


def _with_signature_names(source_of_program: Any) -> Any:
    """DSPy's reader of a program's source, which looks for a name that pydantic keeps on Python below 3.14 only."""

    def get_dspy_source_code(module: Any) -> Any:
        for predictor in module.predictors():
            if predictor.signature.__pydantic_parent_namespace__ is None:
                predictor.signature.__pydantic_parent_namespace__ = {"signature_name": "Signature"}
        return source_of_program(module)

    return get_dspy_source_code


def _instead(module: ModuleType, **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**vars(module) | changes)


class _NoBar:
    """A progress bar that shows nothing."""

    _instances: set[Any] = set()

    def __init__(self, iterable: Iterable[Any] = (), **_: Any):
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable)

    def set_description(self, *_: Any) -> None: ...

    def update(self, *_: Any) -> None: ...

    def close(self) -> None: ...


def _print(*values: object, sep: str | None = " ", end: str | None = "\n", **_: Any) -> None:
    _write((sep or " ").join(map(str, values)) + (end if end is not None else "\n"))


def _write(text: str) -> None:
    """Into the log of the sweep that this thread works for."""
    log = dspy.settings.get(LOG_SETTING)
    if log is not None:
        with contextlib.suppress(ValueError, OSError):  # closed, or the disk is full: the cell goes on
            log.write(text)


class _LogHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _write(self.format(record) + "\n")


_LOGGER = logging.Logger("optimizers", logging.INFO)  # not one of the process's loggers
_LOGGER.addHandler(_LogHandler())
