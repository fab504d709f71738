"""The table of prompt optimizers, which is the one place that names them. Nothing here imports DSPy.

To add an optimizer, write a function that takes an `OptimizerContext` (scaling/run/context.py) and returns the
optimized program, and add one `OptimizerSpec`. The command line, the plan, the estimate, the records and the report
follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from scaling.planning import budgets


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer: its names, its function, and what it does with a budget.

    name: as on the command line and in records. label: as in tables and figures. run: its function, as
    'module:function', loaded when a cell runs. plan: what it does with a budget, for the estimate. adds_demos: its
    program shows examples in its prompts. hosted: it runs as a job at somebody's service, which also makes its
    proposals.
    """

    name: str
    label: str
    run: str
    plan: budgets.Planner
    adds_demos: bool = False
    hosted: bool = False


NONE = OptimizerSpec("none", "no optimizer", "scaling.run.optimizers:none", budgets.no_work)

OPTIMIZERS: dict[str, OptimizerSpec] = {
    spec.name: spec
    for spec in (
        NONE,
        OptimizerSpec("gepa", "GEPA", "scaling.run.optimizers:gepa", budgets.gepa_work),
        OptimizerSpec("mipro", "MIPROv2", "scaling.run.optimizers:mipro", budgets.mipro_work, adds_demos=True),
        OptimizerSpec(
            "mipro_instruct",
            "MIPROv2, instructions",
            "scaling.run.optimizers:mipro_instruct",
            budgets.mipro_instruct_work,
        ),
        OptimizerSpec(
            "bootstrap", "bootstrap", "scaling.run.optimizers:bootstrap", budgets.bootstrap_work, adds_demos=True
        ),
        OptimizerSpec(
            "synth_mipro", "Synth MIPRO", "scaling.hosted.optimizer:optimize", budgets.hosted_work, hosted=True
        ),
    )
}


def label_of(name: str) -> str:
    """The optimizer's name for people. Records may name one that is not in the table."""
    return OPTIMIZERS[name].label if name in OPTIMIZERS else name


def is_hosted(name: str) -> bool:
    """Whether the optimizer runs as a job at somebody's service."""
    return name in OPTIMIZERS and OPTIMIZERS[name].hosted


def hosted_names() -> list[str]:
    """Names of all optimizers that run as a job at somebody's service."""
    return [name for name, spec in OPTIMIZERS.items() if spec.hosted]
