"""Cost against score of published cells, a panel a benchmark, with the front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from scaling.analysis import figure_style

NAME = "comparison_fronts"
MOST_PANELS = 24
HEIGHT = 1.7  # inches of a panel


def draw(frame: pd.DataFrame, fronts: pd.DataFrame, folder: Path, notes: Sequence[str]) -> dict[Path, str]:
    """Draw the figure into the folder; its path with a sentence on it. Benchmarks without a front have no panel."""
    figure_style.theme()
    names = [str(name) for name in fronts["benchmark"].unique()]
    figure, axes = figure_style.panels(names[:MOST_PANELS], HEIGHT)
    for name, ax in axes.items():
        priced = frame[(frame["benchmark"] == name) & (frame["cost"].fillna(0) > 0)]
        _panel(ax, priced, fronts[fronts["benchmark"] == name])
        ax.set_title(figure_style.shown(name))
    figure.supylabel("score (points)", fontsize=8)
    left_out = f" {len(names) - MOST_PANELS} more benchmarks are in the table." if len(names) > MOST_PANELS else ""
    caption = f"Cost and score of published cells. The line is the front; bars are 95 % intervals.{left_out}"
    folder.mkdir(parents=True, exist_ok=True)
    figure_style.save(figure_style.footer(figure, " ".join([caption, *notes])), folder / NAME, ["png"])
    return {folder / f"{NAME}.png": caption}


def _panel(ax: Axes, cells: pd.DataFrame, front: pd.DataFrame) -> None:
    colour = figure_style.COLOURS[0]
    points = figure_style.POINTS
    ax.scatter(cells["cost"], points * cells["score"], s=6, color="0.6", zorder=1)
    bars = points * figure_style.distances(front["score"], front["ci_low"], front["ci_high"])
    ax.errorbar(front["cost"], points * front["score"], yerr=bars, color=colour, marker="o", markersize=3, zorder=2)
    figure_style.log_axis(ax)
    ax.set_xlabel("cost (USD)")
