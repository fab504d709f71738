"""The answers to ToolQA's sample questions, computed with pandas from the tables: one function a template."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas

CORPORA = Path(__file__).parent.parent.parent / "benchmarks" / "toolqa" / "sample_corpora"
Tables = dict[str, pandas.DataFrame]


def tables() -> Tables:
    """The sample's tables by name."""
    return {path.stem: pandas.read_csv(path) for path in sorted(CORPORA.glob("*.csv"))}


def one(frame: pandas.DataFrame, column: str) -> str:
    """The only value there is."""
    assert len(frame) == 1, f"{len(frame)} rows"
    return str(frame[column].iloc[0])


def best(frame: pandas.DataFrame, by: str, column: str) -> str:
    """The column of the row with the largest value, which must be larger than the next."""
    ordered = frame.sort_values(by, ascending=False)
    assert ordered[by].iloc[0] > ordered[by].iloc[1]
    return str(ordered[column].iloc[0])


def number(value: float) -> str:
    """Two digits after the point at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


# question -> its answer from the tables and the words in its places
SOLVERS: dict[str, Callable[..., str]] = {
    "When does the ferry (.+) leave (.+)?": lambda t, ship, port: one(
        t["ferries"].query("ferry == @ship and harbour == @port"), "departs"
    ),
    "How many minutes does the ferry (.+) need from (.+) to (.+)?": lambda t, ship, port, to: one(
        t["ferries"].query("ferry == @ship and harbour == @port and destination == @to"), "minutes"
    ),
    "How many ferries in the timetable leave (.+)?": lambda t, port: str(len(t["ferries"].query("harbour == @port"))),
    "What do (\\d+) tickets cost on the ferry (.+) from (.+)?": lambda t, count, ship, port: number(
        int(count) * float(one(t["ferries"].query("ferry == @ship and harbour == @port"), "fare"))
    ),
    "Where is the concert (.+) given on (.+)?": lambda t, title, day: one(
        t["concerts"].query("title == @title and date == @day"), "town"
    ),
    "Which concert in (.+) has the most seats?": lambda t, town: best(
        t["concerts"].query("town == @town"), "seats", "title"
    ),
    "How much is taken at (.+) on (.+) when all seats are sold?": lambda t, title, day: number(
        (lambda row: float(one(row, "seats")) * float(one(row, "price")))(
            t["concerts"].query("title == @title and date == @day")
        )
    ),
    "How many tonnes did the orchard (.+) pick in (\\d+)?": lambda t, orchard, year: one(
        t["orchards"].query("orchard == @orchard and year == @year".replace("@year", year)), "tonnes"
    ),
    "What was the average harvest in tonnes of the orchards in (.+) over all years?": lambda t, village: number(
        t["orchards"].query("village == @village")["tonnes"].mean()
    ),
    "By how many tonnes did the harvest of (.+) change from (\\d+) to (\\d+)?": lambda t, orchard, first, last: number(
        float(one(t["orchards"].query(f"orchard == @orchard and year == {last}"), "tonnes"))
        - float(one(t["orchards"].query(f"orchard == @orchard and year == {first}"), "tonnes"))
    ),
    "Who wrote the book (.+)?": lambda t, title: one(t["books"].query("title == @title"), "author"),
    "How often in all were the books of (.+) lent?": lambda t, author: str(
        t["books"].query("author == @author")["loans"].sum()
    ),
    "Which book of (.+) has the most pages?": lambda t, author: best(
        t["books"].query("author == @author"), "pages", "title"
    ),
    "In which room of the (.+) does (.+) work?": lambda t, office, person: one(
        t["staff"].query("office == @office and person == @person"), "room"
    ),
    "How many people joined the (.+) in (\\d+) or later?": lambda t, office, year: str(
        len(t["staff"].query(f"office == @office and since >= {year}"))
    ),
    "What share of the people in the (.+) work at least (\\d+) hours, in percent?": lambda t, office, hours: (
        number(100 * (t["staff"].query("office == @office")["hours"] >= int(hours)).mean()) + "%"
    ),
}


def solve(question: str, found: Tables) -> str:
    """The answer to a question of the sample. Raises StopIteration for one that has no template."""
    pattern = next(p for p in SOLVERS if re.fullmatch(p.replace("?", r"\?"), question))
    return SOLVERS[pattern](found, *re.fullmatch(pattern.replace("?", r"\?"), question).groups())
