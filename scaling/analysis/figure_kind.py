"""What an entry of FIGURES is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from matplotlib.figure import Figure

from scaling.analysis.findings import Findings


@dataclass(frozen=True)
class FigureKind:
    """An entry of FIGURES: one file, or one for each value of `each`, whose name and caption then hold the value.

    each: the values that it is drawn for; [] where the records have nothing to draw, [""] for a single figure.
    """

    name: str
    caption: str
    draw: Callable[[Findings, str], Figure]
    each: Callable[[Findings], Iterable[str]]


def once(applies: bool) -> list[str]:
    """The `each` of a single figure: drawn once where it applies."""
    return [""] if applies else []
