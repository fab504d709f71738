"""Published tables without rows: CSV with the columns benchmark and score, and program, model, optimizer, n, cost.

langProBe's experiment_data is such a table. What is missing of model is the file's name; no other reader knows these
files, since nothing that needs rows may be said of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scaling.readers.files import Source, read_csv
from scaling.readers.formats import named
from scaling.readers.plain import number_of
from scaling.types import UsageError

NEEDED = {"benchmark", "score"}
SYSTEM = ("program", "model", "optimizer")  # what may differ between two rows of a benchmark


@dataclass(frozen=True, slots=True)
class Mean:
    """One row of a published table. score: on the table's own scale; n, cost: None where it does not say."""

    benchmark: str
    program: str
    model: str
    optimizer: str
    score: float
    n: int | None
    cost: float | None
    source: str


def is_published(argument: str) -> bool:
    """Whether the argument is a table of means, and not of rows."""
    source = Source(named(argument)[1])
    return source.suffix == ".csv" and source.keys >= NEEDED and "id" not in source.keys


def read(argument: str) -> list[Mean]:
    """The rows of one table. Raises UsageError, with the line, for one without a benchmark or score."""
    label, path = named(argument)
    lines = read_csv(path)
    return [_mean(line, f"{path} line {number}", label or path.stem, path) for number, line in enumerate(lines, 2)]


def _mean(line: dict[str, str], where: str, file_name: str, path: Path) -> Mean:
    numbers = {name: number_of(line.get(name), where, name) for name in ("score", "n", "cost")}
    score, n = numbers["score"], numbers["n"]
    if not line["benchmark"] or score is None:
        raise UsageError(f"{where} has no {'score' if line['benchmark'] else 'benchmark'}.")
    if n is not None and (n < 1 or n != int(n)):
        raise UsageError(f"{where}: n is {n:g}, which is no number of rows.")
    return Mean(
        line["benchmark"], line.get("program", ""), line.get("model") or file_name, line.get("optimizer", ""), score,
        None if n is None else int(n), numbers["cost"], str(path),
    )  # fmt: skip
