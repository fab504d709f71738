"""Running cells: one cell from program to record (`run_cell`), and all of a sweep together (`run_cells`).

The order in a cell: optimize on train and select under the budget; then open test once and score
baseline, optimized program and, where a question reads it, the incumbent at budget / steps on the same rows; the
record last.
"""

from __future__ import annotations

import contextvars
import pkgutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import dspy
from msgspec.structs import replace

from scaling.concurrency import most_at_a_time, shares_limit
from scaling.llm.fast_adapter import make_fast_adapter
from scaling.llm.gateway import CellGateway, Gateway
from scaling.llm.limits import allow_open_files
from scaling.llm.lm import MeteredLM, make_lm
from scaling.llm.meter import Meter
from scaling.planning.optimizers import NONE, OPTIMIZERS, TRANSFER, is_hosted
from scaling.records.codec import check_readable
from scaling.records.draws import mean, rows_of
from scaling.records.record import CurvePoint, Failure, LearningCurve, PredictionLine, Proposals, Record
from scaling.records.store import aggregating, write_aggregate, write_json, write_lines, write_record
from scaling.run import dspy_optimizers
from scaling.run.batches import answered_in_batches
from scaling.run.context import OptimizerContext
from scaling.run.curve import Curve, StoppedWhenFlat
from scaling.run.frozen import freeze, thaw
from scaling.run.pipelines import instructions, make_feedback, make_program
from scaling.run.record import Lines, Measured, add_outcome, add_usage, failed_record, new_record, outcome_text
from scaling.run.scoring import as_example, score_programs
from scaling.run.start import core_of
from scaling.run.task import CellReporter, CellTask, Settings
from scaling.types import CellStopped, digest

__all__ = ["CellTask", "Settings", "run_cell", "run_cells", "skip_cell", "write_failure"]

MAX_CELLS_TOGETHER = 64
MAX_THREADS_A_CELL = 64
OPTIMIZER_TEMPERATURE = 1.0


def run_cells(
    tasks: list[CellTask], gateway: Gateway, settings: Settings, reporter: CellReporter, results: Path
) -> list[Record]:
    """Run cells together in threads; returns their records in the order they ended.

    They share the gateway, and the calls of a cell that is earlier in `tasks` go first, so give the longest chain
    first: a sweep is then bounded by the provider's concurrency or by that chain, whichever takes longer.
    Ctrl-C stops every cell at its next call; settled cells stay.
    """
    limit = gateway.max_concurrency
    places = {shares_limit(task.model, limit): most_at_a_time(task.model, limit) for task in tasks}
    together = max(1, min(len(tasks), max(places.values(), default=1), MAX_CELLS_TOGETHER))
    threads = together if settings.batches is None else settings.batches.expect(len(tasks), together)
    allow_open_files(sum(places.values()), threads)
    records: list[Record] = []
    rebuild = aggregating(results)
    dspy_optimizers.prepare()
    run_one = run_cell if settings.batches is None else settings.batches.with_slot(run_cell)
    with ThreadPoolExecutor(max_workers=threads) as executor:
        futures = [executor.submit(run_one, task, gateway, settings, reporter, i) for i, task in enumerate(tasks)]
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


def run_cell(task: CellTask, gateway: CellGateway, settings: Settings, reporter: CellReporter, rank: int = 0) -> Record:
    """One cell: writes its files and returns its record. Never raises for what happens inside the cell."""
    cell, files = task.cell, task.files
    files.take(cell)
    meter = Meter(cell.cell_id, files.calls, rank)
    reporter.start(cell, meter)
    started = time.monotonic()
    record = new_record(task, "interrupted")
    try:
        gateway.check(task.model)
        with dspy_optimizers.output_to(settings.log):
            measured = _measure(task, gateway, meter, settings, reporter)
        add_outcome(record, task, measured, settings.max_error_rate, meter.failures)
        check_readable(record)
    except CellStopped as stopped:
        record.status, record.error = stopped.status, Failure(stopped.status, str(stopped))
    except Exception as error:  # the one broad catch: whatever breaks in a cell becomes its record
        record = failed_record(task, error)
    finally:
        meter.close()
    add_usage(record, meter, time.monotonic() - started)
    # In a worker process: where another attempt at the cell has taken over, this one ends before it writes.
    reporter.phase(cell, "record")
    write_record(files, record)
    reporter.end(cell, record.status, outcome_text(record))
    return record


