"""From a study (a TOML file of axes) to a list of cells: names, budgets and sizes are checked here, before any call."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import pydantic

from scaling.budgets import budget_of_trials, select_size
from scaling.data import deal, shrink
from scaling.models import Model, expand_names, find_model
from scaling.optimizers import NONE, OPTIMIZERS, is_hosted
from scaling.pipelines import FEEDBACKS, PIPELINES
from scaling.types import (
    STEPS,
    SYNTH_MODES,
    Benchmark,
    Cell,
    Splits,
    UsageError,
    unknown_name,
)

STUDIES = Path(__file__).parent / "studies"


@dataclass(frozen=True)
class Study:
    """A named set of axes. Sizes are rows and maxima, shrunk where the data are smaller."""

    name: str = "study"
    description: str = ""
    benchmarks: list[str] = field(default_factory=list)
    pipelines: list[str] = field(default_factory=lambda: ["chain"])
    steps: list[int] = field(default_factory=lambda: [1])
    optimizers: list[str] = field(default_factory=lambda: ["none"])
    models: list[str] = field(default_factory=list)
    optimizer_model: str | None = None
    run_list: list[int] | None = None  # these runs and no others; a cell's own file has one
    runs: int = 1
    seed: int = 0
    temperature: float = 0.7
    rollout_budget: int = 1000
    train_size: int = 50
    val_size: int = 100
    test_size: int = 500
    data: str = "hub"
    labels: int | None = None
    feedback: str = "none"
    closed_book: bool = False
    synth_mode: str = "offline"  # of hosted jobs
    synth_rollouts: int | None = None
    compares_mipro: bool = False  # print the table of MIPRO implementations at the end, and write their exports
    steps_by_benchmark: dict[str, list[int]] = field(default_factory=dict)
    labels_by_benchmark: dict[str, int] = field(default_factory=dict)
    models_by_optimizer: dict[str, list[str]] = field(default_factory=dict)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)  # phase -> the axes that it sets otherwise
    phase: str | None = None  # one of the phases, or all; the first when not given


SIZE_FIELDS = ("train_size", "val_size", "test_size")
# What only the data can tell of a cell; the same for all cells with the same rows, sizes, budget and run.
FITTED_FIELDS = (*SIZE_FIELDS, "select_size", "data_sha256", "benchmark_version")


def study_names() -> list[str]:
    """The studies that come with the program."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def load_study(name: str) -> Study:
    """A study by name or by the path of its TOML file; UsageError for an unknown name or field."""
    path = Path(name) if name.endswith(".toml") else STUDIES / f"{name}.toml"
    if not path.exists():
        fix = "Type --study NAME, or --study FILE.toml with a file that is there."
        raise unknown_name("study", name, study_names(), fix)
    try:
        axes = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML ({error}). Mend that line.") from None
    study = _validated(path, {"name": path.stem} | axes)
    for name, changes in study.phases.items():
        _validated(path, {key: value for key, value in axes.items() if key != "phases"} | changes, f"phases.{name}.")
    return study


def _validated(path: Path, axes: dict[str, Any], where: str = "") -> Study:
    """The study of these axes; UsageError names the field that is wrong."""
    known = [f.name for f in fields(Study)]
    extra = sorted(set(axes) - set(known))
    if extra:
        raise UsageError(
            f"{path} has unknown fields {', '.join(where + n for n in extra)}; possible: {', '.join(known)}."
        )
    try:
        return pydantic.TypeAdapter(Study).validate_python(axes)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = where + ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {place}: {first['msg']}. Mend that field.") from None


def phases_of(study: Study) -> list[Study]:
    """The study as one of its phases, or all of them in order; itself where it has none. UsageError for another."""
    if study.phase is not None and not study.phases:
        raise UsageError(f"--phase {study.phase}: the study '{study.name}' has no phases. Leave --phase out.")
    if not study.phases:
        return [study]
    names = list(study.phases) if study.phase == "all" else [study.phase or next(iter(study.phases))]
    for name in names:
        if name not in study.phases:
            raise unknown_name("phase", name, [*study.phases, "all"], f"Type --phase {next(iter(study.phases))}.")
    return [replace(study, **({"phases": {}, "phase": None} | study.phases[name])) for name in names]


def narrow(study: Study, **overrides: Any) -> Study:
    """The study with the user's flags: each given one replaces an axis, also where the study sets it by benchmark."""
    given = {name: value for name, value in overrides.items() if value is not None}
    given |= {name: list(dict.fromkeys(value)) for name, value in given.items() if isinstance(value, list)}
    if "steps" in given:
        given["steps_by_benchmark"] = {}
    if "labels" in given:
        given["labels_by_benchmark"] = {}
    if "models" in given:
        given["models_by_optimizer"] = {}
        if "optimizer_model" not in given:
            given["optimizer_model"] = None
    if "runs" in given:
        given["run_list"] = None
    if (trials := given.pop("trials", None)) is not None:
        if "rollout_budget" in given:
            raise UsageError("--trials and --rollout-budget both set the budget. Give one of them.")
        given["rollout_budget"] = budget_of_trials(trials, given.get("val_size", study.val_size))
    given["phases"] = {
        name: {axis: value for axis, value in changes.items() if axis not in given}
        for name, changes in study.phases.items()
    }
    return replace(study, **given)


