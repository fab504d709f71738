"""All tests of some cells, and the answers that they give to a study's questions: of records and of a plan alike.

To add an analysis that answers a question, write a function from `Evidence` to rows whose `asks` is the question's
name, and add it to `TESTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import pandas as pd

from scaling.analysis.comparisons import Entry, all_entries
from scaling.analysis.families import test_pairs
from scaling.analysis.research import test_research
from scaling.analysis.results import Results
from scaling.analysis.test_rows import TestRow
from scaling.analysis.transfer import Transfers, test_transfers
from scaling.analysis.turns import TurnedCell, gains_of, test_corrections, turned_cells
from scaling.planning.questions import QUESTIONS, Question, asked_by
from scaling.sequential import INTERIM
from scaling.types import CellProgram


@dataclass(frozen=True)
class Evidence:
    """What tests are made of. transfers: the transferred programs, which are in no other table. value: dollars
    that one more right answer is worth, None where nobody said."""

    results: Results
    entries: list[Entry]
    transfers: Transfers
    turned: list[TurnedCell]
    gains: pd.DataFrame
    value: float | None


@dataclass(frozen=True)
class Answer:
    """A question with its rows: those of the contrasts that answer it, or that cannot and say why."""

    question: Question
    rows: list[TestRow]

    @property
    def answerable(self) -> bool:
        """Whether one of its contrasts can be judged."""
        return any(row.answerable for row in self.rows)

    @property
    def missing(self) -> list[str]:
        """Why contrasts cannot be judged, each reason once."""
        if not self.rows:
            return [f"not run: {self.question.needs} are needed"]
        return list(dict.fromkeys(row.reason for row in self.rows if not row.answerable))


def evidence_of(results: Results, value: float | None = None) -> Evidence:
    """What these results hold for tests."""
    every = all_entries(results)
    entries = [entry for entry in every if not entry.is_transfer]
    moved = [entry for entry in every if entry.is_transfer]
    turned = turned_cells(results, entries)
    return Evidence(results, entries, Transfers(results, entries, moved), turned, gains_of(results, turned), value)


def correction_rows(evidence: Evidence) -> list[TestRow]:
    """What turns did, cell by cell."""
    return test_corrections(evidence.turned)


def research_rows(evidence: Evidence) -> list[TestRow]:
    """RQ1 to RQ4."""
    return test_research(evidence.gains, evidence.value)


def transfer_rows(evidence: Evidence) -> list[TestRow]:
    """What programs do on models that they were not optimized on."""
    return test_transfers(evidence.transfers)


# Beside the hypotheses and comparisons of scores (`test_pairs`), in the order of summary_tests.csv.
TESTS: list[Callable[[Evidence], list[TestRow]]] = [correction_rows, research_rows, transfer_rows]


def tests_of(evidence: Evidence) -> tuple[list[TestRow], list[str]]:
    """The rows of summary_tests.csv, and what was refused."""
    rows, refused = test_pairs(evidence.results, evidence.entries)
    for test in TESTS:
        rows += test(evidence)
    if evidence.results.is_interim:
        rows = [replace(row, note=f"{INTERIM}. {row.note}".strip()) for row in rows]
    return rows, refused


def asked_of(results: Results) -> list[str]:
    """Names of the questions that the studies asked: by their plans, and by their cells."""
    cells = [cast(CellProgram, cell) for cell in results.cells.itertuples()]  # a field a column
    return [*results.questions, *asked_by(cells)]


def answers_of(rows: Sequence[TestRow], names: Iterable[str]) -> list[Answer]:
    """The answers to the questions of these names, in the order of the table."""
    wanted = set(names)
    return [
        Answer(question, [row for row in rows if row.asks == name])
        for name, question in QUESTIONS.items() if name in wanted
    ]  # fmt: skip
