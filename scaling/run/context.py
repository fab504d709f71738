"""What an optimizer gets, and where it counts its proposals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dspy

from scaling.llm.lm import MeteredLM
from scaling.models import Model
from scaling.records.record import Proposals
from scaling.records.store import CellFiles
from scaling.run.scoring import safe_metric
from scaling.run.start_program import StartProgram
from scaling.types import Benchmark, Cell, HostedSettings


def _none_yet() -> Proposals:
    """Of an optimizer that proposes nothing. One that does not count what it accepts leaves `accepted` None."""
    return Proposals(tried=0, unparsed=0)


def _show_nothing(what: str, best: float | None) -> None: ...


@dataclass
class OptimizerContext:
    """What an optimizer gets: the core program, its rows, its budget in rollouts, and who answers.

    cell, model, files and start (the program that it is given) are the cell's own. hosted: where hosted jobs are
    sent; None without a hosted optimizer.
    show: shows (what happens now, the best score so far) to the user.
    """

    core: dspy.Module
    bench: Benchmark
    train: list[dspy.Example]
    select: list[dspy.Example]
    budget: int
    seed: int
    threads: int
    optimizer_lm: MeteredLM
    cell: Cell
    model: Model
    files: CellFiles
    hosted: HostedSettings | None = None
    start: StartProgram | None = None
    show: Callable[[str, float | None], None] = _show_nothing
    proposals: Proposals = field(default_factory=_none_yet)

    def metric(self, gold: dspy.Example, pred: Any, trace: Any = None) -> float:
        """A plain float, with an answer that is missing scored 0."""
        return safe_metric(self.bench, gold, pred)
