"""The pictures: each function takes frames and an `ax` and returns it; one theme for all of them.

Lines differ in marker and dash as well as in colour, so they can be told apart in grey.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from scaling.analysis.fits import Family
from scaling.analysis.money import cost_column, pareto
from scaling.analysis.research import TurnedCell, size_line_of
from scaling.analysis.results import Results
from scaling.analysis.summary import OPTIMIZER_NAMES

# Okabe and Ito's colour-blind safe palette, darkest first so that it also orders in grey.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "D", "^", "v", "P", "X"]
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
POINTS = 100.0
MOST_IN_LEGEND, MOST_PANELS = 15, 24
COLUMN, PAGE = 3.4, 7.0  # inches: one column of a paper, and its two
LETTER_WIDTH, HANDLE_WIDTH, LEGEND_ROW = 0.055, 0.45, 0.15  # inches, of a legend
CURVE_AXES = {
    "rollouts": "rollouts",
    "lm_calls": "LM calls, all kinds",
    "list_cost_usd": "list cost (USD)",
}
Fits = dict[tuple[str, str], list[Family]]  # (benchmark, line) -> its fitted families


def look(index: int) -> tuple[str, str, object]:
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
        # Fonts inside the file, and no random names in it: the same records give the same bytes.
        "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "figures",
    }  # fmt: skip


def scaling_curve(summary: pd.DataFrame, ax: Axes, fits: Fits | None = None) -> Axes:
    """Score against steps on one benchmark: a line a series with 95 % intervals, baselines in light dashes.

    Where a series has five points, all families that its points do not reject are drawn thin.
    """
    lines = sorted(summary["line"].unique())
    width = min(0.12, 0.9 / len(lines))
    for index, line in enumerate(lines):
        part = summary[summary["line"] == line].sort_values("steps")
        offset = (index - (len(lines) - 1) / 2) * width
        colour, marker, dash = look(index)
        ax.errorbar(
            part["steps"] + offset, POINTS * part["final_score"], yerr=_error_bars(part), label=line, color=colour,
            marker=marker, capsize=2, linestyle=dash,
        )  # fmt: skip
        for family in (fits or {}).get((part["benchmark"].iloc[0], line), []) if len(lines) <= MOST_IN_LEGEND else []:
            x = np.linspace(part["steps"].min(), part["steps"].max(), 60)
            if not family.rejected:
                ax.plot(x, POINTS * family.curve(x), color=colour, linewidth=0.5, alpha=0.7)
    base = summary[summary["optimizer"] != "none"].groupby("steps")["baseline_score"].mean()
    if len(base):
        ax.plot(base.index, POINTS * base, color="0.55", marker="_", markersize=10, linestyle="none",
                label="not optimized")  # fmt: skip
    ax.set(xlabel="LLM calls an example (steps)", ylabel="test score (points)", ylim=(-2, 102))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlim(summary["steps"].min() - 0.5, summary["steps"].max() + 0.5)
    return ax


def scaling_curves_overall(summary: pd.DataFrame, fits: Fits | None = None) -> Figure:
    """All benchmarks side by side on one scale."""
    figure, axes = _panels(sorted(summary["benchmark"].unique()), height=2.3)
    for name, ax in axes.items():
        part = summary[summary["benchmark"] == name]
        scaling_curve(part, ax, fits).set_title(f"{name}\n{_rows(part)}")
        ax.label_outer()
    _shared_legend(figure, list(axes.values()))
    return figure


def one_scaling_curve(summary: pd.DataFrame, benchmark: str, fits: Fits | None = None) -> Figure:
    """One benchmark alone, one column wide."""
    figure, ax = plt.subplots(figsize=(COLUMN, 2.9))
    part = summary[summary["benchmark"] == benchmark]
    scaling_curve(part, ax, fits).set_title(f"{benchmark} ({_rows(part)})")
    _shared_legend(figure, [ax], columns=2)
    return figure


def improvement_heatmap(summary: pd.DataFrame, optimizer: str) -> Figure:
    """Improvement over the same program before optimization, benchmark by steps, with its interval in each cell."""
    part = summary[(summary["optimizer"] == optimizer) & (summary["pipeline"] == "chain")]
    part = part.drop_duplicates(["row_name", "steps"])
    values = part.pivot(index="row_name", columns="steps", values="improvement") * POINTS
    texts = part.assign(text=part.apply(_heat_text, axis=1)).pivot(index="row_name", columns="steps", values="text")
    size = (min(PAGE, 0.95 * values.shape[1] + 2.0), 0.55 * values.shape[0] + 1.1)
    figure, ax = plt.subplots(figsize=size)
    limit = max(5.0, float(np.nanmax(np.abs(values.to_numpy()))) if values.notna().any().any() else 5.0)
    sns.heatmap(
        values, ax=ax, annot=texts, fmt="", cmap="PuOr_r", vmin=-limit, vmax=limit, linewidths=1,
        annot_kws={"fontsize": 6.5}, cbar_kws={"label": "points"},
    )  # fmt: skip
    for row, column in zip(*np.where(values.isna().to_numpy()), strict=True):
        ax.text(column + 0.5, row + 0.5, "not run", ha="center", va="center", fontsize=6.5, color="0.4")
    ax.grid(False)
    ax.set(xlabel="steps", ylabel="", title=f"change on test rows by\n{OPTIMIZER_NAMES.get(optimizer, optimizer)}")
    ax.tick_params(axis="y", rotation=0)
    return figure


def optimizer_comparison(summary: pd.DataFrame) -> Figure:
    """Final scores of the optimizers beside each other, benchmark and steps by row, with 95 % intervals."""
    part = summary[summary["pipeline"] == "chain"].sort_values(["benchmark", "steps"])
    rows = list(dict.fromkeys(zip(part["benchmark"], part["steps"], strict=True)))
    lines = sorted(part["line"].unique())
    figure, ax = plt.subplots(figsize=(COLUMN + 1.4, 0.36 * len(rows) + 1.1))
    for index, line in enumerate(lines):
        mine = part[part["line"] == line]
        y = [rows.index((b, s)) for b, s in zip(mine["benchmark"], mine["steps"], strict=True)]
        offset, (colour, marker, _) = (index - (len(lines) - 1) / 2) * 0.18, look(index)
        ax.errorbar(
            POINTS * mine["final_score"], np.array(y) + offset, xerr=_error_bars(mine), linestyle="none", capsize=3,
            color=colour, marker=marker, label=line,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [f"{b}, {s} {'step' if s == 1 else 'steps'}" for b, s in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="test score (points)", title="optimizers side by side")
    _shared_legend(figure, [ax])
    return figure


def learning_curves(results: Results, cells: pd.DataFrame, axis: str = "rollouts") -> Figure:
    """Best selection score so far, a panel a benchmark and steps: the mean over runs, the range over runs as a band.

    axis: rollouts, lm_calls or list_cost_usd. Marks are the candidates.
    """
    panels = {(r["benchmark"], r["steps"]): None for _, r in cells.sort_values(["benchmark", "steps"]).iterrows()}
    names = {f"{b}, {k} {'step' if k == 1 else 'steps'}": (b, k) for b, k in list(panels)[:MOST_PANELS]}
    figure, axes = _panels(list(names), height=1.9, per_row=4)
    optimizers = sorted(cells["optimizer"].unique())
    for name, ax in axes.items():
        benchmark, steps = names[name]
        here = cells[(cells["benchmark"] == benchmark) & (cells["steps"] == steps)]
        for optimizer, runs in here.groupby("optimizer"):
            curves = [curve for key in runs.index if (curve := results.curve(key))]
            _one_learning_curve(curves, axis, optimizers.index(optimizer), optimizer, ax)
        ax.set(title=name, ylim=(-2, 102))
    for ax in list(axes.values())[-4:]:  # the lowest of each column
        ax.set_xlabel(CURVE_AXES[axis])
    if len(panels) > len(names):
        figure.suptitle(f"the first {len(names)} of {len(panels)}; all points are in learning_curve.json", fontsize=7)
    figure.supylabel("score on select rows (points):\nselected on these rows; hollow: train", fontsize=8)
    _shared_legend(figure, list(axes.values()))
    return figure


def cost_quality(summary: pd.DataFrame) -> Figure:
    """Score against what an example costs to answer: dollars where they are known and not 0, else tokens."""
    column, unit = cost_column(summary)
    figure, axes = _panels(sorted(summary["benchmark"].unique()), height=2.3)
    lines = sorted(summary["line"].unique())
    for name, ax in axes.items():
        part = summary[summary["benchmark"] == name]
        for index, line in enumerate(lines):
            mine, (colour, marker, _) = part[part["line"] == line], look(index)
            ax.errorbar(
                mine[column], POINTS * mine["final_score"], yerr=_error_bars(mine), linestyle="none", capsize=2,
                color=colour, marker=marker, label=line,
            )  # fmt: skip
            for _, row in mine.iterrows():
                ax.annotate(str(row["steps"]), (row[column], POINTS * row["final_score"]), xytext=(4, 2),
                            textcoords="offset points", fontsize=7)  # fmt: skip
        cost, score = part[column].to_numpy(), part["final_score"].to_numpy()
        front = pareto(cost, score)
        ax.plot(cost[front], POINTS * score[front], color="0.5", linewidth=0.8, drawstyle="steps-post",
                label="best for the money")  # fmt: skip
        wide = part[column].max() > 10 * part[column].min()
        ax.set(title=name, xlabel=f"{unit} (log scale)" if wide else unit, ylim=(-2, 102))
        _log_axis(ax) if wide else ax.set_xlim(0, 1.15 * part[column].max())
    next(iter(axes.values())).set_ylabel("test score (points), number: steps")
    _shared_legend(figure, list(axes.values()))
    return figure


def turn_curves(turned: list[TurnedCell]) -> Figure:
    """Score of each turn with its 95 % interval, a panel a benchmark, a line a model and feedback."""
    figure, axes = _panels(sorted({cell.entry.fields["benchmark"] for cell in turned}), height=2.2)
    several = len({cell.entry.fields["feedback"] for cell in turned}) > 1
    names = sorted({_turn_line(cell.entry, several) for cell in turned})
    for cell in turned:
        ax, index = axes[cell.entry.fields["benchmark"]], names.index(_turn_line(cell.entry, several))
        colour, marker, dash = look(index)
        score = cell.turns.mean(axis=(0, 2))
        ends = np.array([interval or (np.nan, np.nan) for interval in cell.intervals]).T
        ax.errorbar(
            np.arange(1, len(score) + 1) + 0.04 * (index - len(names) / 2), POINTS * score,
            yerr=POINTS * _distances(score, *ends), label=names[index], color=colour, marker=marker, linestyle=dash,
            capsize=2,
        )  # fmt: skip
    for name, ax in axes.items():
        ax.set(title=name, xlabel="turn", ylim=(-2, 102))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    next(iter(axes.values())).set_ylabel("test score (points)")
    _shared_legend(figure, list(axes.values()))
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
            bars = POINTS * _distances(part["gain"], part["low"], part["high"])
            ax.errorbar(part["size"], POINTS * part["gain"], yerr=bars, linestyle="none", marker="o", capsize=2,
                        color=COLOURS[0], markerfacecolor=face, label=label)  # fmt: skip
    if line is not None:
        x = np.linspace(np.log10(published["size"].min()), np.log10(published["size"].max()), 60)
        ax.plot(10**x, POINTS * (line.intercept + line.slope * x), color="0.4", linewidth=0.8, label="line, published")
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set(xlabel="parameters (billions, log scale)", ylabel="gain by self-correction (points)")
    _log_axis(ax)
    _shared_legend(figure, [ax])
    return figure


def _turn_line(entry, several: bool) -> str:
    return f"{entry.fields['model']}, feedback {entry.fields['feedback']}" if several else str(entry.fields["model"])


def save(figure: Figure, path: Path, formats: list[str]) -> None:
    """Write `path` with each format's ending, without a date: the same records give the same bytes."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    for form in formats:
        figure.savefig(path.with_name(f"{path.name}.{form}"), metadata=dates.get(form))
    plt.close(figure)


