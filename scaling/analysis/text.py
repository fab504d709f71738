"""Numbers, names and tables as people read them, and the escapes that each format of the report needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.redact import printable

UNKNOWN = "—"
_DIRECTION = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # characters that turn the direction of text
_FOLDER = re.compile(r"[\w.-]+/(?=[\w.-])")  # of a model's name
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "<": r"\textless{}", ">": r"\textgreater{}",
        "|": r"\textbar{}", "±": r"\ensuremath{\pm}", "—": "---", "…": r"\ldots{}", "\n": " ",
    }
)  # fmt: skip
_MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "<": "&lt;", "&": "&amp;", "`": r"\`", "\n": " "})


@dataclass(frozen=True)
class Table:
    """A table for people: what it can show stands in `note`, above it; each row has a text a column.

    narrow: it fits one column of a paper, and LaTeX sets it in small type.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    narrow: bool = False


def table_of(title: str, note: str, rows: Iterable[dict[str, str]], narrow: bool = False) -> Table:
    """A table from rows that all have the same columns in the same order."""
    listed = list(rows)
    columns = tuple(listed[0]) if listed else ()
    return Table(title, note, columns, tuple(tuple(row[name] for name in columns) for row in listed), narrow)


def plain(value: object) -> str:
    """The value as text without control characters: terminal sequences in a name or an answer reach no report."""
    return _DIRECTION.sub("", printable(str(value)))


def latex(value: object) -> str:
    """Text for LaTeX in which every character that has a meaning there is escaped."""
    return plain(value).translate(_LATEX)


def markdown(value: object) -> str:
    """Text for Markdown: no raw HTML, no link, and no new column or line of a table."""
    return plain(value).translate(_MARKDOWN).replace("](", r"]\(")


def without_folders(names: Sequence[str]) -> list[str]:
    """Names without the folders in models' names, where they still differ then."""
    shorter = [_FOLDER.sub("", name) for name in names]
    return shorter if len(set(shorter)) == len(set(names)) else list(names)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its texts are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(markdown(text) for text in line) + " |" for line in lines)


def percent(value: float | None, sign: bool = False) -> str:
    """A fraction as points with one decimal; an em dash where there is none."""
    if value is None or np.isnan(value):
        return UNKNOWN
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def interval_text(low: float | None, high: float | None, sign: bool = False) -> str:
    """'[62.1, 70.3]', or an em dash where there is no interval."""
    if low is None or high is None or np.isnan(low):
        return UNKNOWN
    return f"[{percent(low, sign)}, {percent(high, sign)}]"


def usd(value: float | None) -> str:
    """Dollars with four decimals; an em dash where the price is not known."""
    return UNKNOWN if value is None or np.isnan(value) else f"{value:.4f}"


def count(value: float | None, form: str = "{:.0f}") -> str:
    """A number in its form; an em dash where it is not known."""
    return UNKNOWN if pd.isna(value) else form.format(value)


def plural(number: int, word: str, several: str = "") -> str:
    """'1 cell', '3 cells'."""
    return f"{number} {word if number == 1 else several or word + 's'}"
