"""summary_tests.csv: H1 to H4 of each model, and the exploratory tables. A new table of comparisons is one entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from scaling.analysis.comparisons import (
    Comparison,
    Entry,
    average_improvements,
    control_pairs,
    grid_of,
    improvements,
    mipro_pairs,
    optimizer_pairs,
    step_changes,
)
from scaling.analysis.hypotheses import Grid, judge
from scaling.analysis.model_comparisons import model_pairs, model_pairs_over_benchmarks
from scaling.analysis.model_sizes import test_sizes
from scaling.analysis.results import Results
from scaling.analysis.sequential import by_looks, study_of
from scaling.analysis.stats import Estimate, RunVariance, holm, run_variances
from scaling.analysis.test_rows import TestRow, left_out_note
from scaling.analysis.verdicts import detectable, direction, settling_size

SMALLEST_OF_INTEREST = 0.05  # of a single comparison, for the rows and runs that would settle it
MIPRO = "MIPRO implementations (exploratory)"
TRANSFERRED = "transferred programs (exploratory)"  # of scaling/analysis/transfer.py
FAMILIES: dict[str, Callable[[list[Entry]], Iterable[Comparison]]] = {
    "improvement by optimization (exploratory)": improvements,
    "average improvement of each optimizer (exploratory)": average_improvements,
    "more steps against one (exploratory)": step_changes,
    "optimizers at equal budgets (exploratory)": optimizer_pairs,
    "chain against its controls (exploratory)": control_pairs,
    "models on the mean of all benchmarks (exploratory)": model_pairs_over_benchmarks,
    "models on each benchmark (exploratory)": model_pairs,
    MIPRO: mipro_pairs,
}
# Family -> the question that it answers.
ASKED = {
    "improvement by optimization (exploratory)": "improvement",
    "optimizers at equal budgets (exploratory)": "optimizers",
    "chain against its controls (exploratory)": "controls",
    "models on the mean of all benchmarks (exploratory)": "models",
    "models on each benchmark (exploratory)": "models",
    MIPRO: "mipro",
    TRANSFERRED: "transfer",
}


def test_pairs(results: Results, entries: list[Entry]) -> tuple[list[TestRow], list[str]]:
    """Rows of summary_tests.csv: H1 to H4 of each model, then each exploratory table; and what was refused."""
    rows: list[TestRow] = []
    notes: list[str] = []
    for model in sorted({e.series.model for e in entries if e.series.pipeline == "chain"}):
        mine = [e for e in entries if e.series.model == model]
        grid, refused = grid_of(results, mine)
        study = study_of(results.cells.loc[[key for e in mine for key in e.keys], "cell_id"], results.sequential)
        rows += by_looks(judge(grid), model, study) if study else judge(grid)
        notes += refused
    rows = rows or judge(Grid({}, {}))
    pooled = run_variances([entry.final for entry in entries])
    for family, comparisons in FAMILIES.items():
        rows += table_rows(family, list(comparisons(entries)), pooled)
    rows += test_sizes(entries)
    return rows, notes + _flagged(results)


def mipro_tests(entries: list[Entry]) -> list[TestRow]:
    """The rows of summary_tests.csv about MIPRO implementations."""
    return table_rows(MIPRO, list(mipro_pairs(entries)), run_variances([entry.final for entry in entries]))


def table_rows(family: str, comparisons: list[Comparison], pooled: Mapping[str, RunVariance]) -> list[TestRow]:
    """The rows of one table, Holm's correction inside each of its families."""
    estimates = [comparison.estimate(pooled) for comparison in comparisons]
    rows: list[TestRow | None] = [None] * len(comparisons)
    for name in dict.fromkeys(comparison.holm for comparison in comparisons):
        mine = [i for i, comparison in enumerate(comparisons) if comparison.holm == name]
        adjusted = holm([estimates[i].p for i in mine])
        for i, p_holm in zip(mine, adjusted, strict=True):
            rows[i] = _row(family, comparisons[i], estimates[i], p_holm, len(mine))
    return [row for row in rows if row is not None]


def _row(family: str, comparison: Comparison, estimate: Estimate, p_holm: float, of: int) -> TestRow:
    compared = not math.isnan(estimate.effect)
    return TestRow(
        family=family, question="", comparison=comparison.name, asks=ASKED.get(family, ""),
        effect=estimate.effect, ci_low=estimate.low, ci_high=estimate.high,
        p=estimate.p if compared else None, p_holm=p_holm if compared else None,
        verdict=direction(estimate, p_holm), level=estimate.level, n=estimate.n, runs=estimate.runs,
        reason=estimate.untestable, answerable=not estimate.untestable, detectable=detectable(estimate, of),
        note=" ".join(text for text in (comparison.note, left_out_note(estimate)) if text),
        to_settle=settling_size(estimate, SMALLEST_OF_INTEREST, of) or None,
        left_out=sum(len(rows.rows) for rows in estimate.left_out),
    )  # fmt: skip


def _flagged(results: Results) -> list[str]:
    """Cells whose rollouts are too far from their budget for the comparison of optimizers."""
    cells = results.cells[results.cells["flagged"].astype(bool) & (results.cells["status"] == "ok")]
    return [
        f"{results.name(str(key))} in H3: it used {100 * row['used_share']:.0f} % of its rollouts"
        for key, row in cells.iterrows()
    ]
