"""Logs that `inspect view` opens: one for each cell and program, with a sample a row. It needs inspect_ai.

inspect_ai's own types check them and its own writer writes them. Calls within a program are no messages of the log:
records hold no prompts. The notes of its steps stand in the metadata of a sample.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalPlanStep,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput, ModelUsage
from inspect_ai.scorer import Score

from scaling.export.cells import ExportedCell, Sweep
from scaling.export.files import check_free
from scaling.export.tidy import as_text
from scaling.pipelines import step_name
from scaling.records.record import PredictionLine, Usage
from scaling.types import UsageError

SCORER = "score"
NOT_EXPORTED = "(the text of this row is not exported)"


def write(sweep: Sweep, out: Path) -> str:
    """Write the logs; returns what was written. Raises UsageError where no cell has a score."""
    count = 0
    for cell in sweep.cells:
        for program in cell.programs:
            if cell.record.status == "ok" and cell.scored(program):
                path = out / _file_name(cell, program)
                check_free(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_eval_log(eval_log(cell, program, sweep.name), str(path))
                count += 1
    if not count:
        raise UsageError(f"no cell of {sweep.name} has a score. Run its cells first.")
    return f"wrote {out}: {count:,} logs. Type: inspect view --log-dir {out}"


def eval_log(cell: ExportedCell, program: str, sweep: str) -> EvalLog:
    """The log of one program of a cell."""
    lines = [line for line in cell.lines if line.program == program]
    return EvalLog(
        status="success",
        eval=_spec(cell, program, sweep, lines),
        plan=_plan(cell, program),
        results=_results(cell, program, lines),
        stats=EvalStats(
            started_at=(cell.ended - timedelta(seconds=cell.record.elapsed_seconds or 0.0)).isoformat(),
            completed_at=cell.ended.isoformat(),
            model_usage={cell.cell.model: _usage(cell.record.usage.evaluate if cell.record.usage else None)},
        ),
        samples=[_sample(cell, line) for line in lines],
    )


def _spec(cell: ExportedCell, program: str, sweep: str, lines: list[PredictionLine]) -> EvalSpec:
    asked, data = cell.cell, cell.record.data
    names = ("pipeline", "steps", "optimizer", "optimizer_options", "optimizer_model", "rollout_budget", "run", "seed",
             "train_size", "select_size", "reasoning_effort", "feedback", "closed_book")  # fmt: skip
    environment = cell.record.environment
    ids = list(dict.fromkeys(str(line.id) for line in lines))
    return EvalSpec(
        eval_id=_id(cell, program, "eval"),
        run_id=_id(cell, sweep, "run"),
        task_id=_id(cell, program, "task"),
        created=cell.ended.isoformat(),
        task=_task(cell),
        task_args={"program": program} | {name: value for name in names if (value := getattr(asked, name))},
        dataset=EvalDataset(
            name=asked.benchmark, location=data.source if data else None, samples=len(ids), sample_ids=ids,
        ),
        model=asked.model,
        model_generate_config={"temperature": asked.temperature, "max_tokens": asked.max_output_tokens},
        config=EvalConfig(epochs=asked.draws),
        packages=_packages(environment.packages) if environment else {},
        tags=[program, *cell.warnings],
        metadata={"cell_id": cell.record.cell_id, "program": program, "sweep": sweep, "warnings": cell.warnings,
                  "licence": cell.rights.licence, "split": cell.record.split, "level": cell.record.level},
    )  # fmt: skip


def _plan(cell: ExportedCell, program: str) -> EvalPlan:
    """The roles with their instructions as the steps of a plan."""
    texts = cell.instructions.instructions.items()
    return EvalPlan(
        name=f"{cell.cell.pipeline} of {cell.cell.steps}",
        steps=[
            EvalPlanStep(solver=role, params={"instruction": text.before if program == "baseline" else text.after})
            for role, text in texts
        ],
    )


def _results(cell: ExportedCell, program: str, lines: list[PredictionLine]) -> EvalResults:
    record, scored = cell.record, cell.scored(program)
    before = program == "baseline"
    score, interval = (
        (record.baseline_score, record.baseline_ci95) if before else (record.final_score, record.final_ci95)
    )
    low, high = interval or (None, None)
    metrics = {"mean": score, "ci95_low": low, "ci95_high": high}
    return EvalResults(
        total_samples=len(lines),
        completed_samples=len(scored),
        scores=[
            EvalScore(
                name=SCORER,
                scorer=SCORER,
                scored_samples=len(scored),
                unscored_samples=len(lines) - len(scored),
                metrics={n: EvalMetric(name=n, value=value) for n, value in metrics.items() if value is not None},
            )
        ],
    )


def _sample(cell: ExportedCell, line: PredictionLine) -> EvalSample:
    answer = as_text(line.prediction)
    asked = _input(cell, line)
    facts: dict[str, Any] = {"group": line.group, "error": line.error, "failure_kind": line.failure_kind}
    facts |= {"notes": line.notes, "calls": line.calls, "list_cost_usd": line.list_cost_usd} | (line.categories or {})
    return EvalSample(
        id=str(line.id),
        epoch=line.draw + 1,
        input=asked,
        target=as_text(line.gold) or "",
        messages=[ChatMessageUser(content=asked), ChatMessageAssistant(content=answer or "", model=cell.cell.model)],
        output=ModelOutput.from_content(cell.cell.model, answer or ""),
        scores=None if line.score is None else {SCORER: Score(value=line.score, answer=answer)},
        metadata={name: value for name, value in facts.items() if value is not None},
        model_usage={cell.cell.model: _usage(line)},
        total_time=line.latency_seconds,
    )


def _input(cell: ExportedCell, line: PredictionLine) -> str:
    own = cell.inputs.get(str(line.id))
    return NOT_EXPORTED if own is None else "\n\n".join(own.values())


def _usage(counted: PredictionLine | Usage | None) -> ModelUsage:
    read, written = (counted and counted.prompt_tokens) or 0, (counted and counted.completion_tokens) or 0
    return ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)


def _packages(found: dict[str, str | None]) -> dict[str, str]:
    return {name: version for name, version in found.items() if version is not None}


def _task(cell: ExportedCell) -> str:
    """The name by which the viewer lists a log."""
    return f"{cell.cell.benchmark} {step_name(cell.cell.pipeline, cell.cell.steps)} {cell.cell.optimizer}"


def _file_name(cell: ExportedCell, program: str) -> str:
    """Time, task and id, as inspect names its logs."""
    when = cell.ended.strftime("%Y-%m-%dT%H-%M-%S+00-00")
    task = f"{_task(cell)} run{cell.cell.run} {program}".replace(" ", "-").replace("/", "-").replace("_", "-")
    return f"{when}_{task}_{_id(cell, program, 'task')}.eval"


def _id(cell: ExportedCell, *parts: str) -> str:
    """An id of 22 letters and digits that is the same each time."""
    return hashlib.sha256("\n".join((cell.record.cell_id, *parts)).encode()).hexdigest()[:22]
