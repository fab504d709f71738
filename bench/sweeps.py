"""Whole sweeps, from typing the command to its end, against a loopback server of fixed latency.

`make bench` runs it (about five minutes) and rewrites bench/sweeps.md. Each sweep is a process of its own, and so is
the server. CPU is the whole process's, user and system; the share of a call leaves out what a sweep of 105 calls
takes, which is start-up for the most part. `ideal` is calls x latency / limit: what the server could give. A sweep of
few cells cannot reach it where their calls wait for one another, as MIPROv2's trials do.
"""

from __future__ import annotations

import operator
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import serving
from bench.process import timed
from bench.results import Measure, write_results

PROGRAM = Path(__file__).parent.parent / "run_scaling_experiment.py"
GOAL_MS, GOAL_START = 1.2, 2.0
# name -> flags, and the calls that one run of the study makes
SWEEPS = {
    "five steps": (["--steps", "5", "--optimizers", "none", "--train-size", "5", "--val-size", "10"], 105),
    "MIPROv2": (["--steps", "1", "2", "--optimizers", "mipro", "--train-size", "10", "--val-size", "20",
                 "--rollout-budget", "60"], 330),
}  # fmt: skip
# (latency in seconds, calls at a time, calls in all)
LOADS = [(0.1, 64, 5000), (0.3, 64, 2600), (1.0, 64, 1000), (0.1, 256, 4000), (0.3, 256, 4000), (1.0, 256, 3000)]
# Loads of long sweeps, with the least share of the ideal between the first call and the last.
LONG = {(0.3, 64, 10_000): 0.95, (0.5, 256, 16_000): 0.9}


@dataclass(frozen=True)
class Sweep:
    """What one command took: calls; seconds of wall, of CPU, until its first call, and from there to the last."""

    calls: int
    wall: float
    cpu: float
    first_call: float
    span: float


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small = sorted((run(0.0, 64, "five steps", 1, folder / f"small{i}") for i in range(3)), key=lambda s: s.cpu)[1]
        measures = [
            Measure("typing the command to the first call", small.first_call, "s", GOAL_START, operator.lt, "1 cell"),
            Measure("CPU of a sweep of 105 calls", small.cpu, "s", None, operator.lt, "the whole process"),
        ]
        for name, (_, calls_a_run) in SWEEPS.items():
            for latency, limit, calls in LOADS:
                sweep = run(latency, limit, name, max(1, calls // calls_a_run), folder / f"{name} {latency} {limit}")
                measures += rows(f"{name}, {latency} s, {limit} at a time", sweep, small, latency / limit)
        measures += [row for load in LONG for row in long_rows(load, small, folder)]
        measures.append(one_at_a_time(folder, small))
    write_results(Path(__file__).with_suffix(".md"), "Whole sweeps", measures)


def rows(name: str, sweep: Sweep, small: Sweep, seconds_a_call: float) -> list[Measure]:
    """CPU a call of the whole process, and how near the sweep came to the server's limit."""
    cpu = 1000 * (sweep.cpu - small.cpu) / (sweep.calls - small.calls)
    ideal = sweep.calls * seconds_a_call
    detail = (
        f"{sweep.calls} calls in {sweep.wall:.1f} s, ideal {ideal:.1f} s; first call after {sweep.first_call:.1f} s"
    )
    return [
        Measure(f"{name}: CPU a call", cpu, "ms", GOAL_MS, operator.lt, "whole process beyond that of 105 calls"),
        Measure(f"{name}: ideal / wall", ideal / sweep.wall, "", None, operator.ge, detail),
    ]


def long_rows(load: tuple[float, int, int], small: Sweep, folder: Path) -> list[Measure]:
    """A sweep of five steps that is long enough for its beginning and its end to weigh little."""
    latency, limit, calls = load
    sweep = run(latency, limit, "five steps", calls // SWEEPS["five steps"][1], folder / f"long {latency} {limit}")
    name, ideal = f"five steps, long, {latency} s, {limit} at a time", sweep.calls * latency / limit
    detail = f"{sweep.calls} calls in {sweep.span:.1f} s, ideal {ideal:.1f} s"
    return [
        rows(name, sweep, small, latency / limit)[0],
        Measure(f"{name}: ideal / first to last call", ideal / sweep.span, "", LONG[load], operator.ge, detail),
    ]


def one_at_a_time(folder: Path, small: Sweep) -> Measure:
    """How much longer 105 calls of 0.3 s take when each waits for the one before."""
    alone = run(0.3, 1, "five steps", 1, folder / "alone")
    together = run(0.3, 64, "five steps", 1, folder / "together")
    seconds = alone.wall - small.wall, together.wall - small.wall
    detail = f"{seconds[0]:.1f} s against {seconds[1]:.1f} s beyond start-up"
    return Measure(
        "five steps, one call at a time: times slower", seconds[0] / seconds[1], "", None, operator.ge, detail
    )


def run(latency: float, limit: int, name: str, runs: int, output: Path) -> Sweep:
    """One command to its end."""
    with serving(latency) as (url, ask):
        command = [
            sys.executable, str(PROGRAM), "--benchmarks", "banking77", "--data", "sample", "--labels", "4",
            "--models", "openai/scripted", "--api-base", url, "--max-concurrency", str(limit), "--test-size", "16",
            "--runs", str(runs), "--output-dir", str(output), *SWEEPS[name][0],
        ]  # fmt: skip
        took = timed(command, f"the sweep {name}")
        arrived, left = zip(*ask("requests"), strict=True)
    first = min(arrived)
    return Sweep(len(arrived), took.wall, took.cpu, first - took.started, max(left) - first)


if __name__ == "__main__":
    main()