def footer(figure: Figure, text: str) -> Figure:
    """What the reader must know of the data, in small print under the picture."""
    width, height = figure.get_size_inches()
    lines = textwrap.fill(text, int(width * 22))
    share = (0.1 * (lines.count("\n") + 1) + 0.05) / height
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))
    figure.text(0.01, share, lines, fontsize=5.5, color="0.35", va="top")
    return figure


def _one_learning_curve(curves: list[dict[str, np.ndarray]], axis: str, index: int, optimizer: str, ax: Axes) -> None:
    if not curves:
        return
    colour, marker, dash = look(index)
    lines = []
    for curve in curves:
        known = ~np.isnan(curve["best_val_score"])
        lines.append((curve[axis][known], curve["best_val_score"][known]))
    x = np.unique(np.concatenate([at for at, _ in lines]))
    x = x[x >= max(at.min() for at, _ in lines)]  # from where every run has a score
    best = np.array([_step(at, score, x) for at, score in lines])
    name = OPTIMIZER_NAMES.get(optimizer, optimizer)
    ax.step(x, POINTS * best.mean(axis=0), where="post", color=colour, linestyle=dash, label=name)
    if len(curves) > 1:
        ax.fill_between(x, POINTS * best.min(axis=0), POINTS * best.max(axis=0), step="post", color=colour, alpha=0.15)
    at, score, on_train = (np.concatenate([c[n] for c in curves]) for n in (axis, "candidate_val_score", "on_train"))
    for chosen, face in ((~on_train, colour), (on_train, "none")):
        ax.plot(
            at[chosen], POINTS * score[chosen], linestyle="none", color=colour, alpha=0.6, marker=marker,
            markersize=2.5 if face == "none" else 3.5, markerfacecolor=face, markeredgewidth=0.5,
        )  # fmt: skip


