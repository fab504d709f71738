"""Running cells: one cell from program to record (`run_cell`), and all of a sweep together (`run_cells`).

The order in a cell: optimize on train and select under the budget; then open test once and score
baseline, optimized program and the incumbent at budget / steps on the same rows; the record last.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dspy

from scaling.intervals import mean_interval, paired_interval
from scaling.llm.adapters import make_adapter
from scaling.llm.gateway import Gateway, Meter, Usage, make_lm
from scaling.models import Model
from scaling.run import dspy_optimizers
from scaling.run.optimizers import OPTIMIZERS, Curve, Job
from scaling.run.pipelines import instructions, make_core, make_judge, wrap
from scaling.run.progress import ProgressReporter
from scaling.run.scoring import as_example, score_programs
from scaling.store import CellFiles, aggregating, write_aggregate, write_json, write_lines
from scaling.types import HOSTED, SCHEMA_VERSION, Benchmark, Cell, CellStopped, Splits, digest

MAX_CELLS_TOGETHER = 64
MAX_THREADS_A_CELL = 64
OPTIMIZER_TEMPERATURE = 1.0
PACKAGES = (
    "dspy", "gepa", "optuna", "litellm", "datasets", "numpy", "scipy", "statsmodels", "math-verify", "sympy",
    "xllamacpp",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Choices of a sweep that change no answer: how fast, how patient, what counts as broken."""

    timeout: float = 120.0
    max_error_rate: float = 0.02
    log: Path | None = None  # where the optimizers' own output goes; None drops it
    hosted: Any = None  # where hosted jobs are sent (synth_client.Hosted)


@dataclass(frozen=True)
class CellTask:
    """Everything one cell needs: plain data, the loaded benchmark, the models it calls, where it writes."""

    cell: Cell
    bench: Benchmark
    deal: Splits
    model: Model
    optimizer_model: Model
    files: CellFiles
    phase: int = 0  # the cells of a study's earlier phase start first


def run_cells(
    work: list[CellTask], gateway: Gateway, settings: Settings, reporter: ProgressReporter, results: Path
) -> list[dict[str, Any]]:
    """Run cells together in threads; returns their records in the order they ended.

    They share the gateway, and the calls of a cell that is earlier in `work` go first, so give the longest chain
    first: a sweep is then bounded by the provider's places or by that chain, whichever takes longer.
    Ctrl-C stops every cell at its next call; settled cells stay.
    """
    places = max((item.model.places(gateway.max_concurrency) for item in work), default=1)
    together = max(1, min(len(work), places, MAX_CELLS_TOGETHER))
    records: list[dict[str, Any]] = []
    rebuild = aggregating(results)
    dspy_optimizers.prepare()
    with ThreadPoolExecutor(max_workers=together) as executor:
        futures = [executor.submit(run_cell, item, gateway, settings, reporter, rank) for rank, item in enumerate(work)]
        try:
            for future in as_completed(futures):
                records.append(future.result())
                rebuild()
        except (KeyboardInterrupt, OSError) as error:
            why = "interrupted by Ctrl-C" if isinstance(error, KeyboardInterrupt) else f"cannot write ({error})"
            gateway.stop("interrupted", why)
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    write_aggregate(results)
    return records


def run_cell(
    work: CellTask, gateway: Gateway, settings: Settings, reporter: ProgressReporter, rank: int = 0
) -> dict[str, Any]:
    """One cell: writes its files and returns its record. Never raises for what happens inside the cell."""
    cell, files = work.cell, work.files
    files.take(cell)
    meter = Meter(cell.cell_id, files.calls, rank)
    reporter.start(cell, meter)
    started = time.monotonic()
    record = _frame(work)
    try:
        gateway.check(work.model)
        with dspy_optimizers.output_to(settings.log):
            record |= _measure(work, gateway, meter, settings, reporter)
    except CellStopped as stopped:
        record |= {"status": stopped.status, "error": {"kind": stopped.status, "message": str(stopped)}}
    except Exception as error:  # the one broad catch: whatever breaks in a cell becomes its record
        message = f"{type(error).__name__}: {error}"
        record |= {"status": "error", "error": {"kind": type(error).__name__, "message": message}}
        record["error"]["traceback"] = _trace(error)
    finally:
        meter.close()
    record["usage"] = {phase: asdict(meter.usage.get(phase, Usage())) for phase in ("optimize", "evaluate")}
    record["proposal_usage"] = asdict(meter.proposals) if meter.hosted is None else None
    record["hosted"] = meter.hosted
    record["rollouts_used"] = meter.rollouts["optimize"]
    record["elapsed_seconds"] = round(time.monotonic() - started, 3)
    reporter.phase(
        cell, "record"
    )  # far from here: where another try of the cell has taken over, it ends before it writes
    write_json(files.record, record)
    reporter.end(cell, record["status"], _sentence(record))
    return record


