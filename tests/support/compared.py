"""Small files of results for the tests of `compare`, and the command itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import analyze_results
from tests.support.files import read

OTHERS = Path(__file__).parents[1] / "data" / "other_programs"


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows with the same columns as a CSV file; returns its path as a user types it."""
    listed = list(rows)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    return str(path)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def scored(scores: Iterable[float | str | None], **more: Any) -> list[dict[str, Any]]:
    """A row for each score, with ids from q0 on."""
    return [{"id": f"q{number}", "score": score} | more for number, score in enumerate(scores)]


def compared(out: Path, *arguments: str) -> dict[str, Any]:
    """Run the command, which must end well; what comparison.json holds."""
    assert analyze_results.main(["compare", *arguments, "--output-dir", str(out)]) == 0
    return read(out / "comparison.json")
