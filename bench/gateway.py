"""What the gateway of all LM calls costs and saves, measured in one run against a loopback server of fixed latency.

`make bench` runs it (about ten minutes) and rewrites bench/gateway.md. Absolute times depend on the machine; the
ratios are what counts. The server stands in a process of its own, so that its work is not ours.
"""

from __future__ import annotations

import multiprocessing
import operator
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy

import run_scaling_experiment as script
from bench.results import Measure, write_results
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway, Meter, make_lm
from scaling.models import Model
from scaling.store import PLAN, read_json, read_records
from scaling.study import Study
from scaling.types import Cell
from tests.support import toy
from tests.support.server import ScriptedServer

LATENCY, PLACES = 0.5, 64
ROWS = toy.rows(400)
SIZES = {"train_size": 20, "val_size": 40}
# 24 cells or more, by what bounds them: the places, the longest chain of dependent calls, or both about equally.
SWEEPS = {
    "bound by places": {"steps": [1, 2], "optimizers": ["gepa", "mipro", "mipro_instruct", "bootstrap"], "runs": 6,
                        "rollout_budget": 60, "test_size": 160},
    "bound by one chain": {"steps": [1, 3], "optimizers": ["none", "gepa"], "runs": 6,
                           "rollout_budget": 120, "val_size": 10, "test_size": 5},
    "close": {"steps": [1, 3], "optimizers": ["none", "gepa"], "runs": 6, "rollout_budget": 120, "test_size": 60},
}  # fmt: skip


