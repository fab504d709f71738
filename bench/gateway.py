"""What the gateway of all LM calls costs alone: without a program, an optimizer or a second thread.

`make bench` runs it (about two minutes) and rewrites bench/gateway.md. The server stands in a process of its own, so
that its work is not ours. What a call costs in a whole sweep is in bench/sweeps.md.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import dspy
import httpx

import run_scaling_experiment as script
from bench.process import Ask, beside
from bench.results import Measure, write_results
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.records.store import read_records
from scaling.testing import ScriptedServer

LATENCY, CONCURRENCY = 0.5, 64


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measures = cpu_a_call(folder) + resume(folder) + memory(folder)
    write_results(Path(__file__).with_suffix(".md"), "The gateway of all LM calls", measures)


def cpu_a_call(folder: Path) -> list[Measure]:
    """CPU milliseconds of a call through the gateway, less those of a bare `dspy.LM`; blocks in turn, the median."""
    with serving(0.0) as (url, _):
        bare = dspy.LM("openai/scripted", api_base=url, api_key="none", cache=False, num_retries=0, max_tokens=100)
        gateway = Gateway(Cache(folder / "cpu.sqlite"), max_cost=100.0)
        ours = make_lm(a_model(url), gateway, Meter("bench", folder / "cpu.jsonl"), 0, 0.7, phase="evaluate")
        with httpx.Client() as client:
            floor = partial(post, client, url)
            blocks = [tuple(cpu_of(ask, f"block {i}") for ask in (bare, ours, floor)) for i in range(8)]
    before, after, lowest = (statistics.median(side) for side in zip(*blocks[1:], strict=True))
    detail = f"{after:.2f} ms through the gateway, {before:.2f} ms bare"
    return [
        Measure(
            "the gateway alone, one thread: CPU a call less that of a bare dspy.LM",
            after - before,
            "ms",
            1.0,
            operator.lt,
            detail,
        ),
        Measure("bare httpx with the same bodies: CPU a call", lowest, "ms", None, operator.lt, "no cache, no bill"),
    ]


def post(client: httpx.Client, url: str, question: str) -> Any:
    """One question without anything but HTTP and JSON."""
    messages = [{"role": "user", "content": question}]
    body = {"model": "scripted", "messages": messages, "max_completion_tokens": 100, "temperature": 0.7}
    return client.post(f"{url}/chat/completions", json=body, headers={"Authorization": "Bearer none"}).json()


def cpu_of(ask: Callable[[str], Any], name: str, calls: int = 300) -> float:
    """CPU milliseconds of a call."""
    started = time.process_time()
    for i in range(calls):
        ask(f"question {name} {i}")
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
    return Model(
        id="bench", route="openai/scripted", api_base=url, max_output_tokens=100,
        input_usd_per_million=1.0, output_usd_per_million=1.0,
    )  # fmt: skip


def serving(latency: float) -> AbstractContextManager[tuple[str, Ask]]:
    """The scripted server in a process of its own while the block runs: its address, and a way to ask it."""
    return beside(serve, latency)


def serve(pipe: Any, latency: float) -> None:
    """The server process: answers `requests` with (arrived, left) in seconds, and ends at `stop`."""
    requests: list[tuple[float, float]] = []

    def note(n: int, body: dict[str, Any]) -> None:
        requests.append((time.perf_counter() - latency, time.perf_counter()))

    with ScriptedServer(latency=latency, fault=note) as server:
        pipe.send(server.url)
        while (asked := pipe.recv()) != "stop":
            pipe.send(requests if asked == "requests" else None)
        pipe.send(None)


if __name__ == "__main__":
    main()
