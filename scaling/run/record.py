"""Building the record of a cell: what is known before it runs, what was measured, and why it failed."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from scaling.intervals import mean_interval, paired_interval
from scaling.llm.meter import Meter
from scaling.records.draws import mean, rows_of
from scaling.records.record import (
    CurvePoint,
    DataFacts,
    Environment,
    ErrorRates,
    Failure,
    HostedJob,
    ModelFacts,
    PhaseUsage,
    PredictionLine,
    Proposals,
    Record,
    Status,
    TurnSummary,
    Usage,
)
from scaling.run.task import CellTask
from scaling.types import SCHEMA_VERSION

PACKAGES = (
    "dspy", "gepa", "optuna", "litellm", "datasets", "numpy", "scipy", "statsmodels", "math-verify", "sympy",
    "xllamacpp",
)  # fmt: skip
PAIR = ("baseline", "final")
Lines = dict[str, list[PredictionLine]]  # program -> its line for each row


@dataclass(frozen=True)
class Measured:
    """What came out of a cell whose test was opened: prediction lines by program, and what the optimizer did."""

    lines: Lines
    points: list[CurvePoint]
    unchanged: bool
    proposals: Proposals
    optimize_seconds: float
    stopped_when_flat: bool | None = None


def new_record(task: CellTask, status: Status, error: Failure | None = None) -> Record:
    """A record with everything that is known without running the cell."""
    bench, model = task.bench, task.model
    return Record(
        schema_version=SCHEMA_VERSION,
        status=status,
        cell_id=task.cell.cell_id,
        cell=task.cell,
        program=task.program,
        start=task.start.source if task.start else None,
        task_class=_text(bench.task_class),
        split=task.splits.split,
        sample=bench.source == "sample",
        note=_text(bench.note),
        extra_scores={},
        environment=environment(),
        data=DataFacts(
            source=_text(bench.source),
            revision=_text(bench.revision),
            sha256=task.splits.sha256,
            test_sha256=task.splits.test_sha256,
            dropped_near_copies=task.splits.dropped,
        ),
        model=ModelFacts(**{name: getattr(model, name) for name in ModelFacts.__struct_fields__}),
        error=error,
    )


def failed_record(task: CellTask, error: Exception) -> Record:
    """The record of a cell in which something broke: what, and where."""
    kind = type(error).__name__
    return new_record(task, "error", Failure(kind, f"{kind}: {error}", _trace(error)))


def add_usage(record: Record, meter: Meter, elapsed_seconds: float) -> None:
    """What the cell used until it ended, however it ended."""
    record.usage = PhaseUsage(meter.usage.get("optimize", Usage()), meter.usage.get("evaluate", Usage()))
    record.proposal_usage = meter.proposals if meter.hosted is None else None
    record.hosted = recordable(meter.hosted) if meter.hosted is not None else None
    record.rollouts_used = meter.rollouts["optimize"]
    if not meter.counts_optimizer:
        record.usage.optimize = record.rollouts_used = None
    record.elapsed_seconds = round(elapsed_seconds, 3)


def add_outcome(
    record: Record, task: CellTask, measured: Measured, max_error_rate: float, failures: Counter[str]
) -> None:
    """Error rates of a cell whose test was opened, and its scores where they are low enough.

    failures: why calls failed for good; the commonest reason is told.
    Raises RuntimeError when an example was answered with another number of calls than the cell has steps.
    """
    lines = measured.lines
    record.unchanged, record.proposals = measured.unchanged, measured.proposals
    record.prediction_lines = {name: len(own) for name, own in lines.items() if own}
    record.optimize_seconds = measured.optimize_seconds
    record.stopped_when_flat = measured.stopped_when_flat
    record.lm_calls_per_example = _calls_per_example(task, lines)
    record.val_baseline_score = measured.points[0].candidate_val_score if measured.points else None
    record.val_final_score = measured.points[-1].best_val_score if measured.points else None
    paired = [
        (before, after) for before, after in zip(rows_of(lines["baseline"]), rows_of(lines["final"]), strict=True)
        if before.score is not None and after.score is not None
    ]  # fmt: skip
    record.n = len(paired)
    lost = max(error_rate(lines[name], "infrastructure") for name in PAIR)
    record.error_rates = ErrorRates(lost, max(error_rate(lines[name], "parse") for name in PAIR))
    if lost > max_error_rate or not paired:
        record.status = "invalid"
        reason = "".join(f": {text}" for text, _ in failures.most_common(1))
        message = f"{100 * lost:.1f} % of test examples failed in the infrastructure{reason}"
        record.error = Failure("infrastructure", message)
        return
    record.status = "ok"
    _add_scores(record, paired)
    _add_other_scores(record, lines)


def error_rate(lines: Sequence[PredictionLine], kind: str) -> float:
    """Share of examples lost to the infrastructure, or without a usable answer (`parse`)."""
    lost = sum(line.error == "infrastructure" for line in lines)
    return (lost if kind == "infrastructure" else sum(line.error is not None for line in lines) - lost) / len(lines)


def outcome_text(record: Record) -> str:
    """What a cell that has ended says on the screen."""
    if record.baseline_score is None or record.final_score is None:
        return record.error.message if record.error else ""
    low, high = record.final_ci95 or (float("nan"), float("nan"))
    return (
        f"{100 * record.baseline_score:.1f} -> {100 * record.final_score:.1f} "
        f"[{100 * low:.1f}, {100 * high:.1f}] on {record.n} {record.split} rows, "
        f"{record.rollouts_used} rollouts, {record.elapsed_seconds or 0:.0f} s"
    )


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Versions and platform; no host name, no user name, no path."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return Environment(platform.python_version(), packages, _commit(), f"{platform.system()} {platform.machine()}")


def _text(value: object) -> str | None:
    """What a benchmark says of itself, which users write: text, whatever it was."""
    return None if value is None else str(value)


def recordable(facts: HostedJob) -> HostedJob:
    """The facts of a hosted job; what its service says in another form than a record can hold is unknown."""
    job = HostedJob()
    for name in HostedJob.__struct_fields__:
        with suppress(msgspec.ValidationError):
            setattr(job, name, getattr(msgspec.convert({name: getattr(facts, name)}, HostedJob), name))
    return job


def _add_scores(record: Record, paired: list[tuple[PredictionLine, PredictionLine]]) -> None:
    """Scores of both programs on the rows that both have a score on, with 95 % intervals over groups."""
    before = [line.score for line, _ in paired if line.score is not None]
    after = [line.score for _, line in paired if line.score is not None]
    groups = [str(line.group) for line, _ in paired]
    record.baseline_score, record.final_score = sum(before) / len(before), sum(after) / len(after)
    record.improvement = record.final_score - record.baseline_score
    record.baseline_ci95, record.final_ci95 = mean_interval(before, groups), mean_interval(after, groups)
    record.improvement_ci95 = None if record.unchanged else paired_interval(before, after, groups)


def _add_other_scores(record: Record, lines: Lines) -> None:
    """Scores at equal calls and on check rows, by turn and by other metrics, and failures by kind."""
    record.at_equal_calls_score = mean(line.score for line in rows_of(lines.get("at_equal_calls", [])))
    record.check_score = mean(line.score for line in lines["check"])
    record.check_n = len(lines["check"]) or None
    record.turns = _turns(lines["final"])
    record.failure_kinds = {name: _failure_kinds(lines[name]) for name in PAIR}
    extras = sorted({extra for line in lines["final"] for extra in line.extra_scores or {}})
    record.extra_scores = {
        extra: {name: mean((line.extra_scores or {}).get(extra) for line in rows_of(lines[name])) for name in PAIR}
        for extra in extras
    }


def _calls_per_example(task: CellTask, lines: Lines) -> float | None:
    """LM calls of an answered example; with tools a step makes as many as it needs, and one at least."""
    steps, tools = task.cell.steps, bool(task.bench.tools)
    answered = [line for name in PAIR for line in lines[name] if line.error is None]
    for line in answered:
        calls = line.calls or 0
        if calls < steps or (calls > steps and not tools):
            raise RuntimeError(f"example {line.id} made {calls} calls, {steps} are its steps")
    if not answered:
        return None
    return mean(line.calls for line in answered if line.program == "final") if tools else float(steps)


def _turns(lines: Sequence[PredictionLine]) -> TurnSummary | None:
    """The turn table of one program, over the rows that have one."""
    turned = [line for line in lines if line.turn_scores and line.score is not None]
    if not turned:
        return None
    tables = [line.turn_scores or [] for line in turned]
    changes = [(scores[-1] - scores[0], line.first_turn_failed) for line, scores in zip(turned, tables, strict=True)]
    return TurnSummary(
        scores=[sum(scores) / len(scores) for scores in zip(*tables, strict=True)],
        gain=sum(change for change, _ in changes) / len(changes),
        wrong_to_right=sum(change for change, _ in changes if change > 0),
        right_to_wrong=-sum(change for change, _ in changes if change < 0),
        format_repairs=sum(change for change, failed in changes if change > 0 and failed),
    )


def _failure_kinds(lines: Sequence[PredictionLine]) -> dict[str, int]:
    """How many answers failed in which way: parse, too_long, infrastructure, and what the benchmark tells apart."""
    return dict(sorted(Counter(kind for line in lines if (kind := line.error or line.failure_kind)).items()))


def _trace(error: BaseException) -> str:
    """Where it happened: file, line and function, without the folders of this machine."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{'/'.join(Path(f.filename).parts[-2:])}:{f.lineno} in {f.name}: {f.line}" for f in frames]
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


def _commit() -> str | None:
    """The commit this program runs from; None where there is no git or no repository."""
    if shutil.which("git") is None:
        return None
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None
