"""What every pipeline is built from: one call under its role's name, repeated draws, and steps that use tools.

An answer that cannot be parsed ends its example with no answer and `failure` set; it raises nothing, so it ends no
evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dspy
from dspy.teleprompt.bootstrap_trace import FailedPrediction
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from scaling.llm.lm import variant
from scaling.planning.budgets import MAX_TOOL_TURNS

# How much of a tool's result is kept in the record, and how much of it a model is shown: it may have asked for a lot.
SHORT_RESULT, LONGEST_RESULT = 200, 20_000
_tool_calls: ContextVar[list[dict[str, Any]] | None] = ContextVar("tool_calls", default=None)


class Failed(Exception):
    """One step of a program gave nothing to go on with; `kind` is parse or too_long."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


def draws(program: dspy.Module, calls: int, inputs: dict[str, Any]) -> list[dspy.Prediction]:
    """Independent samples of a program: each has its own draw index and so its own cache entries."""
    answers = []
    for draw in range(calls):
        with dspy.context(**variant(draw=draw)):
            answers.append(program(**inputs))
    return answers


def step(predictor: dspy.Module, role: str, inputs: dict[str, Any]) -> dspy.Prediction:
    """One call under its role's name. Raises Failed when its answer cannot be parsed or its prompt is too long.

    The failed answer joins the trace, so that GEPA can reflect on it.
    """
    try:
        with dspy.context(**variant(role=role)):
            return predictor(**inputs)
    except AdapterParseError as error:
        _trace_failure(predictor, inputs, error)
        raise Failed("parse") from error
    except ContextWindowExceededError as error:
        raise Failed("too_long") from error


def no_answer(outputs: list[str], kind: str, notes: dict[str, str]) -> dspy.Prediction:
    """The prediction of an example that failed: every output None, scored 0, counted by kind."""
    return dspy.Prediction(**dict.fromkeys(outputs), step_notes=notes, failure=kind)


def count_rollout() -> None:
    """A rollout is one run of the whole program; the metric's calls are another number."""
    lm = dspy.settings.lm
    if (meter := getattr(lm, "meter", None)) is not None:
        meter.add_rollout(lm.phase)


def make_predictor(signature: type[dspy.Signature], tools: Sequence[dspy.Tool]) -> dspy.Module:
    """The predictor of one step; a `ToolUser` where there are tools."""
    return ToolUser(signature, tools) if tools else dspy.Predict(signature)


def with_tool_calls(answer: dspy.Prediction, draws: list[dspy.Prediction]) -> dspy.Prediction:
    """The answer with the tool calls of all draws, where there are tools."""
    made = [draw.get("tool_calls") for draw in draws]
    if None not in made:
        answer.tool_calls = [call for calls in made for call in calls]
    return answer


class ToolUser(dspy.ReAct):
    """A step that may call tools before it answers: DSPy's ReAct, at most `MAX_TOOL_TURNS` turns and an answer.

    ReAct shows a tool's error to the model as a traceback with paths of this machine; here a tool's error is its
    one line. An answer that cannot be parsed ends the step as it does without tools: the failure joins the trace
    of the predictor that made it.
    """

    def __init__(self, signature: type[dspy.Signature], tools: Sequence[dspy.Tool]):
        super().__init__(signature, [recorded(tool) for tool in tools], max_iters=MAX_TOOL_TURNS)

    def _call_with_potential_trajectory_truncation(
        self, module: dspy.Module, trajectory: dict[str, Any], **inputs: Any
    ) -> dspy.Prediction:
        try:
            return super()._call_with_potential_trajectory_truncation(module, trajectory, **inputs)
        except AdapterParseError as error:
            shown = {**inputs, "trajectory": self._format_trajectory(trajectory)}
            _trace_failure(getattr(module, "predict", module), shown, error)
            raise Failed("parse") from error


@contextmanager
def noted_tool_calls(wanted: bool) -> Iterator[list[dict[str, Any]] | None]:
    """The tool calls that are made while the block runs; None where there are no tools."""
    called: list[dict[str, Any]] = []
    token = _tool_calls.set(called)
    try:
        yield called if wanted else None
    finally:
        _tool_calls.reset(token)


class RecordedTool(dspy.Tool):
    """A tool whose calls are noted for the record, and whose errors are answers."""

    def __call__(self, **arguments: Any) -> str:
        try:
            result = str(super().__call__(**arguments))[:LONGEST_RESULT]
        except Exception as error:  # whatever the model's arguments do to a tool is an answer to the model
            result = f"error: {type(error).__name__}: {error}"
        if (called := _tool_calls.get()) is not None:
            step_name = getattr(dspy.settings.lm, "role", None)
            short = {"step": step_name, "name": self.name, "arguments": arguments, "result": result[:SHORT_RESULT]}
            called.append(short)
        return result


def recorded(tool: dspy.Tool) -> dspy.Tool:
    """The same tool as a RecordedTool."""
    return RecordedTool(tool.func, name=tool.name, desc=tool.desc, args=tool.args, arg_types=tool.arg_types)


def _trace_failure(predictor: dspy.Module, inputs: dict[str, Any], error: AdapterParseError) -> None:
    if dspy.settings.trace is not None:
        dspy.settings.trace.append((predictor, inputs, FailedPrediction(completion_text=error.lm_response)))
