"""How long a sweep still takes: the work that is planned and not yet done, at the speed that was measured.

Work is counted by kind of call, since a proposal takes much longer than a task call. Its unit is a token of the answer
that the plan expects; a call adds `TOKENS_A_CALL` for its prompt and its way. Speeds are those of the cells most like
the one in question, and plans are corrected by what cells of the same optimizer made of theirs. The time is the work
that is left, divided by the calls that ran at the same time so far, or the longest chain of calls that wait for one
another, whichever takes longer.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from scaling.llm.meter import Meter
from scaling.run.estimate import KINDS, Estimate, PlannedCalls
from scaling.types import Cell

TOKENS_A_CALL = 15
LEAST_CALLS = 10  # fewer say nothing of the speed of their kind
# Where no proposal was seen yet: it reads a long prompt for each token of its answer (measured on the embedded model).
PROPOSAL_SLOWNESS = 2.0


class Group(NamedTuple):
    """Cells whose calls are alike."""

    model: str
    optimizer_model: str
    benchmark: str
    optimizer: str
    steps: int


@dataclass
class Measured:
    """Calls that were timed, their units of work and their seconds; of completed cells, calls planned and made."""

    calls: int = 0
    units: float = 0.0
    seconds: float = 0.0
    planned: float = 0.0
    made: int = 0


MeasuredByKey = dict[tuple[str | int, ...], Measured]


@dataclass
class RunningCell:
    """A cell under way."""

    cell: Cell
    meter: Meter
    planned: dict[str, PlannedCalls]
    phase: str = "optimize"

    def units_left(self, measured: MeasuredByKey) -> dict[str, float]:
        """Units of each kind that the cell still has to do: none of a phase that is over."""
        kinds = KINDS if self.phase.startswith("optimize") else ("evaluate",) if self.phase == "test" else ()
        units = {}
        for kind in kinds:
            calls = self.planned[kind].calls * _share_of_plan(measured, _group(self.cell), kind)
            units[kind] = max(0.0, calls - self.meter.times[kind].calls) * _units_a_call(self.planned[kind])
        return units


class TimeLeft:
    """The time that a sweep still takes. It is told of each cell's start, phases and end; thread-safe."""

    def __init__(self, cells: list[Cell], estimates: dict[str, Estimate]):
        self._estimates = estimates
        self._waiting = {cell.cell_id for cell in cells}
        self._units_waiting: dict[tuple[Group, str], float] = defaultdict(float)
        self._running: dict[str, RunningCell] = {}
        self._ended: MeasuredByKey = defaultdict(Measured)
        self._lock = threading.Lock()
        for cell in cells:
            self._count_waiting(cell, 1)

    def start(self, cell: Cell, meter: Meter) -> None:
        """A cell runs from now on; a second start of a cell replaces its first."""
        with self._lock:
            self._no_longer_waiting(cell)
            self._running[cell.cell_id] = RunningCell(cell, meter, self._estimates[cell.cell_id].likely)

    def leave_out(self, cell: Cell) -> None:
        """A cell will not run."""
        with self._lock:
            self._no_longer_waiting(cell)

    def phase(self, cell: Cell, phase: str) -> None:
        with self._lock:
            if cell.cell_id in self._running:
                self._running[cell.cell_id].phase = phase

    def end(self, cell: Cell, completed: bool) -> None:
        """A cell has ended. completed: it made all the calls that it had to make."""
        with self._lock:
            if (ended := self._running.pop(cell.cell_id, None)) is not None:
                _add_measured(self._ended, ended, completed)

    def seconds(self, elapsed: float) -> float | None:
        """Seconds that are left, `elapsed` seconds after the start; None as long as no speed is known."""
        with self._lock:
            measured = defaultdict(Measured, {key: replace(value) for key, value in self._ended.items()})
            for running in self._running.values():
                _add_measured(measured, running, completed=False)
            total = measured[()]
            if not total.seconds or elapsed <= 0:
                return None
            left = self._units_left(measured)
            work = sum(units * _seconds_a_unit(measured, group, kind) for group, kind, units in left)
            at_the_same_time = total.seconds / elapsed
            return max(work / at_the_same_time, self._longest_chain(measured) * total.seconds / total.calls)

    def _no_longer_waiting(self, cell: Cell) -> None:
        if cell.cell_id in self._waiting:
            self._waiting.remove(cell.cell_id)
            self._count_waiting(cell, -1)

    def _count_waiting(self, cell: Cell, sign: int) -> None:
        for kind, work in self._estimates[cell.cell_id].likely.items():
            self._units_waiting[_group(cell), kind] += sign * work.calls * _units_a_call(work)

    def _units_left(self, measured: MeasuredByKey) -> Iterator[tuple[Group, str, float]]:
        for (group, kind), units in self._units_waiting.items():
            yield group, kind, units * _share_of_plan(measured, group, kind)
        for running in self._running.values():
            yield from ((_group(running.cell), kind, units) for kind, units in running.units_left(measured).items())

    def _longest_chain(self, measured: MeasuredByKey) -> float:
        """Calls that wait for one another in the cell that has most of them left."""
        chains = [sum(self._estimates[cell_id].chain) / 2 for cell_id in self._waiting]
        for cell_id, running in self._running.items():
            planned = sum(work.calls * _units_a_call(work) for work in running.planned.values())
            share = sum(running.units_left(measured).values()) / planned if planned else 0.0
            chains.append(share * sum(self._estimates[cell_id].chain) / 2)
        return max(chains, default=0.0)


def _group(cell: Cell) -> Group:
    return Group(cell.model, cell.optimizer_model, cell.benchmark, cell.optimizer, cell.steps)


def _units_a_call(work: PlannedCalls) -> float:
    return TOKENS_A_CALL + (work.output_tokens / work.calls if work.calls else 0.0)


def _keys(group: Group, kind: str) -> list[tuple[str | int, ...]]:
    """Whose speed is looked at for a kind of call, the most alike first; last that of all calls."""
    model = group.optimizer_model if kind == "propose" else group.model
    key = (kind, model, group.benchmark, group.optimizer, group.steps)
    return [key[:length] for length in (5, 4, 3, 2, 1, 0)]


def _add_measured(measured: MeasuredByKey, running: RunningCell, completed: bool) -> None:
    for kind in KINDS:
        times, work = running.meter.times[kind], running.planned[kind]
        for key in _keys(_group(running.cell), kind):
            value = measured[key]
            value.calls += times.timed
            value.units += times.timed * _units_a_call(work)
            value.seconds += times.seconds
            if completed:
                value.planned += work.calls
                value.made += times.calls


def _seconds_a_unit(measured: MeasuredByKey, group: Group, kind: str) -> float:
    for key in _keys(group, kind):
        if key and measured[key].calls >= LEAST_CALLS:
            return measured[key].seconds / measured[key].units
    slowness = PROPOSAL_SLOWNESS if kind == "propose" else 1.0
    return slowness * measured[()].seconds / measured[()].units


def _share_of_plan(measured: MeasuredByKey, group: Group, kind: str) -> float:
    """Calls that completed cells of the same optimizer made for each one that was planned."""
    for key in _keys(group, kind)[:2]:
        if measured[key].planned:
            return measured[key].made / measured[key].planned
    return 1.0
