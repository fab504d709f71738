"""Results on disk: the paths of a cell, atomic writes, records, and the aggregate. Nobody else names a file.

A folder belongs to one cell (`cell.json` says which); its record, `results.json`, is written last, so a
record means a settled cell. Imports neither DSPy nor plotting: the runner writes, the analysis reads.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from scaling.pipelines import step_name
from scaling.records.codec import BadLine, RecordError, decode, decode_lines, encode
from scaling.records.record import Record, SweepPlan, Versioned
from scaling.redact import hide_known, redact
from scaling.types import SCHEMA_VERSION, SETTLED, Cell, UsageError

T = TypeVar("T")

RECORD, CURVE, PREDICTIONS, PROGRAM, CALLS, CLAIM, HOSTED_JOB = (
    "results.json", "learning_curve.json", "predictions.jsonl", "program.json", "calls.jsonl", "cell.json",
    "hosted_job.json",
)  # fmt: skip
AGGREGATE, SWEEP, PLAN, LOG, CACHE, FRESH, LEDGER = (
    "aggregate_results.json", "sweep.json", "plan.json", "sweep.log", ".cache/responses.sqlite", ".cache/fresh.json",
    ".ledger/bills.sqlite",
)  # fmt: skip
ASKED, SEQUENTIAL = "questions", "sequential"  # the keys of plan.json that are no cell_id


HEADROOM = "headroom.md"  # what a pilot of headroom found


class CellFiles:
    """All files of one cell, under one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.record, self.curve = folder / RECORD, folder / CURVE
        self.predictions, self.program = folder / PREDICTIONS, folder / PROGRAM
        self.calls, self.claim = folder / CALLS, folder / CLAIM
        self.hosted = folder / HOSTED_JOB

    def owner(self) -> str | None:
        """The cell_id that this folder belongs to; None for a free one."""
        for path in (self.claim, self.record):
            if path.exists():
                owner = read_json(path).get("cell_id")
                return owner if isinstance(owner, str) else None
        return None

    def take(self, cell: Cell) -> None:
        """Make the folder this cell's own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.claim, {"schema_version": SCHEMA_VERSION, "cell_id": cell.cell_id, "cell": asdict(cell)})

    def read_record(self) -> Record | None:
        """The cell's record, checked; None when there is none. Raises UsageError for one that cannot be used."""
        return read_settled(self.record) if self.record.exists() else None


def files_of(cell: Cell, results: Path, taken: Container[Path] = ()) -> CellFiles:
    """The cell's own folder: the plain name, or with the id's first six digits where that is another cell's.

    taken: folders of other cells of the same sweep, which may not be there yet.
    """
    names = (cell.benchmark, step_name(cell.pipeline, cell.steps), cell.optimizer, cell.model)
    parent = results.joinpath(*map(_folder_name, names))
    plain = CellFiles(parent / f"run{cell.run}")
    if plain.owner() == cell.cell_id or (plain.owner() is None and plain.folder not in taken):
        return plain
    return CellFiles(parent / f"run{cell.run}-{cell.cell_id[:6]}")


def _folder_name(name: str) -> str:
    """A name as that of one folder; UsageError for one that would lead elsewhere."""
    folder = name.replace("/", "-")
    if folder in ("", ".", "..") or not folder.isprintable():
        raise UsageError(f"{name!r} becomes the name of a folder. Choose a name of letters and digits.")
    return folder


def is_settled(record: Record | None, retry_failed: bool = False) -> bool:
    """Whether the same command skips the cell: settled, and not a failure that is to be tried again."""
    if record is None or record.status not in SETTLED:
        return False
    return not (retry_failed and record.status in ("error", "invalid"))


def record_paths(folders: Iterable[Path]) -> list[Path]:
    """Where the records under the folders are, in a stable order; each once, also where folders overlap."""
    return _paths_of(RECORD, folders)


def read_record(path: Path) -> Record:
    """One results.json. Raises RecordError when it is damaged or written by another schema version."""
    return _record_of(_bytes_of(path))


def read_settled(path: Path) -> Record:
    """As `read_record`, for a sweep: raises UsageError with the file, the reason and what to do."""
    try:
        return read_record(path)
    except RecordError as error:
        raise UsageError(f"{path} cannot be used ({error}). Move it away; its cell will run again.") from None


def read_records(folders: Iterable[Path]) -> list[tuple[Path, Record]]:
    """All records under the folders with their paths, in a stable order. Raises UsageError for the first bad one."""
    return [(path, read_settled(path)) for path in record_paths(folders)]


def read_checked(path: Path, kind: type[T]) -> T:
    """A file that holds one object of this kind. Raises RecordError with the reason alone when it does not."""
    return decode(_bytes_of(path), kind)


