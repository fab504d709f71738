"""What may be compared with what: a series is all that two cells share whose steps and runs alone differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

# What all cells of a comparison must share; those of a benchmark may differ from another's.
SHARED = (
    "model", "optimizer_model", "rollout_budget", "temperature", "max_output_tokens", "feedback", "seed", "pilot",
    "reasoning_effort", "stop_when_flat", "headroom", "wording",
)  # fmt: skip
SHARED_IN_BENCHMARK = (
    "train_size", "val_size", "select_size", "test_sha256", "closed_book", "benchmark_version", "labels",
    "draws",
)  # fmt: skip
OF_HOSTED_JOBS = ("synth_mode", "synth_rollouts")
# What comes with an optimizer: its options, what it starts from, what it leaves, and how its hosted job runs.
OF_OPTIMIZER = ("optimizer_options", "start", "frozen_roles", *OF_HOSTED_JOBS)
# What comes with the model: not every model takes every setting.
OF_MODELS = ("model", "optimizer_model", "max_output_tokens", "temperature", "reasoning_effort")
Terms = tuple[object, ...]


@dataclass(frozen=True)
class SeriesKey:
    """A series: cells of one benchmark, pipeline, optimizer and model on equal terms, over steps and runs."""

    benchmark: str
    pipeline: str
    optimizer: str
    model: str
    optimizer_model: str
    rollout_budget: int
    temperature: float
    max_output_tokens: int
    feedback: str
    seed: int
    pilot: bool
    train_size: int
    val_size: int
    select_size: int
    test_sha256: str | None
    closed_book: bool
    benchmark_version: str | None
    labels: int | None
    synth_mode: str
    synth_rollouts: int | None
    optimizer_options: str = ""
    reasoning_effort: str | None = None
    draws: int = 1
    stop_when_flat: float | None = None
    headroom: bool = False
    wording: str = "own"
    start: str = ""  # the program that its cells were given, in words
    frozen_roles: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any] | pd.Series[Any]) -> SeriesKey:
        """The series of a cell's row; a field that is missing or NaN is None."""
        values: dict[str, Any] = {name: None if pd.isna(row.get(name)) else row.get(name) for name in SERIES}
        return cls(**values)

    def same_but(self, **changes: Any) -> SeriesKey:
        """The series that differs in these fields only."""
        return replace(self, **changes)

    def terms(self, *names: str) -> Terms:
        """The values of these fields."""
        return tuple(getattr(self, name) for name in names)

    def all_but(self, *names: str) -> Terms:
        """What it shares with the series that differ in these fields only."""
        return self.terms(*(name for name in SERIES if name not in names))

    @property
    def across_optimizers(self) -> Terms:
        """Shared by series that differ in the optimizer, in its options, or in how its hosted job ran."""
        return self.all_but("optimizer", *OF_OPTIMIZER)

    @property
    def across_transfers(self) -> Terms:
        """Shared by a program that was optimized elsewhere and those that were optimized on the same model and rows."""
        return self.all_but("optimizer", "optimizer_model", "stop_when_flat", *OF_OPTIMIZER)

    @property
    def across_models(self) -> Terms:
        """Shared by series that differ in the model and in what comes with it."""
        return self.all_but(*OF_MODELS)

    @property
    def across_models_and_benchmarks(self) -> Terms:
        """Shared by the series of one program that differ in the model, or in the benchmark and its rows."""
        return self.all_but("benchmark", *OF_MODELS, *SHARED_IN_BENCHMARK)

    @property
    def across_benchmarks(self) -> Terms:
        """Shared by the series of one pipeline and optimizer that differ in the benchmark and in its rows."""
        return self.all_but("benchmark", *SHARED_IN_BENCHMARK)

    @property
    def equal_terms(self) -> Terms:
        """The benchmark and all that its cells must share to be compared, whatever pipeline and optimizer."""
        return self.terms("benchmark", *SHARED, *SHARED_IN_BENCHMARK)

    @property
    def across_programs(self) -> Terms:
        """Shared by a program and one unoptimized call on the same rows."""
        return self.all_but("pipeline", "optimizer", "optimizer_options", "start", "frozen_roles", "stop_when_flat")

    @property
    def across_controls(self) -> Terms:
        """Shared by self-correction, with any feedback, and its redraws and votes."""
        return self.all_but("pipeline", "feedback")


SERIES = tuple(field.name for field in fields(SeriesKey))
