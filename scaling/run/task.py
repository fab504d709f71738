"""What a cell needs to run: its task and the choices of a sweep that change no answer, as plain data that can travel;
and who is told how far it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.records.record import ProgramDigest
from scaling.records.store import CellFiles
from scaling.types import Benchmark, Cell, HostedSettings, Splits


@dataclass(frozen=True)
class Settings:
    """Choices of a sweep that change no answer: how fast, how patient, what counts as broken."""

    timeout: float = 120.0
    max_error_rate: float = 0.02
    log: Path | None = None  # where the optimizers' own output goes; None drops it
    hosted: HostedSettings | None = None


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
    phase: int = 0  # the cells of a study's earlier phase start first


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
