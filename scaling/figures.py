"""The pictures: each function takes frames and an `ax` and returns it; one theme for all of them.

Lines differ in marker and dash as well as in colour, so they can be told apart in grey.
"""

from __future__ import annotations

import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scaling.tables import Results

# Okabe and Ito's colour-blind safe palette, darkest first so that it also orders in grey.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "D", "^", "v", "P", "X"]
DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
OPTIMIZER_NAMES = {
    "none": "no optimizer",
    "gepa": "GEPA",
    "mipro": "MIPROv2",
    "mipro_instruct": "MIPROv2, instructions",
    "bootstrap": "bootstrap",
}
POINTS = 100.0


def theme() -> None:
    """The one theme: white, light grid, sizes for print at full width."""
    sns.set_theme(context="paper", style="whitegrid", palette=COLOURS, font_scale=1.1)
    plt.rcParams |= {
        "figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight", "figure.constrained_layout.use": True,
        "axes.titlesize": "medium", "axes.titleweight": "bold", "axes.titlelocation": "left",
        "grid.linewidth": 0.5, "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none",
    }  # fmt: skip


def labels_of(summary: pd.DataFrame) -> pd.Series:
    """A line's name: the optimizer, with pipeline, model and terms only where they differ within the frame."""
    names = summary["optimizer"].map(lambda o: OPTIMIZER_NAMES.get(o, o)).astype(str)
    for column, form in (("pipeline", "{}"), ("model", "{}"), ("rollout_budget", "budget {}"), ("terms", "{}")):
        if summary[column].nunique() > 1 and not (column == "pipeline" and set(summary[column]) == {"chain"}):
            names = names + ", " + summary[column].map(form.format)
    return names


def scaling_curve(summary: pd.DataFrame, ax: Axes) -> Axes:
    """Score against steps on one benchmark: a line a series with 95 % intervals, baselines in light dots."""
    lines = sorted(summary["line"].unique())
    width = 0.12
    for index, line in enumerate(lines):
        part = summary[summary["line"] == line].sort_values("steps")
        offset = (index - (len(lines) - 1) / 2) * width
        x = part["steps"] + offset
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        errors = _error_bars(part)
        ax.errorbar(
            x, POINTS * part["final_score"], yerr=errors, label=line, color=colour, marker=marker, capsize=3,
            linestyle=DASHES[index % len(DASHES)], linewidth=1.6, markersize=6,
        )  # fmt: skip
    base = summary.groupby("steps")["baseline_score"].mean()
    ax.plot(base.index, POINTS * base, color="0.55", marker="_", markersize=14, linestyle="none", label="not optimized")
    ax.set(xlabel="LLM calls an example (steps)", ylabel="test score (points)", ylim=(-2, 102))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(summary["steps"].min() - 0.5, summary["steps"].max() + 0.5)
    return ax


def scaling_curves_overall(summary: pd.DataFrame) -> Figure:
    """All benchmarks side by side on one scale."""
    names = sorted(summary["benchmark"].unique())
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names) + 0.8, 3.8), sharey=True, squeeze=False)
    for name, ax in zip(names, axes[0], strict=True):
        part = summary[summary["benchmark"] == name]
        scaling_curve(part, ax).set_title(f"{name} ({_rows(part)})")
    for ax in axes[0][1:]:
        ax.set_ylabel("")
    _shared_legend(figure, axes[0])
    return figure


def one_scaling_curve(summary: pd.DataFrame, benchmark: str) -> Figure:
    """One benchmark alone."""
    figure, ax = plt.subplots(figsize=(5.2, 3.8))
    part = summary[summary["benchmark"] == benchmark]
    scaling_curve(part, ax).set_title(f"{benchmark} ({_rows(part)})")
    _shared_legend(figure, [ax])
    return figure


def improvement_heatmap(summary: pd.DataFrame, optimizer: str) -> Figure:
    """Improvement over the same program before optimization, benchmark by steps, with its interval in each cell."""
    part = summary[(summary["optimizer"] == optimizer) & (summary["pipeline"] == "chain")]
    part = part.drop_duplicates(["row_name", "steps"])
    values = part.pivot(index="row_name", columns="steps", values="improvement") * POINTS
    texts = part.assign(text=part.apply(_heat_text, axis=1)).pivot(index="row_name", columns="steps", values="text")
    size = (1.5 * values.shape[1] + 2.6, 0.8 * values.shape[0] + 1.5)
    figure, ax = plt.subplots(figsize=size)
    limit = max(5.0, float(np.nanmax(np.abs(values.to_numpy()))) if values.notna().any().any() else 5.0)
    sns.heatmap(
        values, ax=ax, annot=texts, fmt="", cmap="PuOr_r", vmin=-limit, vmax=limit, linewidths=1,
        annot_kws={"fontsize": 8}, cbar_kws={"label": "points"},
    )  # fmt: skip
    for row, column in zip(*np.where(values.isna().to_numpy()), strict=True):
        ax.text(column + 0.5, row + 0.5, "not run", ha="center", va="center", fontsize=8, color="0.4")
    ax.grid(False)
    ax.set(xlabel="steps", ylabel="", title=f"improvement by {OPTIMIZER_NAMES.get(optimizer, optimizer)}, test rows")
    ax.tick_params(axis="y", rotation=0)
    return figure


