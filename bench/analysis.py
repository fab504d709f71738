"""How long the analysis of 10,000 cells with 500 predictions each takes, and how much memory; `make bench` runs it."""

from __future__ import annotations

import itertools
import operator
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.results import Measure, write_results
from scaling.records.store import files_of, write_json, write_lines
from scaling.types import SCHEMA_VERSION, Cell

ROOT = Path(__file__).parent.parent
BENCHMARKS, STEPS, OPTIMIZERS, MODELS, RUNS = 10, (1, 2, 3, 4, 5), ("gepa", "mipro", "bootstrap", "none"), 10, 5
ITEMS = 250  # times two programs: 500 predictions a cell


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cells = write_cells(folder / "results")
        command = [sys.executable, str(ROOT / "analyze_results.py"), "--results-dir", str(folder / "results"),
                   "--output-dir", str(folder / "out")]  # fmt: skip
        seconds = seconds_of(command)
        unit = 1e9 if sys.platform == "darwin" else 1e6
        gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    start = sorted(seconds_of([sys.executable, str(ROOT / "analyze_results.py"), "--help"]) for _ in range(5))[2]
    detail = f"{cells:,} cells x {2 * ITEMS} predictions: tables, tests, fits, figures, reports"
    measures = [
        Measure("analysis of 10,000 cells", seconds, "s", 60.0, operator.lt, detail),
        Measure("its memory", gigabytes, "GB", 2.0, operator.lt, "peak resident"),
        Measure("analyze_results.py --help", start, "s", 0.5, operator.lt, "median of 5"),
    ]
    write_results(Path(__file__).with_suffix(".md"), "The analysis", measures)


def seconds_of(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def write_cells(results: Path) -> int:
    """A grid of made-up cells with everything that the analysis reads; returns how many."""
    rng = np.random.default_rng(0)
    files = {(b, i): predictions(rng, b, 0.5 + 0.04 * (i % 8)) for b in range(BENCHMARKS) for i in range(12)}
    grid = itertools.product(range(BENCHMARKS), STEPS, OPTIMIZERS, range(MODELS), range(RUNS))
    for number, (b, steps, optimizer, model, run) in enumerate(grid):
        cell = Cell(f"made-up-{b}", "chain", steps, optimizer, f"model-{model}", f"model-{model}", run=run,
                    test_size=ITEMS, data_sha256=f"{b}{run}")  # fmt: skip
        lines, base, final = files[b, number % 12]
        one = files_of(cell, results)
        write_json(one.record, record(cell, base, final))
        write_json(one.curve, {"cell_id": cell.cell_id, "points": curve(rng) if optimizer != "none" else []})
        one.predictions.write_bytes(lines)
    return number + 1


def predictions(rng: np.random.Generator, benchmark: int, level: float) -> tuple[bytes, float, float]:
    """A predictions file's bytes with the means of its two programs."""
    found, means = [], []
    for program, q in (("baseline", level), ("final", level + 0.05)):
        scores = (rng.random(ITEMS) < q).astype(float)
        means.append(float(scores.mean()))
        found += [
            {"program": program, "id": f"{benchmark}-{i:04d}", "group": f"{benchmark}-{i:04d}", "draw": 0, "gold": "a",
             "prediction": "b", "score": score, "extra_scores": {}, "turn_scores": None, "notes": {}, "calls": 1,
             "tokens": 400, "latency_seconds": 0.5, "error": None}
            for i, score in enumerate(scores)
        ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        write_lines(path, found)
        base, final = means
        return path.read_bytes(), base, final


def curve(rng: np.random.Generator) -> list[dict[str, Any]]:
    best = np.maximum.accumulate(rng.random(12))
    return [
        {"rollouts": 15 * (i + 1), "lm_calls": 30 * (i + 1), "tokens": 9000 * (i + 1), "list_cost_usd": 0.01 * (i + 1),
         "elapsed_seconds": 9.0 * i, "rows": "select", "val_n": 20, "candidate_val_score": float(best[i]),
         "best_val_score": float(best[i]), "test_score": None}
        for i in range(12)
    ]  # fmt: skip


def record(cell: Cell, base: float, final: float) -> dict[str, Any]:
    usage = {"calls": 300, "cache_hits": 0, "failed_calls": 0, "prompt_tokens": 90000, "completion_tokens": 9000,
             "list_cost_usd": 0.2, "billed_cost_usd": 0.2}  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION, "status": "ok", "cell_id": cell.cell_id, "cell": asdict(cell),
        "task_class": "classification", "split": "test", "n": ITEMS, "level": "this program", "sample": False,
        "unchanged": False, "proposals": {"tried": 7, "unparsed": 0, "accepted": 2}, "baseline_score": base,
        "final_score": final, "improvement": final - base, "at_equal_calls_score": final, "check_score": final,
        "val_baseline_score": base, "val_final_score": final, "rollouts_used": 190, "lm_calls_per_example": cell.steps,
        "usage": {"optimize": usage, "evaluate": usage}, "proposal_usage": usage, "elapsed_seconds": 60.0,
        "error_rates": {"infrastructure": 0.0, "parse": 0.0}, "environment": {}, "error": None,
        "data": {"source": "made-up", "sha256": cell.data_sha256, "test_sha256": cell.benchmark},
        "model": {"parameters_billions": None, "parameters_status": "unknown", "price_date": None},
    }  # fmt: skip


if __name__ == "__main__":
    main()
