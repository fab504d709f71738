"""Figures of what optimizers saw while they worked: scores on select rows, which are no test scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.analysis.figure_kind import FigureKind, once
from scaling.analysis.figure_style import (
    POINTS,
    look,
    panels,
    shared_legend,
)
from scaling.analysis.findings import Findings
from scaling.analysis.results import Results
from scaling.analysis.summary import OPTIMIZER_NAMES

MOST_PANELS = 24
CURVE_AXES = {
    "rollouts": "rollouts",
    "lm_calls": "LM calls, all kinds",
    "list_cost_usd": "list cost (USD)",
}


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
    figure.supylabel(
        "score on select rows (points), selected on these rows\nband: range over runs; hollow: train rows", fontsize=8
    )
    shared_legend(figure, list(axes.values()))
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


def _curves_of(f: Findings) -> pd.DataFrame:
    """Cells that have a learning curve: optimized, and with a score."""
    cells = f.results.cells
    return cells[(cells["status"] == "ok") & (cells["optimizer"] != "none")]


def _has_dollars(f: Findings) -> bool:
    curves = _curves_of(f)
    return not curves.empty and bool((curves["optimize_list_cost_usd"].astype(float) > 0).all())


_LEARNING = "Best score so far on the rows that candidates are selected on, against {}; these are no test scores"
KINDS: list[FigureKind] = [
    FigureKind(
        "learning_curves", _LEARNING.format("rollouts"),
        lambda f, _: learning_curves(f.results, _curves_of(f), "rollouts"), lambda f: once(not _curves_of(f).empty),
    ),
    FigureKind(
        "learning_curves_calls", _LEARNING.format("LM calls"),
        lambda f, _: learning_curves(f.results, _curves_of(f), "lm_calls"), lambda f: once(not _curves_of(f).empty),
    ),
    FigureKind(
        "learning_curves_usd", _LEARNING.format("list cost"),
        lambda f, _: learning_curves(f.results, _curves_of(f), "list_cost_usd"), lambda f: once(_has_dollars(f)),
    ),
]  # fmt: skip
