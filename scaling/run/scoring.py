"""Running a program on rows and scoring it: one line an example, failures told apart from wrong answers."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy

from scaling.llm.gateway import CallFailed, variant
from scaling.types import Benchmark, Row

Line = dict[str, Any]
TOKEN_KINDS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


def as_example(row: Row, bench: Benchmark) -> dspy.Example:
    """A row as DSPy sees it: every field there, the signature's inputs marked as inputs."""
    return dspy.Example(**row).with_inputs(*bench.inputs)


def score_programs(
    programs: dict[str, dspy.Module], rows: list[Row], bench: Benchmark, threads: int
) -> dict[str, list[Line]]:
    """Prediction lines of each program on the rows, in the order of the rows, `threads` examples at a time.

    Runs in the caller's `dspy.context`. A line's score is None only where the infrastructure failed; an
    answer that could not be parsed scores 0 with its kind in `error`. Raises CellStopped at once.
    """
    examples = [as_example(row, bench) for row in rows]
    executor = ThreadPoolExecutor(max_workers=max(1, min(threads, len(rows) * len(programs))))
    try:
        futures = {
            name: [
                executor.submit(contextvars.copy_context().run, _score_example, program, name, example, bench)
                for example in examples
            ]
            for name, program in programs.items()
        }
        return {name: [future.result() for future in lines] for name, lines in futures.items()}
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def safe_metric(bench: Benchmark, gold: dspy.Example, pred: Any, metric: Callable | None = None) -> float:
    """The benchmark's metric as a float 0 to 1; an answer that is not there scores 0 without asking it."""
    if getattr(pred, "failure", None) is not None:
        return 0.0
    value = (metric or bench.metric)(gold, pred)
    return float(getattr(value, "score", value))


def _score_example(program: dspy.Module, name: str, example: dspy.Example, bench: Benchmark) -> Line:
    calls: list[dict[str, Any]] = []
    error = prediction = score = None
    extras: dict[str, float | None] = dict.fromkeys(bench.config.get("extra_metrics") or {})
    kind = None
    try:
        with dspy.context(**variant(record=calls)):
            prediction = program(**example.inputs())
    except CallFailed:
        error = "infrastructure"
    else:
        error = prediction.get("failure")
        score = safe_metric(bench, example, prediction)
        for extra, metric in (bench.config.get("extra_metrics") or {}).items():
            extras[extra] = safe_metric(bench, example, prediction, metric)
        if score < 1.0 and error is None and "failure_kind" in bench.config:
            kind = bench.config["failure_kind"](example, prediction)
    turns = prediction.get("turns") if prediction is not None else None
    return {
        "program": name,
        "id": example["id"],
        "group": example["group"],
        "draw": 0,
        "gold": _outputs(example, bench),
        "prediction": _outputs(prediction, bench) if prediction is not None else None,
        "score": score,
        "extra_scores": extras,
        "turn_scores": turns and [_score_turn(bench, example, turn) for turn in turns],
        "first_turn_failed": bool(turns and turns[0]["failure"]),
        "notes": dict(prediction.get("step_notes") or {}) if prediction is not None else {},
        "tool_calls": prediction.get("tool_calls") if prediction is not None else None,
        "calls": len(calls),
        "tokens": sum((call["prompt_tokens"] or 0) + (call["completion_tokens"] or 0) for call in calls),
        **{name: _total(calls, name) for name in TOKEN_KINDS},
        "list_cost_usd": _total(calls, "list_cost_usd"),
        "latency_seconds": sum(call["latency_seconds"] or 0.0 for call in calls),
        "error": error,
        "failure_kind": kind,
    }


def _total(calls: list[dict[str, Any]], name: str) -> float | None:
    """The sum of a number over an example's calls; None where a call does not know it."""
    values = [call.get(name) for call in calls]
    return None if None in values else round(sum(values), 12)


def _score_turn(bench: Benchmark, example: dspy.Example, turn: dict[str, Any]) -> float:
    return safe_metric(bench, example, dspy.Prediction(**turn["outputs"], failure=turn["failure"]))


def _outputs(source: Any, bench: Benchmark) -> Any:
    values = {name: source.get(name) for name in bench.outputs}
    return next(iter(values.values())) if len(values) == 1 else values
