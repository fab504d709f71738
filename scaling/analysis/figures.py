"""All figures: each kind stands beside its function, in a file by subject; a new figure is one entry there.

Figures draw the scores and intervals that they are given and compute none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from scaling.analysis import breakdowns, learning_figures, score_figures, size_figures, transfer_views, turn_figures
from scaling.analysis.figure_kind import FigureKind
from scaling.analysis.findings import Findings
from scaling.planning.optimizers import label_of
from scaling.types import digest

FIGURES: list[FigureKind] = [
    *score_figures.KINDS, *learning_figures.KINDS, *turn_figures.KINDS, *size_figures.KINDS, *breakdowns.KINDS,
    *transfer_views.KINDS,
]  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure that these records can fill: its file's name without an ending, a sentence on it, and what draws it."""

    name: str
    caption: str
    draw: Callable[[], Figure]


def pictures_of(f: Findings) -> list[Picture]:
    """The pictures of FIGURES that these findings can fill, in their order, each under a name of its own."""
    kinds = transfer_views.KINDS if f.summary.empty else FIGURES  # programs that were transferred, and nothing else
    return [picture for kind in kinds for picture in _pictures_of_kind(kind, f)]


def _pictures_of_kind(kind: FigureKind, f: Findings) -> Iterator[Picture]:
    values = list(kind.each(f))
    for value, name in zip(values, file_names(values), strict=True):
        file_name = f"{kind.name}_{name}" if value else kind.name
        yield Picture(file_name, kind.caption.format(label_of(value)), partial(kind.draw, f, value))


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
