"""What the user sees while a sweep runs: a live table in a terminal, plain lines elsewhere; sweep.json for programs.

The optimizers' own bars, tables and logs go to a log file, not to the screen.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from scaling.llm.gateway import Gateway
from scaling.llm.meter import Meter
from scaling.planning.optimizers import NONE, TRANSFER
from scaling.records.store import SWEEP, write_json
from scaling.redact import RedactingStream, redact
from scaling.run.calls_ahead import CallsAhead
from scaling.run.estimate import Estimate
from scaling.run.notebook import NotebookBar, in_notebook
from scaling.run.time_left import TimeLeft
from scaling.types import Cell

WRITE_EVERY_SECONDS = 1.0
LINE_EVERY_SECONDS = 15.0
NOT_NEEDED = "not needed"  # a cell of a sequential study that nothing asks for any more
# The root, and those that have handlers of their own.
LOGGERS = ("", "dspy", "optuna", "gepa", "LiteLLM", "httpx", "distributed", "distributed.client")


@dataclass
class State:
    """How far one cell is."""

    cell: Cell
    status: str = "waiting"
    phase: str = ""
    best: float | None = None
    meter: Meter | None = None

    def rollouts(self) -> int:
        return sum(self.meter.rollouts.values()) if self.meter else 0


class _Screen(Console):
    """Where lines go. When nobody reads them any more, as after `| head -1`, the sweep ends as after Ctrl-C."""

    def __init__(self, gateway: Gateway, **settings: Any):
        super().__init__(**settings)
        self._gateway = gateway

    def on_broken_pipe(self) -> None:
        self.quiet = True
        self._gateway.stop("interrupted", "nobody reads the output any more")


class ProgressReporter:
    """State of a sweep, shown and written. Thread-safe; every method is cheap."""

    def __init__(
        self,
        cells: list[Cell],
        estimates: dict[str, Estimate],
        results: Path,
        gateway: Gateway,
        screen: TextIO,
        live: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.states = {cell.cell_id: State(cell) for cell in cells}
        self._results, self._gateway = results, gateway
        self._console = _Screen(gateway, file=screen, soft_wrap=True, highlight=False, force_jupyter=False)
        self._clock, self._started = clock, clock()
        self._time_left = TimeLeft(cells, estimates)
        self._expected = {c.cell_id: expected_rollouts(c) for c in cells}
        self._stop = threading.Event()
        self._draws_table = live and self._console.is_terminal
        self._bar = NotebookBar("starting") if not live and in_notebook() else None
        self._live: Live | None = None
        self._ahead: CallsAhead | None = None
        self.on_end: Callable[[Cell], None] = lambda cell: None  # somebody else who is told of it

    @contextlib.contextmanager
    def running(self) -> Iterator[ProgressReporter]:
        """Show and write the state while the block runs, and once more at its end."""
        if self._draws_table:
            self._live = Live(self._table(), console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        ticker = threading.Thread(target=self._tick, daemon=True)
        ticker.start()
        try:
            yield self
        finally:
            self._stop.set()
            ticker.join()
            if self._live:
                self._live.stop()
            self._show_bar()
            self.write()

    def _show_bar(self) -> None:
        if self._bar:
            ended = all(state.status not in ("waiting", "running") for state in self.states.values())
            done = sum(state.rollouts() for state in self.states.values())
            wanted = sum(self._expected[cell] for cell, state in self.states.items() if state.status != NOT_NEEDED)
            self._bar.update(1.0 if ended else done / max(1, wanted), self._summary())

    def start(self, cell: Cell, meter: Meter) -> None:
        state = self.states[cell.cell_id]
        state.status, state.meter = "running", meter
        self._time_left.start(cell, meter)

    def phase(self, cell: Cell, phase: str) -> None:
        self.states[cell.cell_id].phase = phase
        self._time_left.phase(cell, phase)

    def best(self, cell: Cell, score: float | None) -> None:
        self.states[cell.cell_id].best = score

    def end(self, cell: Cell, status: str, text: str) -> None:
        """A cell has settled or stopped: one line that stays on the screen."""
        self.states[cell.cell_id].status = status
        self._time_left.end(cell, completed=status == "ok")
        self.say(f"{status:11s} {cell.label}  {text}")
        self.on_end(cell)

    def leave_out(self, cells: Iterable[Cell]) -> None:
        """Cells that have not started and will not."""
        for state in (self.states[cell.cell_id] for cell in cells if cell.cell_id in self.states):
            if state.status == "waiting":
                state.status = NOT_NEEDED
                self._time_left.leave_out(state.cell)

    def look_ahead(self, ahead: CallsAhead | None) -> None:
        """What a sequential study has before it; None for a fixed one."""
        self._ahead = ahead

    def say(self, text: str) -> None:
        """A line that stays, above the live table where there is one."""
        (self._live.console if self._live else self._console).print(redact(text), markup=False)

    def snapshot(self) -> dict[str, Any]:
        """The state as plain data: what sweep.json holds."""
        done = sum(state.rollouts() for state in self.states.values())
        elapsed = self._clock() - self._started
        cost_budget = self._gateway.cost_budget
        return {
            "cells": dict(Counter(state.status for state in self.states.values())),
            "rollouts": done,
            "calls_answered": self._gateway.answered,
            "calls_per_second": self._gateway.answered / elapsed if elapsed else 0.0,
            "errors": self._gateway.errors,
            "spent_usd": cost_budget.spent,
            "max_cost_usd": cost_budget.cap,
            "elapsed_seconds": elapsed,
            "seconds_left": self._time_left.seconds(elapsed),
            "calls_ahead": self._ahead and asdict(self._ahead),
            "running": [
                {"cell": s.cell.label, "phase": s.phase, "rollouts": s.rollouts(), "best_val_score": s.best}
                for s in self.states.values()
                if s.status == "running"
            ],
        }

    def write(self) -> None:
        write_json(self._results / SWEEP, self.snapshot())

    def _tick(self) -> None:
        next_line = time.monotonic() + LINE_EVERY_SECONDS
        while not self._stop.wait(WRITE_EVERY_SECONDS):
            with contextlib.suppress(OSError):  # a full disk is told by the cells
                self.write()
            if self._live:
                self._live.update(self._table())
            elif self._bar:
                self._show_bar()
            elif time.monotonic() >= next_line:
                next_line += LINE_EVERY_SECONDS
                self._console.print(self._summary(), markup=False)

    def _summary(self) -> str:
        now = self.snapshot()
        cells = ", ".join(f"{count} {status}" for status, count in now["cells"].items())
        cap = f" of ${now['max_cost_usd']:g}" if now["max_cost_usd"] is not None else ""
        left = f", {time_left_text(now['seconds_left'])}" if now["seconds_left"] is not None else ""
        return (
            f"[{_clock(now['elapsed_seconds'])}] cells: {cells}; {now['rollouts']} rollouts; "
            f"{now['calls_per_second']:.1f} calls/s; {now['errors']} errors; ${now['spent_usd']:.4f}{cap} spent{left}"
            f"{f'; {self._ahead.text}' if self._ahead else ''}"
        )

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("cell", "phase", "rollouts", "best on select"):
            table.add_column(column, justify="left" if column in ("cell", "phase") else "right")
        running = [s for s in self.states.values() if s.status == "running"]
        for state in running[:12]:
            best = "" if state.best is None else f"{100 * state.best:.1f}"
            count = f"{state.rollouts()}/{self._expected[state.cell.cell_id]}"
            table.add_row(state.cell.label, state.phase, count, best)
        if len(running) > 12:
            table.add_row(f"and {len(running) - 12} more", "", "", "")
        return Group(table, self._summary())


def expected_rollouts(cell: Cell) -> int:
    """Rollouts of a cell at most: its budget, the check rows, and every test row under each program that is scored."""
    check = cell.val_size - cell.select_size
    if cell.optimizer == TRANSFER.name:
        return 2 * cell.test_size + check
    if cell.optimizer == NONE.name:
        return cell.draws * cell.test_size + check
    return cell.rollout_budget + check + cell.test_size * (cell.draws + (2 if cell.steps > 1 else 1))


@contextlib.contextmanager
def quiet(log_file: Path) -> Iterator[TextIO]:
    """Send stdout, stderr and all loggers to `log_file` while the block runs; gives the real screen.

    Only for a process that is our own: the command, and the workers of Dask.
    """
    screen = sys.stdout
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("a", encoding="utf-8", buffering=1) as file:
        log = RedactingStream(file)
        handler = logging.StreamHandler(log)
        changed = [logging.getLogger(name) for name in LOGGERS]
        before = [(logger, logger.handlers[:], logger.propagate) for logger in changed]
        for logger in changed:
            logger.handlers[:] = [handler] if logger.name == "root" else []
            logger.propagate = True
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                yield screen
            finally:
                for logger, handlers, propagate in before:
                    logger.handlers[:], logger.propagate = handlers, propagate


def time_left_text(seconds: float) -> str:
    """The time left in words. Nobody can tell the last seconds, so nothing below a minute is given in seconds."""
    return "less than a minute left" if seconds < 60 else f"about {_clock(seconds)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
