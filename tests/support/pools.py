"""Made-up pools of rows, to be dealt."""

from __future__ import annotations

from typing import Any

import dspy

from scaling.data import load_benchmark
from scaling.types import Benchmark, Row
from tests.support.toy import config


class Task(dspy.Signature):
    """Name the label of a text."""

    text: str = dspy.InputField()
    label: str = dspy.OutputField()


def pool(labels: list[int], part: str = "p") -> list[Row]:
    """A row for each label, each with words of its own, sorted by label as published data are."""
    return [
        {"id": f"{part}{i:03d}", "text": f"{part} text {i} of its own {i * i + 7}", "label": f"label{label}"}
        for i, label in enumerate(sorted(labels))
    ]


def benchmark(train: list[Row], test: list[Row] | None = None, **changes: Any) -> Benchmark:
    """The rows as a loaded benchmark; seeds as the built-in ones have them, scaled to small data."""
    keys = {
        "signature": Task,
        "loader": lambda: {"train": train, "test": test} if test else train,
        "train_seeds": range(15),
        "val_seeds": range(15, 45),
        "test_seeds": range(40),
    }
    return load_benchmark("made-up", config(**keys | changes), "sample")