def write_failure(work: CellTask, error: BaseException) -> dict[str, Any]:
    """The record of a cell that whoever ran it could not end."""
    record = _frame(work) | {"status": "error", "error": {"kind": type(error).__name__, "message": str(error)}}
    work.files.take(work.cell)
    write_json(work.files.record, record)
    return record


def skip_cell(work: CellTask, reason: str) -> None:
    """Write the record of a cell that lacks what it needs; it runs once that is there."""
    work.files.take(work.cell)
    write_json(work.files.record, _frame(work) | {"status": "skipped", "error": {"kind": "skipped", "message": reason}})


def _measure(
    work: CellTask, gateway: Gateway, meter: Meter, settings: Settings, reporter: ProgressReporter
) -> dict[str, Any]:
    """Optimize, open test once, and say what came out."""
    cell, bench = work.cell, work.bench
    lm = make_lm(work.model, gateway, meter, cell.run, cell.temperature, timeout=settings.timeout)
    threads = min(MAX_THREADS_A_CELL, work.model.places(gateway.max_concurrency))
    core = make_core(cell, bench, make_judge(cell, bench, _examples(work)))
    curve = Curve(meter, [row["id"] for row in work.deal.select], lambda points: _on_point(work, points, reporter))
    with dspy.context(lm=lm, adapter=make_adapter(work.model), callbacks=[curve]):
        reporter.phase(cell, "optimize")
        job = _job(work, gateway, meter, settings, core, threads, reporter)
        started = time.monotonic()
        optimized = OPTIMIZERS[cell.optimizer](job)
        optimize_seconds = round(time.monotonic() - started, 3)
    if cell.optimizer not in ("gepa", *HOSTED):
        job.proposals["accepted"] = curve.accepted
    programs = {"baseline": core, "final": optimized}
    if cell.optimizer not in HOSTED:
        programs["at_equal_calls"] = curve.incumbent_at(cell.rollout_budget / cell.steps) or core
    elif cell.steps == 1:
        programs["at_equal_calls"] = optimized  # with more steps nobody knows a hosted job's program at budget / steps
    reporter.phase(cell, "test")
    with dspy.context(lm=lm.copy(phase="evaluate"), adapter=make_adapter(work.model)):
        lines = _score_all(work, programs, threads)
        lines["check"] = _score_check(work, optimized, threads)
    reporter.phase(cell, "record")
    _fill_test_scores(work, curve, lines)
    write_lines(work.files.predictions, [line for one in lines.values() for line in one])
    write_json(work.files.program, _program_file(core, optimized))
    unchanged = _state(core) == _state(optimized)
    known = {"unchanged": unchanged, "proposals": job.proposals, "optimize_seconds": optimize_seconds}
    return known | _outcome(work, settings, lines, curve, unchanged)


def _examples(work: CellTask) -> list[dspy.Example]:
    rows = work.deal.train + work.deal.select + work.deal.check + work.deal.test
    return [as_example(row, work.bench) for row in rows]


def _job(
    work: CellTask,
    gateway: Gateway,
    meter: Meter,
    settings: Settings,
    core: dspy.Module,
    threads: int,
    reporter: ProgressReporter,
) -> Job:
    model = work.optimizer_model

    def show(what: str, best: float | None) -> None:
        reporter.phase(work.cell, f"optimize: {what}")
        reporter.best(work.cell, best)

    optimizer_lm = make_lm(
        model,
        gateway,
        meter,
        work.cell.run,
        OPTIMIZER_TEMPERATURE,
        role="optimizer",
        timeout=settings.timeout,
        max_tokens=model.optimizer_max_output_tokens,
    )
    return Job(
        core=core,
        bench=work.bench,
        train=[as_example(row, work.bench) for row in work.deal.train],
        select=[as_example(row, work.bench) for row in work.deal.select],
        budget=work.cell.rollout_budget,
        seed=1000 * work.cell.seed + work.cell.run,
        threads=threads,
        optimizer_lm=optimizer_lm,
        cell=work.cell,
        model=work.model,
        files=work.files,
        hosted=settings.hosted,
        show=show,
    )


