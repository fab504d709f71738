"""What Dask's workers cost beside threads, and how soon a large sweep that is nearly settled goes on.

`make bench` runs it (about six minutes) and rewrites bench/cluster.md; docs/clusters.md quotes it.
"""

from __future__ import annotations

import multiprocessing
import operator
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

import run_scaling_experiment as script
from bench.gateway import CONCURRENCY, LATENCY, serving
from bench.results import Measure, write_results
from scaling.command.options import LIBRARY, parse, study_of
from scaling.command.prepare import prepare_sweep
from scaling.distributed.coordinator import Coordinator
from scaling.distributed.protocol import AttemptEnded, AttemptRequest, connected
from scaling.distributed.worker import RemoteGateway
from scaling.llm.cache import Cache
from scaling.llm.gateway import Call, Gateway
from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.records.record import Answer
from scaling.records.store import RECORD, read_records, write_aggregate, write_record
from scaling.run.runner import CellTask, Settings
from scaling.types import digest

CELLS, LEFT = 10_000, 10
WORKERS, THREADS, CALLS, ANSWERS = 2, 16, 4_000, 100_000


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measures = engines(folder) + nearly_settled(folder) + coordinator_rate(folder) + cache_size(folder)
    write_results(Path(__file__).with_suffix(".md"), "Past one machine", measures)


def engines(folder: Path) -> list[Measure]:
    """One sweep on threads and on one Dask worker, at the same time, so that other load slows both alike."""
    with ThreadPoolExecutor(2) as pool:
        (local, local_span, calls), (dask, dask_span, _) = pool.map(
            lambda flags: timed(folder / flags[1], flags),
            (["--engine", "local"], ["--engine", "dask", "--workers", "1"]),
        )
    spans = f"{dask_span:.1f} s against {local_span:.1f} s; 48 cells, {calls} calls of {LATENCY} s"
    start = f"{dask - dask_span:.1f} s against {local - local_span:.1f} s before the first call and after the last"
    more = 100 * (dask_span / local_span - 1)
    return [
        Measure("one Dask worker beyond threads, first to last call", more, "%", 5.0, operator.lt, spans),
        Measure(
            "starting and stopping beyond threads", dask - dask_span - local + local_span, "s", None, operator.lt, start
        ),
    ]


