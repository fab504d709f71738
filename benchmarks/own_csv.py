"""A user's own CSV as a benchmark by its path: `--benchmarks my.csv`, with a question and an answer column.

Columns: question and answer (in any case), and optionally id and group. Rows come from the file whatever
`--data` says. Half of them, by a hash of group or question, is for test, at most 500; of the other half a
quarter of all is for train and a quarter for val, at most 50 and 100.
Metric: exact match of the answers in lower case without quotes and full stop; numbers are compared as numbers.
"""

from __future__ import annotations

import csv
import hashlib
import io
from functools import partial
from pathlib import Path
from typing import Any

import dspy

from benchmarks.answers import normalise_words, only_number
from scaling.types import UsageError

FEWEST = 12  # rows: three each for train and val, six for test
NEEDED, OPTIONAL = ("question", "answer"), ("id", "group")


class OwnQuestions(dspy.Signature):
    """Answer the question with the answer and nothing else."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def entry(path: Path) -> dict[str, Any]:
    """A BENCHMARK_CONFIG entry for a CSV file; UsageError when it cannot be used."""
    rows = read_rows(path)
    quarter = len(rows) // 4
    train, val = min(50, quarter), min(100, quarter)
    pool, test = _halves(rows, 2 * quarter)
    return {
        "signature": OwnQuestions,
        "loader": partial(load, str(path), pool, test),
        "metric": metric,
        "feedback": feedback,
        "train_seeds": range(train),
        "val_seeds": range(train, train + val),
        "test_seeds": range(min(500, len(test))),
        "match_fields": ("question",),
    }


def load(path: str, pool: list[dict[str, str]], test: list[dict[str, str]]) -> dict[str, Any]:
    """The rows for train and val, and those for test, with the file as their source."""
    return {"train": pool, "test": test, "source": path}


def _halves(rows: list[dict[str, str]], size: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows in two: `size` rows and the rest; the order of the file says nothing, as it may be sorted."""

    def place(row: dict[str, str]) -> str:
        return hashlib.sha256(row.get("group", row["question"]).encode()).hexdigest()

    ordered = sorted(rows, key=place)
    return ordered[:size], ordered[size:]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows {"question", "answer"} with id and group where the file has them; UsageError naming what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start}). Save it as CSV UTF-8.") from None
    except OSError as error:
        raise UsageError(
            f"cannot read {str(path)[-200:]} ({error.strerror}). Give the path of a CSV file that exists."
        ) from None
    try:
        header, *lines = [line for line in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, line))]
    except ValueError:
        raise UsageError(f"{path} is empty. It needs a header with question and answer, and rows.") from None
    except csv.Error as error:
        raise UsageError(f"{path} is not CSV ({error}). Save it as CSV UTF-8.") from None
    places = _places(path, header)
    rows = [_row(path, number, line, places) for number, line in enumerate(lines, 1)]
    if len(rows) < FEWEST:
        raise UsageError(f"{path} has {len(rows)} rows; at least {FEWEST} are needed, for train, val and test.")
    return rows


def _places(path: Path, header: list[str]) -> dict[str, int]:
    """Column name -> its place; UsageError for one that is missing or there twice."""
    names = [name.strip().lower() for name in header]
    for name in NEEDED:
        if names.count(name) != 1:
            what = "no column" if name not in names else "more than one column"
            raise UsageError(
                f"{path} has {what} '{name}'; its columns are {', '.join(names)}. Give one of them that name."
            )
    return {name: names.index(name) for name in (*NEEDED, *OPTIONAL) if name in names}


def _row(path: Path, number: int, line: list[str], places: dict[str, int]) -> dict[str, str]:
    row = {name: line[place].strip() if place < len(line) else "" for name, place in places.items()}
    for name in NEEDED:
        if not row[name]:
            raise UsageError(f"{path}, row {number} has no {name}. Fill it in, or remove the row.")
    return {name: value for name, value in row.items() if value}


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 for the same answer, as a number where both are one, else as words; 0.0 otherwise."""
    answer = getattr(pred, "answer", None)
    if answer is None:
        return 0.0
    given, right = only_number(str(answer)), only_number(gold.answer)
    if given is not None and right is not None:
        return float(given == right)
    return float(normalise_words(str(answer)) == normalise_words(gold.answer))


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right."""
    if metric(gold, pred):
        return f"Right: the answer is '{gold.answer}'."
    return f"Wrong: the answer was '{getattr(pred, 'answer', None)}', the right answer is '{gold.answer}'."
