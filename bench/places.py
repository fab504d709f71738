"""2,000 calls at a time in one process: whole programs of two steps, each row in a thread of its own.

`make bench` runs it (about a minute) and rewrites bench/places.md. The server stands in a process of its own. `ideal`
is calls x latency / places.
"""

from __future__ import annotations

import multiprocessing
import operator
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import dspy

import run_scaling_experiment as script
from bench.gateway import a_model, serving
from bench.results import Measure, write_results
from scaling.data import load_benchmark
from scaling.llm.cache import Cache
from scaling.llm.fast_adapter import make_fast_adapter
from scaling.llm.gateway import Gateway
from scaling.llm.limits import allow_open_files
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.run.pipelines import MultiStepClassifier
from scaling.run.scoring import score_programs

PLACES, ROWS, STEPS, LATENCY = 2_000, 4_000, 2, 8.0
MOST_MB, LEAST_OF_IDEAL = 1500.0, 0.8


def main() -> None:
    allow_open_files(2 * PLACES, 0)  # the server's process inherits it
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch, serving(LATENCY) as (url, ask), context.Pool(1) as pool:
        failed, megabytes, cpu = pool.apply(score_rows, (url, scratch))
        arrived, left = zip(*ask("requests"), strict=True)
    calls, seconds = len(arrived), max(left) - min(arrived)
    ideal = calls * LATENCY / PLACES
    detail = f"{calls} calls of {LATENCY:g} s in {seconds:.1f} s, ideal {ideal:.1f} s; {failed} rows lost"
    measures = [
        Measure("2,000 places: ideal / first to last call", ideal / seconds, "", LEAST_OF_IDEAL, operator.ge, detail),
        Measure("2,000 places: memory of the process", megabytes, "MB", MOST_MB, operator.lt, "at its peak"),
        Measure("2,000 places: CPU a call", 1000 * cpu / calls, "ms", None, operator.lt, "the cells' own process"),
    ]
    write_results(Path(__file__).with_suffix(".md"), "Two thousand places", measures)


def score_rows(url: str, folder: str) -> tuple[int, float, float]:
    """(rows without a score, peak resident memory in MB, CPU seconds) of scoring one program on all rows."""
    bench = load_benchmark("banking77", script.BENCHMARK_CONFIG["banking77"], "sample")
    pool = bench.train
    rows = [pool[i % len(pool)] | {"id": f"row {i}", "text": f"{pool[i % len(pool)]['text']} {i}"} for i in range(ROWS)]
    gateway = Gateway(Cache(Path(folder) / "places.sqlite"), max_cost=1000.0, max_concurrency=PLACES)
    model = replace(a_model(url), max_output_tokens=100)
    lm = make_lm(model, gateway, Meter("bench", Path(folder) / "places.jsonl"), 0, 0.7, phase="evaluate")
    started = time.process_time()
    with dspy.context(lm=lm, adapter=make_fast_adapter(model)):
        program = MultiStepClassifier(bench.signature, STEPS, bench.roles)
        lines = score_programs({"baseline": program}, rows, bench, PLACES)["baseline"]
    unit = 1e6 if sys.platform == "darwin" else 1e3
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return sum(line.score is None for line in lines), memory, time.process_time() - started


if __name__ == "__main__":
    main()
