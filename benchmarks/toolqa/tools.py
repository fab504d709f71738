"""The two tools of ToolQA: a calculator, and one read-only look-up in tables (CSV files of a folder).

Both answer in words, errors included, and keep nothing between calls, so examples cannot disturb one another.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from pathlib import Path
from typing import Any

import dspy

from scaling.types import UsageError

SAMPLE = Path(__file__).parent / "sample_corpora"
MOST_ROWS, LONGEST_RESULT = 20, 2000  # rows and characters that one look-up shows
LARGEST_POWER, LONGEST_EXPRESSION = 1000, 300
OPERATIONS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip
FUNCTIONS = {"abs": abs, "round": round, "min": min, "max": max, "sqrt": math.sqrt}
CONDITION = re.compile(r"\s*(.+?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*")


def make_tools(source: str) -> list[dspy.Tool]:
    """The tools over the tables of a source. Raises UsageError when it has none."""
    folder = corpora_of(source)
    paths = {path.stem: path for path in sorted(folder.glob("*.csv"))} if folder else {}
    if not paths:
        raise UsageError(
            f"toolqa asks about tables, and there is no .csv file in {folder or 'DIR/toolqa/corpora'}. "
            f"Put them there, use --data sample, or type --closed-book to ask without tables."
        )
    return [_calculator(), _table(paths)]


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


def look_up(paths: dict[str, Path], table: str, where: str = "", columns: str = "", answer: str = "rows") -> str:
    """Rows of a table that meet the conditions, or their count, sum, mean, min or max; in words what is wrong."""
    if table not in paths:
        return f"error: no table '{table}'; there are: {', '.join(paths)}"
    frame = _read(paths[table])
    try:
        for condition in filter(str.strip, where.split(";")):
            frame = frame[_mask(frame, condition)]
        wanted = [_column(frame, name) for name in columns.split(",") if name.strip()] or list(frame.columns)
    except ValueError as error:
        return f"error: {error}"
    if answer == "count":
        return str(len(frame))
    if answer in ("sum", "mean", "min", "max"):
        return _aggregate(frame, wanted, answer)
    shown = frame[wanted].head(MOST_ROWS).to_csv(index=False).strip()
    more = f"\n({len(frame)} rows in all, {MOST_ROWS} shown)" if len(frame) > MOST_ROWS else ""
    return f"no row meets the conditions; columns: {', '.join(frame.columns)}" if frame.empty else shown + more


def _calculator() -> dspy.Tool:
    def calculator(expression: str) -> str:
        return calculate(expression)

    names = ", ".join(FUNCTIONS)
    return dspy.Tool(calculator, desc=f"The value of an arithmetic expression: + - * / // % ** and {names}.")


def _table(paths: dict[str, Path]) -> dspy.Tool:
    def table(table: str, where: str = "", columns: str = "", answer: str = "rows") -> str:
        return look_up(paths, table, where, columns, answer)[:LONGEST_RESULT]

    tables = "; ".join(f"{name}({', '.join(_read(path).columns)})" for name, path in paths.items())
    text = (
        "Look rows up in a table. where: conditions joined by ';', each a column, one of = != < <= > >= ~ "
        "(~: the text is in it) and a value, such as 'day >= 2031-03-01; name = Ann'. columns: those to show, "
        "with commas. answer: rows, count, sum, mean, min or max (of the one column given). "
        f"Tables with their columns: {tables}"
    )
    return dspy.Tool(table, desc=text)


@functools.lru_cache(maxsize=64)
def _read(path: Path) -> Any:
    """A table with its cells as text, read once."""
    import pandas  # only where tables are read: it takes half a second

    return pandas.read_csv(path, dtype=str, keep_default_na=False)


def _column(frame: Any, name: str) -> str:
    columns = [column for column in frame.columns if column.casefold() == name.strip().casefold()]
    if not columns:
        raise ValueError(f"no column '{name.strip()}'; there are: {', '.join(frame.columns)}")
    return columns[0]


def _mask(frame: Any, condition: str) -> Any:
    """Which rows meet one condition: as numbers where both sides are, else as text without case."""
    parts = CONDITION.fullmatch(condition)
    if parts is None:
        raise ValueError(f"'{condition.strip()}' is no condition; write column = value")
    name, sign, value = parts.groups()
    value = value.strip("'\"")
    cells = frame[_column(frame, name)]
    texts = cells.str.strip().str.casefold()
    if sign == "~":
        return texts.str.contains(value.casefold(), regex=False)
    numbers, number = _numbers(cells), _number(value)
    left, right = (numbers, number) if number is not None and numbers.notna().all() else (texts, value.casefold())
    signs = {"=": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
    return getattr(left, signs[sign])(right)


def _aggregate(frame: Any, wanted: list[str], answer: str) -> str:
    if len(wanted) != 1:
        return f"error: {answer} needs one column"
    numbers = _numbers(frame[wanted[0]])
    if frame.empty:
        return "error: no row meets the conditions"
    if answer in ("min", "max") and numbers.isna().any():
        return str(getattr(frame[wanted[0]], answer)())
    return f"{getattr(numbers, answer)():.12g}"


def _numbers(cells: Any) -> Any:
    import pandas

    return pandas.to_numeric(cells.str.replace(",", ""), errors="coerce")


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


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
