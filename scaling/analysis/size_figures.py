"""Figures over models: scores and gains against size, with the fitted curve and its band, and scores against price."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scaling.analysis.figure_kind import FigureKind, once
from scaling.analysis.figure_style import POINTS, distances, log_axis, look, panels, shared_legend, shown
from scaling.analysis.findings import Findings
from scaling.analysis.fits import power_law, size_line
from scaling.analysis.money import pareto
from scaling.analysis.research import size_line_of

STATUSES = ("published", "assumed")
FEWEST_POINTS = 3  # of different published sizes, for a line


def score_against_size(models: pd.DataFrame, program: str) -> Figure:
    """One program's scores against the size of its models, a panel a benchmark and one for their mean."""
    part = models[(models["program"] == program) & models["size"].notna()]
    figure, axes = panels(list(dict.fromkeys(part["benchmark"])), height=2.3)
    names = list(dict.fromkeys(part["model"]))
    for benchmark, ax in axes.items():
        _against_size(part[part["benchmark"] == benchmark].rename(columns={"score": "value"}), names, ax)
        ax.set_title(shown(benchmark))
    next(iter(axes.values())).set_ylabel("test score (points)")
    shared_legend(figure, list(axes.values()))
    return figure


def gain_against_size(gains: pd.DataFrame) -> Figure:
    """Gain by self-correction against size, a panel a task and one for the mean over tasks."""
    tasks = {str(task): part for task, part in gains.groupby("benchmark")}
    parts = {"mean over tasks": gains, **tasks} if len(tasks) > 1 else tasks
    points = {name: _gain_points(part) for name, part in parts.items()}
    figure, axes = panels([name for name, part in points.items() if len(part)], height=2.3)
    names = list(dict.fromkeys(model for part in points.values() for model in part["model"]))
    for name, ax in axes.items():
        _against_size(points[name], names, ax)
        ax.axhline(0, color="0.6", linewidth=0.6)
        ax.set_title(shown(name))
    next(iter(axes.values())).set_ylabel("gain by self-correction\n(points)")
    shared_legend(figure, list(axes.values()))
    return figure


def score_against_price(models: pd.DataFrame, program: str) -> Figure:
    """One program's scores against the list cost of an answer; the line joins those that no cheaper model reaches."""
    part = models[models["program"] == program]
    figure, axes = panels(list(dict.fromkeys(part["benchmark"])), height=2.3)
    names = list(dict.fromkeys(part["model"]))
    for benchmark, ax in axes.items():
        own = part[part["benchmark"] == benchmark]
        cost, score = 1000 * own["usd_per_example"].to_numpy(float), own["score"].to_numpy(float)
        for place, (_, row) in enumerate(own.iterrows()):
            _mark(ax, cost[place], row, "score", names.index(row["model"]), filled=True)
        front = pareto(cost, score)
        ax.plot(cost[front], POINTS * score[front], color="0.5", linewidth=0.8, drawstyle="steps-post",
                label="no cheaper model scores as high")  # fmt: skip
        log_axis(ax)
        ax.set(title=shown(benchmark), xlabel="USD for 1,000 answers (log scale)")
    next(iter(axes.values())).set_ylabel("test score (points)")
    shared_legend(figure, list(axes.values()))
    return figure


def _gain_points(gains: pd.DataFrame) -> pd.DataFrame:
    """The models of known size with their mean gain, its interval and its variance."""
    by_model, _ = size_line_of(gains, STATUSES)
    status = np.where(by_model["published_size"].notna(), "published", "assumed")
    return by_model.assign(status=status).rename(columns={"gain": "value"}).sort_values("size").reset_index()


def _against_size(points: pd.DataFrame, names: list[str], ax: Axes) -> None:
    """Values with intervals against size; published sizes are filled and have the fitted curve, assumed are hollow."""
    for _, row in points.iterrows():
        _mark(ax, row["size"], row, "value", names.index(row["model"]), filled=row["status"] == "published")
    published = points[(points["status"] == "published") & points["variance"].notna()]
    if published["size"].nunique() >= FEWEST_POINTS:
        _draw_fit(published, ax)
    ax.set_xlabel("parameters (billions, log scale)")
    log_axis(ax)


def _mark(ax: Axes, x: float, row: pd.Series, column: str, index: int, filled: bool) -> None:
    colour, marker, _ = look(index)
    value = np.array([row[column]])
    ax.errorbar([x], POINTS * value, yerr=POINTS * distances(value, [row["low"]], [row["high"]]), label=row["model"],
                color=colour, marker=marker, linestyle="none", capsize=2,
                markerfacecolor=colour if filled else "none")  # fmt: skip


def _draw_fit(published: pd.DataFrame, ax: Axes) -> None:
    """The power law where an exponent may be named, else the line on log size; with the 95 % band of the curve."""
    size, value, variance = (published[column].tolist() for column in ("size", "value", "variance"))
    at = np.geomspace(min(size), max(size), 60)
    law = power_law(size, value)
    curve = size_line(size, value, variance).band(np.log10(at)) if law.refused else law.curve(at)
    label = "line on log size, 95 % band" if law.refused else "A size^alpha, 95 % band"
    ax.plot(at, POINTS * curve.height, color="0.35", linewidth=0.9, label=label)
    ax.fill_between(at, POINTS * curve.low, POINTS * curve.high, color="0.35", alpha=0.15, linewidth=0)


def _sized(f: Findings) -> list[str]:
    """The programs that models of at least three known sizes ran."""
    sizes = f.models.dropna(subset=["size"]).groupby("program", sort=False)["size"].nunique()
    return [str(program) for program in sizes[sizes >= FEWEST_POINTS].index]


def _priced(f: Findings) -> list[str]:
    """The programs whose models all have a known price."""
    known = f.models.groupby("program", sort=False)["on_front"].agg(lambda marks: bool(marks.notna().all()))
    return [str(program) for program in known[known.astype(bool)].index]


KINDS: list[FigureKind] = [
    FigureKind(
        "score_against_size",
        "Test score of '{}' against model size, with the fitted curve and its 95 % band; hollow marks are assumed "
        "sizes and take no part in it",
        lambda f, program: score_against_size(f.models, program), _sized,
    ),
    FigureKind(
        "score_against_price", "Test score of '{}' against the list cost of an answer",
        lambda f, program: score_against_price(f.models, program), _priced,
    ),
    FigureKind(
        "gain_against_size",
        "Gain by self-correction against model size, with the fitted curve and its 95 % band; hollow marks are assumed "
        "sizes and take no part in it",
        lambda f, _: gain_against_size(f.gains),
        lambda f: once(size_line_of(f.gains, STATUSES)[1] is not None),
    ),
]  # fmt: skip
