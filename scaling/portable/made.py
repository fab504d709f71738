"""Making the portable form of a cell's program: its exact messages with marks in the place of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import dspy
from dspy.adapters.json_adapter import _get_structured_outputs_response_format
from dspy.clients.legacy_requests import _strict_json_schema

from scaling.llm.adapters import make_adapter
from scaling.models import Model
from scaling.portable.outside import COMBINED, Program, Step, messages_of
from scaling.records.store import read_json
from scaling.run.pipelines import make_core
from scaling.types import Benchmark, Cell, UsageError

# Texts that a template must carry unchanged, whatever stands around them.
PROBES = ("{{x}} {x} \\1 \\g<0> $1\n\n  [[ ## x ## ]] \"'", "Ω«»\u2028\ttab ", "")
MOST_BRACES = 9


@dataclass(frozen=True)
class Source:
    """What a program is made from: its cell with benchmark and model, and its optimized state."""

    cell: Cell
    bench: Benchmark
    model: Model
    core: dspy.Module


def load_source(cell: Cell, bench: Benchmark, model: Model, program_file: Path) -> Source:
    """The program of a cell as it was after optimization. Raises UsageError for a file that is none of it."""
    core = make_core(cell, bench)
    state = read_json(program_file)
    missing = [name for name, _ in core.named_predictors() if name not in state]
    if missing:
        raise UsageError(f"{program_file} has no predictor '{missing[0]}'. It is not the program of this cell.")
    core.load_state(state)
    return Source(cell, bench, model, core)


def portable(source: Source) -> Program:
    """The portable form. Raises UsageError for a program whose messages are not fixed before it runs."""
    _check(source)
    adapter = make_adapter(source.model)
    steps = [_step(name, predictor, adapter, source) for name, predictor in source.core.named_predictors()]
    return Program(source.cell.pipeline, source.cell.steps, steps)


def response_form(signature: Any, model: Model) -> Any:
    """The pydantic type that the program holds a step's answers to; None where it holds them to none."""
    return _get_structured_outputs_response_format(signature) if model.adapter == "json" else None


def _check(source: Source) -> None:
    cell = source.cell
    if source.bench.tools:
        raise UsageError(f"{cell.label}: its messages depend on what its tools answer. Choose a cell without tools.")
    if cell.feedback != "none":
        raise UsageError(f"{cell.label}: its messages depend on feedback. Choose a cell with --feedback none.")
    if cell.pipeline not in COMBINED:
        raise UsageError(f"pipeline '{cell.pipeline}' cannot be exported; possible: {', '.join(COMBINED)}.")


def _step(name: str, predictor: Any, adapter: dspy.Adapter, source: Source) -> Step:
    signature, demos = predictor.signature, predictor.demos
    inputs = list(signature.input_fields)

    def render(values: dict[str, str]) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = adapter.format(signature, demos, values)
        return messages

    for braces in range(2, MOST_BRACES):
        marks = {field: "{" * braces + field + "}" * braces for field in inputs}
        step = Step(
            role=name,
            messages=render(marks),
            marks=marks,
            outputs={field: _labels(field, info.annotation) for field, info in signature.output_fields.items()},
            answer_format=source.model.adapter,
            parameters=_parameters(signature, source),
        )
        probes = [dict.fromkeys(inputs, probe) for probe in PROBES]
        if all(messages_of(step, values) == render(values) for values in probes):
            return step
    raise UsageError(f"the messages of '{name}' hold what looks like a mark. They cannot be exported.")


def _labels(name: str, annotation: Any) -> list[str] | None:
    """The labels of an output; None for free text. Raises UsageError for another type."""
    if annotation is str:
        return None
    labels = list(get_args(annotation))
    if get_origin(annotation) is not Literal or not all(isinstance(label, str) for label in labels):
        raise UsageError(f"output '{name}' is of type {annotation}: only texts and labels can be exported.")
    return labels


def _parameters(signature: Any, source: Source) -> dict[str, Any]:
    """What is sent beside the messages, as chat APIs take it. model: as LiteLLM names it."""
    model, cell = source.model, source.cell
    parameters: dict[str, Any] = {"model": model.route, "max_tokens": model.output_limit}
    if model.takes_temperature:
        parameters["temperature"] = cell.temperature
    if model.reasoning_effort is not None:
        parameters["reasoning_effort"] = model.reasoning_effort
    if (form := response_form(signature, model)) is not None:
        schema = _strict_json_schema(form.model_json_schema())
        named = {"name": form.__name__, "schema": schema, "strict": True}
        parameters["response_format"] = {"type": "json_schema", "json_schema": named}
    return parameters
