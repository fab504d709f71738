"""Which records may stand beside each other: those under one name must be of one program, by their digests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scaling.records.record import Record
from scaling.types import UsageError

# What a part of a digest is about, and the fields in which cells agree that must have the same.
TASK = ("benchmark", "benchmark_version")
PROGRAM = (*TASK, "pipeline", "steps", "model", "reasoning_effort", "feedback", "closed_book", "labels", "wording",
           "start_sha256")  # fmt: skip
PARTS = {
    "task": ("the instruction or the metric", TASK),
    "program": ("the prompts or the pipeline", PROGRAM),
    "optimizer": ("the optimizer or its feedback", (*PROGRAM, "optimizer", "optimizer_model")),
}


def refuse_mixtures(read: Iterable[tuple[Path, Record]]) -> None:
    """Raise UsageError where scores of different programs go by one name. Records that do not say are let through."""
    first: dict[tuple[object, ...], tuple[Path, Record]] = {}
    for path, record in read:
        if record.status != "ok" or record.program is None:
            continue
        for part, (what, names) in PARTS.items():
            where = record.data.test_sha256 if record.data and part != "task" else None
            key = (part, where, *(getattr(record.cell, name) for name in names))
            other_path, other = first.setdefault(key, (path, record))
            if getattr(other.program, part) != getattr(record.program, part):
                raise UsageError(
                    f"{other_path} and {path} are scores of different programs under one name: {what} changed between "
                    f"them. Give --results-dir folders of one program, or move the records of the other away."
                )
