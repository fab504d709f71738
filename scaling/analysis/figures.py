"""The figures: `FIGURES` names each with its function and when it applies; a new figure is one entry there.

Figures draw the scores and intervals that they are given and compute none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scaling.analysis.comparisons import Entry
from scaling.analysis.figure_style import (
    COLOURS,
    COLUMN,
    MOST_IN_LEGEND,
    PAGE,
    POINTS,
    distances,
    error_bars,
    log_axis,
    look,
    panels,
    shared_legend,
)
from scaling.analysis.findings import Curves, Findings
from scaling.analysis.money import cost_column, pareto
from scaling.analysis.research import TurnedCell, size_line_of
from scaling.analysis.results import Results
from scaling.analysis.summary import OPTIMIZER_NAMES
from scaling.types import digest

MOST_PANELS = 24
CURVE_AXES = {
    "rollouts": "rollouts",
    "lm_calls": "LM calls, all kinds",
    "list_cost_usd": "list cost (USD)",
}


def scaling_curve(summary: pd.DataFrame, ax: Axes, curves: Curves | None = None) -> Axes:
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
            part["steps"] + offset, POINTS * part["final_score"], yerr=error_bars(part), label=line, color=colour,
            marker=marker, capsize=2, linestyle=dash,
        )  # fmt: skip
        for family in (curves or {}).get((part["benchmark"].iloc[0], line), []) if len(lines) <= MOST_IN_LEGEND else []:
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


def scaling_curves_overall(summary: pd.DataFrame, curves: Curves | None = None) -> Figure:
    """All benchmarks side by side on one scale."""
    figure, axes = panels(sorted(summary["benchmark"].unique()), height=2.3)
    for name, ax in axes.items():
        part = summary[summary["benchmark"] == name]
        scaling_curve(part, ax, curves).set_title(f"{name}\n{_rows(part)}")
        ax.label_outer()
    shared_legend(figure, list(axes.values()))
    return figure


def one_scaling_curve(summary: pd.DataFrame, benchmark: str, curves: Curves | None = None) -> Figure:
    """One benchmark alone, one column wide."""
    figure, ax = plt.subplots(figsize=(COLUMN, 2.9))
    part = summary[summary["benchmark"] == benchmark]
    scaling_curve(part, ax, curves).set_title(f"{benchmark} ({_rows(part)})")
    shared_legend(figure, [ax], columns=2)
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
            POINTS * mine["final_score"], np.array(y) + offset, xerr=error_bars(mine), linestyle="none", capsize=3,
            color=colour, marker=marker, label=line,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [f"{b}, {s} {'step' if s == 1 else 'steps'}" for b, s in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel="test score (points)", title="optimizers side by side")
    shared_legend(figure, [ax])
    return figure


def learning_curves(results: Results, cells: pd.DataFrame, axis: str = "rollouts") -> Figure:
    """Best selection score so far, a panel a benchmark and steps: the mean over runs, the range over runs as a band.

    axis: rollouts, lm_calls or list_cost_usd. Marks are the candidates.
    """
    places = {(r["benchmark"], r["steps"]): None for _, r in cells.sort_values(["benchmark", "steps"]).iterrows()}
    names = {f"{b}, {k} {'step' if k == 1 else 'steps'}": (b, k) for b, k in list(places)[:MOST_PANELS]}
    figure, axes = panels(list(names), height=1.9, per_row=4)
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
    if len(places) > len(names):
        figure.suptitle(f"the first {len(names)} of {len(places)}; all points are in learning_curve.json", fontsize=7)
    figure.supylabel("score on select rows (points):\nselected on these rows; hollow: train", fontsize=8)
    shared_legend(figure, list(axes.values()))
    return figure


def cost_quality(summary: pd.DataFrame) -> Figure:
    """Score against what an example costs to answer: dollars where they are known and not 0, else tokens."""
    column, unit = cost_column(summary)
    figure, axes = panels(sorted(summary["benchmark"].unique()), height=2.3)
    lines = sorted(summary["line"].unique())
    for name, ax in axes.items():
        part = summary[summary["benchmark"] == name]
        for index, line in enumerate(lines):
            mine, (colour, marker, _) = part[part["line"] == line], look(index)
            ax.errorbar(
                mine[column], POINTS * mine["final_score"], yerr=error_bars(mine), linestyle="none", capsize=2,
                color=colour, marker=marker, label=line,
            )  # fmt: skip
            for _, row in mine.iterrows():
                ax.annotate(str(row["steps"]), (row[column], POINTS * row["final_score"]), xytext=(4, 2),
                            textcoords="offset points", fontsize=7)  # fmt: skip
        cost, score = part[column].to_numpy(), part["final_score"].to_numpy()
        front = pareto(cost, score)
        ax.plot(cost[front], POINTS * score[front], color="0.5", linewidth=0.8, drawstyle="steps-post",
                label="no cheaper cell scores as high")  # fmt: skip
        wide = part[column].max() > 10 * part[column].min()
        ax.set(title=name, xlabel=f"{unit} (log scale)" if wide else unit, ylim=(-2, 102))
        log_axis(ax) if wide else ax.set_xlim(0, 1.15 * part[column].max())
    next(iter(axes.values())).set_ylabel("test score (points), number: steps")
    shared_legend(figure, list(axes.values()))
    return figure


def turn_curves(turned: list[TurnedCell]) -> Figure:
    """Score of each turn with its 95 % interval, a panel a benchmark, a line a model and feedback."""
    figure, axes = panels(sorted({cell.entry.fields["benchmark"] for cell in turned}), height=2.2)
    several = len({cell.entry.fields["feedback"] for cell in turned}) > 1
    names = sorted({_turn_line(cell.entry, several) for cell in turned})
    for cell in turned:
        ax, index = axes[cell.entry.fields["benchmark"]], names.index(_turn_line(cell.entry, several))
        colour, marker, dash = look(index)
        score = cell.turns.mean(axis=(0, 2))
        ends = np.array([interval or (np.nan, np.nan) for interval in cell.intervals]).T
        ax.errorbar(
            np.arange(1, len(score) + 1) + 0.04 * (index - len(names) / 2), POINTS * score,
            yerr=POINTS * distances(score, *ends), label=names[index], color=colour, marker=marker, linestyle=dash,
            capsize=2,
        )  # fmt: skip
    for name, ax in axes.items():
        ax.set(title=name, xlabel="turn", ylim=(-2, 102))
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
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set(xlabel="parameters (billions, log scale)", ylabel="gain by self-correction (points)")
    log_axis(ax)
    shared_legend(figure, [ax])
    return figure


def _turn_line(entry: Entry, several: bool) -> str:
    return f"{entry.fields['model']}, feedback {entry.fields['feedback']}" if several else str(entry.fields["model"])


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


@dataclass(frozen=True)
class FigureKind:
    """An entry of FIGURES: one file, or one for each value of `each`, whose name and caption then hold the value.

    each: the values that it is drawn for; [] where the records have nothing to draw, [""] for a single figure.
    """

    name: str
    caption: str
    draw: Callable[[Findings, str], Figure]
    each: Callable[[Findings], Iterable[str]]


@dataclass(frozen=True)
class Picture:
    """A figure that these records can fill: its file's name without an ending, a sentence on it, and what draws it."""

    name: str
    caption: str
    draw: Callable[[], Figure]


