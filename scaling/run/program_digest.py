"""The digest of a cell's program: everything that can change an answer or a score and is no field of the cell.

It is made before a cell runs and kept in its record. So the sweep notices a metric, an instruction or a constant that
has changed since, and calls no old score its own. So does the analysis of results from two versions. Versions of
libraries are in the record's `environment`, and here only as far as they change a prompt.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Any

import dspy

from scaling.definitions import described
from scaling.llm.adapters import make_adapter
from scaling.models import Model
from scaling.pipelines import FEEDBACKS, PIPELINES
from scaling.planning.optimizers import NONE, OPTIMIZERS, options_of
from scaling.records.programs import ProgramDigest
from scaling.run.pipelines import make_core
from scaling.run.runner import OPTIMIZER_TEMPERATURE
from scaling.run.scoring import safe_metric
from scaling.run.source import source_or_none
from scaling.run.start import core_of
from scaling.run.start_program import StartProgram
from scaling.types import Benchmark, Cell, digest

# How calls are made, counted, shown and written: it decides no answer and no score.
NOT_FOLLOWED = (
    "scaling.hosted.app", "scaling.hosted.client", "scaling.hosted.follow", "scaling.hosted.outcome",
    "scaling.hosted.rollout", "scaling.hosted.settings", "scaling.hosted.stored_job", "scaling.hosted.tunnel",
    "scaling.llm.client", "scaling.llm.errors", "scaling.llm.gateway", "scaling.llm.lm", "scaling.llm.meter",
    "scaling.models", "scaling.planning.optimizers", "scaling.price_table", "scaling.ready", "scaling.records",
    "scaling.redact", "scaling.run.context", "scaling.run.dspy_optimizers", "scaling.types",
)  # fmt: skip
LENGTH = 16  # hex digits


def program_digest(
    cell: Cell, bench: Benchmark, model: Model, optimizer_model: Model, start: StartProgram | None = None
) -> ProgramDigest:
    """The digest of a cell's program. Rows, run, seeds and sizes have no part in it: they are fields of the cell."""
    optimizer = _optimizer(cell, bench, model, optimizer_model) if cell.optimizer != NONE.name else None
    return ProgramDigest(_short(_task(bench)), _short(_program(cell, bench, model, start)), _short(optimizer))


def _task(bench: Benchmark) -> Any:
    """What is asked, and how an answer is scored."""
    fields = [(name, info.json_schema_extra.get("desc")) for name, info in bench.signature.fields.items()]
    return [bench.signature.instructions, fields, _described(safe_metric, bench.metric, bench.extra_metrics)]


def _program(cell: Cell, bench: Benchmark, model: Model, start: StartProgram | None) -> Any:
    """The prompts of the program, how it makes an answer of its calls, and how its model is called."""
    spec, feedback = PIPELINES[cell.pipeline], FEEDBACKS[cell.feedback]
    functions = [pkgutil.resolve_name(path) for path in (spec.core, spec.program, feedback) if path]
    told = bench.execution_feedback if cell.feedback == "execution" else None
    adapter = make_adapter(model)
    prompts = {name: _prompt(part, adapter) for name, part in core_of(cell, bench, start).named_predictors()}
    weights = model.weights and (Path(model.weights.file).name, model.weights.sha256)
    called = (model.route, model.adapter, model.sends_seed, model.temperature, weights)
    return [prompts, called, _described(*functions, told, type(adapter), [tool.func for tool in bench.tools])]


def _prompt(predictor: dspy.Predict, adapter: dspy.Adapter) -> Any:
    """The messages of a predictor with a worked example, each input by its name in place of a row's."""
    signature = predictor.signature
    shown = {name: f"<{name}>" for name in signature.fields}
    inputs = {name: shown[name] for name in signature.input_fields}
    return adapter.format(signature, [dspy.Example(**shown)], inputs)


def _optimizer(cell: Cell, bench: Benchmark, model: Model, optimizer_model: Model) -> Any:
    """The optimizer with its constants, what it is told of an answer, and how its proposer is called."""
    optimizer = pkgutil.resolve_name(OPTIMIZERS[cell.optimizer].run)
    sources = [source_or_none(type(make_core(cell, bench))), source_or_none(bench.signature)]  # MIPROv2 shows them
    proposer = (optimizer_model.route, optimizer_model.sends_seed, optimizer_model.optimizer_output_limit)
    described_parts = _described(optimizer, bench.feedback, type(make_adapter(model)))
    return [proposer, OPTIMIZER_TEMPERATURE, repr(options_of(cell)), sources, described_parts]


def _described(*values: Any) -> Any:
    return described(*values, not_followed=NOT_FOLLOWED)


def _short(facts: Any) -> str:
    return digest(facts)[:LENGTH]
