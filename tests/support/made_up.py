"""Records of cells that never ran, with known scores: everything that the analysis reads, by the real writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import structs

from scaling.intervals import mean_interval
from scaling.records.record import (
    CallRecord,
    CurvePoint,
    DataFacts,
    Environment,
    ErrorRates,
    LearningCurve,
    ModelFacts,
    PhaseUsage,
    PredictionLine,
    Proposals,
    Record,
    Usage,
)
from scaling.records.store import CellFiles, files_of, write_json, write_lines, write_record
from scaling.types import SCHEMA_VERSION, Cell

ROWS = 40
USAGE = Usage(
    calls=300, prompt_tokens=90_000, completion_tokens=9_000, list_cost_usd=0.2, billed_cost_usd=0.2
)  # fmt: skip


def write_cell(results: Path, cell: Cell, level: float, gain: float = 0.0, task_class: str | None = None) -> CellFiles:
    """A cell that ended well: its baseline is right on a share `level` of ROWS rows, its final on `level + gain`."""
    rng = np.random.default_rng([cell.run, cell.steps, len(cell.benchmark), len(cell.optimizer)])
    hard = rng.permutation(ROWS) / ROWS
    before, after = (hard < level).astype(float), (hard < level + gain).astype(float)
    files = files_of(cell, results)
    files.take(cell)
    turns = cell.steps if cell.pipeline in ("self_correct", "resample") else 0
    programs = {"baseline": before, "final": after, "at_equal_calls": after}
    write_lines(files.predictions, [line for name, own in programs.items() for line in lines_of(name, own, turns)])
    write_lines(files.calls, [CallRecord(phase="evaluate", role="task", list_cost_usd=0.001)] * 3)
    points = [_point(0, 0.5), _point(1, 0.6)] if cell.optimizer != "none" else []
    write_json(files.curve, LearningCurve(points, cell.cell_id))
    write_json(files.program, {"instructions": {"classifier": {"before": "Sort it.", "after": "Sort it well."}}})
    write_record(files, record_of(cell, before, after, task_class))
    return files


def write_answers(
    results: Path,
    cell: Cell,
    turns: np.ndarray,
    facts: ModelFacts,
    usd: float | None = 0.001,
    group_size: int = 1,
    calls: Sequence[CallRecord] = (),
) -> CellFiles:
    """A cell without an optimizer whose answers have these scores turn by turn, shape (n, turns); the last one counts.

    usd: list cost of an answer, None where prices are not known. group_size: so many rows in a row are not independent.
    """
    files = files_of(cell, results)
    files.take(cell)
    scores = turns[:, -1]
    own = [
        PredictionLine(
            program="final", id=f"row{i:04d}", group=f"group{i // group_size:04d}", gold="a", prediction="a",
            score=float(score), calls=turns.shape[1], tokens=400, prompt_tokens=300, completion_tokens=100,
            list_cost_usd=usd, turn_scores=turns[i].tolist() if turns.shape[1] > 1 else None,
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip
    write_lines(files.predictions, [structs.replace(line, program="baseline") for line in own] + own)
    write_lines(files.calls, list(calls))
    write_json(files.curve, LearningCurve([], cell.cell_id))
    write_json(files.program, {"instructions": {}})
    record = record_of(cell, scores, scores)
    record.model, record.check_n = facts, cell.val_size - cell.select_size
    if usd is None:
        record.usage = PhaseUsage(*[structs.replace(USAGE, list_cost_usd=None, billed_cost_usd=None)] * 2)
    write_record(files, record)
    return files


def lines_of(program: str, scores: Sequence[float], turns: int = 0) -> list[PredictionLine]:
    """A prediction line a score; with turns, a first turn that was wrong and later ones like the last."""
    return [
        PredictionLine(
            program=program, id=f"row{i:03d}", group=f"row{i:03d}", gold="a", prediction="a" if score else "b",
            score=float(score), extra_scores={}, notes={}, calls=1, tokens=400, latency_seconds=0.5,
            turn_scores=[0.0, *[float(score)] * (turns - 1)] if turns else None,
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip


def record_of(cell: Cell, before: np.ndarray, after: np.ndarray, task_class: str | None = None) -> Record:
    """The record that goes with these scores."""
    return Record(
        schema_version=SCHEMA_VERSION, status="ok", cell_id=cell.cell_id, cell=cell, task_class=task_class,
        split="test", n=len(before), sample=False, unchanged=bool((before == after).all()),
        proposals=Proposals(7, 0, 2), baseline_score=float(before.mean()), final_score=float(after.mean()),
        improvement=float(after.mean() - before.mean()), baseline_ci95=mean_interval(list(before)),
        final_ci95=mean_interval(list(after)), improvement_ci95=(-0.1, 0.2), at_equal_calls_score=float(after.mean()),
        check_score=float(after.mean()), check_n=50, val_baseline_score=0.5, val_final_score=0.6,
        failure_kinds={"baseline": {}, "final": {"parse": 1}}, extra_scores={},
        rollouts_used=190, optimize_seconds=9.0, lm_calls_per_example=float(cell.steps),
        usage=PhaseUsage(USAGE, USAGE), proposal_usage=USAGE, error_rates=ErrorRates(0.0, 0.0), elapsed_seconds=60.0,
        environment=Environment("3.11", {"dspy": "3.4.1"}, None, "Linux"),
        data=DataFacts("made up", None, cell.data_sha256, f"test rows of {cell.benchmark}", 0),
        model=ModelFacts(None, "unknown", None, 1.0, None),
    )  # fmt: skip


def _point(number: int, best: float) -> CurvePoint:
    return CurvePoint(
        rollouts=50 * (number + 1), lm_calls=50, tokens=9_000, list_cost_usd=0.01, elapsed_seconds=9.0, rows="select",
        val_n=50, candidate_val_score=best, best_val_score=best,
    )  # fmt: skip
