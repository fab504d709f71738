"""How long a sweep still takes: the work that is planned and not yet done, at the speed that was measured.

Work is counted by kind of call, since a proposal takes much longer than a task call. Its unit is a token of the answer
that the plan expects; a call adds `TOKENS_A_CALL` for its prompt and its way. The speed is that of the cells most like
the one in question. The time is the work that is left, divided by the calls that ran at the same time so far, or the
longest chain of calls that wait for one another, whichever takes longer.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from scaling.llm.gateway import Meter
from scaling.run.estimate import KINDS, Estimate, Work
from scaling.types import Cell

TOKENS_A_CALL = 15
LEAST_CALLS = 5  # fewer say nothing of the speed of their kind
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
class Speed:
    """Calls that were timed, their units of work, and the seconds they took."""

    calls: int = 0
    units: float = 0.0
    seconds: float = 0.0


Speeds = dict[tuple[str | int, ...], Speed]


@dataclass
class RunningCell:
    """A cell under way."""

    cell: Cell
    meter: Meter
    work: dict[str, Work]
    phase: str = "optimize"

    def units_left(self) -> dict[str, float]:
        """Units of each kind that the cell still has to do: none of a phase that is over."""
        kinds = KINDS if self.phase.startswith("optimize") else ("evaluate",) if self.phase == "test" else ()
        return {
            kind: max(0.0, self.work[kind].calls - self.meter.times[kind].calls) * _units_a_call(self.work[kind])
            for kind in kinds
        }


class TimeLeft:
    """The time that a sweep still takes. It is told of each cell's start, phases and end; thread-safe."""

    def __init__(self, cells: list[Cell], estimates: dict[str, Estimate]):
        self._estimates = estimates
        self._waiting = {cell.cell_id for cell in cells}
        self._units_waiting: dict[tuple[Group, str], float] = defaultdict(float)
        self._running: dict[str, RunningCell] = {}
        self._ended: Speeds = defaultdict(Speed)
        self._lock = threading.Lock()
        for cell in cells:
            self._count_waiting(cell, 1)

    def start(self, cell: Cell, meter: Meter) -> None:
        """A cell runs from now on; a second start of a cell replaces its first."""
        with self._lock:
            if cell.cell_id in self._waiting:
                self._waiting.remove(cell.cell_id)
                self._count_waiting(cell, -1)
            self._running[cell.cell_id] = RunningCell(cell, meter, self._estimates[cell.cell_id].work)

    def phase(self, cell: Cell, phase: str) -> None:
        with self._lock:
            if cell.cell_id in self._running:
                self._running[cell.cell_id].phase = phase

    def end(self, cell: Cell) -> None:
        with self._lock:
            if (ended := self._running.pop(cell.cell_id, None)) is not None:
                _add_speeds(self._ended, ended)

    def seconds(self, elapsed: float) -> float | None:
        """Seconds that are left, `elapsed` seconds after the start; None as long as no speed is known."""
        with self._lock:
            speeds: Speeds = defaultdict(Speed, {key: replace(speed) for key, speed in self._ended.items()})
            for running in self._running.values():
                _add_speeds(speeds, running)
            total = speeds[()]
            if not total.seconds or elapsed <= 0:
                return None
            work = sum(units * _seconds_a_unit(speeds, group, kind) for group, kind, units in self._units_left())
            at_the_same_time = total.seconds / elapsed
            return max(work / at_the_same_time, self._longest_chain() * total.seconds / total.calls)

    def _count_waiting(self, cell: Cell, sign: int) -> None:
        for kind, work in self._estimates[cell.cell_id].work.items():
            self._units_waiting[_group(cell), kind] += sign * work.calls * _units_a_call(work)

    def _units_left(self) -> Iterator[tuple[Group, str, float]]:
        for (group, kind), units in self._units_waiting.items():
            yield group, kind, units
        for running in self._running.values():
            yield from ((_group(running.cell), kind, units) for kind, units in running.units_left().items())

    def _longest_chain(self) -> float:
        """Calls that wait for one another in the cell that has most of them left."""
        chains = [sum(self._estimates[cell_id].chain) / 2 for cell_id in self._waiting]
        for cell_id, running in self._running.items():
            planned = sum(work.calls * _units_a_call(work) for work in running.work.values())
            share = sum(running.units_left().values()) / planned if planned else 0.0
            chains.append(share * sum(self._estimates[cell_id].chain) / 2)
        return max(chains, default=0.0)


def _group(cell: Cell) -> Group:
    return Group(cell.model, cell.optimizer_model, cell.benchmark, cell.optimizer, cell.steps)


def _units_a_call(work: Work) -> float:
    return TOKENS_A_CALL + (work.output_tokens / work.calls if work.calls else 0.0)


def _keys(group: Group, kind: str) -> list[tuple[str | int, ...]]:
    """Whose speed is looked at for a kind of call, the most alike first; last that of all calls."""
    model = group.optimizer_model if kind == "propose" else group.model
    key = (kind, model, group.benchmark, group.optimizer, group.steps)
    return [key[:length] for length in (5, 4, 3, 2, 1, 0)]


def _add_speeds(speeds: Speeds, running: RunningCell) -> None:
    for kind in KINDS:
        times = running.meter.times[kind]
        for key in _keys(_group(running.cell), kind):
            speed = speeds[key]
            speed.calls += times.timed
            speed.units += times.timed * _units_a_call(running.work[kind])
            speed.seconds += times.seconds


def _seconds_a_unit(speeds: Speeds, group: Group, kind: str) -> float:
    for key in _keys(group, kind):
        if key and speeds[key].calls >= LEAST_CALLS:
            return speeds[key].seconds / speeds[key].units
    slowness = PROPOSAL_SLOWNESS if kind == "propose" else 1.0
    return slowness * speeds[()].seconds / speeds[()].units
