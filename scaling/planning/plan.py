"""From a study to a list of cells: names, budgets and sizes are checked here, before any call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import product
from typing import Any

from scaling.data import check_config, make_splits, shrink
from scaling.model_names import expand_names
from scaling.models import Model, find_model, with_effort
from scaling.pipelines import FEEDBACKS, PIPELINES
from scaling.planning.budgets import select_size
from scaling.planning.headroom import headroom_rows
from scaling.planning.optimizers import OPTIMIZERS, TRANSFER, check_options, is_hosted, optimizes, own_options
from scaling.planning.questions import QUESTIONS
from scaling.planning.study import SEEDS_OF, SIZE_FIELDS, Study, checked, phases_of
from scaling.types import (
    FIXED_TEMPERATURE,
    STEPS,
    SYNTH_MODES,
    Benchmark,
    Cell,
    CellSettings,
    FittedFields,
    PlannedCell,
    Splits,
    UsageError,
    unknown_name,
)
from scaling.wordings import WORDINGS

Benchmarks = Mapping[str, dict[str, Any]]  # BENCHMARK_CONFIG
MANY_CELLS = 100_000
# What only the data can tell of a cell; the same for all cells with the same rows, sizes, budget and run.
FITTED_FIELDS = (*SIZE_FIELDS, *(field.name for field in fields(FittedFields)))


def expand(
    study: Study, benchmarks: Benchmarks, registry: dict[str, Model], api_base: str | None = None
) -> list[PlannedCell]:
    """All cells of a study, as they are asked for. Raises UsageError for what cannot be.

    benchmarks: those that are known, by name. api_base: the server of all models that are not embedded.
    """
    parts = phases_of(study)
    if len(parts) > 1:
        return [cell for part in parts for cell in expand(part, benchmarks, registry, api_base)]
    (study,) = parts
    check_names(study, list(benchmarks))
    for name in study.benchmarks:
        check_config(name, benchmarks[name])
    cells = []
    for benchmark, pipeline, optimizer in product(study.benchmarks, study.pipelines, study.optimizers):
        steps = study.steps_by_benchmark.get(benchmark, study.steps)
        names = _models_of(study, optimizer, registry)
        models = [with_effort(find_model(name, registry, api_base), study.reasoning_effort) for name in names]
        settings = settings_of(study, benchmark, pipeline, optimizer)
        for step, model, run in product(steps, models, _runs_of(study)):
            proposer = find_model(study.optimizer_model, registry, api_base) if study.optimizer_model else model
            cells.append(
                PlannedCell(
                    benchmark=benchmark,
                    pipeline=pipeline,
                    steps=step,
                    optimizer=optimizer,
                    model=model.id,
                    optimizer_model=proposer.id,
                    run=run,
                    max_output_tokens=model.output_limit,
                    **sizes_of(study, benchmarks[benchmark]),
                    **settings | settings_of_model(model, study.temperature),
                )
            )
    if study.reasoning_effort is not None and all(cell.reasoning_effort is None for cell in cells):
        raise UsageError(f"--reasoning-effort {study.reasoning_effort}: none of the models can reason. Leave it out.")
    if study.stop_when_flat is not None and all(cell.stop_when_flat is None for cell in cells):
        raise UsageError(f"--stop-when-flat {study.stop_when_flat:g}: no optimizer here can be stopped. Leave it out.")
    for cell in cells:
        check_cell(cell, select_size(cell.val_size, cell.rollout_budget))
    return cells


def count_cells(study: Study, registry: dict[str, Model]) -> int:
    """How many cells a study has, without making them."""
    if len(parts := phases_of(study)) > 1:
        return sum(count_cells(part, registry) for part in parts)
    (study,) = parts
    steps = sum(len(study.steps_by_benchmark.get(name, study.steps)) for name in study.benchmarks)
    models = sum(len(_models_of(study, optimizer, registry)) for optimizer in study.optimizers)
    return steps * models * len(study.pipelines) * len(_runs_of(study))


def check_count(study: Study, registry: dict[str, Model], many_cells: bool) -> None:
    """Raise UsageError for a sweep of more than `MANY_CELLS` cells that nobody has said is meant."""
    count = count_cells(study, registry)
    if count > MANY_CELLS and not many_cells:
        raise UsageError(
            f"this is a sweep of {count:,} cells, above {MANY_CELLS:,}. "
            f"Narrow it (--runs, --benchmarks, --models), or type --many-cells if you mean it."
        )


def _runs_of(study: Study) -> list[int] | range:
    return study.run_list if study.run_list is not None else range(study.runs)


def _models_of(study: Study, optimizer: str, registry: dict[str, Model]) -> list[str]:
    return expand_names(study.models_by_optimizer.get(optimizer, study.models), registry)


def settings_of(study: Study, benchmark: str, pipeline: str, optimizer: str) -> dict[str, Any]:
    """The fields that a study sets for all cells, as they are for this one: what cannot change it is at its default."""
    settings = {field.name: getattr(study, field.name) for field in fields(CellSettings)}
    settings["labels"] = study.labels_by_benchmark.get(benchmark, study.labels)
    settings["draws"] = study.draws_by_benchmark.get(benchmark, study.draws)
    if not PIPELINES[pipeline].takes_feedback:
        settings["feedback"] = "none"
    settings["optimizer_options"] = own_options(optimizer, study.optimizer_options)
    if not optimizes(optimizer):
        settings["frozen_roles"] = ()
    if not is_hosted(optimizer):
        settings |= {"synth_mode": "offline", "synth_rollouts": None}
    if not optimizes(optimizer) or is_hosted(optimizer):
        settings["stop_when_flat"] = None
    return settings


def sizes_of(study: Study, config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a benchmark's cells in rows: the study's, and where it sets none, as many as there are seeds."""
    return {
        size: len(config.get(seeds) or ()) if getattr(study, size) is None else getattr(study, size)
        for size, seeds in SEEDS_OF.items()
    }


