"""How far a sequential study is: what its looks have found, and so which cells it runs next and which it still may.

Plain data without files: the runner asks it about cells, the plan about cells that are only assumed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from scaling.sequential import Look, NeededCell, SequentialDesign
from scaling.types import CellProgram

GATED_STEPS = 3


class PlacedCell(CellProgram, Protocol):
    """What a study looks at in a cell to know whether it is needed."""

    @property
    def benchmark(self) -> str: ...
    @property
    def run(self) -> int: ...


@dataclass(frozen=True)
class Standing:
    """A sequential study after some of its looks.

    opened: the models for which the gate is open; None as long as that is not decided. looks: in order.
    """

    design: SequentialDesign
    opened: Collection[str] | None = None
    looks: tuple[Look, ...] = ()

    @property
    def is_ended(self) -> bool:
        """Whether the last look was made, or nothing is open any more."""
        return bool(self.looks) and self.looks[-1].ends_study

    @property
    def runs(self) -> int:
        """How many runs of a cell the next look judges. For a study that has not ended."""
        return self.design.waves[len(self.looks)]

    @property
    def gate_is_next(self) -> bool:
        """Whether the gate is decided before the next look."""
        return self.design.gate is not None and self.opened is None and not self.looks

    def may_run(self, cell: PlacedCell) -> bool:
        """Whether the study may still run the cell."""
        if self.looks:
            kind = NeededCell(cell.model, cell.benchmark, cell.optimizer, cell.steps)
            return cell.pipeline == "chain" and kind in self.looks[-1].needed
        return not self._waits_for_gate(cell) or self.opened is None or cell.model in self.opened

    def needs_now(self, cell: PlacedCell) -> bool:
        """Whether the next decision is made on the cell's scores."""
        if self.is_ended or cell.run >= self.runs or not self.may_run(cell):
            return False
        return not (self.gate_is_next and self._waits_for_gate(cell))

    def _waits_for_gate(self, cell: PlacedCell) -> bool:
        is_optimized_chain = cell.pipeline == "chain" and cell.optimizer != "none"
        return self.design.gate is not None and is_optimized_chain and cell.steps == GATED_STEPS


def opened_by(z: Mapping[str, float], design: SequentialDesign) -> list[str]:
    """The models for which the gate is open, by z of 5 steps minus 1 step of each model."""
    return sorted(model for model, value in z.items() if design.gate is not None and value > design.gate)
