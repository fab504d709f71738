"""Self-correction over models in two tables that fit one column of a paper: by model, and by task."""

from __future__ import annotations

import pandas as pd

from scaling.analysis.findings import Findings
from scaling.analysis.fits import power_law
from scaling.analysis.research import FEWEST_MODELS, gains_by_model, size_line_of
from scaling.analysis.text import UNKNOWN, Table, count, percent, table_of, without_folders


def by_model(f: Findings) -> Table:
    """What correcting itself gives each model and costs, as means over tasks."""
    note = (
        "Means over tasks of the last turn minus the first, in points, plus or minus half a 95 % interval. 'USD more' "
        "is the list cost of the later turns for 1,000 answers. An assumed size has a question mark. A model that "
        "lacks a task is left out."
    )
    gains = gains_by_model(f.gains).sort_values("size") if len(f.gains) else f.gains
    names = without_folders([str(name) for name in gains.index])
    rows = [_by_model(name, row) for name, (_, row) in zip(names, gains.iterrows(), strict=True)]
    return table_of("Gain and cost of self-correction by model", note, rows, narrow=True)


def _by_model(name: str, row: pd.Series) -> dict[str, str]:
    assumed = "?" if pd.notna(row["size"]) and pd.isna(row["published_size"]) else ""
    return {
        "model": name,
        "billions": count(row["size"], "{:.3g}") + assumed,
        "gain": _with_half(row["gain"], row["high"]),
        "USD more": count(1000 * row["extra_usd"], "{:.3g}"),
    }


def by_task(f: Findings) -> Table:
    """How the gain grows with size on each task: the exponent where one may be named, and the slope."""
    note = (
        f"Models of published size, from {FEWEST_MODELS} on. Alpha is the exponent of gain = A size^alpha with its "
        "95 % set. The slope is in points for ten times the size, plus or minus half a 95 % interval. Why an exponent "
        "is refused stands under 'Shapes and fits'."
    )
    tasks = {str(task): part for task, part in f.gains.groupby("benchmark")}
    parts = {"all tasks": f.gains, **tasks} if len(tasks) > 1 else tasks
    rows = [row for task, part in parts.items() if (row := _by_task(task, part))]
    return table_of("Exponent of self-correction by task", note, rows, narrow=True)


def _by_task(task: str, gains: pd.DataFrame) -> dict[str, str] | None:
    """None where the models of published size are too few for a line."""
    models, line = size_line_of(gains)
    if line is None or len(models) < FEWEST_MODELS:
        return None
    law = power_law(models["size"].tolist(), models["gain"].tolist())
    return {
        "task": task,
        "models": str(len(models)),
        "alpha": "refused" if law.refused else f"{law.alpha:.2f}",
        "95 % set": UNKNOWN if law.refused else f"[{law.low:.2f}, {law.high:.2f}]",
        "slope": _with_half(line.slope, line.slope_interval[1]),
    }


def _with_half(value: float, high: float) -> str:
    """'+3.4 ± 1.8': half of a 95 % interval that is as wide below as above."""
    return f"{percent(value, sign=True)} ± {percent(high - value)}"
