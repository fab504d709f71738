"""One tidy Parquet file of a sweep, with a data dictionary and a Croissant description."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.export.cells import ExportedCell, Sweep
from scaling.export.croissant import Described, croissant
from scaling.export.files import as_json, check_free, write_new
from scaling.export.tidy import Column, columns, rows_of
from scaling.types import UsageError

TABLE, DICTIONARY, DESCRIPTION = "predictions.parquet", "data_dictionary.md", "croissant.json"
KINDS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def write(sweep: Sweep, out: Path) -> str:
    """Write the three files; returns what was written. A sweep without any prediction raises UsageError."""
    check_free(out / TABLE)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as beside:
        draft = Path(beside) / TABLE
        told = Described(sweep.name)
        count = _write_table(draft, _noting(sweep, told))
        if not count:
            raise UsageError(f"no cell of {sweep.name} has predictions. Run its cells first.")
        told.sha256 = hashlib.sha256(draft.read_bytes()).hexdigest()
        write_new(out / DICTIONARY, dictionary(told).encode())
        write_new(out / DESCRIPTION, as_json(croissant(told, TABLE, columns())))
        draft.rename(out / TABLE)
    return f"wrote {out / TABLE}: {count:,} predictions of {told.cells:,} cells"


def _noting(sweep: Sweep, told: Described) -> Iterator[ExportedCell]:
    """The cells that have predictions, while `told` learns of them what the description says."""
    for cell in sweep.cells:
        if cell.lines:
            told.note(cell)
            yield cell


def _write_table(path: Path, cells: Iterator[ExportedCell]) -> int:
    """The table, a cell at a time; returns its number of rows."""
    schema = pa.schema([_arrow_field(column) for column in columns()])
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for cell in cells:
            rows = [asdict(row) for row in rows_of(cell)]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def _arrow_field(column: Column) -> Any:
    meaning = {"meaning": column.meaning} | ({"unit": column.unit} if column.unit else {})
    return pa.field(column.name, KINDS[column.kind], column.nullable, metadata=meaning)


def dictionary(told: Described) -> str:
    """The data dictionary as Markdown."""
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    head = f"# {told.title}\n\n{told.text}\n\n| column | type | unit | may be null | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| `{c.name}` | {words[c.kind]} | {c.unit} | {'yes' if c.nullable else 'no'} | {c.meaning} |\n"
        for c in columns()
    )
