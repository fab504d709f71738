"""Tables of published means without rows: how many of their differences lie inside noise, and what is worth its cost.

Two means are taken as unpaired and as shares of right answers: of all scores from 0 to 1 with this mean these vary
most, so the intervals are wide enough for other metrics, too. Nothing here is a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from scaling.analysis.money import pareto
from scaling.analysis.report import Report
from scaling.analysis.text import UNKNOWN, Table, interval_text, percent, plural, table_of
from scaling.compare import terminal
from scaling.compare.found import Found
from scaling.compare.published_figure import draw
from scaling.intervals import LEVEL
from scaling.readers.published import SYSTEM, Mean, read
from scaling.types import UsageError

TITLE = "Published means"
BASELINES = ("baseline", "none", "unoptimized")  # what tables call a program before optimization
MOST_ROWS = 20_000
KEY = ("benchmark", *SYSTEM)
UNPAIRED = (
    "No rows are published: the two means of a difference are taken as independent, and each as a share of right "
    "answers. With the rows, differences would be known more closely. This is no verdict on any of them."
)
FRONT = "Cells whose score no cheaper one of their benchmark reaches. Costs are those of the table, as a whole."


@dataclass(frozen=True)
class Assumed:
    """What a user says of the tables. rows: rows of a benchmark, "" for all others. vary: the column whose values are
    compared. against: the value that all others are compared with. scale: the score of a perfect answer."""

    rows: Mapping[str, int] = field(default_factory=dict)
    vary: str = "optimizer"
    against: str | None = None
    scale: float = 1.0


def compare(arguments: Sequence[str], assumed: Assumed, output: Path | None) -> tuple[Found, str]:
    """What was found, and its text for a terminal; draws the figure into `output`. Raises UsageError."""
    means = [mean for argument in arguments for mean in read(argument)]
    frame, notes = frame_of(means, assumed)
    against = _baseline(frame, assumed)
    changes = differences(frame, assumed.vary, against)
    fronts = fronts_of(frame)
    told = f"'{against}'" if against else "each other"
    tables = [_changes_table(changes, assumed.vary, told), _fronts_table(fronts)]
    report = Report(_headline(changes), [], notes, [], [table for table in tables if table.rows], [], "", TITLE)
    pictures = draw(frame, fronts, output, notes) if output is not None and not fronts.empty else {}
    found = Found(report, _plain(changes), [], _plain(frame), pictures)
    return found, terminal.printed_report(report)


def frame_of(means: Sequence[Mean], assumed: Assumed) -> tuple[pd.DataFrame, list[str]]:
    """A row a mean, with score, interval, n and whether it is assumed; and what must be said of it."""
    if not means or len(means) > MOST_ROWS:
        raise UsageError(f"{len(means)} rows of tables; 1 to {MOST_ROWS:,} can be compared.")
    frame = pd.DataFrame([asdict(mean) for mean in means])
    repeated = frame.duplicated(list(KEY))
    frame = frame[~repeated].reset_index(drop=True)
    _check_scale(frame, assumed.scale)
    given = frame["n"].notna()
    frame["n"] = frame["n"].astype(float).fillna(frame["benchmark"].map(lambda name: _assumed_rows(name, assumed)))
    _check_rows(frame)
    frame["n_assumed"] = ~given
    frame["score"] = frame["score"] / assumed.scale
    low, high = proportion_confint(frame["score"] * frame["n"], frame["n"], alpha=1 - LEVEL, method="wilson")
    return frame.assign(ci_low=low, ci_high=high), _notes(frame, int(repeated.sum()), assumed)


def differences(frame: pd.DataFrame, vary: str, against: str | None) -> pd.DataFrame:
    """A row a pair of cells that differ in `vary` alone: effect with its interval, and whether 0 is in it.

    Newcombe's interval for two independent proportions (1998, Stat Med 17:873, method 10), by statsmodels.
    """
    shared = [name for name in KEY if name != vary]
    numbered = frame.assign(place=np.arange(len(frame)))
    pairs = numbered.merge(numbered, on=shared, suffixes=("_first", "_second"))
    if against is None:
        pairs = pairs[pairs["place_first"] < pairs["place_second"]]
    else:
        pairs = pairs[(pairs[f"{vary}_first"] == against) & (pairs[f"{vary}_second"] != against)]
    if pairs.empty:
        raise UsageError(f"no two rows differ in {vary} alone. Type --vary with another of {', '.join(SYSTEM)}")
    arms = [(pairs[f"score_{side}"].to_numpy(float), pairs[f"n_{side}"].to_numpy(float)) for side in SIDES]
    (score2, n2), (score1, n1) = arms[1], arms[0]
    low, high = confint_proportions_2indep(score2 * n2, n2, score1 * n1, n1, method="newcomb", alpha=1 - LEVEL)
    columns = [*shared, *(f"{name}_{side}" for name in (vary, "score", "n", "cost") for side in SIDES)]
    found = pairs[columns].assign(effect=score2 - score1, ci_low=low, ci_high=high)
    assumed = pairs["n_assumed_first"] | pairs["n_assumed_second"]
    return found.assign(inside_noise=(low <= 0) & (high >= 0), n_assumed=assumed).reset_index(drop=True)


SIDES = ("first", "second")


def fronts_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells with a cost above 0 that no cheaper one of their benchmark reaches, cheapest first."""
    parts = []
    for _, part in frame[frame["cost"].fillna(0) > 0].groupby("benchmark", sort=True):
        if len(part) > 1:
            parts.append(part.iloc[pareto(part["cost"].to_numpy(float), part["score"].to_numpy(float))])
    return pd.concat(parts, ignore_index=True) if parts else frame.iloc[:0]


