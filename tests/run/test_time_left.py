"""The time left: every optimizer's own calls, replayed with a made-up clock, against what really was left."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.llm.meter import Meter
from scaling.planning.optimizers import OPTIMIZERS
from scaling.records.record import CallRecord
from scaling.run.estimate import Estimate, PlannedCalls
from scaling.run.progress import ProgressReporter, time_left_text
from scaling.testing import ScriptedServer
from scaling.types import Cell
from tests.support.files import lines, read
from tests.support.sweeps import write_study

SAMPLE = Path(__file__).parents[2] / "benchmarks" / "banking77" / "sample.jsonl"
TRUTH = {row["text"]: row["label"] for row in map(json.loads, SAMPLE.read_text().splitlines())}
LOCAL = [name for name, spec in OPTIMIZERS.items() if not spec.hosted and name != "transfer"]


class IdleGateway:
    """What the reporter asks of a gateway."""

    answered = errors = 0

    class cost_budget:
        spent, cap = 0.0, None


# One task call of a second.
CALL = {
    "phase": "optimize", "role": "classifier", "cache_hit": False, "latency_seconds": 1.0, "error": None,
    "prompt_tokens": 10, "completion_tokens": 5, "list_cost_usd": 0.0, "billed_cost_usd": 0.0, "attempts": 1,
}  # fmt: skip


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class FinishedSweep:
    """A sweep's folder, and its cells and estimates as the reporter got them."""

    folder: Path
    cells: list[Cell]
    estimates: dict[str, Estimate]


def run_sweep(optimizer: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FinishedSweep:
    """Cells of 1 and 2 steps, each run twice; an optimizer seldom finds anything at this skill, as in real sweeps."""
    sweep = FinishedSweep(folder / "out", [], {})

    def reporter(cells: list[Cell], estimates: dict[str, Estimate], *rest: Any, **options: Any) -> ProgressReporter:
        sweep.cells, sweep.estimates = cells, estimates
        return ProgressReporter(cells, estimates, *rest, **options)

    monkeypatch.setattr(script, "ProgressReporter", reporter)
    with ScriptedServer(skill=lambda body: 0.4, truth=TRUTH) as server:
        flags = write_study(folder, server.url, [1, 2], [optimizer], 2)
        assert script.main([*flags, "--output-dir", str(sweep.folder)]) == 0
    return sweep


def seconds_of(call: dict[str, Any]) -> float:
    """How long a call takes on a small model: a proposal reads a long prompt first."""
    if call["cache_hit"]:
        return 0.0
    return (1.5 if call["role"] in ("reflection", "proposer") else 0.15) + 0.015 * call["completion_tokens"]


def replay(sweep: FinishedSweep, results: Path) -> Iterator[tuple[float, float | None]]:
    """(seconds since the start, seconds left as shown) after each call, the calls made one after another."""
    folders = {read(path)["cell_id"]: path.parent for path in sweep.folder.rglob("results.json")}
    cells = sorted(sweep.cells, key=lambda cell: sweep.estimates[cell.cell_id].chain[1])
    clock = Clock()
    reporter = ProgressReporter(cells, sweep.estimates, results, IdleGateway(), io.StringIO(), clock=clock)
    for cell in cells:
        meter = Meter(cell.cell_id)
        reporter.start(cell, meter)
        for call in lines(folders[cell.cell_id] / "calls.jsonl"):
            reporter.phase(cell, "optimize" if call["phase"] == "optimize" else "test")
            seconds = seconds_of(call)
            clock.seconds += seconds
            meter.add_call(CallRecord(**call | {"latency_seconds": seconds}))
            yield clock.seconds, reporter.snapshot()["seconds_left"]
        reporter.end(cell, "ok", "")


@pytest.mark.parametrize("optimizer", LOCAL)
def test_from_a_third_of_the_time_on_it_is_within_a_factor_of_two(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows before its end whether the last cell changes its program: some looks may be a little further off."""
    shown = list(replay(run_sweep(optimizer, tmp_path, monkeypatch), tmp_path))
    total = shown[-1][0]
    ratios = [left / (total - at) for at, left in shown if left is not None and total / 3 <= at <= 0.9 * total]
    assert len(ratios) > 50
    assert sum(0.5 <= ratio <= 2.0 for ratio in ratios) >= 0.85 * len(ratios), ratios
    assert min(ratios) > 0.45 and max(ratios) < 2.3
    assert shown[-1][1] == pytest.approx(0.0, abs=0.1 * total)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.0, "less than a minute left"), (59.9, "less than a minute left"), (60.0, "about 1:00 left"),
     (3725.0, "about 1:02:05 left")],
)  # fmt: skip
def test_the_last_minute_is_not_counted_in_seconds(seconds: float, words: str) -> None:
    assert time_left_text(seconds) == words


def test_no_time_is_said_before_a_call_was_made(tmp_path: Path) -> None:
    cell = Cell("banking77", "chain", 1, "none", "m", "m")
    likely = {"optimize": PlannedCalls(), "propose": PlannedCalls(), "evaluate": PlannedCalls(10, 50)}
    estimates = {cell.cell_id: Estimate((10, 10), (100, 100), None, (1, 1), likely)}
    reporter = ProgressReporter([cell], estimates, tmp_path, IdleGateway(), io.StringIO(), clock=Clock())
    assert reporter.snapshot()["seconds_left"] is None
    meter = Meter(cell.cell_id)
    reporter.start(cell, meter)
    meter.add_call(CallRecord(**CALL | {"cache_hit": True}))  # replayed: that says nothing of the speed
    assert reporter.snapshot()["seconds_left"] is None


def test_the_longest_chain_bounds_what_more_calls_at_a_time_can_speed_up(tmp_path: Path) -> None:
    """Ten cells of 100 calls, of which 50 wait for one another, at 100 calls at a time: 50 calls' time, not 10."""
    cells = [Cell("banking77", "chain", 1, "gepa", "m", "m", run=run) for run in range(10)]
    likely = {"optimize": PlannedCalls(100, 0), "propose": PlannedCalls(0, 0), "evaluate": PlannedCalls(0, 0)}
    estimates = {cell.cell_id: Estimate((100, 100), (0, 0), None, (50, 50), likely) for cell in cells}
    clock = Clock()
    reporter = ProgressReporter(cells, estimates, tmp_path, IdleGateway(), io.StringIO(), clock=clock)
    for cell in cells:
        meter = Meter(cell.cell_id)
        reporter.start(cell, meter)
        for _ in range(10):
            meter.add_call(CallRecord(**CALL))
    clock.seconds = 1.0
    assert reporter.snapshot()["seconds_left"] == pytest.approx(45.0)


@pytest.mark.parametrize(("limit", "first"), [("1", "1step"), ("8", "2step")])
def test_at_one_call_at_a_time_the_shortest_cell_comes_first(
    limit: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order is faster then, so there is something to read soon. Else the longest chain starts first."""
    orders: list[list[str]] = []
    running = ProgressReporter.running
    monkeypatch.setattr(
        ProgressReporter,
        "running",
        lambda self: (orders.append([state.cell.label for state in self.states.values()]), running(self))[1],
    )
    with ScriptedServer() as server:
        flags = write_study(tmp_path, server.url, [1, 2], ["none"], 1)
        assert script.main([*flags, "--max-concurrency", limit, "--output-dir", str(tmp_path / "out")]) == 0
    assert first in orders[0][0]