def settings_of_model(model: Model, temperature: float) -> dict[str, Any]:
    """The settings that not every model takes, as they are for this one: its provider's own in their place."""
    return {
        "temperature": temperature if model.takes_temperature else FIXED_TEMPERATURE,
        "reasoning_effort": model.reasoning_effort,
    }


def check_names(study: Study, benchmarks: list[str]) -> None:
    """Raise UsageError for the first name or value that is not possible, with those that are."""
    checked({field.name: getattr(study, field.name) for field in fields(study)})
    for what, names, possible, flag in (
        ("benchmark", study.benchmarks, benchmarks, "--benchmarks"),
        ("pipeline", study.pipelines, list(PIPELINES), "--pipelines"),
        ("optimizer", study.optimizers, list(OPTIMIZERS), "--optimizers"),
    ):
        for name in names:
            if name not in possible:
                raise unknown_name(what, name, possible, f"Type {flag} {possible[0]}, for example.")
    for steps in [study.steps, *study.steps_by_benchmark.values()]:
        for step in steps:
            if step not in STEPS:
                raise UsageError(f"steps {step} is not possible; possible: 1 to 5. Type --steps 1 3 5, for example.")
    if not study.models:
        raise UsageError("no model is given. Type --models local/smollm2-135m, for example.")
    check_options(study.optimizers, study.optimizer_options)
    check_start(study)
    for name in study.questions:
        if name not in QUESTIONS:
            raise unknown_name("question", name, list(QUESTIONS), "Leave questions out, or name some of these.")
    if study.feedback not in FEEDBACKS:
        raise unknown_name("feedback", study.feedback, list(FEEDBACKS), "Type --feedback none.")
    if study.wording not in WORDINGS:
        raise unknown_name("wording", study.wording, list(WORDINGS), "Leave wording out.")
    if study.synth_mode not in SYNTH_MODES:
        raise unknown_name("mode", study.synth_mode, list(SYNTH_MODES), "Type --mode offline.")


def check_start(study: Study) -> None:
    """Raise UsageError where an optimizer lacks the program that it is given, or cannot work with one."""
    hosted = [name for name in study.optimizers if is_hosted(name)]
    if TRANSFER.name in study.optimizers and study.start_from is None:
        raise UsageError(
            "the optimizer 'transfer' scores a program that it is given. Type --start-from PROGRAM.json with it, or "
            "--transfer-from RESULTS --models NAME in its place."
        )
    for flag, value in (("--start-from", study.start_from), ("--freeze", study.frozen_roles)):
        if value and hosted:
            raise UsageError(f"{flag}: {hosted[0]} starts from its own prompts and changes all. Leave one of them out.")
    if study.frozen_roles and not any(optimizes(name) for name in study.optimizers):
        raise UsageError("--freeze: none of these optimizers changes a prompt. Leave it out.")


