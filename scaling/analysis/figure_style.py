"""How all figures look: one theme, colours and marks, panels, legends, and how they are saved.

Lines differ in marker and dash as well as in colour, so they can be told apart in grey.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

from scaling.analysis.text import plain, without_folders

Dash = str | tuple[int, tuple[int, ...]]
# Okabe and Ito's colour-blind safe palette, darkest first so that it also orders in grey.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "D", "^", "v", "P", "X"]
DASHES: list[Dash] = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
POINTS = 100.0
MOST_IN_LEGEND, LONGEST_NAME = 15, 40
COLUMN, PAGE = 3.4, 7.0  # inches: one column of a paper, and its two
LETTER_WIDTH, HANDLE_WIDTH, LEGEND_ROW = 0.055, 0.45, 0.15  # inches, of a legend


def look(index: int) -> tuple[str, str, Dash]:
    """Colour, marker and dash of the series with this number: 49 of them before one comes again."""
    shifted = index + index // len(COLOURS)
    return COLOURS[index % len(COLOURS)], MARKERS[shifted % len(MARKERS)], DASHES[shifted % len(DASHES)]


def theme() -> None:
    """The one theme: white, light grid, column widths and type of printed papers, fonts embedded."""
    sns.set_theme(context="paper", style="whitegrid", palette=COLOURS)
    plt.rcParams |= {
        "figure.dpi": 150, "savefig.dpi": 200, "figure.constrained_layout.use": True,
        "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8.5, "legend.fontsize": 7.5, "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "grid.linewidth": 0.4,
        "lines.linewidth": 1.2, "lines.markersize": 4.5,
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
        # Fonts inside the file, and no random names in it: the same records give the same bytes.
        "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "figures",
    }  # fmt: skip


def save(figure: Figure, path: Path, formats: list[str]) -> None:
    """Write `path` with each format's ending, without a date: the same records give the same bytes."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    for form in formats:
        figure.savefig(path.with_name(f"{path.name}.{form}"), metadata=dates.get(form))
    plt.close(figure)


def marked(figure: Figure, mark: str) -> Figure:
    """The mark in each panel's title, which nobody can cut off as they can the small print; "" for none."""
    for ax in figure.axes if mark else ():
        if title := ax.get_title(loc="left"):
            ax.set_title(f"{title}\n({mark})")
    return figure


def footer(figure: Figure, text: str) -> Figure:
    """What the reader must know of the data, in small print under the picture."""
    width, height = figure.get_size_inches()
    lines = textwrap.fill(plain(text), int(width * 22))
    below = 0.1 * (lines.count("\n") + 1) + 0.05  # inches, added to the figure
    figure.set_size_inches(width, height + below)
    share = below / (height + below)
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
    figure.text(0.01, share, lines, fontsize=5.5, color="0.35", va="top")
    return figure


def panels(names: list[str], height: float, per_row: int = 3) -> tuple[Figure, dict[str, Axes]]:
    """A figure one page wide with a panel a name; fewer than a row's panels make it narrower."""
    columns = min(per_row, len(names))
    rows = -(-len(names) // columns)
    width = PAGE if columns == per_row else COLUMN + (PAGE - COLUMN) * (columns - 1) / (per_row - 1)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows + 0.6), squeeze=False, sharey=True)
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    return figure, dict(zip(names, axes.flat, strict=False))


def log_axis(ax: Axes) -> None:
    """x on a log scale with plain numbers at 1, 2 and 5, which do not run into each other."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def error_bars(part: pd.DataFrame) -> np.ndarray:
    """Distances of the final scores to their intervals' ends in points, shape (2, n)."""
    return POINTS * distances(part["final_score"], part["final_low"], part["final_high"])


def distances(value: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Distances to an interval's ends, shape (2, n); 0 where there is no interval."""
    at = np.asarray(value, float)
    apart: np.ndarray = np.nan_to_num(np.clip([at - np.asarray(low, float), np.asarray(high, float) - at], 0, None))
    return apart


def shared_legend(figure: Figure, axes: list[Axes], columns: int = 3) -> None:
    handles: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    shown = dict(zip(_short(list(handles)), handles.values(), strict=True))
    shown = dict(list(shown.items())[:MOST_IN_LEGEND])
    if len(handles) > len(shown):
        shown[f"and {len(handles) - len(shown)} more (summary_results.csv)"] = Line2D([], [], linestyle="none")
    width, height = figure.get_size_inches()
    fitting = int(width / (LETTER_WIDTH * max(len(label) for label in shown) + HANDLE_WIDTH))
    columns = max(1, min(columns, len(shown), fitting))
    figure.set_size_inches(width, height + LEGEND_ROW * max(0, -(-len(shown) // columns) - 2))
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncol=columns, frameon=False)


def shown(name: str) -> str:
    """A name as a figure can show it: without control characters, and not so long that the axes have no place."""
    text = plain(name)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _short(labels: list[str]) -> list[str]:
    return [shown(label) for label in without_folders(labels)]
