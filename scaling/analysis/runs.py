"""summary_runs.csv: a row for each cell, that is each single run, with its scores and their intervals."""

from __future__ import annotations

from dataclasses import fields

import pandas as pd

from scaling.analysis.pairs import difference
from scaling.analysis.results import Results
from scaling.analysis.stats import score_interval, share_rows
from scaling.types import Cell

INTERVALS = ("baseline_low", "baseline_high", "final_low", "final_high", "improvement_low", "improvement_high")
OUTCOMES = (
    "status", "sample", "split", "n", "baseline_score", "baseline_low", "baseline_high", "final_score", "final_low",
    "final_high", "improvement", "improvement_low", "improvement_high", "at_equal_calls_score", "check_score",
    "check_n", "rollouts_used", "lm_calls_per_example", "elapsed_seconds", "error",
)  # fmt: skip


def runs_frame(results: Results) -> pd.DataFrame:
    """A row a cell: its fields, its scores with 95 % intervals recomputed from its predictions, and its status.

    Every number of a row is about one run, so its level is "this program on these rows". Cells without a score have
    none; what is unknown is empty.
    """
    ok = results.cells.index[results.cells["status"] == "ok"]
    known = pd.DataFrame({key: _intervals(results, key) for key in ok}, index=list(INTERVALS)).T
    columns = ["cell_id", *(field.name for field in fields(Cell)), *OUTCOMES]
    return results.cells.join(known.reindex(results.cells.index)).reindex(columns=columns)


def _intervals(results: Results, key: str) -> list[float]:
    """The ends of the intervals of baseline, final and improvement, on the rows that both programs have."""
    final, base = results.arm([key]), results.arm([key], "baseline")
    if final is None or base is None:
        return [float("nan")] * len(INTERVALS)
    (_, final), (_, base) = share_rows([(1.0, final), (1.0, base)])[0]
    nowhere = (float("nan"), float("nan"))
    ends = [score_interval(arm, {}) or nowhere for arm in (base, final)]
    unchanged = bool(results.cells.loc[key, "unchanged"])
    change = difference(base, final, {})
    return [*ends[0], *ends[1], *(nowhere if unchanged else (change.low, change.high))]
