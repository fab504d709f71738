"""Results on disk: the paths of a cell, atomic writes, records, and the aggregate. Nobody else names a file.

A folder belongs to one cell (`cell.json` says which); its record, `results.json`, is written last, so a
record means a settled cell. Imports neither DSPy nor plotting: the runner writes, the analysis reads.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from scaling.types import PIPELINE_SUFFIX, SCHEMA_VERSION, SETTLED, Cell, UsageError

RECORD, CURVE, PREDICTIONS, PROGRAM, CALLS, CLAIM, HOSTED_JOB = (
    "results.json", "learning_curve.json", "predictions.jsonl", "program.json", "calls.jsonl", "cell.json",
    "hosted_job.json",
)  # fmt: skip
AGGREGATE, SWEEP, PLAN, LOG, CACHE = (
    "aggregate_results.json", "sweep.json", "plan.json", "sweep.log", ".cache/responses.sqlite",
)  # fmt: skip


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
        for path, keys in ((self.claim, ("cell_id",)), (self.record, ("cell_id",))):
            if path.exists():
                return read_json(path).get(keys[0])
        return None

    def take(self, cell: Cell) -> None:
        """Make the folder this cell's own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.claim, {"schema_version": SCHEMA_VERSION, "cell_id": cell.cell_id, "cell": asdict(cell)})

    def read_record(self) -> dict[str, Any] | None:
        """The cell's record, checked; None when there is none. Raises UsageError for a damaged or foreign one."""
        return read_record(self.record) if self.record.exists() else None


def files_of(cell: Cell, results: Path, taken: Container[Path] = ()) -> CellFiles:
    """The cell's own folder: the plain name, or with the id's first six digits where that is another cell's.

    taken: folders of other cells of the same sweep, which may not be there yet.
    """
    step = f"{cell.steps}{PIPELINE_SUFFIX[cell.pipeline]}"
    parent = results / cell.benchmark.replace("/", "-") / step / cell.optimizer / cell.model.replace("/", "-")
    plain = CellFiles(parent / f"run{cell.run}")
    if plain.owner() == cell.cell_id or (plain.owner() is None and plain.folder not in taken):
        return plain
    return CellFiles(parent / f"run{cell.run}-{cell.cell_id[:6]}")


def is_settled(record: dict[str, Any] | None, retry_failed: bool = False) -> bool:
    """Whether the same command skips the cell: settled, and not a failure that is to be tried again."""
    if record is None or record["status"] not in SETTLED:
        return False
    return not (retry_failed and record["status"] in ("error", "invalid"))


def read_record(path: Path) -> dict[str, Any]:
    """One results.json; UsageError when it is damaged or written by another schema version."""
    record = read_json(path)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}. "
            f"Use another --output-dir, or analyse it with the version that wrote it."
        )
    if not isinstance(record.get("cell"), dict) or "status" not in record:
        raise UsageError(f"{path} is not a record (no cell or status). Move it away; its cell will run again.")
    return record


def read_records(folders: Iterable[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """All records under the folders, with where they are, in a stable order."""
    paths = sorted({path for folder in folders for path in Path(folder).rglob(RECORD)})
    return [(path, read_record(path)) for path in paths]


def read_json(path: Path) -> Any:
    """A JSON object; UsageError, in one line, when the file is damaged."""
    try:
        value = orjson.loads(path.read_bytes())
        if isinstance(value, dict):
            return value
    except (ValueError, OSError):
        pass
    raise UsageError(f"{path} is damaged (no JSON object). Move it away; its cell will run again.")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file; [] when it is not there. Raises UsageError for a damaged one."""
    if not path.exists():
        return []
    try:
        with path.open("rb") as lines:
            return [orjson.loads(line) for line in lines if line.strip()]
    except ValueError:
        raise UsageError(
            f"{path} is damaged (a line is no JSON). Move its cell's folder away; it will run again."
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write beside and rename: a reader sees the old file or the new one, never half of one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """A .jsonl file, written atomically."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines))


def write_text(path: Path, text: str) -> None:
    """Write beside and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def write_aggregate(results: Path) -> None:
    """Rebuild aggregate_results.json from the cells' records."""
    records = [{"path": str(path.parent.relative_to(results)), **record} for path, record in read_records([results])]
    whole = {"schema_version": SCHEMA_VERSION, "cells": len(records), "records": records}
    write_text(results / AGGREGATE, orjson.dumps(whole, option=orjson.OPT_INDENT_2).decode() + "\n")


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


def write_plan(results: Path, estimates: dict[str, dict[str, Any]]) -> None:
    """Keep each planned cell and what it was estimated at before it ran; earlier plans stay."""
    path = results / PLAN
    known = read_json(path) if path.exists() else {}
    write_json(path, known | estimates)


def read_plans(folders: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Estimates by cell_id from all results folders that have them."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob(PLAN)):
            found |= read_json(path)
    return found
