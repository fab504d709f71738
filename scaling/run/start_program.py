"""The program that a cell is given, as plain data that can travel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scaling.records.programs import ProgramSource
from scaling.types import Cell, digest

SHA256_DIGITS = 16


@dataclass(frozen=True)
class Prompt:
    """What a step is told: its instruction, and its worked examples as DSPy saves them.

    fields: how the signature names its fields; None for a text, which says nothing of it.
    """

    instruction: str
    demos: list[dict[str, Any]] = field(default_factory=list)
    fields: tuple[str, ...] | None = None


@dataclass(frozen=True)
class StartProgram:
    """A program that a cell is given: the prompt of each step that it sets. cell: that which it is from, if any."""

    file: str
    prompts: dict[str, Prompt]
    cell: Cell | None = None

    @property
    def sha256(self) -> str:
        """The first digits of the digest of all that the program tells its steps."""
        told = {name: [prompt.instruction, prompt.demos] for name, prompt in self.prompts.items()}
        return digest(told)[:SHA256_DIGITS]

    @property
    def source(self) -> ProgramSource:
        """Where the program came from, for the record."""
        file, cell_id = (None, self.cell.cell_id) if self.cell else (Path(self.file).name, None)
        return ProgramSource(sha256=self.sha256, file=file, cell_id=cell_id, cell=self.cell)

    def given_to(self, cell: Cell) -> Cell:
        """The cell, which says in its id what program it was given."""
        return replace(cell, start_sha256=self.sha256, start_cell=self.cell.cell_id if self.cell else "")
