"""How many rollouts a task app holds at once: 64 callers against a model server of fixed latency, in one run.

`make bench` runs it and rewrites bench/task_app.md. Model server and callers stand in processes of their own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import operator
import time
from pathlib import Path

import httpx

from bench.results import Measure, write_results
from bench.seam import LATENCY, PLACES, serving
from scaling.data import deal, load_benchmark
from scaling.models import Model
from scaling.pipelines import MultiStepClassifier
from scaling.task_app import Task, create_app
from scaling.task_app import serving as serving_app
from tests.support import toy

ROLLOUTS = 10  # by each caller, one after another


def main() -> None:
    measures = [rate(steps) for steps in (1, 3, 5)]
    write_results(Path(__file__).with_suffix(".md"), "Task apps", measures)


def rate(steps: int) -> Measure:
    """Rollouts a second, as a share of what the latency of the calls alone would allow."""
    bench = load_benchmark("toy", toy.config(), "sample")
    rows = deal(bench, train=20, val=40, select=20, test=20, run=0).train
    core = MultiStepClassifier(bench.signature, steps, bench.roles)
    task = Task("toy", bench, core, rows, Model(id="openai/scripted", route="openai/scripted"))
    context = multiprocessing.get_context("spawn")
    with serving(LATENCY) as (url, _), serving_app(create_app(task, None)) as app, context.Pool(1) as callers:
        callers.apply(call, (app, url, 1))  # connections are made, code is loaded
        wall = callers.apply(call, (app, url, ROLLOUTS))
    ideal = ROLLOUTS * steps * LATENCY
    detail = f"{PLACES * ROLLOUTS} rollouts in {wall:.1f} s, ideal {ideal:.1f} s; calls of {LATENCY} s"
    return Measure(f"64 rollouts at once, {steps} steps: ideal / wall", ideal / wall, "", 0.90, operator.ge, detail)


def call(app: str, url: str, rollouts: int) -> float:
    """Seconds that 64 callers need for so many rollouts each."""

    async def all_of_them() -> float:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60) as http:

            async def one(caller: int) -> None:
                for number in range(rollouts):
                    config = {"model": "scripted", "inference_url": url}
                    body = {"trace_correlation_id": f"trace_{caller}_{number}", "policy": {"config": config}}
                    answer = await http.post(f"{app}/rollout", json=body | {"env": {"seed": caller + 7 * number}})
                    answer.raise_for_status()

            started = time.perf_counter()
            await asyncio.gather(*(one(caller) for caller in range(PLACES)))
            return time.perf_counter() - started

    return asyncio.run(all_of_them())


if __name__ == "__main__":
    main()
