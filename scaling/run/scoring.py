"""Running a program on rows and scoring it: one line per example, failures told apart from wrong answers."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy

from scaling.llm.errors import CallFailed
from scaling.llm.lm import variant
from scaling.records.record import TOKEN_KINDS, CallRecord, PredictionLine
from scaling.types import BREAKDOWNS, Benchmark, CellStopped, Metric, Row

TOLERANCE = 1e-9  # beyond 0 and 1, where a metric's sums were rounded


def as_example(row: Row, bench: Benchmark) -> dspy.Example:
    """A row as DSPy sees it: every field there, the signature's inputs marked as inputs."""
    return dspy.Example(**row).with_inputs(*bench.inputs)


def score_programs(
    programs: dict[str, dspy.Module],
    rows: list[Row],
    bench: Benchmark,
    threads: int,
    draws: Mapping[str, int] | None = None,
) -> dict[str, list[PredictionLine]]:
    """Prediction lines of each program on the rows, in the order of the rows, `threads` examples at a time.

    draws: by program, how many answers each row gets, which then follow each other; 1 for a program that is not named.
    Runs in the caller's `dspy.context`. A line's score is None only where the infrastructure failed; an
    answer that could not be parsed scores 0 with its kind in `error`. Raises CellStopped at once.
    """
    examples = [as_example(row, bench) for row in rows]
    asked = {
        name: [(example, draw) for example in examples for draw in range((draws or {}).get(name, 1))]
        for name in programs
    }
    executor = ThreadPoolExecutor(max_workers=max(1, min(threads, sum(map(len, asked.values())))))
    try:
        futures = {
            name: [
                executor.submit(contextvars.copy_context().run, _score_example, program, name, example, draw, bench)
                for example, draw in asked[name]
            ]
            for name, program in programs.items()
        }
        return {name: [future.result() for future in lines] for name, lines in futures.items()}
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def safe_metric(bench: Benchmark, gold: dspy.Example, pred: Any, metric: Metric | None = None) -> float:
    """The benchmark's metric as a float 0 to 1; an answer that is not there scores 0 without asking it.

    Raises CellStopped for anything else than a score: optimizers would take another exception for a wrong answer.
    """
    if getattr(pred, "failure", None) is not None:
        return 0.0
    value = (metric or bench.metric)(gold, pred)
    value = getattr(value, "score", value)
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not -TOLERANCE <= score <= 1 + TOLERANCE:
        where = f"the metric of '{bench.name}' gave {value!r:.80} for the example '{gold.get('id')}'"
        raise CellStopped("error", f"{where}: a score is a number from 0 to 1")
    return min(max(score, 0.0), 1.0)


def _score_example(
    program: dspy.Module, name: str, example: dspy.Example, draw: int, bench: Benchmark
) -> PredictionLine:
    calls: list[CallRecord] = []
    line = PredictionLine(
        program=name, id=example["id"], group=example["group"], draw=draw, gold=_outputs(example, bench), notes={},
        categories={field: str(example[field]) for field in BREAKDOWNS if example.get(field) is not None} or None,
        extra_scores=dict.fromkeys(bench.extra_metrics),
    )  # fmt: skip
    try:
        with dspy.context(**variant(record=calls, row_draw=draw)):
            prediction = program(**example.inputs())
    except CallFailed:
        line.error = "infrastructure"
    else:
        _score_prediction(line, prediction, example, bench)
    line.calls = len(calls)
    line.tokens = sum((call.prompt_tokens or 0) + (call.completion_tokens or 0) for call in calls)
    for name in (*TOKEN_KINDS, "list_cost_usd"):
        setattr(line, name, _total(calls, name))
    line.latency_seconds = _seconds(calls)
    return line


def _score_prediction(
    line: PredictionLine, prediction: dspy.Prediction, example: dspy.Example, bench: Benchmark
) -> None:
    """What the program answered, and how well."""
    line.error = prediction.get("failure")
    line.prediction = _outputs(prediction, bench)
    line.score = safe_metric(bench, example, prediction)
    line.extra_scores = {
        name: safe_metric(bench, example, prediction, metric) for name, metric in bench.extra_metrics.items()
    }
    if line.score < 1.0 and line.error is None and bench.failure_kind is not None:
        line.failure_kind = bench.failure_kind(example, prediction)
    turns = prediction.get("turns")
    if turns:
        line.turn_scores = [_score_turn(bench, example, turn) for turn in turns]
        line.first_turn_failed = bool(turns[0]["failure"])
    line.notes = dict(prediction.get("step_notes") or {})
    line.tool_calls = prediction.get("tool_calls")


def _seconds(calls: list[CallRecord]) -> float | None:
    """Seconds of an example's calls; None where one came in a batch, which has no time of its own."""
    if any(call.latency_seconds is None and call.error is None for call in calls):
        return None
    return sum(call.latency_seconds or 0.0 for call in calls)


def _total(calls: list[CallRecord], name: str) -> float | None:
    """The sum of a number over an example's calls; None where a call does not know it."""
    known = [value for call in calls if (value := getattr(call, name)) is not None]
    return round(sum(known), 12) if len(known) == len(calls) else None


def _score_turn(bench: Benchmark, example: dspy.Example, turn: dict[str, Any]) -> float:
    return safe_metric(bench, example, dspy.Prediction(**turn["outputs"], failure=turn["failure"]))


def _outputs(source: Any, bench: Benchmark) -> Any:
    values = {name: source.get(name) for name in bench.outputs}
    return next(iter(values.values())) if len(values) == 1 else values
