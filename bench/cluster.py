"""What Dask's workers cost beside threads, and how soon a large sweep that is nearly settled goes on.

`make bench` runs it (about six minutes) and rewrites bench/cluster.md; docs/scaling.md quotes it.
"""

from __future__ import annotations

import argparse
import operator
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import run_scaling_experiment as script
from bench.results import Measure, write_results
from bench.seam import LATENCY, PLACES, ROWS, SIZES, SWEEPS, serving
from scaling import plan
from scaling.models import load_registry
from scaling.plan import Study
from scaling.runner import Work
from scaling.store import RECORD, read_records, write_aggregate, write_json
from tests.support import toy

CELLS, LEFT = 10_000, 10


def main() -> None:
    script.BENCHMARK_CONFIG["toy"] = toy.config(
        loader=lambda: ROWS, train_seeds=range(50), val_seeds=range(50, 150), test_seeds=range(200)
    )
    with tempfile.TemporaryDirectory() as scratch:
        measures = engines(Path(scratch)) + nearly_settled(Path(scratch))
    write_results(Path(__file__).with_suffix(".md"), "Past one machine", measures)


def engines(folder: Path) -> list[Measure]:
    """Wall time of the same sweep on one Dask worker, start of cluster and worker included, against threads."""
    walls = {}
    with serving(LATENCY) as (url, _):
        for engine in ("local", "dask"):
            axes = SIZES | SWEEPS["bound by places"]
            study = Study(name="bench", benchmarks=["toy"], models=["openai/scripted"], data="sample", **axes)
            options = argparse.Namespace(
                output_dir=folder / engine, api_base=url, max_concurrency=PLACES, engine=engine,
                workers=1 if engine == "dask" else None,
            )  # fmt: skip
            started = time.perf_counter()
            records = script.run_sweep(study, options)
            walls[engine] = time.perf_counter() - started
            if any(record["status"] != "ok" for record in records):
                raise RuntimeError(f"a cell failed on {engine}")
    calls = sum(part["calls"] - part["cache_hits"] for record in records for part in record["usage"].values())
    more = 100 * (walls["dask"] / walls["local"] - 1)
    detail = f"{walls['dask']:.1f} s against {walls['local']:.1f} s; {len(records)} cells, {calls} calls"
    return [Measure("one Dask worker beyond threads", more, "%", 5.0, operator.lt, detail)]


def nearly_settled(folder: Path) -> list[Measure]:
    """Seconds from typing the command to the first call, and what bounds it, where nearly all cells are settled."""
    results = folder / "many"
    settle_all(results)
    pieces = [
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
    for engine in ("local", "dask"):
        with serving(0.0) as (url, ask):
            for number in range(LEFT):
                next(results.rglob(f"run{number}/{RECORD}")).unlink()
            started = time.perf_counter()
            subprocess.run([*command(url, results), "--engine", engine], check=True, stdout=subprocess.DEVNULL)
            waits[engine] = min(arrived for arrived, _ in ask("requests")) - started, time.perf_counter() - started
    for engine, (first, whole) in waits.items():
        what = f"{CELLS} cells, {CELLS - LEFT} settled: first call, {engine}"
        found.append(Measure(what, first, "s", 10.0, operator.lt, f"the whole command {whole:.1f} s"))
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


def settle_all(results: Path) -> None:
    """Records of all the cells, copied from one that was run for each number of steps."""
    with serving(0.0) as (url, _):
        few = [*command(url, results), "--runs", "1"]
        subprocess.run(few, check=True, stdout=subprocess.DEVNULL)
        made = {record["cell"]["steps"]: record for _, record in read_records([results])}
        for item in planned(command(url, results)[2:]):
            item.files.take(item.cell)
            own = {"cell_id": item.cell.cell_id, "cell": asdict(item.cell)}
            write_json(item.files.record, made[item.cell.steps] | own)


def planned(argv: list[str]) -> list[Work]:
    """The work of a command line."""
    options = script.parse(argv)
    options.by_hand, options.flat = set(plan.SIZE_FIELDS), False
    study = plan.narrow(plan.load_study(options.study), **script._overrides(options))
    registry = load_registry(None)
    cells = plan.expand(study, list(script.BENCHMARK_CONFIG), registry, options.api_base)
    return script.prepare([cells], script._models_of(cells, registry, options), options)


if __name__ == "__main__":
    main()
