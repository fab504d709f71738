"""Sweeps from the command line in a process of their own, and what two of them must have in common."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import run_scaling_experiment as script
from tests.support.files import lines, read

ROOT = Path(__file__).parent.parent.parent
# What may differ between two runs of the same cells: time, place, and what was paid for now rather than before.
PASSING = {
    "elapsed_seconds",
    "optimize_seconds",
    "environment",
    "billed_cost_usd",
    "cache_hits",
    "failed_calls",
    "latency_seconds",
}
STUDY = """
benchmarks = ["banking77"]
steps = {steps}
optimizers = {optimizers}
models = ["toy/priced"]
runs = {runs}
rollout_budget = 40
train_size = 10
val_size = 20
test_size = 16
data = "sample"
labels = 4
"""
MODELS = """
[models."toy/priced"]
route = "openai/scripted"
api_base = "{url}"
input_usd_per_million = 3.0
cached_input_usd_per_million = 1.0
output_usd_per_million = 11.0
price_date = "today"
price_source = "made up"
max_output_tokens = 200
optimizer_max_output_tokens = 400
"""


def write_study(folder: Path, url: str, steps: list[int], optimizers: list[str], runs: int) -> list[str]:
    """Files of a study on the scripted server; gives the flags that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = STUDY.format(steps=steps, optimizers=json.dumps(optimizers), runs=runs)
    (folder / "study.toml").write_text(text)
    (folder / "models.toml").write_text(MODELS.format(url=url))
    return ["--study", str(folder / "study.toml"), "--models-file", str(folder / "models.toml")]


def start(flags: list[str], output: Path, **environment: str) -> subprocess.Popen:
    """The command line in its own process, started."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_scaling_experiment.py"), *flags, "--output-dir", str(output)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=output.parent, env=os.environ | environment,
    )  # fmt: skip


def run(flags: list[str], output: Path, **environment: str) -> tuple[int, str]:
    """The command line to its end: exit code and what it printed. In this process where it needs none of its own."""
    if "--engine" not in flags and not environment:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            return script.main([*flags, "--output-dir", str(output)]), said.getvalue()
    process = start(flags, output, **environment)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def lasting(value: Any) -> Any:
    """A value without what may differ between two runs."""
    if isinstance(value, dict):
        return {key: lasting(item) for key, item in value.items() if key not in PASSING}
    return [lasting(item) for item in value] if isinstance(value, list) else value


def outcome(output: Path) -> dict[str, Any]:
    """Records, curves, programs and predictions of a results folder, by cell, without what may differ."""
    cells = {}
    for path in sorted(output.rglob("results.json")):
        cells[str(path.parent.relative_to(output))] = {
            "record": lasting(read(path)),
            "curve": lasting(read(path.parent / "learning_curve.json")),
            "program": read(path.parent / "program.json"),
            "predictions": lasting(lines(path.parent / "predictions.jsonl")),
        }
    return cells
