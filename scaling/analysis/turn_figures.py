"""Figures of self-correction: the score of each turn, and the gain against model size."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scaling.analysis.comparisons import Entry
from scaling.analysis.figure_kind import FigureKind, once
from scaling.analysis.figure_style import (
    COLOURS,
    COLUMN,
    POINTS,
    distances,
    log_axis,
    look,
    panels,
    shared_legend,
    shown,
)
from scaling.analysis.fits import power_law
from scaling.analysis.research import size_line_of
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


def gain_against_size(gains: pd.DataFrame) -> Figure:
    """Mean gain over tasks against size on a log axis; filled: published sizes and their line; hollow: assumed ones."""
    figure, ax = plt.subplots(figsize=(COLUMN + 0.6, 2.8))
    published, line = size_line_of(gains)
    everyone, _ = size_line_of(gains, ("published", "assumed"))
    for part, face, label in (
        (everyone.drop(published.index), "none", "assumed size"),
        (published, COLOURS[0], "published"),
    ):
        if len(part):
            bars = POINTS * distances(part["gain"], part["low"], part["high"])
            ax.errorbar(part["size"], POINTS * part["gain"], yerr=bars, linestyle="none", marker="o", capsize=2,
                        color=COLOURS[0], markerfacecolor=face, label=label)  # fmt: skip
    if line is not None:
        x = np.linspace(np.log10(published["size"].min()), np.log10(published["size"].max()), 60)
        ax.plot(10**x, POINTS * (line.intercept + line.slope * x), color="0.4", linewidth=0.8, label="line, published")
        _draw_power_law(published, 10**x, ax)
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set(xlabel="parameters (billions, log scale)", ylabel="gain by self-correction (points)")
    log_axis(ax)
    shared_legend(figure, [ax])
    return figure


def _draw_power_law(published: pd.DataFrame, sizes: np.ndarray, ax: Axes) -> None:
    """A size^alpha over the published sizes, where an exponent may be named at all."""
    law = power_law(published["size"].tolist(), published["gain"].tolist())
    if not law.refused:
        unit = np.exp(np.log(published["size"].to_numpy(float)).mean())  # the amplitude is that at the mean size
        curve = law.amplitude * (sizes / unit) ** law.alpha
        ax.plot(sizes, POINTS * curve, color=COLOURS[1], linestyle="--", linewidth=0.8, label=f"A size^{law.alpha:.2f}")


def _turn_line(entry: Entry, several: bool) -> str:
    return f"{entry.series.model}, feedback {entry.series.feedback}" if several else str(entry.series.model)


KINDS: list[FigureKind] = [
    FigureKind(
        "turn_curves", "Score of each turn of self-correction",
        lambda f, _: turn_curves(f.turned), lambda f: once(bool(f.turned)),
    ),
    FigureKind(
        "gain_against_size",
        "Gain by self-correction against model size; hollow marks are assumed sizes and take no part in the line",
        lambda f, _: gain_against_size(f.gains),
        lambda f: once(size_line_of(f.gains, ("published", "assumed"))[1] is not None),
    ),
]  # fmt: skip
