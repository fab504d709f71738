"""Studies: named sets of axes, from a TOML file and the user's flags, held to one declared type."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from scaling.schema import SAFE_NAME, read_toml, shown, validated, validated_flags
from scaling.sequential import FIXED
from scaling.types import (
    CellAxes,
    CellSettings,
    CellSizes,
    Count,
    Draws,
    PlannedCell,
    Seed,
    Size,
    UsageError,
    default_of,
    unknown_name,
)

STUDIES = Path(__file__).parents[1] / "studies"
# Size of a cell -> the key of its benchmark whose number of seeds is the size where the study sets none.
SEEDS_OF = {"train_size": "train_seeds", "val_size": "val_seeds", "test_size": "test_seeds"}
SIZE_FIELDS = tuple(SEEDS_OF)
# What --pilot sets in every study, unless its table `pilot_axes` says otherwise.
PILOT: dict[str, Any] = {
    "runs": 1, "train_size": 5, "val_size": 5, "test_size": 2, "rollout_budget": 20, "design": FIXED, "gate": False,
}  # fmt: skip
_METADATA = {setting.name: setting.metadata for kind in (CellSettings, CellSizes) for setting in fields(kind)}

Name = Annotated[str, pydantic.Field(strict=True, max_length=500)]
Whole = Annotated[int, pydantic.Strict()]
Runs = Annotated[int, pydantic.Field(strict=True, ge=1, le=1_000_000)]
Design = Literal["fixed", "sequential"]


def _flag(flag: str, help: str, metavar: str | None = None) -> Any:
    """A field of a study that is no field of its cells; None: as the study was started."""
    return field(default=None, metadata={"flags": (flag,), "help": help, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class Study(CellSettings):
    """A named set of axes. Sizes are rows and maxima, shrunk where the data are smaller; None: each benchmark's own."""

    name: Annotated[str, pydantic.Field(strict=True, pattern=SAFE_NAME)] = "study"
    description: Annotated[str, pydantic.Field(strict=True, max_length=1000)] = ""
    benchmarks: list[Name] = field(default_factory=list)
    pipelines: list[Name] = field(default_factory=lambda: ["chain"])
    steps: list[Whole] = field(default_factory=lambda: [1])
    optimizers: list[Name] = field(default_factory=lambda: ["none"])
    models: list[Name] = field(default_factory=list)
    optimizer_model: Name | None = None
    run_list: list[Seed] | None = None  # these runs and no others; a cell's own file has one
    runs: Runs = 1
    design: Design | None = _flag(
        "--design",
        "fixed: all runs. sequential: runs in waves, and after each wave more only for what is still open (fixed)",
        "fixed|sequential",
    )
    gate: Annotated[bool, pydantic.Strict()] | None = _flag(
        "--gate", "with --design sequential: chains of 3 steps only if 5 steps score above 1 step (z above 1)"
    )
    rollout_budget: Count = field(default=1000, metadata=_METADATA["rollout_budget"])
    train_size: Size | None = field(default=None, metadata=_METADATA["train_size"])
    val_size: Size | None = field(default=None, metadata=_METADATA["val_size"])
    test_size: Count | None = field(default=None, metadata=_METADATA["test_size"])
    compares_mipro: Annotated[bool, pydantic.Strict()] = False  # print and write the comparison of MIPROs at the end
    steps_by_benchmark: dict[Name, list[Whole]] = field(default_factory=dict)
    labels_by_benchmark: dict[Name, Size] = field(default_factory=dict)
    draws_by_benchmark: dict[Name, Draws] = field(default_factory=dict)
    models_by_optimizer: dict[Name, list[Name]] = field(default_factory=dict)
    questions: list[Name] = field(default_factory=list)  # that it asks, also where its cells do not
    phases: dict[Name, dict[str, Any]] = field(default_factory=dict)  # phase -> the axes that it sets otherwise
    pilot_axes: dict[Name, Any] = field(default_factory=dict)  # what --pilot sets otherwise than PILOT
    phase: Name | None = field(default=None, metadata={"file": False})  # one of the phases, or all; else the first
    notes: list[str] = field(default_factory=list, metadata={"file": False})  # what the plan says of it
    # Sizes given by flags: data that cannot fill them are an error.
    exact_sizes: frozenset[str] = field(default=frozenset(), metadata={"file": False})