def optimizer_comparison(summary: pd.DataFrame) -> Figure:
    """Final scores of the optimizers beside each other, benchmark and steps by row, with 95 % intervals."""
    part = summary[summary["pipeline"] == "chain"].sort_values(["benchmark", "steps"])
    rows = list(dict.fromkeys(zip(part["benchmark"], part["steps"], strict=True)))
    lines = sorted(part["line"].unique())
    figure, ax = plt.subplots(figsize=(6.4, 0.5 * len(rows) + 1.6))
    for index, line in enumerate(lines):
        mine = part[part["line"] == line]
        y = [rows.index((b, s)) for b, s in zip(mine["benchmark"], mine["steps"], strict=True)]
        offset = (index - (len(lines) - 1) / 2) * 0.18
        ax.errorbar(
            POINTS * mine["final_score"], np.array(y) + offset, xerr=_error_bars(mine), linestyle="none", capsize=3,
            color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)], label=line,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [f"{b}, {s} {'step' if s == 1 else 'steps'}" for b, s in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="test score (points)", title="optimizers side by side")
    _shared_legend(figure, [ax])
    return figure


def learning_curves(results: Results, cells: pd.DataFrame) -> Figure:
    """Best selection score so far against rollouts, a panel a benchmark and steps; marks are the candidates."""
    panels = sorted({(r["benchmark"], r["steps"]) for _, r in cells.iterrows()})
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.1 * columns + 0.6, 2.7 * rows + 0.9), squeeze=False, sharey=True
    )
    optimizers = sorted(cells["optimizer"].unique())
    for ax, (benchmark, steps) in zip(axes.flat, panels, strict=False):
        here = cells[(cells["benchmark"] == benchmark) & (cells["steps"] == steps)]
        for key, row in here.iterrows():
            _one_learning_curve(results.curve(key), optimizers.index(row["optimizer"]), row["optimizer"], ax)
        ax.set(title=f"{benchmark}, {steps} {'step' if steps == 1 else 'steps'}", ylim=(-2, 102))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    figure.supxlabel("rollouts (runs of the whole program)", fontsize="medium")
    figure.supylabel(
        "score on select rows (points):\nselected on these rows;\nhollow: train minibatches", fontsize="medium"
    )
    _shared_legend(figure, list(axes.flat)[: len(panels)])
    return figure


def cost_quality(summary: pd.DataFrame) -> Figure:
    """Score against what an example costs to answer: dollars where they are known and not 0, else tokens."""
    usd = summary["usd_per_example"]
    priced = usd.notna().all() and (usd > 0).all()
    column, unit = ("usd_per_example", "USD an example") if priced else ("tokens_per_example", "tokens an example")
    names = sorted(summary["benchmark"].unique())
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names) + 0.8, 3.8), sharey=True, squeeze=False)
    lines = sorted(summary["line"].unique())
    for name, ax in zip(names, axes[0], strict=True):
        part = summary[summary["benchmark"] == name]
        for index, line in enumerate(lines):
            mine = part[part["line"] == line]
            ax.errorbar(
                mine[column], POINTS * mine["final_score"], yerr=_error_bars(mine), linestyle="none", capsize=2,
                color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)], label=line,
            )  # fmt: skip
            for _, row in mine.iterrows():
                ax.annotate(str(row["steps"]), (row[column], POINTS * row["final_score"]), xytext=(5, 3),
                            textcoords="offset points", fontsize=8)  # fmt: skip
        front = pareto(part[column].to_numpy(), part["final_score"].to_numpy())
        ax.plot(part[column].to_numpy()[front], POINTS * part["final_score"].to_numpy()[front], color="0.5",
                linewidth=1, drawstyle="steps-post", label="best for the money")  # fmt: skip
        wide = part[column].max() > 10 * part[column].min()
        ax.set(title=name, xlabel=f"{unit} (log scale)" if wide else unit, ylim=(-2, 102))
        ax.set(xscale="log") if wide else ax.set_xlim(0, 1.15 * part[column].max())
    axes[0][0].set_ylabel("test score (points), number: steps")
    _shared_legend(figure, axes[0])
    return figure


def pareto(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Indexes, cheapest first, of points that no cheaper or equally cheap point reaches; shape (k,)."""
    best, front = -np.inf, []
    for index in np.lexsort((-score, cost)):
        if score[index] > best:
            best = score[index]
            front.append(index)
    return np.array(front, dtype=int)


def footer(figure: Figure, text: str) -> Figure:
    """What the reader must know of the data, in small print under the picture."""
    width, _ = figure.get_size_inches()
    figure.text(0.01, -0.01, textwrap.fill(text, int(width * 19)), fontsize=7, color="0.35", va="top")
    return figure


def _one_learning_curve(points: pd.DataFrame, index: int, optimizer: str, ax: Axes) -> None:
    if points.empty:
        return
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    name = OPTIMIZER_NAMES.get(optimizer, optimizer)
    if "rows" not in points:
        points = points.assign(rows="select")
    seen = points[points["best_val_score"].notna()]
    best = (POINTS * seen["best_val_score"]).to_numpy(float)
    ax.step(seen["rollouts"], best, where="post", color=colour, linestyle=DASHES[index % len(DASHES)], label=name)
    for rows, face in (("select", colour), ("train", "none")):
        part = points[points["rows"] == rows]
        ax.plot(
            part["rollouts"], POINTS * part["candidate_val_score"], linestyle="none", color=colour, alpha=0.6,
            marker=marker, markersize=5 if rows == "select" else 3, markerfacecolor=face,
        )  # fmt: skip


def _error_bars(part: pd.DataFrame) -> np.ndarray:
    """Distances to the interval's ends in points, shape (2, n); 0 where there is no interval."""
    low = (part["final_score"] - part["final_low"]).clip(lower=0).fillna(0)
    high = (part["final_high"] - part["final_score"]).clip(lower=0).fillna(0)
    return POINTS * np.vstack([low, high]).astype(float)


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


def _shared_legend(figure: Figure, axes: list[Axes]) -> None:
    handles: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncol=min(3, len(handles)), frameon=False
    )