def timed(output: Path, flags: list[str]) -> tuple[float, float, int]:
    """(seconds of the command, seconds from its first call to the end of its last, calls) of a sweep of 48 cells."""
    sizes = [
        "--train-size",
        "10",
        "--val-size",
        "20",
        "--test-size",
        "16",
        "--rollout-budget",
        "60",
        "--steps",
        "1",
        "2",
    ]
    axes = ["--optimizers", "gepa", "mipro", "mipro_instruct", "bootstrap", "--runs", "6", "--max-concurrency", "32"]
    with serving(LATENCY) as (url, ask):
        started = time.perf_counter()
        subprocess.run([*command(url, output), *sizes, *axes, *flags], check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        arrived, left = zip(*ask("requests"), strict=True)
    return wall, max(left) - min(arrived), len(arrived)


def nearly_settled(folder: Path) -> list[Measure]:
    """Seconds from typing the command to the first call, and what bounds it, where nearly all cells are settled."""
    results = folder / "many"
    settle_all(results)
    pieces: list[tuple[str, Callable[[], object]]] = [
        ("listing and reading all records", lambda: read_records([results])),
        ("rebuilding the aggregate", lambda: write_aggregate(results)),
    ]
    found = []
    for what, piece in pieces:
        started = time.perf_counter()
        piece()
        took = time.perf_counter() - started
        found.append(Measure(f"{what}, {CELLS} cells", took, "s", None, operator.lt, ""))
    waits = {}
    for n, engine in enumerate(("local", "dask")):
        with serving(0.0) as (url, ask):
            for number in range(1 + n * LEFT, 1 + (n + 1) * LEFT):  # run 0 was asked for real, so is in the cache
                next(results.rglob(f"run{number}/{RECORD}")).unlink()
            started = time.perf_counter()
            subprocess.run([*command(url, results), "--engine", engine], check=True, stdout=subprocess.DEVNULL)
            waits[engine] = min(arrived for arrived, _ in ask("requests")) - started, time.perf_counter() - started
    for engine, (first, whole) in waits.items():
        what = f"{CELLS} cells, {CELLS - LEFT} settled: first call, {engine}"
        found.append(Measure(what, first, "s", 10.0, operator.lt, f"the whole command {whole:.1f} s"))
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    found.append(Measure(f"memory of the command, {CELLS} cells", memory, "MB", None, operator.lt, "at its peak"))
    return found


def command(url: str, results: Path) -> list[str]:
    """The command line of a sweep of 10,000 small cells."""
    program = Path(script.__file__)
    return [
        sys.executable, str(program), "--benchmarks", "banking77", "--data", "sample", "--labels", "4",
        "--models", "openai/scripted", "--api-base", url, "--optimizers", "none", "--steps", "1", "2", "3", "4", "5",
        "--runs", str(CELLS // 5), "--train-size", "5", "--val-size", "10", "--test-size", "5",
        "--output-dir", str(results),
    ]  # fmt: skip


class WithoutTasks(Coordinator):
    """Its workers only make calls."""

    def pickled_task(self, cell_id: str) -> bytes:
        return b""


def coordinator_rate(folder: Path) -> list[Measure]:
    """Calls a second that the coordinator lets through, of two processes whose provider answers at once."""
    cells: list[Any] = [SimpleNamespace(cell=SimpleNamespace(cell_id=f"cell {n}", label="")) for n in range(WORKERS)]
    cache = Cache(folder / "rate.sqlite")
    gateway = Gateway(cache, max_cost=1e6, max_concurrency=CONCURRENCY)
    no_reporter: Any = None
    coordinator = WithoutTasks(cells, gateway, no_reporter, Settings(), "127.0.0.1")
    context = multiprocessing.get_context("spawn")
    with context.Pool(WORKERS) as pool:
        ask = [(coordinator.address, coordinator.key, f"cell {n}") for n in range(WORKERS)]
        spans = pool.starmap(ask_often, ask)
    coordinator.close()
    cache.close()
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    threads = THREADS * WORKERS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    detail = f"{WORKERS} processes, {threads} calls in flight; peak memory of this process so far {peak:.0f} MB"
    return [Measure("calls through the coordinator", WORKERS * CALLS / wall, "/s", None, operator.ge, detail)]


def ask_often(address: tuple[str, int], key: bytes, cell_id: str) -> tuple[float, float]:
    """In a process of its own: many calls of a made-up cell; when it began and ended."""
    model = Model(id="bench", route="openai/none", input_usd_per_million=1.0, output_usd_per_million=1.0)
    answer = Answer(outputs=["x" * 400], prompt_tokens=300, completion_tokens=100, list_cost_usd=4e-4)

    def ask(n: int) -> None:
        gateway.answer(Call(f"{cell_id} {n} {'0' * 48}", model, cell_id, 0, "evaluate", 2e-3, lambda: answer))

    with connected(address, key) as channel, ThreadPoolExecutor(THREADS) as pool:
        channel.send(AttemptRequest(cell_id))
        channel.receive()
        gateway = RemoteGateway(channel, None)
        gateway.meter = Meter(cell_id)
        started = time.perf_counter()
        list(pool.map(ask, range(CALLS)))
        ended = time.perf_counter()
        channel.send(AttemptEnded())
        return started, ended


def cache_size(folder: Path) -> list[Measure]:
    """What 100,000 answers cost in time and on disk, and how long one is looked for among them."""
    cache = Cache(folder / "size.sqlite")
    started = time.perf_counter()
    for n in range(ANSWERS):
        text = " ".join(digest([n, part]) for part in range(10))
        bill = cache.open_bill("cell", "bench", "evaluate", 1e-3)
        cache.settle_bill(bill, 1e-4, (digest(n), Answer(outputs=[text], prompt_tokens=300, list_cost_usd=1e-4)))
    wrote = time.perf_counter()
    for n in range(0, ANSWERS, 10):
        cache.get(digest(n))
    looked = time.perf_counter()
    cache.close()
    size = (folder / "size.sqlite").stat().st_size / ANSWERS
    rate = ANSWERS / (wrote - started)
    return [
        Measure(f"cache: answers written, {ANSWERS} in all", rate, "/s", None, operator.ge, "two transactions each"),
        Measure(
            "cache: bytes an answer",
            size,
            "B",
            None,
            operator.lt,
            "of 650 characters that hardly compress, bill included",
        ),
        Measure("cache: looking one up", 1e6 * (looked - wrote) / (ANSWERS / 10), "us", None, operator.lt, ""),
    ]


def settle_all(results: Path) -> None:
    """Records of all the cells, copied from one that was run for each number of steps."""
    with serving(0.0) as (url, _):
        few = [*command(url, results), "--runs", "1"]
        subprocess.run(few, check=True, stdout=subprocess.DEVNULL)
        made = {record.cell.steps: record for _, record in read_records([results])}
        for item in planned(command(url, results)[2:]):
            item.files.take(item.cell)
            write_record(item.files, replace(made[item.cell.steps], cell_id=item.cell.cell_id, cell=item.cell))


def planned(argv: list[str]) -> list[CellTask]:
    """The work of a command line."""
    command = parse(argv, "", list(script.BENCHMARK_CONFIG))
    return prepare_sweep(
        study_of(command, script.BENCHMARK_CONFIG), command.options, LIBRARY, script.BENCHMARK_CONFIG
    ).tasks


if __name__ == "__main__":
    main()
