"""Which texts of a benchmark's rows go out with an export: as far as their licence allows, and as the user asks.

The texts are the rows' inputs, their right answers, the notes of a program's steps, which quote them, and the worked
examples in a program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from scaling.data import load_benchmark, make_splits
from scaling.records.record import Record
from scaling.types import Row, UsageError

# Licences that allow passing texts on, by their SPDX names.
OPEN_LICENCES = ("MIT", "Apache-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0")
OWN_LICENCE = "MIT"  # of the samples, which were written for this project
Level = Literal["answers", "rows", "all"]
Inputs = dict[str, dict[str, str]]  # row id -> its input fields


@dataclass(frozen=True)
class Texts:
    """What the user asks for. answers: no inputs. rows: the inputs too. all: both, whatever the licence says.

    data: where the rows are, hub, sample or a folder; None for the cell's own source.
    """

    level: Level = "answers"
    data: str | None = None


@dataclass(frozen=True)
class Rights:
    """licence: of the rows, None where it is not known. go_out: whether their texts are exported."""

    licence: str | None
    go_out: bool


def rights_of(record: Record, entry: dict[str, Any] | None, texts: Texts) -> Rights:
    """What may be done with the texts of a cell's rows. entry: that of BENCHMARK_CONFIG, None for an unknown one."""
    licence = OWN_LICENCE if record.sample else (entry or {}).get("licence")
    return Rights(licence, texts.level == "all" or licence in OPEN_LICENCES)


def inputs_of(record: Record, entry: dict[str, Any] | None, texts: Texts, say: Callable[[str], None]) -> Inputs:
    """The inputs of the cell's test and check rows by id, where they are asked for; {} where they cannot be had.

    Raises UsageError for rows that cannot be loaded.
    """
    if texts.level == "answers":
        return {}
    if entry is None:
        say(f"without inputs: this program does not know the rows of '{record.cell.benchmark}'")
        return {}
    cell, source = record.cell, texts.data or record.cell.data
    bench = load_benchmark(cell.benchmark, entry, source, cell.labels, cell.closed_book)
    sizes = (cell.train_size, cell.val_size, cell.select_size, cell.test_size)
    splits = make_splits(bench, *sizes, cell.run, cell.seed)
    if record.data is None or splits.sha256 != record.data.sha256:
        raise UsageError(
            f"the rows of '{cell.benchmark}' in {source} are not those of cell {record.cell_id}. Give --data DIR."
        )
    return {str(row["id"]): _inputs(row, bench.inputs) for row in (*splits.check, *splits.test)}


def _inputs(row: Row, names: list[str]) -> dict[str, str]:
    return {name: str(row[name]) for name in names}
