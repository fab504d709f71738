"""Figures of test scores: against steps, by optimizer, and against their cost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from scaling.analysis.figure_kind import FigureKind, once
from scaling.analysis.figure_style import (
    COLUMN,
    LETTER_WIDTH,
    MOST_IN_LEGEND,
    PAGE,
    POINTS,
    error_bars,
    log_axis,
    look,
    panels,
    shared_legend,
    shown,
)
from scaling.analysis.findings import Curves, Findings
from scaling.analysis.money import cost_column, pareto
from scaling.analysis.text import plural
from scaling.planning.optimizers import label_of


def scaling_curve(summary: pd.DataFrame, ax: Axes, curves: Curves | None = None) -> Axes:
    """Score against steps on one benchmark: a line per series with 95 % intervals, baselines in light dashes.

    Where a series has five points, all families that its points do not reject are drawn thin.
    """
    lines = sorted(summary["line"].unique())
    width = min(0.12, 0.9 / len(lines))
    for index, line in enumerate(lines):
        part = summary[summary["line"] == line].sort_values("steps")
        offset = (index - (len(lines) - 1) / 2) * width
        colour, marker, dash = look(index)
        ax.errorbar(
            part["steps"] + offset, POINTS * part["final_score"], yerr=error_bars(part), label=line, color=colour,
            marker=marker, capsize=2, linestyle=dash,
        )  # fmt: skip
        for family in (curves or {}).get((part["benchmark"].iloc[0], line), []) if len(lines) <= MOST_IN_LEGEND else []:
            x = np.linspace(part["steps"].min(), part["steps"].max(), 60)
            if not family.rejected:
                ax.plot(x, POINTS * family.curve(x), color=colour, linewidth=0.5, alpha=0.7)
    chain = summary[(summary["optimizer"] != "none") & (summary["pipeline"] == "chain")]
    if len(chain):  # a mark a series: no mean over models or terms
        ax.plot(chain["steps"], POINTS * chain["baseline_score"], color="0.55", marker="_", markersize=10,
                linestyle="none", label="not optimized")  # fmt: skip
    ax.set(xlabel="LLM calls per example (steps)", ylabel="test score (points)", ylim=(-2, 102))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlim(summary["steps"].min() - 0.5, summary["steps"].max() + 0.5)
    return ax


def scaling_curves_overall(summary: pd.DataFrame, curves: Curves | None = None) -> Figure:
    """All benchmarks side by side on one scale."""
    figure, axes = panels(sorted(summary["benchmark"].unique()), height=2.3)
    for name, ax in axes.items():
        part = summary[summary["benchmark"] == name]
        scaling_curve(part, ax, curves).set_title(f"{shown(name)}\n{_rows(part)}")
        ax.label_outer()
    shared_legend(figure, list(axes.values()))
    return figure


def one_scaling_curve(summary: pd.DataFrame, benchmark: str, curves: Curves | None = None) -> Figure:
    """One benchmark alone, one column wide."""
    figure, ax = plt.subplots(figsize=(COLUMN, 2.9))
    part = summary[summary["benchmark"] == benchmark]
    scaling_curve(part, ax, curves).set_title(f"{shown(benchmark)} ({_rows(part)})")
    shared_legend(figure, [ax], columns=2)
    return figure


def improvement_heatmap(summary: pd.DataFrame, optimizer: str) -> Figure:
    """Improvement over the same program before optimization, benchmark by steps, with its interval in each cell."""
    part = summary[(summary["optimizer"] == optimizer) & (summary["pipeline"] == "chain")]
    title = f"change on test rows by\n{label_of(optimizer)}"
    return change_heatmap(part.assign(column=part["steps"]), "steps\n(hatched: the interval holds 0)", title)


def change_heatmap(changes: pd.DataFrame, xlabel: str, title: str) -> Figure:
    """Changes of scores with their intervals, `row_name` by `column`; a cell that is not there is "not run"."""
    part = changes.drop_duplicates(["row_name", "column"])
    values = part.pivot(index="row_name", columns="column", values="improvement") * POINTS
    texts = part.assign(text=part.apply(_heat_text, axis=1)).pivot(index="row_name", columns="column", values="text")
    names = ["\n".join(map(shown, name.split("\n"))) for name in values.index]
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(len(line) for name in values.columns for line in str(name).split("\n"))
    width = max(0.95, 0.1 + 1.15 * LETTER_WIDTH * columns) * values.shape[1]
    size = (min(PAGE, width + 1.4 + LETTER_WIDTH * longest), 0.55 * values.shape[0] + 1.1)
    figure, ax = plt.subplots(figsize=size)
    limit = max(5.0, float(np.nanmax(np.abs(values.to_numpy()))) if values.notna().any().any() else 5.0)
    sns.heatmap(
        values, ax=ax, annot=texts, fmt="", cmap="PuOr_r", vmin=-limit, vmax=limit, linewidths=1,
        yticklabels=False, annot_kws={"fontsize": 6.5}, cbar_kws={"label": "points"},
    )  # fmt: skip
    _hatch(part, list(values.index), list(values.columns), ax)
    for row, column in zip(*np.where(values.isna().to_numpy()), strict=True):
        ax.text(column + 0.5, row + 0.5, "not run", ha="center", va="center", fontsize=6.5, color="0.4")
    ax.grid(False)
    ax.set(xlabel=xlabel, ylabel="", title=title)
    ax.set_yticks(np.arange(len(names)) + 0.5, names)  # seaborn would turn them upright first
    return figure


def _hatch(part: pd.DataFrame, names: list[str], columns: list[object], ax: Axes) -> None:
    """Hatch the cells whose interval holds 0: their colour shows no change that is known."""
    for _, row in part[(part["improvement_low"] <= 0) & (part["improvement_high"] >= 0)].iterrows():
        corner = (columns.index(row["column"]), names.index(row["row_name"]))
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor="white", linewidth=0, alpha=0.45))


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
            POINTS * mine["final_score"], np.array(y) + offset, xerr=error_bars(mine), linestyle="none", capsize=3,
            color=colour, marker=marker, label=line,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [f"{shown(benchmark)}, {plural(steps, 'step')}" for benchmark, steps in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="test score (points)", title="optimizers side by side")
    shared_legend(figure, [ax])
    return figure


def cost_quality(summary: pd.DataFrame) -> Figure:
    """Score against what an example costs to answer: dollars where they are known and not 0, else tokens."""
    column, unit = cost_column(summary)
    figure, axes = panels(sorted(summary["benchmark"].unique()), height=2.3)
    lines = sorted(summary["line"].unique())
    sizes = [4 + min(2 * later, 6) for later in reversed(range(len(lines)))]  # points that coincide are all seen
    for name, ax in axes.items():
        part = summary[summary["benchmark"] == name]
        for index, line in enumerate(lines):
            mine, (colour, marker, _) = part[part["line"] == line], look(index)
            ax.errorbar(
                mine[column], POINTS * mine["final_score"], yerr=error_bars(mine), linestyle="none", capsize=2,
                color=colour, marker=marker, label=line, markerfacecolor="none", markersize=sizes[index],
            )  # fmt: skip
            for _, row in mine.iterrows():
                ax.annotate(str(row["steps"]), (row[column], POINTS * row["final_score"]), xytext=(4, 2),
                            textcoords="offset points", fontsize=7)  # fmt: skip
        cost, score = part[column].to_numpy(), part["final_score"].to_numpy()
        front = pareto(cost, score)
        ax.plot(cost[front], POINTS * score[front], color="0.5", linewidth=0.8, drawstyle="steps-post",
                label="no cheaper cell scores as high")  # fmt: skip
        wide = part[column].max() > 10 * part[column].min()
        ax.set(title=shown(name), xlabel=f"{unit} (log scale)" if wide else unit, ylim=(-2, 102))
        log_axis(ax) if wide else ax.set_xlim(0, 1.15 * part[column].max())
    next(iter(axes.values())).set_ylabel("test score (points), number: steps")
    shared_legend(figure, list(axes.values()))
    return figure


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


def _span(values: list[int]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _optimizers(f: Findings) -> list[str]:
    chain = f.summary[f.summary["pipeline"] == "chain"]
    return sorted(set(chain["optimizer"]) - {"none"})


KINDS: list[FigureKind] = [
    FigureKind(
        "scaling_curves_overall", "Test score against steps, all benchmarks",
        lambda f, _: scaling_curves_overall(f.summary, f.curves), lambda f: once(True),
    ),
    FigureKind(
        "scaling_curve", "Test score against steps on {}",
        lambda f, benchmark: one_scaling_curve(f.summary, benchmark, f.curves),
        lambda f: sorted(f.summary["benchmark"].unique()),
    ),
    FigureKind(
        "improvement_heatmap", "Change by {} over the same program before optimization",
        lambda f, optimizer: improvement_heatmap(f.summary, optimizer), _optimizers,
    ),
    FigureKind(
        "optimizer_comparison", "Optimizers side by side",
        lambda f, _: optimizer_comparison(f.summary), lambda f: once("chain" in set(f.summary["pipeline"])),
    ),
    FigureKind(
        "cost_quality", "Test score against the cost of an answer",
        lambda f, _: cost_quality(f.summary), lambda f: once(True),
    ),
]  # fmt: skip
