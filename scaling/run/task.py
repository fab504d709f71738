"""What a cell needs to run: its task and the choices of a sweep that change no answer, as plain data that can travel;
and who is told how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from scaling.llm.batch_calls import BatchCall, BatchCollector, BilledGateway
from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.planning.optimizers import is_hosted, optimizes
from scaling.planning.questions import reads_equal_calls
from scaling.records.programs import ProgramDigest
from scaling.records.store import CellFiles
from scaling.run.start_program import StartProgram
from scaling.types import Benchmark, Cell, HostedSettings, Splits

T = TypeVar("T")


class Batches(Protocol):
    """Where cells put the calls that a batch is to answer: `BatchQueue`."""

    def expect(self, cells: int, together: int) -> int:
        """So many cells come, `together` of which may work at a time; gives how many threads they need."""

    def with_slot(self, run_cell: Callable[..., T]) -> Callable[..., T]:
        """The function that runs a cell when it has a slot."""

    def collector(self, model: Model) -> BatchCollector:
        """The gateway of a program that is run to see what it asks the model."""

    def answer(self, calls: Sequence[BatchCall]) -> None:
        """Wait until each call has its answer in the cache, or is left to the live call. Raises CellStopped."""

    def scoring_gateway(self) -> BilledGateway:
        """The gateway of a cell whose answers have come."""


@dataclass(frozen=True)
class Settings:
    """Choices of a sweep that change no answer: how fast, how patient, what counts as broken."""

    timeout: float = 120.0
    max_error_rate: float = 0.02
    log: Path | None = None  # where the optimizers' own output goes; None drops it
    hosted: HostedSettings | None = None
    batches: Batches | None = None  # where scoring's calls are answered; None: live


@dataclass(frozen=True)
class CellTask:
    """Everything one cell needs: plain data, the loaded benchmark, the models it calls, where it writes."""

    cell: Cell
    bench: Benchmark
    splits: Splits
    model: Model
    optimizer_model: Model
    files: CellFiles
    program: ProgramDigest | None = None
    start: StartProgram | None = None  # what the cell is given
    phase: int = 0  # the cells of a study's earlier phase start first
    equal_calls: bool = False  # the score at equal calls is wanted, whether or not a question reads it

    @property
    def buys_equal_calls(self) -> bool:
        """Whether the best candidate after budget / steps is scored, too: it is another program than the final one."""
        cell = self.cell
        apart = cell.steps > 1 and optimizes(cell.optimizer) and not is_hosted(cell.optimizer)
        return apart and (self.equal_calls or reads_equal_calls(cell))


class CellReporter(Protocol):
    """Who a cell tells how far it is: the sweep's `ProgressReporter`, or on a worker the one that passes it on."""

    def start(self, cell: Cell, meter: Meter) -> None:
        """The cell runs; the meter counts its calls."""

    def phase(self, cell: Cell, phase: str) -> None:
        """What the cell does now."""

    def best(self, cell: Cell, score: float | None) -> None:
        """The best score on the select rows so far, 0 to 1; None without one."""

    def end(self, cell: Cell, status: str, text: str) -> None:
        """The cell has its record."""
