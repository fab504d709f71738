"""Figures of what optimizers saw while they worked: scores on select rows, which are not test scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.analysis.figure_kind import FigureKind, once
from scaling.analysis.figure_style import (
    POINTS,
    look,
    panels,
    shared_legend,
    shown,
)
from scaling.analysis.findings import Findings
from scaling.analysis.text import plural

MOST_PANELS = 24
CURVE_AXES = {
    "rollouts": "rollouts",
    "lm_calls": "LM calls, all kinds",
    "list_cost_usd": "list cost (USD)",
}

Curve = dict[str, np.ndarray]  # arrays by field, one value a point


@dataclass(frozen=True)
class LearningLine:
    """A series at one number of steps, as it learnt: its name in the summary and the curves of its runs."""

    benchmark: str
    steps: int
    line: str
    curves: list[Curve]

    @property
    def panel(self) -> str:
        return f"{self.benchmark}, {plural(self.steps, 'step')}"


def learning_lines(f: Findings, axis: str) -> list[LearningLine]:
    """The series that have learning curves on this axis (rollouts, lm_calls or list_cost_usd)."""
    lines = []
    for entry, (_, row) in zip(f.entries, f.summary.iterrows(), strict=True):
        curves = [_known(curve, axis) for key in entry.keys if (curve := f.results.curve(key))]
        curves = [curve for curve in curves if len(curve[axis])]
        if row["optimizer"] != "none" and curves:
            lines.append(LearningLine(row["benchmark"], row["steps"], row["line"], curves))
    return sorted(lines, key=lambda line: (line.benchmark, line.steps))


def learning_curves(lines: list[LearningLine], axis: str) -> Figure:
    """Best selection score so far, a panel per benchmark and steps: the mean over runs, the range over runs as a band.

    Marks are the candidates.
    """
    names = list(dict.fromkeys(line.panel for line in lines))
    figure, axes = panels(names[:MOST_PANELS], height=1.9, per_row=4)
    order = sorted({line.line for line in lines})
    for line in lines:
        if line.panel in axes:
            _one_learning_curve(line, axis, order.index(line.line), axes[line.panel])
    for name, ax in axes.items():
        ax.set(title=shown(name), ylim=(-2, 102))
    for ax in list(axes.values())[-4:]:  # the lowest of each column
        ax.set_xlabel(CURVE_AXES[axis])
    if len(names) > len(axes):
        figure.suptitle(f"the first {len(axes)} of {len(names)}; all points are in learning_curve.json", fontsize=7)
    figure.supylabel(
        "score on select rows (points),\nselected on these rows\n(band: all runs; hollow: train)", fontsize=7.5
    )
    shared_legend(figure, list(axes.values()))
    return figure


def _known(curve: Curve, axis: str) -> Curve:
    """The curve's points at which the axis and the best score so far are known."""
    known = ~np.isnan(curve["best_val_score"]) & ~np.isnan(curve[axis])
    return {name: values[known] for name, values in curve.items()}


def _one_learning_curve(line: LearningLine, axis: str, index: int, ax: Axes) -> None:
    colour, marker, dash = look(index)
    x = np.unique(np.concatenate([curve[axis] for curve in line.curves]))
    x = x[x >= max(curve[axis].min() for curve in line.curves)]  # from where every run has a score
    best = np.array([_step(curve[axis], curve["best_val_score"], x) for curve in line.curves])
    ax.step(x, POINTS * best.mean(axis=0), where="post", color=colour, linestyle=dash, label=line.line)
    if len(line.curves) > 1:
        ax.fill_between(x, POINTS * best.min(axis=0), POINTS * best.max(axis=0), step="post", color=colour, alpha=0.15)
    at, score, on_train = (
        np.concatenate([curve[name] for curve in line.curves]) for name in (axis, "candidate_val_score", "on_train")
    )
    for chosen, face in ((~on_train, colour), (on_train, "none")):
        ax.plot(
            at[chosen], POINTS * score[chosen], linestyle="none", color=colour, alpha=0.6, marker=marker,
            markersize=2.5 if face == "none" else 3.5, markerfacecolor=face, markeredgewidth=0.5,
        )  # fmt: skip


def _step(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values of a step function that holds y from each x on."""
    return y[np.searchsorted(x, at, side="right") - 1]


def _has_dollars(f: Findings) -> bool:
    """Whether every optimization has a price that is known and not 0."""
    cells = f.results.cells
    usd = cells[(cells["status"] == "ok") & (cells["optimizer"] != "none")]["optimize_list_cost_usd"].astype(float)
    return bool((usd > 0).all())


def _kind(name: str, axis: str, against: str, applies: Callable[[Findings], bool] = lambda f: True) -> FigureKind:
    return FigureKind(
        name,
        f"Best score so far on the rows that candidates are selected on, against {against}; these are not test scores",
        lambda f, _: learning_curves(learning_lines(f, axis), axis),
        lambda f: once(applies(f) and bool(learning_lines(f, axis))),
    )


KINDS: list[FigureKind] = [
    _kind("learning_curves", "rollouts", "rollouts"),
    _kind("learning_curves_calls", "lm_calls", "LM calls"),
    _kind("learning_curves_usd", "list_cost_usd", "list cost", _has_dollars),
]