def _step(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values of a step function that holds y from each x on."""
    return y[np.searchsorted(x, at, side="right") - 1]


def _panels(names: list[str], height: float, per_row: int = 3) -> tuple[Figure, dict[str, Axes]]:
    """A figure one page wide with a panel a name; fewer than a row's panels make it narrower."""
    columns = min(per_row, len(names))
    rows = -(-len(names) // columns)
    width = PAGE if columns == per_row else COLUMN + (PAGE - COLUMN) * (columns - 1) / (per_row - 1)
    figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows + 0.6), squeeze=False, sharey=True)
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    return figure, dict(zip(names, axes.flat, strict=False))


def _log_axis(ax: Axes) -> None:
    """x on a log scale with plain numbers at 1, 2 and 5, which do not run into each other."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _error_bars(part: pd.DataFrame) -> np.ndarray:
    """Distances of the final scores to their intervals' ends in points, shape (2, n)."""
    return POINTS * _distances(part["final_score"], part["final_low"], part["final_high"])


def _distances(value: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Distances to an interval's ends, shape (2, n); 0 where there is no interval."""
    at = np.asarray(value, float)
    return np.nan_to_num(np.clip([at - np.asarray(low, float), np.asarray(high, float) - at], 0, None))


def _heat_text(row: pd.Series) -> str:
    if row["unchanged"]:
        return "0\n(unchanged)"
    text = f"{POINTS * row['improvement']:+.1f}"
    if pd.notna(row["improvement_low"]):
        text += f"\n[{POINTS * row['improvement_low']:+.0f}, {POINTS * row['improvement_high']:+.0f}]"
    return text


def _rows(part: pd.DataFrame) -> str:
    n, runs = sorted(part["n"].unique()), sorted(part["runs"].unique())
    return f"n = {_span(n)}, {_span(runs)} {'run' if runs == [1] else 'runs'}"


def _span(values: list) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _shared_legend(figure: Figure, axes: list[Axes], columns: int = 3) -> None:
    handles: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    shown = dict(zip(_short(list(handles)), handles.values(), strict=True))
    shown = dict(list(shown.items())[:MOST_IN_LEGEND])
    if len(handles) > len(shown):
        shown[f"and {len(handles) - len(shown)} more (summary_results.csv)"] = plt.Line2D([], [], linestyle="none")
    width, height = figure.get_size_inches()
    fitting = int(width / (LETTER_WIDTH * max(len(label) for label in shown) + HANDLE_WIDTH))
    columns = max(1, min(columns, len(shown), fitting))
    figure.set_size_inches(width, height + LEGEND_ROW * max(0, -(-len(shown) // columns) - 2))
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncol=columns, frameon=False)


def _short(labels: list[str]) -> list[str]:
    """Labels without the folders in models' names, where they still differ then."""
    shorter = [re.sub(r"[\w.-]+/(?=[\w.-])", "", label) for label in labels]
    return shorter if len(set(shorter)) == len(labels) else labels
