"""How many rollouts a task app holds at once: 64 callers against a model server of fixed latency, in one run.

`make bench` runs it and rewrites bench/task_app.md. Model server and callers stand in processes of their own.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import operator
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.gateway import CONCURRENCY, LATENCY, serving
from bench.results import Measure, write_results
from scaling.data import load_benchmark, make_splits
from scaling.hosted.app import create_app
from scaling.hosted.rollout import Task
from scaling.hosted.server import serving as serving_app
from scaling.models import Model
from scaling.run.pipelines import MultiStepClassifier
from tests.support import toy

JSON = {"Content-Type": "application/json"}
ROLLOUTS = 10  # by each caller, one after another


def main() -> None:
    measures = [rate(steps) for steps in (1, 3, 5)]
    write_results(Path(__file__).with_suffix(".md"), "Task apps", measures)


def rate(steps: int) -> Measure:
    """Rollouts a second, as a share of what the latency of the calls alone would allow."""
    bench = load_benchmark("toy", toy.config(), "sample")
    rows = make_splits(bench, train=20, val=40, select=20, test=20, run=0).train
    core = MultiStepClassifier(bench.signature, steps, bench.roles)
    task = Task("toy", bench, core, rows, Model(id="openai/scripted", route="openai/scripted"))
    context = multiprocessing.get_context("spawn")
    with serving(LATENCY) as (url, _), serving_app(create_app(task, None)) as app, context.Pool(1) as callers:
        callers.apply(call, (app, url, 1))  # connections are made, code is loaded
        wall = callers.apply(call, (app, url, ROLLOUTS))
        bare = callers.apply(call, (None, url, ROLLOUTS * steps))
    ideal = ROLLOUTS * steps * LATENCY
    detail = f"{CONCURRENCY * ROLLOUTS} rollouts in {wall:.1f} s; the same callers without an app: {ideal / bare:.2f}"
    return Measure(f"64 rollouts at once, {steps} steps: ideal / wall", ideal / wall, "", 0.90, operator.ge, detail)


def call(app: str | None, url: str, rollouts: int) -> float:
    """Seconds that 64 callers need for so many rollouts each; without an app, for as many bare calls of the model."""
    address = urlsplit(app or url)

    def one(caller: int) -> None:
        connection = http.client.HTTPConnection(address.netloc, timeout=60)  # light, as it shares our cores
        for number in range(rollouts):
            path = "/rollout" if app else f"{address.path}/chat/completions"
            body = question(caller, number, url) if app else bare_call()
            connection.request("POST", path, json.dumps(body), JSON)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status} {answer.read(200)!r}")
            answer.read()

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        started = time.perf_counter()
        list(pool.map(one, range(CONCURRENCY)))
        return time.perf_counter() - started


def question(caller: int, number: int, url: str) -> dict[str, Any]:
    config = {"model": "scripted", "inference_url": url}
    env = {"seed": caller + 7 * number}
    return {"trace_correlation_id": f"trace_{caller}_{number}", "env": env, "policy": {"config": config}}


def bare_call() -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": "x" * 800}]}


if __name__ == "__main__":
    main()
