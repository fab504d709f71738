"""The tools of ToolQA: a calculator, and one read-only look-up in tables (tables.py).

Both answer in words, errors included, and keep nothing between calls, so examples cannot disturb one another.
"""

from __future__ import annotations

import ast
import csv
import io
import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dspy

from benchmarks.toolqa.prepared_tools import make_prepared_tools
from benchmarks.toolqa.tables import NUMBER, Column, Tables, open_tables
from scaling.types import UsageError

SAMPLE = Path(__file__).parent / "sample_corpora"
MOST_ROWS, LONGEST_RESULT = 20, 2000  # rows and characters that one look-up shows
LARGEST_POWER, LONGEST_EXPRESSION = 1000, 300
LONGEST_QUERY, MOST_DIGITS = 1000, 300  # characters of conditions or columns; digits that round keeps or drops
OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip


def rounded(number: float, digits: int = 0) -> float:
    """As round(), which would write 10 ** digits out however many there are."""
    if abs(digits) > MOST_DIGITS:
        raise ValueError("too many digits")
    return round(number, digits) if digits else round(number)


FUNCTIONS: dict[str, Callable[..., Any]] = {"abs": abs, "round": rounded, "min": min, "max": max, "sqrt": math.sqrt}
AGGREGATES = {"sum": "sum", "mean": "avg", "min": "min", "max": "max"}
SIGNS = {"=": "IS NOT DISTINCT FROM", "!=": "IS DISTINCT FROM"}  # others are SQL's own; empty is not equal to a number
SIGN = re.compile(r"(!=|<=|>=|=|<|>|~)")


def make_tools(source: str) -> list[dspy.Tool]:
    """The tools over the tables of a source. Raises UsageError when it has none."""
    folder = corpora_of(source)
    tables = open_tables(folder) if folder else None
    if folder is None or tables is None:
        raise UsageError(
            f"toolqa asks about tables, and there is no .csv file in {folder or 'DIR/toolqa/corpora'}. "
            f"Put them there, use --data sample, or type --closed-book to ask without tables."
        )
    tools = [_calculator(), _table(folder)]
    return tools + make_prepared_tools(folder) if tables.prepared else tools


def corpora_of(source: str) -> Path | None:
    """The folder of a source's tables; None for the hub, which has none."""
    if source == "hub":
        return None
    return SAMPLE if source == "sample" else Path(source) / "toolqa" / "corpora"


def calculate(expression: str) -> str:
    """The value of an arithmetic expression, or what is wrong with it. Numbers, + - * / // % **, and FUNCTIONS."""
    try:
        if len(expression) > LONGEST_EXPRESSION:
            return f"error: at most {LONGEST_EXPRESSION} characters"
        value = _value(ast.parse(expression.strip().replace("^", "**"), mode="eval").body)
        return f"{value:.12g}" if isinstance(value, float) else str(value)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        return f"error: {type(error).__name__}: {error}"


def look_up(tables: Tables, table: str, where: str = "", columns: str = "", answer: str = "rows") -> str:
    """Rows of a table that meet the conditions, or their count, sum, mean, min or max; in words what is wrong."""
    if table not in tables.columns:
        return f"error: no table '{table[:100]}'; there are: {', '.join(tables.columns)}"
    if max(len(where), len(columns)) > LONGEST_QUERY:
        return f"error: at most {LONGEST_QUERY} characters of conditions and of columns"
    mine = tables.columns[table]
    try:
        conditions = [_condition(mine, condition) for condition in where.split(";") if condition.strip()]
        wanted = [_column(mine, name) for name in columns.split(",") if name.strip()] or mine
    except ValueError as error:
        return f"error: {error}"
    meets = " AND ".join(f"({sql})" for sql, _ in conditions) or "true"
    found = f"FROM {tables.inside[table]} WHERE {meets}", [value for _, value in conditions]
    if answer in AGGREGATES:
        return _aggregate(tables, found, wanted, answer)
    ((count,),) = tables.rows(f"SELECT count(*) {found[0]}", found[1])
    if answer == "count":
        return str(count)
    if not count:
        return f"no row meets the conditions; columns: {', '.join(column.name for column in mine)}"
    shown = ", ".join(column.text for column in wanted)
    rows = tables.rows(f"SELECT {shown} {found[0]} ORDER BY rowid LIMIT {MOST_ROWS}", found[1])
    more = f"\n({count} rows in all, {MOST_ROWS} shown)" if count > MOST_ROWS else ""
    return _as_csv([column.name for column in wanted], rows) + more


