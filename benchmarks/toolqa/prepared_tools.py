"""The further tools of a prepared ToolQA (`tables.duckdb`): a search in texts, and read-only SQL.

Agenda and papers are texts, which are found by their words; nearest businesses, sums by group and neighbours in a graph
need more than one look-up in one table. Both answer in words, errors included, and change nothing.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

import dspy
import duckdb

from benchmarks.toolqa.tables import Tables, open_tables

MOST_FOUND, EXCERPT = 3, 600  # rows that a search shows, and characters of each
MOST_WORDS, MOST_TEXTS = 20, 300_000
MOST_ROWS, LONGEST_QUERY, SECONDS = 20, 2000, 10.0


def make_prepared_tools(folder: Path) -> list[dspy.Tool]:
    """Search and SQL over the tables of a folder that has been prepared."""

    def search_texts(table: str, words: str) -> str:
        return search(_of(folder), table, words)

    def sql(query: str) -> str:
        return ask(_of(folder), query)

    return [
        dspy.Tool(
            search_texts,
            desc=f"Find the rows of a table that hold most of the words, rare words first: the best {MOST_FOUND}.",
        ),
        dspy.Tool(
            sql,
            desc=f"One SELECT in DuckDB's SQL over the same tables and columns, names in double quotes; at most "
            f"{MOST_ROWS} rows are shown.",
        ),
    ]


def search(tables: Tables, table: str, words: str) -> str:
    """The rows that hold most of the words, each weighted by its inverse document frequency (Sparck Jones 1972)."""
    if table not in tables.columns:
        return f"error: no table '{table}'; there are: {', '.join(tables.columns)}"
    asked = list(dict.fromkeys(re.findall(r"\w+", words.lower())))[:MOST_WORDS]
    ((rows,),) = tables.rows(f"SELECT count(*) FROM {tables.inside[table]}")
    if not asked:
        return "error: give words to search for"
    if rows > MOST_TEXTS:
        return f"error: '{table}' has {rows} rows, too many to search; look rows up by their columns"
    text = f"lower(concat_ws(' ', {', '.join(column.text for column in tables.columns[table])}))"
    counted = ", ".join(f"ln((count(*) + 1) / (count(*) FILTER (contains({text}, ?)) + 1.0))" for _ in asked)
    (weights,) = tables.rows(f"SELECT {counted} FROM {tables.inside[table]}", asked)
    score = " + ".join(f"contains({text}, ?)::INTEGER * ?" for _ in asked)
    values = [value for pair in zip(asked, weights, strict=True) for value in pair]
    shown = f"concat_ws(', ', {', '.join(column.text for column in tables.columns[table])})"
    query = (
        f"SELECT {shown}, {score} AS score FROM {tables.inside[table]} ORDER BY score DESC, rowid LIMIT {MOST_FOUND}"
    )
    found = [str(row) for row, weight in tables.rows(query, values) if weight > 0]
    rarest = [word for _, word in sorted(zip(weights, asked, strict=True), reverse=True)]
    return "\n".join(_excerpt(row, rarest) for row in found) or "no row holds any of these words"


def ask(tables: Tables, query: str) -> str:
    """The rows of one SELECT, or what is wrong with it. It ends after `SECONDS`."""
    if len(query) > LONGEST_QUERY:
        return f"error: at most {LONGEST_QUERY} characters"
    cursor = tables.connection.cursor()
    timer = threading.Timer(SECONDS, cursor.interrupt)
    timer.start()
    try:
        statements = cursor.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return "error: give one SELECT"
        cursor.execute(statements[0])
        header = [column[0] for column in cursor.description or []]
        rows = cursor.fetchmany(MOST_ROWS + 1)
    except duckdb.InterruptException:
        return f"error: the query took longer than {SECONDS:g} seconds"
    except duckdb.Error as error:
        return f"error: {' '.join(str(error).split())[:300]}"
    finally:
        timer.cancel()
        cursor.close()
    lines = [", ".join(map(str, row)) for row in (header, *rows[:MOST_ROWS])]
    return "\n".join(lines) + (f"\n(more rows; {MOST_ROWS} are shown)" if len(rows) > MOST_ROWS else "")


def _excerpt(text: str, words: list[str]) -> str:
    """The part of a long text around the first of the words that it holds."""
    if len(text) <= EXCERPT:
        return text
    at = next((text.lower().find(word) for word in words if word in text.lower()), 0)
    start = max(0, at - EXCERPT // 2)
    return f"... {text[start : start + EXCERPT]} ..."


def _of(folder: Path) -> Tables:
    tables = open_tables(folder)
    if tables is None:
        raise FileNotFoundError("the tables are gone")
    return tables
