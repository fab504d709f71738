"""A sequential study that never ran: records with planted scores, its plan, and the looks at it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling.analysis.loading import load
from scaling.analysis.looks import judge_look
from scaling.records.looks import LookDecision, look_path, read_looks, write_once
from scaling.records.record import CellPlan, SequentialPlan, SweepPlan
from scaling.records.store import files_of, write_json, write_lines, write_plan, write_record
from scaling.sequential import Look, SequentialDesign, sequential_design
from scaling.types import Cell
from tests.support.made_up import lines_of, record_of

MODEL, STUDY = "made/up", "pipeline"
CLASSES = {"intents": "classification", "diagnoses": "classification", "questions": "reasoning"}
OPTIMIZERS, STEPS = ("gepa", "mipro"), (1, 3, 5)
ROWS, CALLS = 150, (900, 1100)


@dataclass(frozen=True)
class Planted:
    """What is planted: a score of `level`, more of it for each step after the first, and a run sd, all fractions."""

    a_step: float = 0.0
    level: float = 0.5
    run_sd: float = 0.01


def cell(benchmark: str, optimizer: str, steps: int, run: int) -> Cell:
    return Cell(benchmark, "chain", steps, optimizer, MODEL, MODEL, run=run, test_size=ROWS, data_sha256=str(run))


def all_cells(runs: Iterable[int]) -> list[Cell]:
    return [cell(b, o, k, run) for b, o, k, run in itertools.product(CLASSES, OPTIMIZERS, STEPS, runs)]


def write_runs(results: Path, cells: Iterable[Cell], planted: Planted) -> None:
    """Records of these cells; rows are as hard for all of them."""
    for one in cells:
        rng = np.random.default_rng([one.run, one.steps, sorted(CLASSES).index(one.benchmark), len(one.optimizer)])
        hard = np.random.default_rng(sorted(CLASSES).index(one.benchmark)).random(ROWS)
        chance = planted.level + planted.a_step * (one.steps - 1) + rng.normal(0, planted.run_sd)
        scores = (0.6 * hard + 0.4 * rng.random(ROWS) < 0.2 + 0.6 * chance).astype(float)
        files = files_of(one, results)
        files.take(one)
        write_lines(files.predictions, [line for name in ("baseline", "final") for line in lines_of(name, scores)])
        write_json(files.program, {"instructions": {}})
        record = record_of(one, scores, scores, CLASSES[one.benchmark])
        record.at_equal_calls_score = None
        write_record(files, record)


def start(results: Path, runs: int = 3) -> SequentialDesign:
    """Write the plan of the study."""
    design = sequential_design(runs)
    cells = all_cells(range(runs))
    ids = sorted(one.cell_id for one in cells)
    plans = {one.cell_id: CellPlan(calls=CALLS, tokens=(1, 2), cell=one) for one in cells}
    rule = SequentialPlan(study=STUDY, design=design, cells=ids)
    write_plan(results, SweepPlan(cells=plans, sequential=[rule]))
    return design


def look(results: Path, design: SequentialDesign) -> Look:
    """Judge what is there, and write the decision as the runner does."""
    earlier = [decision.look for decision in read_looks(results, STUDY)]
    judged = judge_look(load([results]), design, earlier)
    path = look_path(results, STUDY, judged.number)
    write_once(path, LookDecision(study=STUDY, design=design, look=judged, scores={}))
    return judged
