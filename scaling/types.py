"""The whole contract in one file: the words that every other module uses.

A *benchmark* (data, signature, metric) x *pipeline* x *steps* x *optimizer* x *model* x *run* is a
*cell*; a cell ends as one *record* (`results.json`). Nothing here imports DSPy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from scaling.pipelines import step_name

SCHEMA_VERSION = 1
# Raised when the meaning of a cell's fields changes, so that old records are not mistaken for new ones.
CELL_VERSION = 1

SYNTH_MODES = ("offline", "online")
STEPS = (1, 2, 3, 4, 5)
# Settled cells are not run again by the same command; budget and interrupted go on where they were.
SETTLED = ("ok", "error", "invalid", "skipped")

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CAP, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

Row = dict[str, Any]
Metric = Callable[..., float]


class UsageError(Exception):
    """Something the user can put right; the message is one line: what is wrong, what is possible, what to type."""


class SweepInterrupted(Exception):
    """What a sweep needs is gone; the same command goes on. The message says what."""


class CellStopped(BaseException):
    """Ends a cell from inside any thread of it.

    A BaseException because optimizers swallow every Exception (an `Exception` raised at the cap left
    GEPA and MIPROv2 running for dozens of calls). Raised by the LM gateway, caught only in `run_cell`.
    """

    def __init__(self, status: Literal["budget", "interrupted", "error"], message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Cell:
    """One point of the grid: plain data, everything that can change the answer and nothing else."""

    benchmark: str
    pipeline: str
    steps: int
    optimizer: str
    model: str
    optimizer_model: str
    run: int = 0
    seed: int = 0
    temperature: float = 0.7
    max_output_tokens: int = 1024
    train_size: int = 50
    val_size: int = 100
    select_size: int = 50
    test_size: int = 0
    rollout_budget: int = 200
    data: str = "hub"
    labels: int | None = None
    feedback: str = "none"
    # A benchmark with tools, asked without them.
    closed_book: bool = False
    # Hosted jobs: who runs the rollouts, and how many a candidate gets (None: a pass over select; online at most 10).
    synth_mode: str = "offline"
    synth_rollouts: int | None = None
    # Digest of the rows that this cell's deal holds, and of the benchmark's declared version.
    data_sha256: str = ""
    benchmark_version: str = "1"

    @cached_property
    def cell_id(self) -> str:
        """16 hex digits over every field that can change the answer.

        The name of the data source is left out and the digest of its rows is in: the same rows from
        another folder are the same cell.
        """
        fields = {k: v for k, v in asdict(self).items() if k != "data"} | {"cell_version": CELL_VERSION}
        for name, default in (("closed_book", False), ("synth_mode", "offline"), ("synth_rollouts", None)):
            if fields[name] == default:
                del fields[name]  # so that records from before the field are the cells they were
        return digest(fields)[:16]

    @property
    def label(self) -> str:
        """Short name for people: 'banking77 3step gepa llama-3.1-8b run0'."""
        step = step_name(self.pipeline, self.steps)
        closed = " closed-book" if self.closed_book else ""
        online = " online" if self.synth_mode == "online" else ""
        return f"{self.benchmark}{closed} {step} {self.optimizer}{online} {self.model} run{self.run}"


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A benchmark with its rows loaded, ready to be dealt. Equal to itself only."""

    name: str
    signature: Any  # a dspy.Signature class, labels as a Literal of the labels in the data
    metric: Metric
    feedback: Callable[..., str] | None
    roles: dict[str, str]  # what each role does, in place of the standard words
    version: str
    label_field: str | None
    train: list[Row]  # the pool that train and val are dealt from
    test: list[Row] | None  # official test rows; None where the pool is one
    train_seeds: tuple[int, ...]  # positions in the order of rows; the splits take their rows from them first
    val_seeds: tuple[int, ...]
    test_seeds: tuple[int, ...] | None = None  # None: the final score is on check rows
    source: str = "hub"
    revision: str | None = None
    note: str | None = None  # what every output must say of these rows
    tools: tuple[Any, ...] = ()  # dspy.Tool; () also where a benchmark with tools is asked without them
    task_class: str | None = None
    stratify: str | None = None  # the field whose values every split holds in proportion
    match_fields: tuple[str, ...] = ()  # rows that agree in these are copies; () for the signature's inputs
    mask_digits: bool = False  # rows that differ in their numbers only are copies
    near_copy: float | None = None  # share of words that makes two rows copies
    extra_metrics: Mapping[str, Metric] = field(default_factory=dict)  # scored beside the metric, by name
    failure_kind: Callable[..., str | None] | None = None  # a word for how an answer failed
    execution_feedback: Callable[..., str] | None = None  # what running an answer shows, for self-correction
    needs: Callable[[], None] | None = None  # raises UsageError where the benchmark cannot be run

    @property
    def inputs(self) -> list[str]:
        return list(self.signature.input_fields)

    @property
    def outputs(self) -> list[str]:
        return list(self.signature.output_fields)


@dataclass(frozen=True)
class Splits:
    """The rows of one run: train and select for the optimizer, check for nobody, test opened once."""

    train: list[Row]
    select: list[Row]
    check: list[Row]
    test: list[Row]
    split: str  # "test", or "check" where the benchmark has no test rows
    dropped: int  # rows of the train pool passed over because they (nearly) repeat a test row

    @property
    def sha256(self) -> str:
        return digest({part: getattr(self, part) for part in ("train", "select", "check", "test")})

    @property
    def test_sha256(self) -> str:
        return digest(self.test)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, the same on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def unknown_name(what: str, name: str, possible: list[str], fix: str) -> UsageError:
    """The one shape of 'unknown name' messages."""
    return UsageError(f"unknown {what} '{name}'; possible: {', '.join(possible)}. {fix}")
