"""Scores by a property of the rows: subtask, level, domain, difficulty. Exploratory: nothing is tested here.

One mechanism serves all properties: a benchmark whose rows have one of these fields (`BREAKDOWNS`) gets a table and a
figure of it. A score needs ten independent rows; a value with fewer has its number of rows and no score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scaling.analysis.comparisons import Entry
from scaling.analysis.figure_kind import FigureKind
from scaling.analysis.figure_style import COLUMN, LETTER_WIDTH, PAGE, POINTS, error_bars, look, shared_legend, shown
from scaling.analysis.findings import Findings
from scaling.analysis.results import Results, folder_name
from scaling.analysis.stats import (
    FEWEST_GROUPS,
    THIS_OPTIMIZER,
    THIS_PROGRAM,
    Arm,
    RunVariance,
    run_variances,
    score_interval,
)
from scaling.analysis.text import UNKNOWN, Table, interval_text, percent, table_of
from scaling.types import BREAKDOWNS

RULE = f"A score needs {FEWEST_GROUPS} independent rows; fewer are counted and not scored"


@dataclass(frozen=True)
class Part:
    """A series at one number of steps on the test rows whose `field` is `value`. Scores are fractions.

    independent: how many rows, or groups of rows, are independent of each other. The score and its 95 % interval are
    None where these are too few.
    """

    field: str
    value: str
    benchmark: str
    cell: str
    line: str
    n: int
    independent: int
    runs: int
    level: str
    final_score: float | None = None
    final_low: float | None = None
    final_high: float | None = None


def breakdowns_of(results: Results, entries: Sequence[Entry], summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of summary_breakdowns.csv, a `Part` each. summary: a row an entry, in the same order."""
    between = run_variances([entry.final for entry in entries])
    parts = [
        part
        for entry, (_, row) in zip(entries, summary.iterrows(), strict=True)
        for field in BREAKDOWNS
        for part in _parts(results, entry, row, field, between)
    ]
    frame = pd.DataFrame([asdict(part) for part in parts], columns=[field.name for field in fields(Part)])
    return frame.astype(dict.fromkeys(("final_score", "final_low", "final_high"), float))


def table(f: Findings, field: str) -> Table:
    """Scores by one property of the rows: a row for each cell, a column for each value."""
    mine = f.breakdowns[f.breakdowns["field"] == field]
    values = sorted(mine["value"].unique())
    note = (
        f"Exploratory: final scores in points on the test rows of each {field}, with 95 % intervals, each for its "
        f"number alone. {RULE}. Differences between columns are no test: the rows differ."
    )
    rows = []
    for (benchmark, cell, line), part in mine.groupby(["benchmark", "cell", "line"], sort=False):
        texts = dict(zip(part["value"], part.apply(_text, axis=1), strict=True))
        names = {"benchmark": str(benchmark), "cell": str(cell), "series": str(line), "level": part["level"].iloc[0]}
        rows.append(names | {value: texts.get(value, UNKNOWN) for value in values})
    return table_of(f"Scores by {field}", note, rows)


def tables(f: Findings) -> list[Table]:
    """A table for each property that the rows have."""
    return [table(f, field) for field in _present(f)]


def figure(f: Findings, field: str) -> Figure:
    """Scores by one property: a row for each value, a mark for each series and number of steps, with 95 % intervals."""
    scored = f.breakdowns[(f.breakdowns["field"] == field) & f.breakdowns["final_score"].notna()]
    rows = list(dict.fromkeys(zip(scored["benchmark"], scored["value"], strict=True)))
    names = scored["line"] + ", " + scored["cell"]
    labels = [f"{shown(str(benchmark))}, {shown(str(value))}" for benchmark, value in rows]
    width = min(PAGE, COLUMN + 0.8 + LETTER_WIDTH * max(map(len, labels)))
    picture, ax = plt.subplots(figsize=(width, max(0.36, 0.1 * names.nunique()) * len(rows) + 1.1))
    step = 0.7 / names.nunique()
    for index, name in enumerate(sorted(names.unique())):
        mine, (colour, marker, _) = scored[names == name], look(index)
        y = [rows.index(row) for row in zip(mine["benchmark"], mine["value"], strict=True)]
        ax.errorbar(
            POINTS * mine["final_score"], np.array(y) + step * (index - (names.nunique() - 1) / 2),
            xerr=error_bars(mine), linestyle="none", capsize=2, color=colour, marker=marker, label=name,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="test score (points)", title=f"by {field} (exploratory)", xlim=(-2, 102))
    shared_legend(picture, [ax])
    return picture


def _present(f: Findings) -> list[str]:
    """The properties that the rows have."""
    return [field for field in BREAKDOWNS if field in set(f.breakdowns["field"])]


def _scored(f: Findings) -> list[str]:
    """The properties that have a score to draw."""
    scored = f.breakdowns[f.breakdowns["final_score"].notna()]
    return [field for field in BREAKDOWNS if field in set(scored["field"])]


def _parts(
    results: Results, entry: Entry, row: pd.Series, field: str, between: Mapping[str, RunVariance]
) -> Iterator[Part]:
    """The parts of one entry by one property; none where its rows do not have it."""
    answers = results.answers(entry.keys[0])["final"]
    if field not in answers.categories:
        return
    value_of = dict(zip(answers.items.tolist(), answers.categories[field].tolist(), strict=True))
    values = np.array([value_of.get(item, "") for item in entry.final.items.tolist()])
    for value in sorted(set(values) - {""}):
        arm = entry.final.at(entry.final.items[values == value])
        yield Part(
            field=field, value=value, benchmark=entry.series.benchmark, cell=folder_name(row), line=row["line"],
            n=len(arm.items), independent=_independent(arm), runs=arm.runs,
            level=THIS_PROGRAM if arm.runs == 1 else THIS_OPTIMIZER, **_score(arm, between),
        )  # fmt: skip


def _independent(arm: Arm) -> int:
    return len(np.unique(arm.groups))


def _score(arm: Arm, between: Mapping[str, RunVariance]) -> dict[str, float]:
    """The mean score and its interval; nothing where the rows are too few."""
    if _independent(arm) < FEWEST_GROUPS:
        return {}
    low, high = score_interval(arm, between) or (np.nan, np.nan)
    return {"final_score": arm.mean, "final_low": low, "final_high": high}


def _text(part: pd.Series) -> str:
    if pd.isna(part["final_score"]):
        return f"too few (n {part['n']})"
    return f"{percent(part['final_score'])} {interval_text(part['final_low'], part['final_high'])} n {part['n']}"


KINDS: list[FigureKind] = [
    FigureKind("scores_by", f"Test score by {{}}, exploratory. {RULE}", figure, _scored),
]
