"""The table of prompt optimizers, which is the one place that names them. Nothing here imports DSPy.

To add an optimizer, write a function that takes an `OptimizerContext` (scaling/run/context.py) and returns the
optimized program, and add one `OptimizerSpec`. The command line, the plan, the estimate, the records and the report
follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from scaling.planning import budgets
from scaling.planning.optimizer_options import (
    BootstrapOptions,
    GepaOptions,
    MiproInstructOptions,
    MiproOptions,
    OptimizerOptions,
)
from scaling.schema import validated_flags
from scaling.types import OptionValue, PlannedCell, unknown_name

FLAG = "--optimizer-option"


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer: its names, its function, and what it does with a budget.

    name: as on the command line and in records. label: as in tables and figures. run: its function, as
    'module:function', loaded when a cell runs. plan: what it does with a budget, for the estimate. options: a frozen
    dataclass of what can be set, each field with its type, bounds and default. adds_demos: its program shows examples
    in its prompts. hosted: it runs as a job at somebody's service, which also makes its proposals. optimizes: it looks
    for a better program, within a budget.
    """

    name: str
    label: str
    run: str
    plan: budgets.Planner
    options: type[OptimizerOptions] = OptimizerOptions
    adds_demos: bool = False
    hosted: bool = False
    optimizes: bool = True


NONE = OptimizerSpec("none", "no optimizer", "scaling.run.optimizers:none", budgets.no_work, optimizes=False)
# Scores a program that was optimized elsewhere, beside the plain one.
TRANSFER = OptimizerSpec("transfer", "transferred", "scaling.run.start:transfer", budgets.no_work, optimizes=False)

OPTIMIZERS: dict[str, OptimizerSpec] = {
    spec.name: spec
    for spec in (
        NONE,
        OptimizerSpec("gepa", "GEPA", "scaling.run.optimizers:gepa", budgets.gepa_work, GepaOptions),
        OptimizerSpec(
            "mipro", "MIPROv2", "scaling.run.optimizers:mipro", budgets.mipro_work, MiproOptions, adds_demos=True
        ),
        OptimizerSpec(
            "mipro_instruct",
            "MIPROv2, instructions",
            "scaling.run.optimizers:mipro",
            budgets.mipro_instruct_work,
            MiproInstructOptions,
        ),
        OptimizerSpec(
            "bootstrap",
            "bootstrap",
            "scaling.run.optimizers:bootstrap",
            budgets.bootstrap_work,
            BootstrapOptions,
            adds_demos=True,
        ),
        TRANSFER,
        OptimizerSpec(
            "synth_mipro", "Synth MIPRO", "scaling.hosted.optimizer:optimize", budgets.hosted_work, hosted=True
        ),
    )
}


def label_of(name: str) -> str:
    """The optimizer's name for people. Records may name one that is not in the table."""
    return OPTIMIZERS[name].label if name in OPTIMIZERS else name


def optimizes(name: str) -> bool:
    """Whether the optimizer looks for a better program. Records may name one that is not in the table."""
    return name not in OPTIMIZERS or OPTIMIZERS[name].optimizes


def is_hosted(name: str) -> bool:
    """Whether the optimizer runs as a job at somebody's service."""
    return name in OPTIMIZERS and OPTIMIZERS[name].hosted


def hosted_names() -> list[str]:
    """Names of all optimizers that run as a job at somebody's service."""
    return [name for name, spec in OPTIMIZERS.items() if spec.hosted]


def options_of(cell: PlannedCell) -> Any:
    """The options of the cell's optimizer, an object of its `OptimizerSpec.options`: the cell's, else the defaults."""
    return OPTIMIZERS[cell.optimizer].options(**cell.optimizer_options)


def own_options(optimizer: str, given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """Those of the given options that the optimizer has and that differ from its defaults, in the order of names."""
    defaults = {field.name: field.default for field in fields(OPTIMIZERS[optimizer].options)}
    return {name: given[name] for name in sorted(given) if name in defaults and given[name] != defaults[name]}


def check_options(optimizers: Iterable[str], given: Mapping[str, OptionValue]) -> None:
    """Raise UsageError for an option that none of the optimizers has, and for a value that one of them cannot have."""
    has = {name: {field.name for field in fields(OPTIMIZERS[name].options)} for name in optimizers}
    possible = sorted(set().union(*has.values()))
    for option in given:
        if option not in possible:
            fix = f"Type {FLAG} {possible[0]}=VALUE, for example." if possible else "Leave it out."
            raise unknown_name("optimizer option", option, possible or ["none for these optimizers"], fix)
    for name, own in has.items():
        mine = {option: value for option, value in given.items() if option in own}
        validated_flags(OPTIMIZERS[name].options, mine, {option: f"{FLAG} {option} of {name}:" for option in mine})


def options_in_words() -> str:
    """All options with their defaults, by optimizer: 'gepa: reflection_minibatch_size=3, ...; mipro: ...'."""
    return "; ".join(
        f"{spec.name}: " + ", ".join(f"{field.name}={_as_typed(field.default)}" for field in fields(spec.options))
        for spec in OPTIMIZERS.values()
        if fields(spec.options)
    )


def _as_typed(value: object) -> str:
    """A value as a user types it; what the budget decides is named so."""
    return "by budget" if value is None else str(value).lower()
