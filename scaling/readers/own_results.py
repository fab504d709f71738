"""Results folders of this program: each series at each number of steps is a result, and its cells are the runs."""

from __future__ import annotations

import numpy as np

from scaling.analysis.comparisons import Entry, entries_of
from scaling.analysis.loading import load
from scaling.analysis.results import Results
from scaling.analysis.sentences import marks_of
from scaling.analysis.text import plural
from scaling.readers.files import Source
from scaling.readers.rows import Format, Result, Row
from scaling.records.store import RECORD


def recognizes(source: Source) -> bool:
    """Whether the folder holds a record, or the file is one."""
    return bool(source.files(RECORD)) or source.keys >= {"cell_id", "cell"}


def read(source: Source, group_field: str) -> list[Result]:
    """The final programs of the cells that are ok. Their groups are those of the records, whatever `group_field` is."""
    results = load([source.path.parent if source.suffix else source.path])
    notes = tuple(_notes(source, results))
    return [_result(source, results, entry, notes) for entry in entries_of(results)]


def _result(source: Source, results: Results, entry: Entry, notes: tuple[str, ...]) -> Result:
    series = entry.series
    rows = [row for key in entry.keys for row in _rows(results, key)]
    digest = f", rows {series.test_sha256[:12]}" if series.test_sha256 else ""
    return Result(
        entry.name, str(source.path), FORMAT.what, tuple(rows), series.benchmark, f"{series.benchmark_version}{digest}",
        optimizer=series.optimizer, notes=notes,
    )  # fmt: skip


def _rows(results: Results, key: str) -> list[Row]:
    """One cell's rows. Their cost is the cell's mean for an answer."""
    answers = results.answers(key)["final"]
    cost = None if np.isnan(answers.usd) else answers.usd
    run = str(results.cells.loc[key, "run"])
    columns = zip(answers.items.tolist(), answers.groups.tolist(), answers.scores.tolist(), strict=True)
    return [
        Row(id=item, score=None if np.isnan(score) else score, run=run, group=None if group == item else group,
            cost=cost)
        for item, group, score in columns
    ]  # fmt: skip


def _notes(source: Source, results: Results) -> list[str]:
    cells = results.cells
    notes = [f"{source.path} is no result: {marks}." for marks in [marks_of(results)] if marks]
    missing = int((cells["status"] != "ok").sum())
    if missing:
        notes.append(f"Interim: {missing} of {plural(len(cells), 'cell')} in {source.path} have no score.")
    if results.left_out:
        notes.append(f"{plural(len(results.left_out), 'part')} of {source.path} could not be used; "
                     "its report names each.")  # fmt: skip
    return notes


FORMAT = Format("results folders of this program", recognizes, read)
