"""The matrix of transferred programs as a table and as heatmaps."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from scaling.analysis.figure_kind import FigureKind
from scaling.analysis.figure_style import shown
from scaling.analysis.findings import Findings
from scaling.analysis.score_figures import change_heatmap
from scaling.analysis.text import UNKNOWN, Table, count, interval_text, percent, table_of, usd

NOT_RUN = "not run"


def table(f: Findings) -> Table:
    """Each program on each model: its score, and its differences from the plain program and the own optimum."""
    note = (
        "A program that was optimized on one model runs on another as it is. 'Over plain' is its score minus that of "
        "the model's plain program, 'over own' minus that of the program that the same optimizer made on the model "
        "itself, both on the same rows with 95 % intervals. Holm's p is over all differences of the table. 'Its "
        "optimization' is what a transfer spares, in USD. Exploratory."
    )
    return table_of("Transferred programs", note, [_row(row) for _, row in f.transfers.iterrows()])


def _row(row: pd.Series) -> dict[str, str]:
    has_own = pd.notna(row["own_score"])
    return {
        "program": row["program"],
        "optimized on": row["optimized_on"] + (" (own optimum)" if row["own"] else ""),
        "run on": row["run_on"],
        "score": percent(row["score"]),
        "95 % interval": interval_text(row["low"], row["high"]),
        "plain": percent(row["baseline_score"]),
        "over plain": "unchanged" if row["unchanged"] else percent(row["improvement"], sign=True),
        "its interval": interval_text(row["improvement_low"], row["improvement_high"], sign=True),
        "Holm p": count(row["improvement_p_holm"], "{:.3f}"),
        "verdict": row["improvement_verdict"] or UNKNOWN,
        "over own": UNKNOWN if row["own"] else percent(row["against_own"], sign=True) if has_own else NOT_RUN,
        "interval over own": interval_text(row["against_own_low"], row["against_own_high"], sign=True),
        "Holm p over own": count(row["against_own_p_holm"], "{:.3f}"),
        "verdict over own": row["against_own_verdict"] or UNKNOWN,
        "n x runs": f"{row['n']} x {row['runs']}",
        "USD for 1,000 answers": usd(1000 * row["usd_per_example"]),
        "its optimization": usd(row["usd_optimize"]),
    }


def heatmap(f: Findings, program: str) -> Figure:
    """The change over each model's plain program: where a program was optimized by where it runs."""
    part = f.transfers[f.transfers["program"] == program]
    part = part.assign(row_name="on " + part["optimized_on"], column=part["run_on"].map(_folded))
    title = f"{shown(program)}\nchange over the model's plain program"
    figure = change_heatmap(part, "run on\n(hatched: the interval holds 0)", title)
    figure.axes[0].set_ylabel("optimized")
    return figure


def _folded(model: str) -> str:
    """A model's name, on two lines where it has a provider or a folder."""
    return "/\n".join(shown(model).rsplit("/", 1))


KINDS: list[FigureKind] = [
    FigureKind(
        "transfer", "Programs that were optimized on one model and run on another: change over its plain program, {}",
        heatmap, lambda f: sorted(f.transfers["program"].unique()),
    ),
]  # fmt: skip
