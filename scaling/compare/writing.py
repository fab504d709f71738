"""The files of a comparison: Markdown, HTML, CSV and JSON in one folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from scaling.analysis.report import write_markdown, write_page
from scaling.compare.found import Found, plain_of
from scaling.records.store import write_json

TEMPLATE = "comparison.html"


def write(found: Found, folder: Path) -> list[Path]:
    """Write all forms into the folder, which is made where it is not there; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown, page, data = (folder / f"comparison.{form}" for form in ("md", "html", "json"))
    write_markdown(markdown, found.report)
    write_page(page, TEMPLATE, found.report, found.pictures)
    write_json(data, plain_of(found))
    tables = {"comparison.csv": found.pairs, "comparison_rows.csv": found.rows, "comparison_scores.csv": found.scores}
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / name, index=False)
    return [*found.pictures, markdown, page, data, *(folder / name for name in tables)]
