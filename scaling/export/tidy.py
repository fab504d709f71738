"""The tidy table: one row a prediction. Each column has its type and its meaning, which the data dictionary repeats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from scaling.export.cells import ExportedCell
from scaling.records.record import PredictionLine
from scaling.types import BREAKDOWNS


def _column(meaning: str, unit: str = "") -> Any:
    return field(metadata={"meaning": meaning, "unit": unit})


@dataclass(frozen=True, kw_only=True)
class PredictionRow:
    """One program's answer to one row of a benchmark, with what the cell was."""

    cell_id: str = _column("digest of every field of the cell that can change its answers")
    benchmark: str = _column("benchmark")
    task_class: str | None = _column("kind of task, as the benchmark calls it")
    pipeline: str = _column("how calls are combined: chain, vote, repeat, self_correct, resample")
    steps: int = _column("calls that the program makes for a row", "calls")
    optimizer: str = _column("prompt optimizer; none for a program as it was written")
    rollout_budget: int = _column("rollouts that the optimizer was allowed", "rollouts")
    model: str = _column("model that answered")
    optimizer_model: str = _column("model that proposed instructions")
    reasoning_effort: str | None = _column("effort that was asked for; null for the provider's own")
    temperature: float = _column("temperature that was asked for")
    run: int = _column("independent repeat of the cell")
    seed: int = _column("seed of rows and optimizers")
    is_sample: bool = _column("the rows are a small sample that came with the program: no result")
    is_pilot: bool = _column("the cell is of a pilot: no result")
    note: str | None = _column("what must be said of these rows")
    cell: str = _column("every field of the cell as JSON")
    status: str = _column("how the cell ended; scores of others than ok are not used")
    data_source: str | None = _column("hub, sample or folder")
    data_sha256: str | None = _column("digest of all rows of the cell")
    licence: str | None = _column("licence of the benchmark's rows; null where it is not known")
    program: str = _column("baseline (before), final (after), at_equal_calls (best at budget / steps), check")
    split: str | None = _column("rows that were asked: test, or check, which no optimizer saw")
    row_id: str = _column("id of the row in the benchmark")
    group: str = _column("rows of one group are not independent: intervals resample groups")
    draw: int = _column("draw of the same row")
    input: str | None = _column("inputs of the row as JSON; null where they do not go out")
    gold: str | None = _column("right answer; JSON where there are several outputs; null where it does not go out")
    prediction: str | None = _column("answer; JSON where there are several outputs; null where there is none")
    score: float | None = _column("score of the answer; null where the network lost it", "0 to 1")
    error: str | None = _column("parse or too_long (score 0), infrastructure (no score)")
    failure_kind: str | None = _column("how a wrong answer failed, where the benchmark tells")
    subtask: str | None = _column("subtask of the row")
    level: str | None = _column("level of the row")
    domain: str | None = _column("domain of the row")
    difficulty: str | None = _column("difficulty of the row")
    notes: str | None = _column("notes of the steps as JSON; null where they do not go out")
    extra_scores: str | None = _column("scores by other metrics as JSON, each 0 to 1")
    turn_scores: str | None = _column("score of each turn or draw as a JSON list, each 0 to 1")
    calls: int | None = _column("LM calls for this answer", "calls")
    prompt_tokens: int | None = _column("tokens that were read", "tokens")
    cached_tokens: int | None = _column("part of prompt_tokens that the provider had cached", "tokens")
    completion_tokens: int | None = _column("tokens that were written", "tokens")
    reasoning_tokens: int | None = _column("part of completion_tokens that was thinking", "tokens")
    list_cost_usd: float | None = _column("cost at list prices, without a cache", "US dollars")
    latency_seconds: float | None = _column("sum over the calls of this answer", "seconds")


@dataclass(frozen=True)
class Column:
    """A column of the table. kind: str, int, float or bool."""

    name: str
    kind: type
    nullable: bool
    meaning: str
    unit: str


def columns() -> list[Column]:
    """The columns in their order."""
    hints = get_type_hints(PredictionRow)
    return [
        Column(
            name=of.name,
            kind=next(kind for kind in get_args(hints[of.name]) or (hints[of.name],) if kind is not NoneType),
            nullable=NoneType in get_args(hints[of.name]),
            meaning=of.metadata["meaning"],
            unit=of.metadata["unit"],
        )
        for of in fields(PredictionRow)
    ]


def rows_of(cell: ExportedCell) -> Iterator[PredictionRow]:
    """The rows of a cell, in the order of its predictions."""
    shared = _shared(cell)
    for line in cell.lines:
        yield PredictionRow(**shared, **_own(line, cell))


def as_text(value: Any) -> str | None:
    """A text as it is, None as None, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shared(cell: ExportedCell) -> dict[str, Any]:
    """What all rows of a cell have in common."""
    record, data = cell.record, cell.record.data
    names = ("benchmark", "pipeline", "steps", "optimizer", "rollout_budget", "model", "optimizer_model",
             "reasoning_effort", "temperature", "run", "seed")  # fmt: skip
    return {name: getattr(cell.cell, name) for name in names} | {
        "cell_id": record.cell_id,
        "task_class": record.task_class,
        "is_sample": bool(record.sample),
        "is_pilot": cell.is_pilot,
        "cell": json.dumps(asdict(cell.cell), ensure_ascii=False),
        "note": record.note,
        "status": record.status,
        "data_source": data.source if data else None,
        "data_sha256": data.sha256 if data else None,
        "licence": cell.rights.licence,
    }


def _own(line: PredictionLine, cell: ExportedCell) -> dict[str, Any]:
    """What one prediction adds."""
    row_id = str(line.id)
    same = ("program", "draw", "score", "error", "failure_kind", "calls", "prompt_tokens", "cached_tokens",
            "completion_tokens", "reasoning_tokens", "list_cost_usd", "latency_seconds")  # fmt: skip
    lists = ("notes", "extra_scores", "turn_scores")
    categories = line.categories or {}
    return {name: getattr(line, name) for name in same} | {
        "row_id": row_id,
        "group": row_id if line.group is None else str(line.group),
        "split": "check" if line.program == "check" else cell.record.split,
        "input": as_text(cell.inputs.get(row_id)),
        "gold": as_text(line.gold),
        "prediction": as_text(line.prediction),
        **{name: as_text(getattr(line, name) or None) for name in lists},
        **{name: categories.get(name) for name in BREAKDOWNS},
    }