def _score_all(work: CellTask, programs: dict[str, dspy.Module], threads: int) -> dict[str, list[dict[str, Any]]]:
    """Prediction lines of each program on the same test rows; programs that are the same are scored once."""
    states = {name: _state(core) for name, core in programs.items()}
    first_of = {state: name for name, state in reversed(states.items())}
    apart = {name: wrap(work.cell.pipeline, programs[name], work.cell.steps) for name in first_of.values()}
    lines = score_programs(apart, work.deal.test, work.bench, threads)
    return {name: [line | {"program": name} for line in lines[first_of[state]]] for name, state in states.items()}


def _score_check(work: CellTask, optimized: dspy.Module, threads: int) -> list[dict[str, Any]]:
    """The optimized program on the val rows that no optimizer saw: what a cell may be recommended by."""
    if work.deal.split == "check":
        return []  # they are the test rows already
    program = wrap(work.cell.pipeline, optimized, work.cell.steps)
    return score_programs({"check": program}, work.deal.check, work.bench, threads)["check"]


def _outcome(
    work: CellTask, settings: Settings, lines: dict[str, list[dict]], curve: Curve, unchanged: bool
) -> dict[str, Any]:
    """Scores, intervals and error rates of a cell whose test was opened."""
    cell = work.cell
    paired = [
        (b, f) for b, f in zip(lines["baseline"], lines["final"], strict=True) if None not in (b["score"], f["score"])
    ]
    baseline, final = [b["score"] for b, _ in paired], [f["score"] for _, f in paired]
    groups = [b["group"] for b, _ in paired]
    answered = [line for name in ("baseline", "final") for line in lines[name] if line["error"] is None]
    # With tools a step makes as many calls as it needs, and one at least.
    wrong = [
        line for line in answered if line["calls"] < cell.steps or (line["calls"] > cell.steps and not work.bench.tools)
    ]
    if wrong:
        raise RuntimeError(f"example {wrong[0]['id']} made {wrong[0]['calls']} calls, {cell.steps} are its steps")
    made = [line["calls"] for line in answered if line["program"] == "final"] if work.bench.tools else [cell.steps]
    rates = {
        kind: max(_error_rate(lines[name], kind) for name in ("baseline", "final"))
        for kind in ("infrastructure", "parse")
    }
    outcome = {
        "n": len(paired),
        "split": work.deal.split,
        "lm_calls_per_example": _mean(made) if answered else None,
        "error_rates": rates,
        "val_baseline_score": curve.points[0]["candidate_val_score"] if curve.points else None,
        "val_final_score": curve.points[-1]["best_val_score"] if curve.points else None,
    }
    if rates["infrastructure"] > settings.max_error_rate or not paired:
        message = f"{100 * rates['infrastructure']:.1f} % of test examples failed in the infrastructure"
        return outcome | {"status": "invalid", "error": {"kind": "infrastructure", "message": message}}
    return outcome | {
        "status": "ok",
        "baseline_score": _mean(baseline),
        "final_score": _mean(final),
        "improvement": _mean(final) - _mean(baseline),
        "baseline_ci95": mean_interval(baseline, groups),
        "final_ci95": mean_interval(final, groups),
        "improvement_ci95": None if unchanged else paired_interval(baseline, final, groups),
        "at_equal_calls_score": _mean([line["score"] for line in lines.get("at_equal_calls", [])]),
        "check_score": _mean([line["score"] for line in lines["check"]]),
        "check_n": len(lines["check"]) or None,
        "turns": _turns(lines["final"]),
        "failure_kinds": {name: _failure_kinds(lines[name]) for name in ("baseline", "final")},
        "extra_scores": {
            extra: {
                name: _mean([line["extra_scores"][extra] for line in lines[name]]) for name in ("baseline", "final")
            }
            for extra in work.bench.config.get("extra_metrics") or {}
        },
    }