def flags_of_study() -> dict[str, str]:
    """Field of a study -> the flag that sets it; what has no flag is absent."""
    given = [f for kind in (CellAxes, CellSizes, CellSettings) for f in fields(kind) if f.metadata.get("flags")]
    flags: dict[str, str] = {f.metadata.get("axis", f.name): f.metadata["flags"][0] for f in given}
    own = {"runs": "--runs", "optimizer_model": "--optimizer-model", "phase": "--phase"}
    return flags | own | {"design": "--design", "gate": "--gate"}


def study_names() -> list[str]:
    """The studies that come with the program."""
    return sorted(path.stem for path in STUDIES.glob("*.toml"))


def load_study(name: str) -> Study:
    """A study by name or by the path of its TOML file; UsageError for an unknown name or field."""
    path = Path(name) if name.endswith(".toml") else STUDIES / f"{name}.toml"
    if not name.endswith(".toml") and name not in study_names() or not os.path.exists(path):
        fix = "Type --study NAME, or --study FILE.toml with a file that exists."
        raise unknown_name("study", shown(name), study_names(), fix)
    axes = read_toml(path, "a study")
    study = validated(Study, {"name": path.stem} | axes, str(path))
    phases: dict[str, dict[str, Any]] = {}
    for phase, changes in study.phases.items():
        whole = {key: value for key, value in axes.items() if key != "phases"} | changes
        part = validated(Study, {"name": path.stem} | whole, str(path), f"phases.{phase}.")
        phases[phase] = {name: getattr(part, name) for name in changes}
    pilot = validated(Study, {"name": path.stem} | axes | study.pilot_axes, str(path), "pilot_axes.")
    return replace(study, phases=phases, pilot_axes={name: getattr(pilot, name) for name in study.pilot_axes})


def pilot_of(study: Study) -> Study:
    """The study's pilot: a trial with one run and few rows. Its cells are marked, and none is a cell of the study."""
    return narrow(study, **(PILOT | study.pilot_axes), pilot=True)


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


def checked(choices: dict[str, Any]) -> dict[str, Any]:
    """Values of a study's fields, in the types that the study has; UsageError for one that no study can have."""
    possible = [f.name for f in fields(Study)]
    for name in choices:
        if name not in possible:
            raise unknown_name("choice", shown(name), possible, "Leave it out.")
    study = validated_flags(Study, choices, flags_of_study())
    return {name: getattr(study, name) for name in choices}


def narrow(study: Study, **overrides: Any) -> Study:
    """The study with the user's choices: each one given replaces an axis, also where the study sets it by benchmark.

    overrides: fields of a study; None is not given. Raises UsageError for a value that no study can have.
    """
    given = checked({name: value for name, value in overrides.items() if value is not None})
    if "optimizer_options" in given:
        given["optimizer_options"] = study.optimizer_options | given["optimizer_options"]
    given |= {name: list(dict.fromkeys(value)) for name, value in given.items() if isinstance(value, list)}
    if "steps" in given:
        given["steps_by_benchmark"] = {}
    if "labels" in given:
        given["labels_by_benchmark"] = {}
    if "draws" in given:
        given["draws_by_benchmark"] = {}
    if "models" in given:
        given["models_by_optimizer"] = {}
        given.setdefault("optimizer_model", None)
    if "runs" in given:
        given["run_list"] = None
    given["phases"] = {
        name: {axis: value for axis, value in changes.items() if axis not in given}
        for name, changes in study.phases.items()
    }
    return replace(study, **given)


def choices_of(cell: PlannedCell) -> dict[str, Any]:
    """The fields of a study whose one cell this is; what is None is left out, as TOML has no null."""
    choices: dict[str, Any] = {}
    for axis in fields(CellAxes):
        name = axis.metadata["axis"]
        if name is not None:
            value = getattr(cell, axis.name)
            choices[name] = value if name == axis.name and name != "steps" else [value]
    settings = [setting.name for kind in (CellSizes, CellSettings) for setting in fields(kind)]
    return choices | as_written({name: getattr(cell, name) for name in settings})


def as_written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a cell that its file holds: neither None, as TOML has no null, nor an addition at its default."""
    added = {
        setting.name: default_of(setting) for setting in fields(CellSettings) if setting.metadata.get("left_out_of_id")
    }
    return {
        name: value
        for name, value in settings.items()
        if value is not None and (name not in added or value != added[name])
    }


def toml_of(choices: Mapping[str, Any]) -> str:
    """TOML text of a study's fields: JSON's texts, numbers, booleans and lists are TOML's."""
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in choices.items()).replace("\x7f", "\\u007f")


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml_value(part)}" for key, part in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
