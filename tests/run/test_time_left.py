"""The time left: every optimizer's own calls, replayed with a made-up clock, against what really was left."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.llm.gateway import Meter
from scaling.run.estimate import Estimate, Work
from scaling.run.progress import ProgressReporter
from scaling.types import HOSTED, OPTIMIZERS, Cell
from tests.support.files import lines, read
from tests.support.server import ScriptedServer
from tests.support.sweeps import write_study

SAMPLE = Path(__file__).parents[2] / "benchmarks" / "banking77" / "sample.jsonl"
TRUTH = {row["text"]: row["label"] for row in map(json.loads, SAMPLE.read_text().splitlines())}
LOCAL = [name for name in OPTIMIZERS if name not in HOSTED]


class IdleGateway:
    """What the reporter asks of a gateway."""

    answered = errors = 0

    class cost_budget:
        spent, cap = 0.0, None


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(scope="module", params=[0.4, 0.9], ids=["finds nothing", "finds something"])
def sweep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of all optimizers, with 1 and 2 steps, twice."""
    folder = tmp_path_factory.mktemp("sweep")
    with ScriptedServer(skill=lambda body: request.param, truth=TRUTH) as server:
        flags = write_study(folder, server.url, [1, 2], LOCAL, 2)
        assert script.main([*flags, "--output-dir", str(folder / "out")]) == 0
    return folder / "out"


def seconds_of(call: dict[str, Any]) -> float:
    """How long a call takes on a small model: a proposal reads a long prompt first."""
    if call["cache_hit"]:
        return 0.0
    return (1.5 if call["role"] in ("reflection", "proposer") else 0.15) + 0.015 * call["completion_tokens"]


def replay(sweep: Path, cells: dict[str, Path], results: Path) -> Iterator[tuple[float, float | None]]:
    """(seconds since the start, seconds left as shown) after each call, the calls made one after another."""
    plan = {cell_id: entry for cell_id, entry in read(sweep / "plan.json").items() if cell_id in cells}
    tasks = [Cell(**plan[cell_id]["cell"]) for cell_id in cells]
    estimates = {
        cell_id: Estimate(
            entry["calls"], entry["tokens"], entry["usd"], entry["chain"],
            {kind: Work(**work) for kind, work in entry["work"].items()},
        )
        for cell_id, entry in plan.items()
    }  # fmt: skip
    clock = Clock()
    reporter = ProgressReporter(tasks, estimates, results, IdleGateway(), io.StringIO(), clock=clock)
    for cell in tasks:
        meter = Meter(cell.cell_id)
        reporter.start(cell, meter)
        for call in lines(cells[cell.cell_id] / "calls.jsonl"):
            reporter.phase(cell, "optimize" if call["phase"] == "optimize" else "test")
            seconds = seconds_of(call)
            clock.seconds += seconds
            meter.add_call(call | {"latency_seconds": seconds})
            yield clock.seconds, reporter.snapshot()["seconds_left"]
        reporter.end(cell, "ok", "")


@pytest.mark.parametrize("optimizer", [*LOCAL, "all"])
def test_from_a_third_of_the_work_on_it_is_within_a_factor_of_two(optimizer: str, sweep: Path, tmp_path: Path) -> None:
    records = {path.parent: read(path) for path in sweep.rglob("results.json")}
    records = {
        folder: record for folder, record in records.items() if optimizer in (record["cell"]["optimizer"], "all")
    }
    cells = {record["cell_id"]: folder for folder, record in sorted(records.items(), key=lambda entry: str(entry[0]))}
    shown = list(replay(sweep, cells, tmp_path))
    total = shown[-1][0]
    late = [(at, left) for at, left in shown if total / 3 <= at <= 0.9 * total]
    assert len(late) > 10
    for at, left in late:
        assert left is not None and 0.5 <= left / (total - at) <= 2.0, (at, total, left)
    assert shown[-1][1] == pytest.approx(0.0, abs=0.1 * total)


def test_nothing_is_said_before_a_call_was_made(sweep: Path, tmp_path: Path) -> None:
    entry = next(iter(read(sweep / "plan.json").values()))
    cell = Cell(**entry["cell"])
    work = {kind: Work(**work) for kind, work in entry["work"].items()}
    estimates = {cell.cell_id: Estimate((1, 1), (1, 1), None, (1, 1), work)}
    reporter = ProgressReporter([cell], estimates, tmp_path, IdleGateway(), io.StringIO(), clock=Clock())
    assert reporter.snapshot()["seconds_left"] is None
    meter = Meter(cell.cell_id)
    reporter.start(cell, meter)
    assert reporter.snapshot()["seconds_left"] is None
