"""Records to frames: one row per cell, one matrix of scores per series, and the summary that people read.

A *series* is what may be compared over steps: benchmark, pipeline, optimizer, model, and everything that
must be equal (proposer, budget, selection rows, temperature, test rows). Cells of another series are never
averaged with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.analysis.reading import Answers, CellData, LeftOut, bad_rows, places
from scaling.analysis.sequential import SequentialStudy
from scaling.analysis.series import SERIES, SeriesKey
from scaling.analysis.stats import Arm
from scaling.pipelines import step_name
from scaling.records.record import CallRecord, CellPlan, Environment, Instruction, PredictionLine
from scaling.records.store import CALLS, PREDICTIONS, read_objects


@dataclass(frozen=True)
class Turns:
    """Scores of each turn on the items that every run has them for: items, groups (n,), scores (n, turns, runs)."""

    items: np.ndarray
    groups: np.ndarray
    scores: np.ndarray

    def at(self, items: np.ndarray) -> Turns:
        """The same on these items, in their order."""
        rows = places(self.items, items)
        return Turns(items, self.groups[rows], self.scores[rows])


@dataclass
class Results:
    """All records of some folders: `cells` (a row per cell), what lies beside each record, and what is left out."""

    cells: pd.DataFrame
    folders: dict[str, Path]  # row key -> the cell's folder
    estimates: dict[str, CellPlan]  # cell_id -> what it was estimated at before it ran
    data: dict[str, CellData]  # row key -> what lies beside the record, of cells that are ok
    left_out: list[LeftOut]
    environment: Environment | None  # of the first record
    questions: list[str] = field(default_factory=list)  # names of those that the studies asked, by their plans
    sequential: list[SequentialStudy] = field(default_factory=list)  # studies that look between runs

    @property
    def is_interim(self) -> bool:
        """Whether a sequential study has looks to come, so that nothing here is final."""
        return not all(study.is_over for study in self.sequential)

    def answers(self, key: str) -> dict[str, Answers]:
        """Program name -> its answers."""
        return self.data[key].answers

    def arm(self, keys: list[str], program: str = "final", metric: str | None = None) -> Arm | None:
        """The runs of one series at one number of steps on the items that all of them scored; None when there are none.

        A run without this program, or without this metric, is left out. metric: an extra metric's name in place of
        the score.
        """
        runs = {key: run for key in keys if (run := self.answers(key).get(program)) is not None}
        having = [run for run in runs.values() if metric is None or metric in run.extra]
        if not having:
            return None
        self._tell_missing([key for key in keys if key not in runs], program)
        columns = [run.scores if metric is None else run.extra[metric] for run in having]
        items = having[0].items
        if not all(np.array_equal(run.items, items) for run in having):
            items = items[np.logical_and.reduce([np.isin(items, run.items) for run in having])]
            columns = [column[places(run.items, items)] for run, column in zip(having, columns, strict=True)]
        scores = np.column_stack(columns)
        here = ~np.isnan(scores).any(axis=1)
        if not here.any():
            return None
        row = self.cells.loc[keys[0]]
        first = having[0]
        groups = first.groups if items is first.items else first.groups[places(first.items, items)]
        benchmark, optimizer = str(row["benchmark"]), str(row["optimizer"])
        if here.all() and items is first.items:  # the same arrays for all such arms: quick to compare
            return Arm(benchmark, optimizer, items, groups, scores)
        asked = {item for run in having for item in run.items.tolist()}
        unscored = np.array(sorted(asked - set(items[here].tolist())))
        return Arm(benchmark, optimizer, items[here], groups[here], scores[here], unscored)

    def turns(self, keys: list[str]) -> Turns | None:
        """Turn scores of the runs on the items that all of them have; None where there are none."""
        runs = [run for key in keys if (run := self.answers(key).get("final")) is not None and run.turns is not None]
        if not runs or len({run.turns.shape[1] for run in runs if run.turns is not None}) > 1:
            return None
        complete = [run.items[~np.isnan(run.turns).any(axis=1)] for run in runs if run.turns is not None]
        items = complete[0][np.logical_and.reduce([np.isin(complete[0], other) for other in complete])]
        if not len(items):
            return None
        tables = [run.turns[places(run.items, items)] for run in runs if run.turns is not None]
        return Turns(items, runs[0].groups[places(runs[0].items, items)], np.stack(tables, axis=2))

    def curve(self, key: str) -> dict[str, np.ndarray]:
        """One cell's learning curve as arrays by field; {} when it has no point."""
        return self.data[key].curve

    def instructions(self, key: str) -> dict[str, Instruction]:
        """Instructions that optimization changed, by role."""
        return self.data[key].instructions

    def lines(self, key: str) -> list[PredictionLine]:
        """The usable prediction lines of one cell, as they were written."""
        return read_objects(self.folders[key] / PREDICTIONS, PredictionLine)[0]

    def calls(self, key: str) -> list[CallRecord]:
        """The usable call lines of one cell."""
        path = self.folders[key] / CALLS
        calls, bad = read_objects(path, CallRecord)
        self.leave_out(*bad_rows(path, bad))
        return calls

    def leave_out(self, *units: LeftOut) -> None:
        """Note what is left out, each once."""
        self.left_out += [unit for unit in units if unit not in self.left_out]

    def name(self, key: str) -> str:
        """One cell for people: benchmark, steps, optimizer, model, run."""
        row = self.cells.loc[key].to_dict()
        return f"{row['benchmark']} {folder_name(row)} {row['optimizer']} {row['model']} run{row['run']}"

    def _tell_missing(self, keys: list[str], program: str) -> None:
        """Name the runs that lack a program which others of the series have."""
        for key in keys:
            score = self.cells.loc[key].to_dict()["at_equal_calls_score"]
            never_bought = program == "at_equal_calls" and pd.isna(score)
            why = "this run did not buy it" if never_bought else "this run has none"
            reason = f"{why}, others of its series have it"
            self.leave_out(LeftOut(f"program {program}", self.folders[key] / PREDICTIONS, reason))


def series_cells(results: Results) -> dict[SeriesKey, dict[int, list[str]]]:
    """Series -> steps -> keys of its cells that are ok, one per run."""
    ok = results.cells[results.cells["status"] == "ok"]
    cells: dict[SeriesKey, dict[int, list[str]]] = {}
    for _, part in ok.groupby(list(SERIES), dropna=False, sort=True):
        part = part.drop_duplicates(subset=["steps", "run"]).sort_values("run")
        series = SeriesKey.of(part.iloc[0])
        cells[series] = {int(str(steps)): list(same.index) for steps, same in part.groupby("steps")}
    return cells


def folder_name(row: Mapping[Any, Any] | pd.Series[Any]) -> str:
    """'3step', '5vote': steps and pipeline in a word."""
    return step_name(row["pipeline"], row["steps"])
