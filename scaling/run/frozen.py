"""Steps that no optimizer changes: hidden from DSPy while an optimizer works, and put back afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dspy

from scaling.types import PlannedCell, UsageError


class FrozenStep:
    """A step in a wrapping that is no module: DSPy's optimizers find steps among modules only, and leave it alone."""

    def __init__(self, step: dspy.Module):
        self.step = step

    @property
    def signature(self) -> Any:
        """The step's own, which GEPA looks for in a failed answer's trace."""
        return self.step.signature

    def __call__(self, **inputs: Any) -> Any:
        return self.step(**inputs)


def freeze(program: dspy.Module, roles: Iterable[str]) -> None:
    """Hide these steps of the program from optimizers."""
    for role in roles:
        setattr(program, role, FrozenStep(getattr(program, role)))


def thaw(program: dspy.Module) -> None:
    """Put the steps that are hidden back in their places."""
    for name, value in list(vars(program).items()):
        if isinstance(value, FrozenStep):
            setattr(program, name, value.step)


def check_roles(program: dspy.Module, cell: PlannedCell) -> None:
    """Raise UsageError for frozen steps that the cell's program has not, or that leave nothing to optimize."""
    roles = list(dict.fromkeys(name.split(".")[0] for name, _ in program.named_predictors()))
    for role in cell.frozen_roles:
        if role not in roles:
            raise UsageError(
                f"--freeze {role}: '{cell.benchmark} {cell.pipeline} {cell.steps}' has no such step; its steps: "
                f"{', '.join(roles)}. Type --steps with the numbers of steps that have it."
            )
    if set(roles) == set(cell.frozen_roles):
        raise UsageError(f"--freeze {' '.join(roles)}: no step is left to optimize. Leave one out.")
