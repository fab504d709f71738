"""Which cells of a sequential study are likely to run: its own looks, played through on assumed scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.command.headroom import headroom_folder
from scaling.command.prepare import Sweep
from scaling.command.questions import planned_tasks
from scaling.records.store import read_records

if TYPE_CHECKING:
    from scaling.analysis.headroom import Headroom

MOST_CELLS = 500  # a larger study would take minutes
BY_PILOT, BY_NOTHING = "the pilot of headroom holds", "no number of steps changes a score"


@dataclass(frozen=True)
class Expected:
    """By cell_id, the chance that a cell runs, {} where nobody knows; guess: what must hold for that."""

    chances: Mapping[str, float] = field(default_factory=dict)
    guess: str = ""


def expected_cells(sweep: Sweep, results: Path) -> Expected:
    """What a sequential study is likely to run, before its first look: by its pilot of headroom where there is one."""
    decided = sweep.decided
    if decided is None or decided.looks or len(sweep.tasks) > MOST_CELLS:
        return Expected()
    from scaling.analysis.foreseen_waves import chances_to_run  # pandas and its friends start slowly

    planned, headrooms = list(planned_tasks(sweep.tasks, {})), _headrooms(headroom_folder(results))
    return Expected(chances_to_run(planned, decided.plan.design, headrooms), BY_PILOT if headrooms else BY_NOTHING)


def _headrooms(folder: Path) -> Sequence[Headroom]:
    """What the pilot of headroom in this folder found; none where there is none, or it has no score yet."""
    from scaling.analysis.headroom import headrooms_of
    from scaling.analysis.loading import load

    records = read_records([folder]) if folder.exists() else []
    scored = {record.cell_id for _, record in records if record.status == "ok"}
    return headrooms_of(load([folder]), scored) if scored else []
