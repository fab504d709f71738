"""Everything that was found in some results folders; tables, figures and the report are ways of showing it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from scaling.analysis.answers import Answer
from scaling.analysis.comparisons import Entry
from scaling.analysis.fits import Family
from scaling.analysis.results import Results
from scaling.analysis.turns import TurnedCell

Curves = dict[tuple[str, str], list[Family]]  # (benchmark, line) -> the families of curves fitted to it


@dataclass(frozen=True)
class Findings:
    """Frames have a row an item: `summary` and `costs` a series and number of steps, in the order of `entries`;
    `tests` a comparison; `fits` a fit; `gains` a model and task of self-correction; `models` a model with one program
    on a benchmark, or on all; `breakdowns` a series on the rows of one subtask, level, domain or difficulty;
    `transfers` a program on a model that it was not optimized on, or that model's own. answers: to the questions that
    the studies asked."""

    results: Results
    entries: list[Entry]
    summary: pd.DataFrame
    tests: pd.DataFrame
    answers: list[Answer]
    fits: pd.DataFrame
    curves: Curves
    turned: list[TurnedCell]
    gains: pd.DataFrame
    costs: pd.DataFrame
    models: pd.DataFrame
    breakdowns: pd.DataFrame
    transfers: pd.DataFrame
    refused: list[str]
    value: float | None  # dollars that one more right answer is worth, as the user named them
    per_dollar: bool