def read_objects(path: Path, kind: type[T]) -> tuple[list[T], list[BadLine]]:
    """The lines of a .jsonl file that are of this kind, and the others with the reason; none where there is no file."""
    try:
        return decode_lines(path.read_bytes(), kind)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [BadLine(0, str(error.strerror))]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UsageError, in one line, when the file is damaged."""
    try:
        return read_checked(path, dict[str, Any])
    except RecordError as error:
        raise UsageError(f"{path} is damaged ({error}). Move it away and type the same command again.") from None


def write_record(files: CellFiles, record: Record) -> None:
    """A cell's record, last of its files; its error is free of secrets and control sequences, whoever worded it."""
    error = record.error
    if error is not None:
        trace = error.traceback and redact(error.traceback)
        error = replace(error, kind=redact(error.kind), message=redact(error.message), traceback=trace)
    write_json(files.record, replace(record, error=error))


def write_json(path: Path, value: Any) -> None:
    """A value as indented JSON, written beside and renamed: a reader sees the old file or the new one, never half."""
    write_bytes(path, encode(value, indent=2))


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """A .jsonl file, written atomically."""
    write_bytes(path, b"".join(encode(line) + b"\n" for line in lines))


def write_bytes(path: Path, data: bytes) -> None:
    """Write UTF-8 beside and rename; a secret of this process is hidden wherever it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(hide_known(data.decode()).encode())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def write_aggregate(results: Path) -> None:
    """Rebuild aggregate_results.json from the cells' records, and name those that cannot be used."""
    records: list[dict[str, Any]] = []
    left_out: list[str] = []
    for path in record_paths([results]):
        try:
            data = _bytes_of(path)
            _record_of(data)
            records.append({"path": str(path.parent.relative_to(results))} | decode(data, dict[str, Any]))
        except RecordError as error:
            left_out.append(f"{path.relative_to(results)}: {error}")
    whole = {"schema_version": SCHEMA_VERSION, "cells": len(records), "records": records, "left_out": left_out}
    write_json(results / AGGREGATE, whole)


def aggregating(results: Path) -> Callable[[], None]:
    """A function that rebuilds the aggregate, at most once a second and for at most a tenth of the time."""
    due = 0.0

    def rebuild() -> None:
        nonlocal due
        started = time.monotonic()
        if started >= due:
            write_aggregate(results)
            due = started + max(1.0, 10 * (time.monotonic() - started))

    return rebuild


def write_plan(results: Path, plan: SweepPlan) -> None:
    """Keep the estimates of cells by cell_id, the questions and the sequential plans; earlier ones stay."""
    path = results / PLAN
    earlier = read_json(path) if path.exists() else {}
    asked = {str(answer.get("question")): answer for answer in earlier.get(ASKED, [])}
    asked |= {answer.question: answer for answer in plan.questions}
    rules = {str(rule.get("study")): rule for rule in earlier.get(SEQUENTIAL, [])}
    rules = {rule.study: rule for rule in plan.sequential} | rules
    lists = {ASKED: list(asked.values()), SEQUENTIAL: list(rules.values())}
    write_json(path, earlier | plan.cells | {name: values for name, values in lists.items() if values})


def read_plan(path: Path) -> SweepPlan:
    """A plan.json. Raises RecordError with the reason when it cannot be used."""
    whole = read_checked(path, dict[str, Any])
    lists = {name: whole.pop(name, []) for name in (ASKED, SEQUENTIAL)}
    return decode(encode({"cells": whole} | lists), SweepPlan)


def plan_paths(folders: Iterable[Path]) -> list[Path]:
    """Where the plans under the folders are: what each cell was estimated at before it ran."""
    return _paths_of(PLAN, folders)


def _paths_of(name: str, folders: Iterable[Path]) -> list[Path]:
    """All files of this name under the folders, sorted, each once."""
    paths: dict[Path, Path] = {}
    for folder in folders:
        home = folder.resolve()
        for path in sorted(folder.rglob(name)):
            paths.setdefault(home / path.relative_to(folder), path)
    return sorted(paths.values())


def _bytes_of(path: Path) -> bytes:
    """A file's content. Raises RecordError with the reason when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RecordError("the file is missing") from None
    except OSError as error:
        raise RecordError(str(error.strerror)) from None


def _record_of(data: bytes) -> Record:
    """The record that a file holds. Raises RecordError; of another schema version, that is the reason."""
    try:
        record = decode(data, Record)
    except RecordError:
        _check_version(decode(data, Versioned).schema_version)
        raise
    _check_version(record.schema_version)
    return record


def _check_version(version: object) -> None:
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"it has schema version {version!s:.40}, this program reads {SCHEMA_VERSION}: use another --output-dir, or "
            f"analyse it with the version that wrote it"
        )