def check_cell(cell: PlannedCell, select: int) -> None:
    """Raise UsageError for settings and budgets that make no sense together. select: rows to select candidates on."""
    if PIPELINES[cell.pipeline].draws and cell.temperature == 0:
        raise UsageError(
            f"'{cell.pipeline}' at temperature 0 asks for the same answer {cell.steps} times. "
            f"Set a temperature above 0 (0.7), or leave the pipeline out."
        )
    if cell.draws > 1 and cell.temperature == 0:
        raise UsageError(
            f"--draws {cell.draws} at temperature 0 asks for the same answer {cell.draws} times. "
            f"Set a temperature above 0 (0.7), or leave --draws out."
        )
    if cell.draws > 1 and PIPELINES[cell.pipeline].scores_turns:
        raise UsageError(
            f"--draws {cell.draws}: '{cell.pipeline}' scores each turn of one answer, which an average over draws "
            f"would hide. Leave --draws out and give more --runs."
        )
    if optimizes(cell.optimizer) and cell.rollout_budget < 4 * select:
        raise UsageError(
            f"--rollout-budget {cell.rollout_budget} is below four passes over the {select} rows that "
            f"candidates are selected on. Type --rollout-budget {4 * select} or more."
        )


def check_kinds(cells: Sequence[PlannedCell]) -> None:
    """Raise UsageError for a study that compares optimizers of which some stop when flat and others do not."""
    optimized = [cell for cell in cells if optimizes(cell.optimizer)]
    others = sorted({cell.optimizer for cell in optimized if cell.stop_when_flat is None})
    shares = {cell.stop_when_flat for cell in optimized}
    if len(shares) > 1 and len({cell.optimizer for cell in optimized}) > 1:
        why = f"{', '.join(others)} would use the whole budget" if others else "they would stop by different rules"
        raise UsageError(
            f"--stop-when-flat: this study compares optimizers, and {why}. Compare optimizers that all stop by one "
            f"rule, or leave it out."
        )


def warnings(cells: list[Cell]) -> list[str]:
    """What a user should know of the plan before it runs."""
    small = {c.rollout_budget for c in cells if optimizes(c.optimizer) and c.rollout_budget < 10 * c.select_size}
    return [
        f"a budget of {budget} rollouts is below ten selection passes: optimizers can try only a few candidates"
        for budget in sorted(small)
    ]


def power_notes(cells: list[Cell]) -> list[str]:
    """What the rows of the cells can tell: half a 95 % interval of a score, or of a difference on the same rows.

    For scores about 0.7; the same for both where answers to a row correlate at about 0.5 (STATISTICS 4).
    """

    def half(rows: int) -> str:
        return f"±{100 * 1.96 * math.sqrt(0.7 * 0.3 / rows):.0f} points"

    sizes = sorted({(cell.val_size, cell.select_size, cell.test_size) for cell in cells if cell.test_size})
    return [
        f"{val} val rows can tell a score or a difference to {half(val)}, the {select} of them that programs are "
        f"chosen on to {half(select)}; the {test} test rows, which decide here, to {half(test)}"
        for val, select, test in sizes
    ]


def fit_to_data(planned: PlannedCell, bench: Benchmark, exact: frozenset[str]) -> tuple[Cell, Splits]:
    """The cell with the sizes that its data can fill, and its rows.

    Sizes named in `exact` (flags) are exact: data that cannot fill them raise UsageError. The others are maxima.
    """
    wanted = {name: getattr(planned, name) for name in SIZE_FIELDS}
    if bench.test_seeds is None:
        wanted["test_size"] = 0
    train, val, test = shrink(bench, planned.train_size, planned.val_size, planned.test_size, planned.seed)
    fitting = {"train_size": train, "val_size": val, "test_size": test if wanted["test_size"] else 0}
    for name in SIZE_FIELDS:
        if name in exact and fitting[name] < wanted[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} {wanted[name]}: {bench.name} from '{bench.source}' can fill {fitting[name]} beside the "
                f"other sizes. Type {flag} {fitting[name]} or less."
            )
    select = min(select_size(val, planned.rollout_budget), val)
    check_cell(planned, select)
    splits = make_splits(bench, train, val, select, fitting["test_size"], planned.run, planned.seed)
    if planned.headroom:
        splits = headroom_rows(splits)
    fitting |= {"select_size": select, "test_size": len(splits.test)}
    return Cell(**asdict(planned) | fitting, data_sha256=splits.sha256, benchmark_version=bench.version), splits
