"""`--transfer-from`: the optimized programs of cells that have ended well, as a study that runs them on other models.

A transfer keeps all settings of the cell that its program is from, so that it has the same rows as the cells beside it.
Flags of the command line narrow which programs are taken (--optimizers, --pipelines, --steps, --runs), say where they
run (--models, --benchmarks), and override the settings (--data, --test-size).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.llm.weights import with_named_files
from scaling.model_names import expand_names
from scaling.models import Model, find_model, load_registry, with_effort
from scaling.planning.optimizers import TRANSFER, optimizes
from scaling.planning.study import PILOT, SIZE_FIELDS, Study, choices_of, narrow
from scaling.records.record import Record
from scaling.records.store import CellFiles, read_records
from scaling.types import Cell, UsageError

FLAG = "--transfer-from"
# What only an optimizer has, and the flag that sets it.
OF_OPTIMIZERS = {
    "optimizer_model": "--optimizer-model", "optimizer_options": "--optimizer-option", "trials": "--trials",
    "rollout_budget": "--rollout-budget", "frozen_roles": "--freeze", "start_from": "--start-from", "phase": "--phase",
    "synth_mode": "--mode", "synth_rollouts": "--rollouts", "stop_when_flat": "--stop-when-flat",
    "headroom": "--pilot-headroom",
}  # fmt: skip
# What narrows the programs that are taken: the choice, and the field of a cell.
NARROWING = {"optimizers": "optimizer", "pipelines": "pipeline", "steps": "steps", "run_list": "run"}


@dataclass(frozen=True)
class Targets:
    """Where programs are run: models by id, and benchmarks (None: each program's own)."""

    models: Mapping[str, Model]
    benchmarks: Sequence[str] | None


def transfer_study(
    folders: Sequence[Path], choices: Mapping[str, Any], models_file: Path | None = None, api_base: str | None = None
) -> Study:
    """A study whose cells run the optimized programs under `folders` on the models of `choices`.

    choices: fields of a study. It has a phase a transfer. Raises UsageError where there is no program, or no other
    model to run one on.
    """
    for name, flag in OF_OPTIMIZERS.items():
        if choices.get(name) is not None:
            raise UsageError(f"{flag} is for optimizers, and {FLAG} optimizes nothing. Leave one of them out.")
    if not choices.get("models"):
        raise UsageError(f"{FLAG} needs the models that the programs are to run on. Type --models NAME.")
    registry = with_named_files(load_registry(models_file), choices["models"])
    found = [find_model(name, registry, api_base) for name in expand_names(choices["models"], registry)]
    targets = Targets({model.id: model for model in found}, choices.get("benchmarks"))
    sources, notes = sources_of(folders, choices)
    phases = {name: changes for source in sources for name, changes in _transfers(*source, targets)}
    if not phases:
        own = ", ".join(targets.models)
        raise UsageError(f"{FLAG}: all programs there were optimized on {own} itself. Type --models with another.")
    study = Study(
        name=TRANSFER.name, benchmarks=list(targets.benchmarks or []), models=list(targets.models), phases=phases,
        phase="all", notes=notes,
    )  # fmt: skip
    used = {"models", "benchmarks", "runs", *NARROWING}
    settings = {name: value for name, value in choices.items() if name not in used and value is not None}
    exact = frozenset(name for name in SIZE_FIELDS if name in settings)
    if settings.get("pilot"):
        settings = {name: value for name, value in PILOT.items() if name != "runs"} | settings
    return narrow(study, **settings, exact_sizes=exact)


def sources_of(folders: Sequence[Path], choices: Mapping[str, Any]) -> tuple[list[tuple[Path, Cell]], list[str]]:
    """The cells under the folders with an optimized program, and a note on those that have none yet."""
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{FLAG} {folder}: there is no such folder. Give a results folder, or a cell's.")
    sources: dict[str, tuple[Path, Cell]] = {}
    without: Counter[str] = Counter()
    for path, record in read_records(folders):
        if optimizes(record.cell.optimizer) and _is_wanted(record.cell, choices):
            if reason := _lacking(path.parent, record):
                without[reason] += 1
            else:
                sources.setdefault(record.cell_id, (path.parent, record.cell))
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(without.items()))
    if not sources:
        names = ", ".join(map(str, folders))
        why = f" ({reasons})" if reasons else ""
        raise UsageError(f"{FLAG} {names}: no cell there has ended with an optimized program{why}. Run one first.")
    return list(sources.values()), [f"cells without a program to transfer: {reasons}"] if reasons else []


def _is_wanted(cell: Cell, choices: Mapping[str, Any]) -> bool:
    runs = 1 if choices.get("pilot") else choices.get("runs")
    kept = all(getattr(cell, of) in choices[name] for name, of in NARROWING.items() if choices.get(name))
    return kept and (runs is None or cell.run < runs)


def _lacking(folder: Path, record: Record) -> str | None:
    """Why a cell has no program that could be transferred; None for one that has."""
    if record.status != "ok":
        return f"with status {record.status}"
    return None if CellFiles(folder).program.exists() else "whose program.json is missing"


def _transfers(folder: Path, source: Cell, targets: Targets) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the axes of each transfer of one cell's program."""
    for benchmark in targets.benchmarks or [source.benchmark]:
        benchmark = Path(benchmark).stem if benchmark.lower().endswith(".csv") else benchmark
        for model in targets.models.values():
            if (benchmark, model.id) != (source.benchmark, source.model):
                name = f"{source.cell_id} {benchmark} {model.id}"
                yield name, _axes(folder, source, benchmark, model)


def _axes(folder: Path, source: Cell, benchmark: str, model: Model) -> dict[str, Any]:
    """The axes of one transfer: those of the source but for what came with its model, optimizer and benchmark."""
    axes = choices_of(source)
    for name in ("optimizer_model", "optimizer_options", "frozen_roles", "synth_mode", "synth_rollouts"):
        axes.pop(name, None)
    if with_effort(model, source.reasoning_effort).reasoning_effort is None:
        axes.pop("reasoning_effort", None)
    if benchmark != source.benchmark:
        axes.pop("labels", None)
    changes = {"benchmarks": [benchmark], "models": [model.id], "optimizers": [TRANSFER.name]}
    return axes | changes | {"start_from": str(folder)}