def main() -> None:
    script.BENCHMARK_CONFIG["toy"] = toy.config(
        loader=lambda: ROWS, train_seeds=range(50), val_seeds=range(50, 150), test_seeds=range(200)
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measures = cpu_a_call(folder) + resume(folder) + memory(folder) + sweeps(folder)
    write_results(Path(__file__).with_suffix(".md"), "The gateway of all LM calls", measures)


def sweeps(folder: Path) -> list[Measure]:
    """Wall time of sweeps of 24 and 48 cells against the ideal, and against the ways in which it is usually done."""
    found = []
    for name, axes in SWEEPS.items():
        with serving(LATENCY) as (url, _):
            wall, calls, longest = run_sweep(axes, url, folder / name, PLACES)
        by_places, by_chain = calls * LATENCY / PLACES, LATENCY * chain_of(longest, axes, folder / name / "alone")
        ideal = max(by_places, by_chain)
        detail = f"{calls} calls in {wall:.0f} s; places alone {by_places:.0f} s, longest chain {by_chain:.0f} s"
        goal = 0.90 if ideal >= 2 * min(by_places, by_chain) else None
        found.append(Measure(f"sweep {name}: ideal / wall", ideal / wall, "", goal, operator.ge, detail))
        if name == "bound by places":
            ours = wall / calls
    part = SWEEPS["bound by places"] | {"runs": 1, "steps": [2]}
    found.append(slower("cell after cell, 16 threads each", 3, part, 16, ours, folder / "after"))
    one = part | {"steps": [1], "optimizers": ["none"]}
    found.append(slower("one cell and one call at a time", 40, one, 1, ours, folder / "single"))
    return found


def slower(what: str, goal: float, axes: dict[str, Any], places: int, ours: float, folder: Path) -> Measure:
    """How many times longer a call takes when the cells of a part of the sweep run one after another."""
    wall = calls = 0.0
    with serving(LATENCY) as (url, _):
        for optimizer in axes["optimizers"]:
            spent, asked, _ = run_sweep(axes | {"optimizers": [optimizer]}, url, folder / optimizer, places)
            wall, calls = wall + spent, calls + asked
    detail = f"measured on {calls:.0f} calls in {wall:.0f} s, scaled by calls"
    return Measure(f"{what}: times slower", wall / calls / ours, "", goal, operator.ge, detail)


def run_sweep(axes: dict[str, Any], url: str, output: Path, places: int) -> tuple[float, int, dict[str, Any]]:
    """(wall seconds, calls sent, the cell whose chain was planned longest) of a sweep in this process."""
    study = Study(name="bench", benchmarks=["toy"], models=["openai/scripted"], data="sample", **SIZES | axes)
    options = script.Options(output_dir=output, api_base=url, max_concurrency=places)
    started = time.perf_counter()
    records = script.run_sweep(study, options)
    wall = time.perf_counter() - started
    bad = [record.error for record in records if record.status != "ok"]
    if bad:
        raise RuntimeError(f"a cell of the benchmark failed: {bad[0]}")
    used = [
        part for record in records if record.usage for part in (record.usage.optimize, record.usage.evaluate) if part
    ]
    planned = read_json(output / PLAN)
    longest = max(records, key=lambda record: planned[record.cell_id]["chain"][1])
    return wall, sum(part.calls - part.cache_hits for part in used), longest.cell


def chain_of(cell: Cell, axes: dict[str, Any], output: Path) -> int:
    """Calls of a cell that wait for one another: run alone, the most requests of which no two overlap."""
    alone = {"steps": [cell.steps], "optimizers": [cell.optimizer], "runs": 1, "run_list": [cell.run]}
    with serving(LATENCY) as (url, ask):
        run_sweep(axes | alone, url, output, places=512)
        requests = ask("requests")
    chain, free_from = 0, 0.0
    for arrived, left in sorted(requests, key=lambda request: request[1]):
        if arrived >= free_from:
            chain, free_from = chain + 1, left
    return chain


def cpu_a_call(folder: Path) -> list[Measure]:
    """CPU milliseconds of a call through the gateway, less those of a bare `dspy.LM`; blocks in turn, the median."""
    with serving(0.0) as (url, _):
        bare = dspy.LM("openai/scripted", api_base=url, api_key="none", cache=False, num_retries=0, max_tokens=100)
        gateway = Gateway(Cache(folder / "cpu.sqlite"), max_cost=100.0)
        ours = make_lm(a_model(url), gateway, Meter("bench", folder / "cpu.jsonl"), 0, 0.7, phase="evaluate")
        blocks = [(cpu_of(bare, f"bare {i}"), cpu_of(ours, f"ours {i}")) for i in range(8)]
    before, after = (statistics.median(side) for side in zip(*blocks[1:], strict=True))
    detail = f"{after:.2f} ms through the gateway, {before:.2f} ms bare"
    return [Measure("CPU a call beyond bare DSPy", after - before, "ms", 1.0, operator.lt, detail)]


def cpu_of(lm: dspy.LM, name: str, calls: int = 300) -> float:
    started = time.process_time()
    for i in range(calls):
        lm(f"question {name} {i}")
    return 1000 * (time.process_time() - started) / calls


def memory(folder: Path) -> list[Measure]:
    """Growth of a process's peak memory from its call 5,000 to its call 50,000, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with serving(0.0) as (url, _), context.Pool(1) as pool:
        early, late = pool.apply(peak_memory, (url, str(folder), (5_000, 50_000)))
    detail = f"{early:.0f} MB at call 5,000, {late:.0f} MB at call 50,000"
    return [Measure("memory growth", late - early, "MB", 50.0, operator.lt, detail)]


def peak_memory(url: str, folder: str, marks: tuple[int, ...]) -> list[float]:
    """Peak resident memory in MB after so many calls."""
    gateway = Gateway(Cache(Path(folder) / "memory.sqlite"), max_cost=1000.0, max_concurrency=16)
    lm = make_lm(a_model(url), gateway, Meter("bench", Path(folder) / "memory.jsonl"), 0, 0.7, phase="evaluate")
    found, done = [], 0
    with ThreadPoolExecutor(16) as pool:
        for mark in marks:
            for first in range(done, mark, 500):  # the futures of all calls at once would be what grows
                list(pool.map(lambda i: lm(f"question {i}"), range(first, first + 500)))
            done = mark
            unit = 1e6 if sys.platform == "darwin" else 1e3
            found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
    return found


def resume(folder: Path) -> list[Measure]:
    """Seconds of the same command on a settled sweep of 200 cells, less those of starting the program."""
    root = Path(script.__file__).parent
    with serving(0.0) as (url, _):
        again = [
            sys.executable, str(root / "run_scaling_experiment.py"), "--benchmarks", "banking77",
            "--optimizers", "none",
            "--steps", "1", "2", "3", "4", "5", "--runs", "40", "--models", "openai/scripted", "--api-base", url,
            "--data", "sample", "--labels", "4", "--train-size", "5", "--val-size", "10", "--test-size", "5",
            "--output-dir", str(folder / "settled"),
        ]  # fmt: skip
        subprocess.run(again, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        cells = len(read_records([folder / "settled"]))
        start_up = [sys.executable, "-c", "import run_scaling_experiment"]
        blocks = [(seconds_of(start_up, root), seconds_of(again, folder)) for _ in range(5)]
    before, after = (statistics.median(side) for side in zip(*blocks, strict=True))
    detail = f"{after:.2f} s, of which {before:.2f} s to start; {cells} settled cells"
    return [Measure("resume beyond start-up", after - before, "s", 1.0, operator.lt, detail)]


def seconds_of(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - started


def a_model(url: str) -> Model:
    prices = {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0}
    return Model(id="bench", route="openai/scripted", api_base=url, max_output_tokens=100, **prices)


@contextmanager
def serving(latency: float) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """The scripted server in a process of its own while the block runs: its address, and a way to ask it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, latency), daemon=True)
    process.start()

    def ask(what: str) -> Any:
        here.send(what)
        return here.recv()

    try:
        yield here.recv(), ask
    finally:
        ask("stop")
        process.join()


def serve(pipe: Any, latency: float) -> None:
    """The server process: answers `requests` with (arrived, left) in seconds, and ends at `stop`."""
    requests: list[tuple[float, float]] = []

    def note(n: int, body: dict[str, Any]) -> None:
        requests.append((time.perf_counter() - latency, time.perf_counter()))

    with ScriptedServer(latency=latency, skill=lambda body: 0.6, truth=toy.truth(), fault=note) as server:
        pipe.send(server.url)
        while (asked := pipe.recv()) != "stop":
            pipe.send(requests if asked == "requests" else None)
        pipe.send(None)


if __name__ == "__main__":
    main()
