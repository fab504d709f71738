"""How a benchmark's figures are printed and kept: a table with goals, the machine and the date."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measure:
    """One figure with its unit; `goal` (None: none) is kept when `compare(value, goal)` holds."""

    what: str
    value: float
    unit: str
    goal: float | None
    compare: Callable[[float, float], bool]
    detail: str

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return "no goal"
        return "kept" if self.compare(self.value, self.goal) else "missed"


def write_results(path: Path, title: str, measures: list[Measure]) -> None:
    """Print the figures and rewrite the Markdown file that keeps them."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        f"# {title}",
        "",
        f"Measured {datetime.date.today().isoformat()} on {machine} by `make bench`.",
        "The machine is shared with others: ratios count, not seconds.",
        "",
        "| what | measured | goal | kept? | detail |",
        "|---|---|---|---|---|",
    ]
    for one in measures:
        unit = f" {one.unit}" if one.unit else ""
        side = {"ge": "at least", "lt": "below"}.get(one.compare.__name__, "")
        goal = "" if one.goal is None else f"{side} {one.goal:g}{unit}"
        lines.append(f"| {one.what} | {one.value:.2f}{unit} | {goal} | {one.verdict} | {one.detail} |")
    text = "\n".join(lines) + "\n"
    print(text)
    path.write_text(text, encoding="utf-8")