def _calculator() -> dspy.Tool:
    def calculator(expression: str) -> str:
        return calculate(expression)

    names = ", ".join(FUNCTIONS)
    return dspy.Tool(calculator, desc=f"The value of an arithmetic expression: + - * / // % ** and {names}.")


def _table(folder: Path) -> dspy.Tool:
    def table(table: str, where: str = "", columns: str = "", answer: str = "rows") -> str:
        return look_up(_of(folder), table, where, columns, answer)[:LONGEST_RESULT]

    listed = _of(folder).columns
    tables = "; ".join(f"{name}({', '.join(column.name for column in own)})" for name, own in listed.items())
    text = (
        "Look rows up in a table. where: conditions joined by ';', each a column, one of = != < <= > >= ~ "
        "(~: the text is in it) and a value, such as 'day >= 2031-03-01; name = Ann'. columns: those to show, "
        "with commas. answer: rows, count, sum, mean, min or max (of the one column given). "
        f"Tables with their columns: {tables}"
    )
    return dspy.Tool(table, desc=text)


def _of(folder: Path) -> Tables:
    """The tables of a folder, which is known to have some."""
    tables = open_tables(folder)
    if tables is None:
        raise FileNotFoundError("the tables are gone")
    return tables


def _as_csv(header: list[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().strip()


def _column(columns: Sequence[Column], name: str) -> Column:
    for column in columns:
        if column.name.casefold() == name.strip().casefold():
            return column
    listed = ", ".join(column.name for column in columns)
    raise ValueError(f"no column '{name.strip()}'; there are: {listed}")


def _condition(columns: Sequence[Column], condition: str) -> tuple[str, object]:
    """SQL of one condition, and its value: as numbers where both sides are, else as text without case."""
    name, *rest = SIGN.split(condition, maxsplit=1)
    if not rest or not name.strip():
        raise ValueError(f"'{condition.strip()}' is no condition; write column = value")
    sign, value = rest[0], rest[1].strip().strip("'\"")
    column = _column(columns, name)
    text = f"lower(trim({column.text}))"
    if sign == "~":
        return f"contains({text}, ?)", value.lower()
    compared = SIGNS.get(sign, sign)
    number = _number(value)
    if number is not None and column.number is not None:
        return f"{column.number} {compared} ?", number
    return f"{text} {compared} ?", value.lower()


def _aggregate(tables: Tables, found: tuple[str, list[object]], wanted: Sequence[Column], answer: str) -> str:
    """One number of the rows that were found, or the first or last text of a column that is none of numbers."""
    if len(wanted) != 1:
        return f"error: {answer} needs one column"
    (column,) = wanted
    if column.number is None and answer in ("min", "max"):
        ((value,),) = tables.rows(f"SELECT {AGGREGATES[answer]}({column.text}) {found[0]}", found[1])
        return "error: no row meets the conditions" if value is None else str(value)
    of = column.number or NUMBER.format(column.text)
    ((count, value),) = tables.rows(f"SELECT count(*), {AGGREGATES[answer]}({of}) {found[0]}", found[1])
    if not count:
        return "error: no row meets the conditions"
    return f"error: no row has a number in '{column.name}'" if value is None else f"{value:.12g}"


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _value(node: ast.expr) -> Any:
    """A syntax tree's value: numbers and the named operations, nothing else."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > LARGEST_POWER or abs(left) > 10**6):
            raise ValueError("the power is too large")
        return OPERATIONS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        return FUNCTIONS[node.func.id](*map(_value, node.args))
    raise ValueError("only numbers, + - * / // % ** and " + ", ".join(FUNCTIONS))
