"""A local model's tokens a second through the whole of a cell, against the bare server with the same requests.

`make bench` runs it (about three minutes on two cores) and rewrites bench/local.md.
"""

from __future__ import annotations

import asyncio
import operator
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import run_scaling_experiment as script
from bench.embedded import Body, post
from bench.results import Measure, write_results
from scaling.llm import local_server
from scaling.llm.weights import bundled_weights, read_model_file
from scaling.testing import ScriptedServer

MODEL = "local/smollm2-135m"
ROWS, STEPS = 24, 3  # 72 calls
GOAL = 0.95  # of the bare server's tokens a second
TURNS = 2  # each side runs so often, in turns


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bodies = bodies_of_a_cell(folder / "recorded")
        seconds: dict[str, list[float]] = {"cell": [], "bare server": []}
        for turn in range(TURNS):
            seconds["cell"].append(seconds_of_cell(folder / f"cell{turn}"))
            seconds["bare server"].append(seconds_of(bodies))
    write_results(Path(__file__).with_suffix(".md"), "A local model through a cell", rows(len(bodies), seconds))


def rows(calls: int, seconds: dict[str, list[float]]) -> list[Measure]:
    """The same requests get the same answers, so the ratio of the tokens a second is that of the times."""
    best = {side: min(times) for side, times in seconds.items()}
    detail = f"{calls} requests, from the first sent to the last sent; the better of {TURNS} turns"
    return [
        *(Measure(f"{side}: time", value, "s", None, operator.lt, detail) for side, value in best.items()),
        Measure("tokens a second, cell / bare server", best["bare server"] / best["cell"], "", GOAL, operator.ge, ""),
    ]


def run_cell(output: Path, **settings: Any) -> None:
    record = asyncio.run(
        script.run_single_experiment(
            "banking77", STEPS, "none", output, model=MODEL, data="sample", labels=4,
            train_size=5, val_size=5, test_size=ROWS, **settings,
        )
    )  # fmt: skip
    assert record["status"] == "ok", record["status"]


def seconds_of_cell(output: Path) -> float:
    """Seconds from the first call's sending to the last one's, by the ledger's times."""
    run_cell(output)
    with sqlite3.connect(output / ".ledger" / "bills.sqlite") as ledger:
        first, last = ledger.execute("SELECT min(at), max(at) FROM bills").fetchone()
    return float(last - first)


def bodies_of_a_cell(output: Path) -> list[Body]:
    """The requests of the cell in order, each answered by the real model behind a server that keeps them."""
    output.mkdir()
    with (
        local_server.serve(read_model_file(bundled_weights())) as address,
        ScriptedServer(answer=lambda body: text_of(post(address, body))) as recorder,
    ):
        registry = output / "models.toml"
        registry.write_text(
            f'[models."{MODEL}"]\nroute = "openai/smollm2-135m"\napi_base = "{recorder.url}"\nadapter = "json"\n'
            f"sends_seed = true\nmax_output_tokens = 40\nmax_concurrency = 1\ncontext_length = 8192\n"
            f"input_usd_per_million = 0.0\noutput_usd_per_million = 0.0\n"
        )
        run_cell(output / "cell", models_file=registry)
        return recorder.requests


def seconds_of(bodies: list[Body]) -> float:
    """Seconds from the first request's sending to the last one's, on a server that was just started."""
    with local_server.serve(read_model_file(bundled_weights())) as address:
        started = time.monotonic()
        for body in bodies:
            last = time.monotonic()
            post(address, body)
    return last - started


def text_of(answer: Body) -> str:
    return str(answer["choices"][0]["message"]["content"])


if __name__ == "__main__":
    main()
