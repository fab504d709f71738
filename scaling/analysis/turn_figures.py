"""Figures of self-correction: the score of each turn."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scaling.analysis.comparisons import Entry
from scaling.analysis.figure_kind import FigureKind, once
from scaling.analysis.figure_style import POINTS, distances, look, panels, shared_legend, shown
from scaling.analysis.turns import TurnedCell


def turn_curves(turned: list[TurnedCell]) -> Figure:
    """Score of each turn with its 95 % interval, a panel per benchmark, a line per model and feedback."""
    figure, axes = panels(sorted({cell.entry.series.benchmark for cell in turned}), height=2.2)
    several = len({cell.entry.series.feedback for cell in turned}) > 1
    names = sorted({_turn_line(cell.entry, several) for cell in turned})
    for cell in turned:
        ax, index = axes[cell.entry.series.benchmark], names.index(_turn_line(cell.entry, several))
        colour, marker, dash = look(index)
        score = cell.turns.mean(axis=(0, 2))
        ends = np.array([interval or (np.nan, np.nan) for interval in cell.intervals]).T
        ax.errorbar(
            np.arange(1, len(score) + 1) + 0.04 * (index - len(names) / 2), POINTS * score,
            yerr=POINTS * distances(score, *ends), label=names[index], color=colour, marker=marker, linestyle=dash,
            capsize=2,
        )  # fmt: skip
    for name, ax in axes.items():
        ax.set(title=shown(name), xlabel="turn", ylim=(-2, 102))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    next(iter(axes.values())).set_ylabel("test score (points)")
    shared_legend(figure, list(axes.values()))
    return figure


def _turn_line(entry: Entry, several: bool) -> str:
    return f"{entry.series.model}, feedback {entry.series.feedback}" if several else str(entry.series.model)


KINDS: list[FigureKind] = [
    FigureKind(
        "turn_curves", "Score of each turn of self-correction",
        lambda f, _: turn_curves(f.turned), lambda f: once(bool(f.turned)),
    ),
]  # fmt: skip