def _assumed_rows(benchmark: str, assumed: Assumed) -> float:
    return float(assumed.rows.get(benchmark, assumed.rows.get("", np.nan)))


def _check_rows(frame: pd.DataFrame) -> None:
    unknown = sorted(frame[frame["n"].isna()]["benchmark"].unique())
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UsageError(
            f"n: the tables do not say how many rows a score of {', '.join(unknown[:3])}{more} is from. Type "
            f"--assume-n 200, or --assume-n {unknown[0]}=200 for a single benchmark"
        )


def _check_scale(frame: pd.DataFrame, scale: float) -> None:
    low, high = float(frame["score"].min()), float(frame["score"].max())
    if not 0 <= low <= high <= scale:
        raise UsageError(
            f"scores go from {low:g} to {high:g}, and 0 to {scale:g} is possible. Type --scale with the score of a "
            f"perfect answer, as in --scale 100"
        )


def _baseline(frame: pd.DataFrame, assumed: Assumed) -> str | None:
    """The value that all others are compared with; None for all pairs."""
    there = frame[assumed.vary].unique().tolist()
    if assumed.against is not None and assumed.against not in there:
        raise UsageError(f"--against: there is no {assumed.vary} '{assumed.against}'; there are {', '.join(there)}.")
    return assumed.against or next((value for value in there if value.lower() in BASELINES), None)


def _notes(frame: pd.DataFrame, repeated: int, assumed: Assumed) -> list[str]:
    notes = [UNPAIRED]
    told = frame[frame["n_assumed"]]
    if len(told):
        rows = [f"{n} for {name or 'every other benchmark' if len(assumed.rows) > 1 else name or 'every benchmark'}"
                for name, n in assumed.rows.items()]  # fmt: skip
        notes.append(
            f"Assumed by you: scores are means over {', '.join(rows)}. {len(told)} of {len(frame)} scores do not say "
            f"their number of rows; their intervals hold for this assumption only."
        )
    if assumed.scale != 1:
        notes.append(f"You said that a perfect answer scores {assumed.scale:g}: scores are divided by it.")
    if repeated:
        notes.append(f"{plural(repeated, 'row')} repeat the benchmark, program, model and optimizer of an earlier one "
                     "and are left out.")  # fmt: skip
    free = int((frame["cost"].fillna(0) <= 0).sum())
    if free:
        notes.append(f"{free} of {len(frame)} cells have no cost, or a cost of 0, and stand on no front.")
    return notes


def _headline(changes: pd.DataFrame) -> str:
    inside, n = int(changes["inside_noise"].sum()), len(changes)
    half = float(((changes["ci_high"] - changes["ci_low"]) / 2).median())
    return (
        f"{inside} of {plural(n, 'difference')} ({100 * inside / n:.0f} %) lie inside noise: their 95 % interval holds "
        f"0. Half an interval is {percent(half)} points (median). Were all true differences 0, about "
        f"{n - round(LEVEL * n)} would lie outside."
    )


def _changes_table(changes: pd.DataFrame, vary: str, told: str) -> Table:
    rows = [_change(str(value), part, vary) for value, part in changes.groupby(f"{vary}_second", sort=True)]
    if len(rows) > 1:
        rows.append(_change("all", changes, vary))
    return table_of(f"Differences by {vary}", f"Each against {told}, with all else the same.", rows)


def _change(value: str, part: pd.DataFrame, vary: str) -> dict[str, str]:
    outside = part[~part["inside_noise"]]
    inside = int(part["inside_noise"].sum())
    return {
        vary: value or UNKNOWN,
        "differences": str(len(part)),
        "inside noise": f"{inside} ({100 * inside / len(part):.0f} %)",
        "above": str(int((outside["effect"] > 0).sum())),
        "below": str(int((outside["effect"] < 0).sum())),
        "median (points)": percent(float(part["effect"].median()), sign=True),
    }


def _fronts_table(fronts: pd.DataFrame) -> Table:
    rows = [
        {
            "benchmark": str(row["benchmark"]),
            "cell": " ".join(str(row[name]) for name in SYSTEM if row[name]),
            "score": percent(row["score"]),
            "95 % interval": interval_text(row["ci_low"], row["ci_high"]),
            "n": f"{row['n']:.0f}{' (assumed)' if row['n_assumed'] else ''}",
            "cost": f"{row['cost']:.3g}",
        }
        for _, row in fronts.iterrows()
    ]
    return table_of("Fronts of cost and score", FRONT, rows)


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
