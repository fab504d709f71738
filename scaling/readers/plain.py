"""CSV or JSONL with the columns id and score, and optionally group, run, cost, input, dataset, version and metric."""

from __future__ import annotations

import math
from typing import Any

from scaling.readers.files import Source, read_csv, read_lines
from scaling.readers.rows import Format, Result, Row, text_of
from scaling.types import UsageError

NEEDED = {"id", "score"}
Terms = tuple[str | None, str | None, str | None]  # dataset, version, metric
WORDS = {"true": 1.0, "false": 0.0}
NOTHING = ("", "nan", "null", "none", "na")  # a cell without a number


def recognizes(source: Source) -> bool:
    """Whether the file has the columns id and score."""
    return source.suffix in (".csv", ".jsonl") and source.keys >= NEEDED


def read(source: Source, group_field: str) -> list[Result]:
    """The file's results: one, or one for each dataset, version and metric that its lines name."""
    lines: list[dict[str, Any]] = (
        list(read_csv(source.path)) if source.suffix == ".csv" else read_lines(source.path, dict[str, Any])
    )
    by_terms: dict[Terms, list[Row]] = {}
    for number, line in enumerate(lines, 2 if source.suffix == ".csv" else 1):
        terms = text_of(line.get("dataset")), text_of(line.get("version")), text_of(line.get("metric"))
        by_terms.setdefault(terms, []).append(_row(line, f"{source.path} line {number}", group_field))
    name = source.path.stem
    return [
        Result(name, str(source.path), FORMAT.what, tuple(rows), dataset, version, metric, optimizer=name)
        for (dataset, version, metric), rows in by_terms.items()
    ]


def number_of(value: object, where: str, column: str) -> float | None:
    """A cell's number; None for an empty one. Raises UsageError for what is none."""
    text = str(value if value is not None else "").strip().lower()
    if text in NOTHING:
        return None
    try:
        number = WORDS[text] if text in WORDS else float(text)
    except ValueError:
        raise UsageError(f"{where}: {column} is '{text[:40]}', which is not a number.") from None
    if not math.isfinite(number):
        raise UsageError(f"{where}: {column} is '{text[:40]}', which is not a number.")
    return number


def _row(line: dict[str, Any], where: str, group_field: str) -> Row:
    if text_of(line.get("id")) is None:
        raise UsageError(f"{where}: id is empty.")
    return Row(
        id=str(line["id"]), score=number_of(line.get("score"), where, "score"), run=text_of(line.get("run")) or "",
        group=text_of(line.get(group_field)), input=text_of(line.get("input")),
        cost=number_of(line.get("cost"), where, "cost"),
    )  # fmt: skip


FORMAT = Format("CSV or JSONL with the columns id and score", recognizes, read)
