"""A cell as trackers of experiments take it: parameters, metrics, a curve by step, tags, and its program as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from msgspec import structs

from scaling.export.cells import ExportedCell
from scaling.pipelines import step_name
from scaling.records.record import CurvePoint, Record
from scaling.types import options_text

SCORES = (
    "baseline_score", "final_score", "improvement", "check_score", "at_equal_calls_score", "val_baseline_score",
    "val_final_score", "n", "rollouts_used", "optimize_seconds", "elapsed_seconds",
)  # fmt: skip
INTERVALS = ("baseline_ci95", "final_ci95", "improvement_ci95")
ON_CURVE = ("candidate_val_score", "best_val_score", "test_score", "lm_calls", "tokens", "list_cost_usd")
PROGRAM_FILE, INSTRUCTIONS_FILE = "program.json", "instructions.json"


@dataclass(frozen=True)
class CurveStep:
    """What was known when an optimizer had used `rollouts` rollouts."""

    rollouts: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrackedCell:
    """One cell for a tracker. metrics: unknown ones are left out. files: name -> text."""

    name: str
    is_ok: bool
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    curve: list[CurveStep]
    files: dict[str, str]


class Tracker(Protocol):
    """Where the cells of one sweep are told. Either method may raise or hang: whoever calls it sees to that."""

    def log(self, cell: TrackedCell) -> None:
        """Take in a cell that has ended; one that is there already is left as it is."""

    def close(self) -> None:
        """No cell follows."""


def tracked(cell: ExportedCell) -> TrackedCell:
    """A cell in the words that all trackers share."""
    record = cell.record
    return TrackedCell(
        name=_name(cell),
        is_ok=record.status == "ok",
        params=_params(cell),
        tags=_tags(cell),
        metrics=_metrics(record),
        curve=[_step(point) for point in cell.curve],
        files=_files(cell),
    )


def _name(cell: ExportedCell) -> str:
    asked = cell.cell
    return f"{asked.benchmark} {step_name(asked.pipeline, asked.steps)} {asked.optimizer} {asked.model} run{asked.run}"


def _params(cell: ExportedCell) -> dict[str, str]:
    """Every field of the cell, as text."""
    fields = asdict(cell.cell) | {"optimizer_options": options_text(cell.cell.optimizer_options) or None}
    return {name: str(value) for name, value in fields.items() if value is not None}


def _tags(cell: ExportedCell) -> dict[str, str]:
    record = cell.record
    facts = {
        "cell_id": record.cell_id,
        "status": record.status,
        "split": record.split,
        "level": record.level,
        "licence": cell.rights.licence,
        "warning": "; ".join(cell.warnings) or None,
        "error": record.error.kind if record.error else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _metrics(record: Record) -> dict[str, float]:
    metrics: dict[str, Any] = {name: getattr(record, name) for name in SCORES}
    for name in INTERVALS:
        metrics[f"{name}_low"], metrics[f"{name}_high"] = getattr(record, name) or (None, None)
    for phase, usage in (structs.asdict(record.usage) if record.usage else {}).items():
        sums = structs.asdict(usage) if usage else {}
        metrics |= {f"{phase}_{name}": value for name, value in sums.items()}
    return _known(metrics)


def _step(point: CurvePoint) -> CurveStep:
    metrics = {name: getattr(point, name) for name in ON_CURVE}
    if point.rows == "train":  # what a candidate scored on a few train rows is no point of the curve on select rows
        metrics["candidate_train_score"] = metrics.pop("candidate_val_score")
    return CurveStep(point.rollouts, _known(metrics))


def _known(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if value is not None}


def _files(cell: ExportedCell) -> dict[str, str]:
    """The program with its demos where they may go out, and its instructions."""
    texts = {role: structs.asdict(text) for role, text in cell.instructions.instructions.items()}
    files = {INSTRUCTIONS_FILE: json.dumps(texts, indent=2, ensure_ascii=False)} if texts else {}
    return files | ({PROGRAM_FILE: cell.program} if cell.program is not None else {})