def _turns(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Mean score of each turn, the gain from the first to the last, and the two sums that add up to it.

    wrong_to_right minus right_to_wrong is gain times examples; format_repairs is the part of wrong_to_right whose
    first turn had no usable answer.
    """
    turned = [line for line in lines if line["turn_scores"] and line["score"] is not None]
    if not turned:
        return None
    changes = [(line["turn_scores"][-1] - line["turn_scores"][0], line["first_turn_failed"]) for line in turned]
    return {
        "scores": [_mean(list(scores)) for scores in zip(*(line["turn_scores"] for line in turned), strict=True)],
        "gain": sum(change for change, _ in changes) / len(changes),
        "wrong_to_right": sum(change for change, _ in changes if change > 0),
        "right_to_wrong": -sum(change for change, _ in changes if change < 0),
        "format_repairs": sum(change for change, failed in changes if change > 0 and failed),
    }


def _frame(work: CellTask) -> dict[str, Any]:
    """The fields every record has, whatever happens: what is unknown is null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": None,
        "cell_id": work.cell.cell_id,
        "cell": asdict(work.cell),
        "task_class": work.bench.config.get("task_class"),
        "split": work.deal.split,
        "n": None,
        "level": "this program",
        "sample": work.bench.source == "sample",
        "note": work.bench.note,
        "unchanged": None,
        "proposals": None,
        "baseline_score": None,
        "final_score": None,
        "improvement": None,
        "baseline_ci95": None,
        "final_ci95": None,
        "improvement_ci95": None,
        "at_equal_calls_score": None,
        "check_score": None,
        "check_n": None,
        "turns": None,
        "failure_kinds": None,
        "extra_scores": {},
        "val_baseline_score": None,
        "val_final_score": None,
        "rollouts_used": None,
        "hosted": None,
        "optimize_seconds": None,
        "lm_calls_per_example": None,
        "usage": None,
        "proposal_usage": None,
        "error_rates": None,
        "elapsed_seconds": None,
        "environment": environment(),
        "data": {
            "source": work.bench.source,
            "revision": work.bench.revision,
            "sha256": work.deal.sha256,
            "test_sha256": work.deal.test_sha256,
            "dropped_near_copies": work.deal.dropped,
        },
        "model": {
            "parameters_billions": work.model.parameters_billions,
            "parameters_status": work.model.parameters_status,
            "price_date": work.model.price_date,
            "output_usd_per_million": work.model.output_usd_per_million,
            "context_length": work.model.context_length,
        },
        "error": None,
    }


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """Versions and platform; no host name, no user name, no path."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "packages": packages,
        "git": _commit(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _commit() -> str | None:
    """The commit this program runs from; None where there is no git or no repository."""
    if shutil.which("git") is None:
        return None
    here = Path(__file__).parent
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None


def _on_point(work: CellTask, points: list[dict[str, Any]], reporter: ProgressReporter) -> None:
    reporter.best(work.cell, points[-1]["best_val_score"])
    write_json(work.files.curve, {"cell_id": work.cell.cell_id, "points": points})


def _fill_test_scores(work: CellTask, curve: Curve, lines: dict[str, list[dict]]) -> None:
    """Test scores into the curve, for the incumbents at budget / steps and at the end; chosen by nothing."""
    for rollouts, name in ((work.cell.rollout_budget / work.cell.steps, "at_equal_calls"), (float("inf"), "final")):
        known = [point for point in curve.points if point["rollouts"] <= rollouts]
        if known:
            known[-1]["test_score"] = _mean([line["score"] for line in lines[name] if line["score"] is not None])
    write_json(work.files.curve, {"cell_id": work.cell.cell_id, "points": curve.points})


def _program_file(core: dspy.Module, optimized: dspy.Module) -> dict[str, Any]:
    """The optimized program as DSPy loads it, with the instructions before and after in words."""
    return optimized.dump_state() | {
        "metadata": {"dependency_versions": {"dspy": dspy.__version__}},
        "instructions": {
            role: {"before": before, "after": instructions(optimized)[role]}
            for role, before in instructions(core).items()
        },
    }


def _state(program: dspy.Module) -> str:
    return digest(program.dump_state())


def _error_rate(lines: list[dict[str, Any]], kind: str) -> float:
    """Share of examples lost to the infrastructure, or without a usable answer (`parse`)."""
    lost = sum(line["error"] == "infrastructure" for line in lines)
    return (lost if kind == "infrastructure" else sum(line["error"] is not None for line in lines) - lost) / len(lines)


def _failure_kinds(lines: list[dict[str, Any]]) -> dict[str, int]:
    """How many answers failed in which way: parse, too_long, infrastructure, and what the benchmark tells apart."""
    return dict(sorted(Counter(kind for line in lines if (kind := line["error"] or line["failure_kind"])).items()))


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _trace(error: BaseException) -> str:
    """Where it happened: file, line and function, without the folders of this machine."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{'/'.join(Path(f.filename).parts[-2:])}:{f.lineno} in {f.name}: {f.line}" for f in frames]
    return "\n".join([*lines, f"{type(error).__name__}: {error}"])


def _sentence(record: dict[str, Any]) -> str:
    """What a settled cell says on the screen."""
    if record["status"] != "ok":
        return record["error"]["message"]
    low, high = record["final_ci95"] or (float("nan"), float("nan"))
    return (
        f"{100 * record['baseline_score']:.1f} -> {100 * record['final_score']:.1f} "
        f"[{100 * low:.1f}, {100 * high:.1f}] on {record['n']} {record['split']} rows, "
        f"{record['rollouts_used']} rollouts, {record['elapsed_seconds']:.0f} s"
    )