def write_failure(task: CellTask, error: BaseException) -> Record:
    """The record of a cell that whoever ran it could not end."""
    return _written(task, new_record(task, "error", Failure(type(error).__name__, str(error))))


def skip_cell(task: CellTask, reason: str) -> Record:
    """The record of a cell that lacks what it needs; it runs once that is there."""
    return _written(task, new_record(task, "skipped", Failure("skipped", reason)))


def _written(task: CellTask, record: Record) -> Record:
    task.files.take(task.cell)
    write_record(task.files, record)
    return record


def _measure(
    task: CellTask, gateway: CellGateway, meter: Meter, settings: Settings, reporter: CellReporter
) -> Measured:
    """Optimize, open test once, and write down what came out."""
    cell = task.cell
    lm = make_lm(task.model, gateway, meter, cell.run, cell.temperature, timeout=settings.timeout)
    threads = min(MAX_THREADS_A_CELL, most_at_a_time(task.model, gateway.max_concurrency))
    core = core_of(cell, task.bench, task.start, make_feedback(cell, task.bench, _examples(task)))
    flat_after = None if cell.stop_when_flat is None else cell.stop_when_flat * cell.rollout_budget
    select_ids = [row["id"] for row in task.splits.select]
    curve = Curve(meter, select_ids, lambda points: _on_point(task, points, reporter), flat_after)
    with dspy.context(lm=lm, adapter=make_fast_adapter(task.model), callbacks=[curve]):
        reporter.phase(cell, "optimize")
        context = _context(task, gateway, meter, settings, core, threads, reporter)
        started = time.monotonic()
        freeze(core, cell.frozen_roles)
        optimized, stopped = _optimize(context, curve)
        optimize_seconds = round(time.monotonic() - started, 3)
    for program in (core, optimized, *(incumbent for _, incumbent in curve.incumbents)):
        thaw(program)
    if context.proposals.accepted is None and not is_hosted(cell.optimizer):
        context.proposals.accepted = curve.accepted
    programs = _programs(task, core, optimized, curve)
    if settings.batches is not None:
        reporter.phase(cell, "batch")
        lm = answered_in_batches(task, programs, lm, settings.batches)
    reporter.phase(cell, "test")
    lines = _open_test(task, lm, programs, threads)
    reporter.phase(cell, "record")
    _fill_test_scores(task, curve.points, lines)
    write_lines(task.files.predictions, [check_readable(line) for own in lines.values() for line in own])
    write_json(task.files.program, _program_file(core, optimized))
    unchanged = _state(core) == _state(optimized)
    return Measured(lines, curve.points, unchanged, context.proposals, optimize_seconds, stopped)


def _optimize(context: OptimizerContext, curve: Curve) -> tuple[dspy.Module, bool | None]:
    """The optimized program, and whether the cell's rule ended the optimizer; None for a cell without a rule.

    A program that was ended so is the incumbent by then. How many proposals there were is then not known.
    """
    try:
        program = pkgutil.resolve_name(OPTIMIZERS[context.cell.optimizer].run)(context)
    except StoppedWhenFlat:
        context.proposals = Proposals()
        return curve.incumbents[-1][1], True
    return program, None if context.cell.stop_when_flat is None else False


def _examples(task: CellTask) -> list[dspy.Example]:
    splits = task.splits
    return [as_example(row, task.bench) for row in splits.train + splits.select + splits.check + splits.test]


def _programs(task: CellTask, core: dspy.Module, optimized: dspy.Module, curve: Curve) -> dict[str, dspy.Module]:
    """The programs that test is opened for, by name."""
    cell = task.cell
    programs = {"baseline": core, "final": optimized}
    if cell.optimizer == TRANSFER.name:
        return programs
    if task.buys_equal_calls:
        programs["at_equal_calls"] = curve.incumbent_at(cell.rollout_budget / cell.steps) or core
    elif cell.steps == 1 or cell.optimizer == NONE.name:
        programs["at_equal_calls"] = optimized  # all of the budget, or none: it is the final program
    return programs