def pictures_of(f: Findings) -> list[Picture]:
    """The pictures of FIGURES that these findings can fill, in their order, each under a name of its own."""
    return [picture for kind in FIGURES for picture in _pictures_of_kind(kind, f)]


def _pictures_of_kind(kind: FigureKind, f: Findings) -> Iterator[Picture]:
    values = list(kind.each(f))
    for value, name in zip(values, file_names(values), strict=True):
        yield Picture(
            f"{kind.name}_{name}" if value else kind.name,
            kind.caption.format(value),
            lambda value=value: kind.draw(f, value),  # type: ignore[misc]
        )


def file_names(values: list[str]) -> list[str]:
    """A file name for each value, unique also where upper and lower case are one: letters, digits, dots, dashes.

    Of values that would share a name, the one that needs no change keeps it; the others get a digest of the value.
    """
    names = [re.sub(r"[^\w.-]+", "-", value) for value in values]
    owners: dict[str, str] = {}
    for value, name in sorted(zip(values, names, strict=True), key=lambda pair: (pair[0] != pair[1], pair)):
        owners.setdefault(name.casefold(), value)
    return [
        name if owners[name.casefold()] == value else f"{name}-{digest(value)[:6]}"
        for value, name in zip(values, names, strict=True)
    ]


def _once(applies: bool) -> list[str]:
    return [""] if applies else []


def _curves_of(f: Findings) -> pd.DataFrame:
    """Cells that have a learning curve: optimized, and with a score."""
    cells = f.results.cells
    return cells[(cells["status"] == "ok") & (cells["optimizer"] != "none")]


def _has_dollars(f: Findings) -> bool:
    curves = _curves_of(f)
    return not curves.empty and bool((curves["optimize_list_cost_usd"].astype(float) > 0).all())


def _optimizers(f: Findings) -> list[str]:
    chain = f.summary[f.summary["pipeline"] == "chain"]
    return sorted(set(chain["optimizer"]) - {"none"})


_LEARNING = "Best score so far on the rows that candidates are selected on, against {}; these are no test scores"
FIGURES: list[FigureKind] = [
    FigureKind(
        "scaling_curves_overall", "Test score against steps, all benchmarks",
        lambda f, _: scaling_curves_overall(f.summary, f.curves), lambda f: _once(True),
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
        lambda f, _: optimizer_comparison(f.summary), lambda f: _once((f.summary["pipeline"] == "chain").any()),
    ),
    FigureKind(
        "learning_curves", _LEARNING.format("rollouts"),
        lambda f, _: learning_curves(f.results, _curves_of(f), "rollouts"), lambda f: _once(not _curves_of(f).empty),
    ),
    FigureKind(
        "learning_curves_calls", _LEARNING.format("LM calls"),
        lambda f, _: learning_curves(f.results, _curves_of(f), "lm_calls"), lambda f: _once(not _curves_of(f).empty),
    ),
    FigureKind(
        "learning_curves_usd", _LEARNING.format("list cost"),
        lambda f, _: learning_curves(f.results, _curves_of(f), "list_cost_usd"), lambda f: _once(_has_dollars(f)),
    ),
    FigureKind(
        "turn_curves", "Score of each turn of self-correction",
        lambda f, _: turn_curves(f.turned), lambda f: _once(bool(f.turned)),
    ),
    FigureKind(
        "gain_against_size",
        "Gain by self-correction against model size; hollow marks are assumed sizes and take no part in the line",
        lambda f, _: gain_against_size(f.gains),
        lambda f: _once(size_line_of(f.gains, ("published", "assumed"))[1] is not None),
    ),
    FigureKind(
        "cost_quality", "Test score against the cost of an answer",
        lambda f, _: cost_quality(f.summary), lambda f: _once(True),
    ),
]  # fmt: skip
