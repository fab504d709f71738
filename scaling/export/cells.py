"""What every target is given: the cells of a results folder, without what names this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import structs

from scaling.export.texts import Inputs, Rights, Texts, inputs_of, rights_of
from scaling.planning.optimizers import NONE
from scaling.records.codec import RecordError, decode_lines
from scaling.records.record import CurvePoint, DataFacts, Failure, LearningCurve, PredictionLine, ProgramText, Record
from scaling.records.store import CellFiles, read_checked, read_record, record_paths
from scaling.redact import hide_known
from scaling.types import Cell, UsageError

Say = Callable[[str], None]
Entries = Mapping[str, dict[str, Any]]  # BENCHMARK_CONFIG
PUBLIC_SOURCES = ("hub", "sample")


@dataclass(frozen=True)
class ExportedCell:
    """One cell with its files.

    record: without a traceback and without folders. ended: when its record was written. lines: its predictions, without
    the texts that may not go out. inputs: row id -> the input fields of the row, where they go out. program: the text
    of program.json; None where there is none, or where the rows in its demos may not go out.
    """

    record: Record
    ended: datetime
    rights: Rights
    lines: list[PredictionLine]
    inputs: Inputs
    curve: list[CurvePoint]
    instructions: ProgramText
    program: str | None

    @property
    def cell(self) -> Cell:
        return self.record.cell

    @property
    def is_pilot(self) -> bool:
        """Whether the cell is a trial of a study or of its headroom."""
        return self.cell.pilot or self.cell.headroom

    @property
    def warnings(self) -> list[str]:
        """What must be said wherever the scores of this cell appear."""
        kinds = {"sample rows: not a result": self.record.sample, "pilot: not a result": self.is_pilot}
        notes = [self.record.note] if self.record.note else []
        return [kind for kind, applies in kinds.items() if applies] + notes

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs that have a score to tell: before and after optimization, or the one that was written."""
        return ("final",) if self.cell.optimizer == NONE.name else ("baseline", "final")

    def scored(self, program: str) -> list[PredictionLine]:
        """The lines of one program that have a score, in the order of the rows."""
        return [line for line in self.lines if line.program == program and line.score is not None]


@dataclass(frozen=True)
class Sweep:
    """The cells of one results folder, each read when it is its turn. name: that of the folder."""

    name: str
    cells: Iterator[ExportedCell]


def read_sweep(results: Path, entries: Entries, texts: Texts, say: Say) -> Sweep:
    """The sweep in a results folder. say: takes a line about each thing that is left out.

    Raises UsageError for a folder without records.
    """
    paths = record_paths([results])
    if not paths:
        raise UsageError(f"no results in {results}. Run: python run_scaling_experiment.py --quick")
    return Sweep(results.resolve().name, _cells(paths, entries, texts, say))


def read_cell(path: Path, entries: Entries, texts: Texts, say: Say) -> ExportedCell:
    """The cell whose results.json this is. Raises RecordError when it cannot be used."""
    files, record = CellFiles(path.parent), read_record(path)
    entry = entries.get(record.cell.benchmark)
    rights = rights_of(record, entry, texts)
    lines = _lines(files.predictions, say)
    return ExportedCell(
        record=_without_machine(record),
        ended=datetime.fromtimestamp(int(path.stat().st_mtime), UTC),
        rights=rights,
        lines=lines if rights.go_out else [structs.replace(line, gold=None, notes=None) for line in lines],
        inputs=inputs_of(record, entry, texts, say) if lines and rights.go_out else {},
        curve=_read(files.curve, LearningCurve, LearningCurve([]), say).points,
        instructions=_read(files.program, ProgramText, ProgramText(), say),
        program=_text(files.program) if rights.go_out else None,
    )


def _cells(paths: list[Path], entries: Entries, texts: Texts, say: Say) -> Iterator[ExportedCell]:
    seen: set[str] = set()
    for path in paths:
        try:
            cell = read_cell(path, entries, texts, say)
        except RecordError as error:
            say(f"left out: {path} ({error})")
            continue
        if cell.record.cell_id in seen:
            say(f"left out: {path} (its cell was there already)")
            continue
        seen.add(cell.record.cell_id)
        yield cell


def _lines(path: Path, say: Say) -> list[PredictionLine]:
    lines, bad = decode_lines((_text(path) or "").encode(), PredictionLine)
    for line in bad:
        say(f"left out: line {line.number} of {path} ({line.reason})")
    return lines


def _text(path: Path) -> str | None:
    """A file without the secrets of this process; None where there is no file."""
    return hide_known(path.read_bytes().decode("utf-8", "replace")) if path.exists() else None


def _read(path: Path, kind: Any, without: Any, say: Say) -> Any:
    """A file of this kind; `without` where there is none or it is damaged, which is told."""
    if not path.exists():
        return without
    try:
        return read_checked(path, kind)
    except RecordError as error:
        say(f"left out: {path} ({error})")
        return without


def _without_machine(record: Record) -> Record:
    """The record without folders of this machine."""
    cell, data, error = record.cell, record.data or DataFacts(), record.error
    if cell.data not in PUBLIC_SOURCES:
        cell = replace(cell, data="folder")
    if data.source not in (*PUBLIC_SOURCES, None):
        data = structs.replace(data, source="folder")
    if error is not None:
        error = Failure(error.kind, error.kind)  # its message may name folders
    return structs.replace(record, cell=cell, data=data, error=error)
