"""Scoring by a batch API against live calls: dollars and wall time of the same sweeps, side by side in one run.

`make bench` runs it (about a minute) and rewrites bench/batch.md. The server stands in a process of its own. A live
call takes `LATENCY` seconds there, and a batch `BATCH_SECONDS` in place of hours. A batch costs
half, as at every provider whose price is known. Dollars are those of the ledger.
"""

from __future__ import annotations

import operator
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.process import beside, timed
from bench.results import Measure, write_results
from scaling.records.store import LEDGER
from scaling.testing import BatchServer

PROGRAM = Path(__file__).parent.parent / "run_scaling_experiment.py"
LATENCY, BATCH_SECONDS, CONCURRENCY = 0.3, 5.0, 16
MODEL = """
[models."toy/half"]
route = "openai/scripted"
api_base = "{url}"
input_usd_per_million = 3.0
output_usd_per_million = 11.0
batch_price = {{input_usd_per_million = 1.5, output_usd_per_million = 5.5}}
max_output_tokens = 200
optimizer_max_output_tokens = 400
"""
SWEEPS = {
    "3 steps without an optimizer": ["--steps", "3", "--optimizers", "none", "--train-size", "5", "--val-size", "10",
                                     "--runs", "20"],
    "2 steps with GEPA": ["--steps", "2", "--optimizers", "gepa", "--train-size", "10", "--val-size", "20",
                          "--rollout-budget", "60", "--runs", "6"],
}  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """What one command took: seconds of wall and of CPU, dollars, calls, and batches."""

    wall: float
    cpu: float
    usd: float
    calls: int
    batches: int


def main() -> None:
    measures = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, flags) in enumerate(SWEEPS.items()):
            live = run(flags, Path(scratch) / f"live{number}")
            batch = run([*flags, "--batch", "evaluate"], Path(scratch) / f"batch{number}")
            measures += rows(name, live, batch)
    write_results(Path(__file__).with_suffix(".md"), "Live calls and batches", measures)


def rows(name: str, live: Sweep, batch: Sweep) -> list[Measure]:
    goal = 0.501 if "without" in name else None
    rounds = f"{batch.batches} batches of {BATCH_SECONDS:g} s each"
    wall = f"{live.wall:.1f} s live, {CONCURRENCY} calls of {LATENCY:g} s at a time; {batch.wall:.1f} s in {rounds}"
    cpu = f"{1000 * live.cpu / live.calls:.2f} ms live, {1000 * batch.cpu / batch.calls:.2f} ms; start-up is in both"
    usd = f"${live.usd:.4f} live, ${batch.usd:.4f} with --batch evaluate; {live.calls} calls, {batch.calls} calls"
    return [
        Measure(f"{name}: dollars with batches / live", batch.usd / live.usd, "", goal, operator.lt, usd),
        Measure(f"{name}: wall time with batches / live", batch.wall / live.wall, "", None, operator.lt, wall),
        Measure(f"{name}: CPU a call with batches / live", batch.cpu / live.cpu, "", None, operator.lt, cpu),
    ]


def run(flags: list[str], output: Path) -> Sweep:
    """One command to its end, on a server of its own."""
    with beside(serve) as (url, ask):
        models = output.with_suffix(".toml")
        models.write_text(MODEL.format(url=url), encoding="utf-8")
        command = [
            sys.executable, str(PROGRAM), "--benchmarks", "banking77", "--data", "sample", "--labels", "4",
            "--models", "toy/half", "--models-file", str(models), "--max-concurrency", str(CONCURRENCY),
            "--test-size", "16", "--output-dir", str(output), *flags,
        ]  # fmt: skip
        took = timed(command, " ".join(flags))
        calls, batches = ask("counts")
    with closing(sqlite3.connect(output / LEDGER)) as ledger:
        (usd,) = ledger.execute("SELECT SUM(usd) FROM bills").fetchone()
    return Sweep(took.wall, took.cpu, usd, calls, batches)


def serve(pipe: Any) -> None:
    """The server process: answers (calls, batches) until it hears `stop`."""
    with BatchServer(latency=LATENCY, seconds=BATCH_SECONDS) as server:
        pipe.send(server.url)
        while pipe.recv() != "stop":
            pipe.send((server.calls, len(server.batches)))
        pipe.send(None)


if __name__ == "__main__":
    main()