def expand(study: Study, benchmarks: list[str], registry: dict[str, Model], api_base: str | None = None) -> list[Cell]:
    """All cells of a study, without the sizes that only the data can tell. Raises UsageError for what cannot be."""
    parts = phases_of(study)
    if len(parts) > 1:
        return [cell for part in parts for cell in expand(part, benchmarks, registry, api_base)]
    (study,) = parts
    check_names(study, benchmarks)
    cells = []
    runs = study.run_list if study.run_list is not None else list(range(study.runs))
    for benchmark, pipeline, optimizer in product(study.benchmarks, study.pipelines, study.optimizers):
        steps = study.steps_by_benchmark.get(benchmark, study.steps)
        models = expand_names(study.models_by_optimizer.get(optimizer, study.models), registry)
        for step, name, run in product(steps, models, runs):
            model = find_model(name, registry, api_base)
            proposer = find_model(study.optimizer_model, registry, api_base) if study.optimizer_model else model
            cells.append(
                Cell(
                    benchmark=benchmark,
                    pipeline=pipeline,
                    steps=step,
                    optimizer=optimizer,
                    model=model.id,
                    optimizer_model=proposer.id,
                    run=run,
                    seed=study.seed,
                    temperature=study.temperature,
                    max_output_tokens=model.max_output_tokens,
                    train_size=study.train_size,
                    val_size=study.val_size,
                    select_size=select_size(study.val_size, study.rollout_budget),
                    test_size=study.test_size,
                    rollout_budget=study.rollout_budget,
                    data=study.data,
                    labels=study.labels_by_benchmark.get(benchmark, study.labels),
                    feedback=study.feedback if PIPELINES[pipeline].takes_feedback else "none",
                    closed_book=study.closed_book,
                    synth_mode=study.synth_mode if is_hosted(optimizer) else "offline",
                    synth_rollouts=study.synth_rollouts if is_hosted(optimizer) else None,
                )
            )
    for cell in cells:
        check_cell(cell)
    return cells


def check_names(study: Study, benchmarks: list[str]) -> None:
    """Raise UsageError for the first name that is unknown, with those that are known."""
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
    if study.synth_mode not in SYNTH_MODES:
        raise unknown_name("mode", study.synth_mode, list(SYNTH_MODES), "Type --mode offline.")
    if study.synth_rollouts is not None and study.synth_rollouts < 1:
        raise UsageError(f"--rollouts {study.synth_rollouts}: a candidate needs at least 1. Type --rollouts 10.")
    if study.runs < 1:
        raise UsageError(f"--runs {study.runs}: at least 1 run is needed. Type --runs 3.")


def check_cell(cell: Cell) -> None:
    """Raise UsageError for sizes and budgets that make no sense together."""
    if PIPELINES[cell.pipeline].draws and cell.temperature == 0:
        raise UsageError(
            f"'{cell.pipeline}' at temperature 0 asks for the same answer {cell.steps} times. "
            f"Set a temperature above 0 (0.7), or leave the pipeline out."
        )
    if cell.feedback not in FEEDBACKS:
        raise unknown_name("feedback", cell.feedback, list(FEEDBACKS), "Type --feedback none.")
    for name in SIZE_FIELDS:
        if getattr(cell, name) < (0 if name == "test_size" else 1):
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} {getattr(cell, name)}: at least 1 row is needed. Type {flag} 50.")
    if cell.optimizer == NONE.name:
        return
    if cell.rollout_budget < 4 * cell.select_size:
        raise UsageError(
            f"--rollout-budget {cell.rollout_budget} is below four passes over the {cell.select_size} rows that "
            f"candidates are selected on. Type --rollout-budget {4 * cell.select_size} or more."
        )


def warnings(cells: list[Cell]) -> list[str]:
    """What a user should know of the plan before it runs."""
    small = {c.rollout_budget for c in cells if c.optimizer != NONE.name and c.rollout_budget < 10 * c.select_size}
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


def fit_to_data(cell: Cell, bench: Benchmark, by_hand: set[str]) -> tuple[Cell, Splits]:
    """The cell with the sizes that its data can fill, and its deal.

    Sizes named in `by_hand` (flags) are exact: data that cannot fill them raise UsageError. The others are
    maxima.
    """
    train, val, test = shrink(bench, cell.train_size, cell.val_size, cell.test_size, cell.seed)
    if bench.test_seeds is None:
        cell = replace(cell, test_size=0)
    for name, wanted, have in zip(
        SIZE_FIELDS, (cell.train_size, cell.val_size, cell.test_size), (train, val, test), strict=True
    ):
        if name in by_hand and have < wanted:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} {wanted}: {bench.name} from '{bench.source}' can fill {have} beside the other sizes. "
                f"Type {flag} {have} or less."
            )
    cell = replace(cell, train_size=train, val_size=val, test_size=test if cell.test_size else 0)
    cell = replace(cell, select_size=min(select_size(val, cell.rollout_budget), val))
    check_cell(cell)
    dealt = deal(bench, train, val, cell.select_size, cell.test_size, cell.run, cell.seed)
    sized = replace(cell, test_size=len(dealt.test), data_sha256=dealt.sha256, benchmark_version=bench.version)
    return sized, dealt