def _open_test(task: CellTask, lm: MeteredLM, programs: dict[str, dspy.Module], threads: int) -> Lines:
    """Prediction lines by program on the test rows, and at the same time of the optimized one on the check rows."""
    context = dspy.context(lm=lm.copy(phase="evaluate"), adapter=make_fast_adapter(task.model))
    with context, ThreadPoolExecutor(1) as beside:
        check = beside.submit(contextvars.copy_context().run, _score_check, task, programs["final"], threads)
        lines = _score_all(task, programs, threads)
        lines["check"] = check.result()
    return lines


def _context(
    task: CellTask,
    gateway: CellGateway,
    meter: Meter,
    settings: Settings,
    core: dspy.Module,
    threads: int,
    reporter: CellReporter,
) -> OptimizerContext:
    model = task.optimizer_model

    def show(what: str, best: float | None) -> None:
        reporter.phase(task.cell, f"optimize: {what}")
        reporter.best(task.cell, best)

    optimizer_lm = make_lm(
        model,
        gateway,
        meter,
        task.cell.run,
        OPTIMIZER_TEMPERATURE,
        role="optimizer",
        timeout=settings.timeout,
        max_tokens=model.optimizer_output_limit,
    )
    return OptimizerContext(
        core=core,
        bench=task.bench,
        train=[as_example(row, task.bench) for row in task.splits.train],
        select=[as_example(row, task.bench) for row in task.splits.select],
        budget=task.cell.rollout_budget,
        seed=1000 * task.cell.seed + task.cell.run,
        threads=threads,
        optimizer_lm=optimizer_lm,
        cell=task.cell,
        model=task.model,
        files=task.files,
        hosted=settings.hosted,
        start=task.start,
        show=show,
    )


def _score_all(task: CellTask, programs: dict[str, dspy.Module], threads: int) -> Lines:
    """Prediction lines of each program on the same test rows; programs that are the same are scored once.

    The final program answers each row as often as the cell has draws, and so do those that are the same.
    """
    states = {name: _state(core) for name, core in programs.items()}
    first_of = {state: name for name, state in reversed(states.items())}
    apart = {name: make_program(task.cell.pipeline, programs[name], task.cell.steps) for name in first_of.values()}
    draws = {first_of[states["final"]]: task.cell.draws}
    lines = score_programs(apart, task.splits.test, task.bench, threads, draws)
    return {name: [replace(line, program=name) for line in lines[first_of[state]]] for name, state in states.items()}


def _score_check(task: CellTask, optimized: dspy.Module, threads: int) -> list[PredictionLine]:
    """The optimized program on the val rows that no optimizer saw: what a cell may be recommended by."""
    if task.splits.split == "check":
        return []  # they are the test rows already
    program = make_program(task.cell.pipeline, optimized, task.cell.steps)
    return score_programs({"check": program}, task.splits.check, task.bench, threads)["check"]


def _on_point(task: CellTask, points: list[CurvePoint], reporter: CellReporter) -> None:
    reporter.best(task.cell, points[-1].best_val_score)
    write_json(task.files.curve, LearningCurve(points, task.cell.cell_id))


def _fill_test_scores(task: CellTask, points: list[CurvePoint], lines: Lines) -> None:
    """Test scores into the curve, for the incumbents at budget / steps and at the end; chosen by nothing."""
    for rollouts, name in ((task.cell.rollout_budget / task.cell.steps, "at_equal_calls"), (float("inf"), "final")):
        reached = [point for point in points if point.rollouts <= rollouts]
        if reached and name in lines:
            reached[-1].test_score = mean(line.score for line in rows_of(lines[name]))
    write_json(task.files.curve, LearningCurve(points, task.cell.cell_id))


def _program_file(core: dspy.Module, optimized: dspy.Module) -> dict[str, Any]:
    """The optimized program as DSPy loads it, with the instructions before and after in words."""
    state: dict[str, Any] = optimized.dump_state()
    return state | {
        "metadata": {"dependency_versions": {"dspy": dspy.__version__}},
        "instructions": {
            role: {"before": before, "after": instructions(optimized)[role]}
            for role, before in instructions(core).items()
        },
    }


def _state(program: dspy.Module) -> str:
    return digest(program.dump_state())
