"""The rows of summary_tests.csv: one type for every hypothesis, comparison and research question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import ClassVar

import pandas as pd

from scaling.analysis.stats import Estimate
from scaling.analysis.verdicts import CANNOT_TELL


@dataclass(frozen=True)
class TestRow:
    """One test: what was compared, what came out, and what it may be called. Effects are fractions, null if unknown.

    family: the table it belongs to; left_out: rows without a score in some cell; detectable: the effect that the
    rule finds with 80 % power; to_settle: rows and runs for the smallest effect of interest; asks: the name of the
    question (scaling/planning/questions.py) that it answers, "" for none; answerable: false where the rows, runs or
    cells that there are cannot give an answer, whatever the scores, for the `reason`.
    """

    __test__: ClassVar[bool] = False  # no test class of pytest's

    family: str
    question: str
    comparison: str
    effect: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    verdict: str = CANNOT_TELL
    level: str | None = None
    n: int | None = None
    runs: int | None = None
    reason: str = ""
    note: str = ""
    detectable: float | None = None
    to_settle: str | None = None
    left_out: int | None = None
    asks: str = ""
    answerable: bool = True

    def refused(self, reason: str) -> TestRow:
        """The same row, which these cells cannot answer."""
        return replace(self, reason=reason, answerable=False)


TEST_COLUMNS = [field.name for field in fields(TestRow)]


def frame_of(rows: Sequence[TestRow]) -> pd.DataFrame:
    """The rows as a frame with the columns of summary_tests.csv; counts stay whole numbers where some are unknown."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=TEST_COLUMNS)
    return frame.astype(dict.fromkeys(("n", "runs", "left_out"), "Int64"))


def left_out_note(estimate: Estimate) -> str:
    """A sentence on the rows that a contrast had to leave out; "" when there are none or it says so as its reason."""
    if estimate.untestable.startswith("not compared"):
        return ""
    return "".join(f"Left out: {rows.sentence}. " for rows in estimate.left_out).strip()
