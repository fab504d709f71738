"""What the command prints before a sweep and after it."""

from __future__ import annotations

import functools
import operator
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scaling.command.batches import batch_lines
from scaling.command.draws import draw_notes
from scaling.command.expected_calls import expected_cells
from scaling.command.local_models import fetch_lines
from scaling.command.options import Options
from scaling.command.prepare import Sweep
from scaling.command.questions import (
    NONE_ANSWERABLE,
    none_answerable,
    planned_answers,
    question_lines,
)
from scaling.command.wave_lines import calls_ahead, design_lines
from scaling.concurrency import expected_at_a_time
from scaling.pipelines import step_name
from scaling.planning.optimizers import is_hosted
from scaling.planning.plan import power_notes, sizes_of, warnings
from scaling.planning.study import SEEDS_OF, Study, phases_of
from scaling.records.record import PlannedAnswer, Record, SequentialPlan, SweepPlan
from scaling.run.calls_ahead import CallsAhead
from scaling.run.estimate import Estimate, estimate, estimate_lines, figures, minutes, seconds
from scaling.run.prompt_prefixes import caching_notes
from scaling.run.shared_answers import shared
from scaling.run.task import CellTask
from scaling.types import EXIT_CAP, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, Benchmark, Cell


@dataclass(frozen=True)
class Plan:
    """What was worked out before the first call: the estimate of each cell that waits, and the study's questions.

    in_no_hypothesis: ids of cells.
    """

    estimates: dict[str, Estimate]
    questions: list[PlannedAnswer]
    in_no_hypothesis: frozenset[str] = frozenset()
    sequential: SequentialPlan | None = None
    ahead: CallsAhead | None = None  # of a sequential study

    def of(self, cells: Sequence[Cell]) -> SweepPlan:
        """What plan.json keeps of it."""
        return SweepPlan(
            cells={cell.cell_id: self.estimates[cell.cell_id].plan_of(cell) for cell in cells},
            questions=self.questions,
            sequential=[self.sequential] if self.sequential else [],
        )


def print_plan(study: Study, sweep: Sweep, options: Options) -> Plan:
    """Print the plan: a line per cell with calls and list cost (low to high), and which questions can be answered."""
    estimates = {task.cell.cell_id: estimate(task) for task in sweep.waiting}
    asks = bool(sweep.waiting) and not any(task.cell.headroom for task in sweep.waiting)
    asked, unused = planned_answers(study, sweep, options.output_dir) if asks else ([], frozenset())
    plan = Plan(estimates, asked, unused)
    if sweep.decided is not None:
        expected = expected_cells(sweep, options.output_dir)
        ahead = calls_ahead(sweep.decided, sweep.waiting, estimates, expected)
        plan = replace(plan, sequential=sweep.decided.plan, ahead=ahead)
    # One write: the plans of experiments that run beside each other in one process do not mix.
    sys.stdout.write("".join(f"{line}\n" for line in _plan_lines(study, sweep, options, plan)))
    sys.stdout.flush()
    return plan


def _plan_lines(study: Study, sweep: Sweep, options: Options, plan: Plan) -> list[str]:
    waiting = sweep.waiting
    cells = [task.cell for task in waiting]
    settled = f", {len(sweep.settled)} settled already" if sweep.settled else ""
    used = sorted({cell.model for cell in cells})
    on = "" if not used else f" on {used[0]}" if len(used) == 1 else f" on {len(used)} models"
    in_vain = none_answerable(plan.questions) and not study.pilot  # a pilot is to answer nothing
    lines = [f"WARNING: {NONE_ANSWERABLE}"] if in_vain else []
    lines.append(f"study {study.name}: {_cells(len(waiting))} to run{on}{settled}; results in {options.output_dir}")
    if waiting:
        lines.append(_rows_line(waiting))
        lines += [f"note: {note}" for note in [*study.notes, *warnings(cells), *_size_notes(study, waiting)]]
        twice, total = shared(waiting), functools.reduce(operator.add, plan.estimates.values())
        total = total if twice is None else total - twice
        lines += [*estimate_lines(cells, plan.estimates), _total(total, sweep, options)]
        lines += batch_lines(waiting, total, sweep.decided is not None) if options.batch else []
        if twice is not None:
            less = ", ".join(figures(twice)[: 2 if twice.usd is None else 3])
            lines.append(f"note: cells share answers, which the total counts once: {less} less than cell by cell")
        notes = [*_unused_notes(plan, cells), *draw_notes(sweep, options.output_dir)]
        notes += [*(power_notes(cells) if study.compares_mipro else []), *_data_notes(waiting)]
        notes += [*_model_notes(waiting, total), *caching_notes(waiting, plan.estimates)]
        notes += fetch_lines(sweep.models.values())
        lines += [f"note: {note}" for note in notes]
    lines += [f"note: {note}" for note in [*sweep.notes, *_skipped_notes(sweep.skipped)]]
    return [*lines, *question_lines(plan.questions), *design_lines(sweep, plan.ahead, options.output_dir)]


def _unused_notes(plan: Plan, cells: Sequence[Cell]) -> list[str]:
    """Which of the cells no hypothesis of the study is about, and what they cost."""
    unused = [cell for cell in cells if cell.cell_id in plan.in_no_hypothesis]
    if not unused:
        return []
    names = dict.fromkeys(f"{cell.benchmark} {step_name(cell.pipeline, cell.steps)}" for cell in unused)
    price = ", ".join(figures(functools.reduce(operator.add, (plan.estimates[cell.cell_id] for cell in unused))))
    return [f"in no hypothesis, only in exploratory tables: {_cells(len(unused))} ({', '.join(names)}), {price}"]


def _skipped_notes(skipped: Sequence[tuple[CellTask, str]]) -> list[str]:
    """How many cells are skipped, for each reason."""
    by_reason: dict[str, list[CellTask]] = {}
    for task, reason in skipped:
        by_reason.setdefault(reason, []).append(task)
    notes = []
    for reason, tasks in by_reason.items():
        hosted = sorted({task.cell.optimizer for task in tasks if is_hosted(task.cell.optimizer)})
        of_these = f" of {', '.join(hosted)}" if hosted else ""
        notes.append(f"skipped {_cells(len(tasks))}{of_these}: {reason}")
    return notes


def added_note(study: Study, added: Sequence[str]) -> str:
    """A line on how to run benchmarks that somebody has added and that the study does not name; "" without any."""
    named = dict.fromkeys(name for part in phases_of(study) for name in part.benchmarks)
    missing = [name for name in added if name not in named]
    if not missing:
        return ""
    every = " ".join([*named, *missing])
    return f"note: the study {study.name} does not name {', '.join(missing)}. To add, type --benchmarks {every}"


def print_end(records: Sequence[Record], output_dir: Path) -> int:
    """Say how the sweep ended, and what to type next; returns the exit code."""
    by_status = Counter(record.status for record in records)
    print(f"{_cells(len(records))}: " + ", ".join(f"{count} {status}" for status, count in sorted(by_status.items())))
    if by_status["interrupted"]:
        print("type the same command to continue where it stopped")
        return EXIT_INTERRUPTED
    if by_status["budget"]:
        print("type the same command with a higher --max-cost to continue where it stopped")
        return EXIT_CAP
    if by_status["error"] or by_status["invalid"]:
        print("the reasons are in the cells' results.json; type the same command with --retry-failed to try them again")
        return EXIT_FAILED
    print(f"tables and figures: python analyze_results.py --results-dir {output_dir}")
    return EXIT_OK


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _total(total: Estimate, sweep: Sweep, options: Options) -> str:
    limit = min(expected_at_a_time(model, options.max_concurrency) for model in sweep.models.values())
    low, high = seconds(total, limit)
    if all(task.model.is_local and task.optimizer_model.is_local for task in sweep.waiting):
        return f"in total {', '.join(figures(total))}, one call at a time; the time is told when the model has started"
    at_a_time = "one call" if limit == 1 else f"{limit} calls"
    time = f"{minutes(low, high)} with {at_a_time} at a time and one second per call"
    return f"in total {', '.join(figures(total))}; {time}"


def _rows_line(waiting: Sequence[CellTask]) -> str:
    """How many rows each benchmark's cells have."""
    sizes = dict.fromkeys((task.cell.benchmark, _sizes_text(task)) for task in waiting)
    return "rows: " + "; ".join(f"{benchmark} {text}" for benchmark, text in sizes)


def _sizes_text(task: CellTask) -> str:
    cell = task.cell
    if cell.headroom:
        return f"{cell.test_size} of {task.splits.split}, none of test"
    return f"{cell.train_size} train, {cell.val_size} val, {cell.test_size} test"


def _model_notes(waiting: Sequence[CellTask], total: Estimate) -> list[str]:
    """How much of the estimate is reasoning, and which models take no temperature."""
    low, high = total.reasoning
    notes = []
    if high:
        notes.append(
            f"{low:,} to {high:,} of the tokens are reasoning, which is billed as output. Nobody knows beforehand how "
            f"long a model reasons: a run of a few rows tells"
        )
    fixed = sorted({task.model.id for task in waiting if not task.model.takes_temperature})
    if fixed:
        notes.append(f"no temperature can be set, so each uses its own (1): {', '.join(fixed)}")
    return notes


def _size_notes(study: Study, waiting: Sequence[CellTask]) -> list[str]:
    """Where a benchmark has fewer rows than are asked for, and where its score is on check."""
    notes = {}
    for task in waiting:
        cell, asked = task.cell, [_asked(part, task.bench) for part in phases_of(study)]
        if task.splits.split == "check":
            notes[cell.benchmark] = (
                f"{cell.benchmark} has no test_seeds: the final score is on its {cell.test_size} check rows"
            )
        elif not cell.headroom and (cell.train_size, cell.val_size, cell.test_size) not in asked:
            wanted = ", ".join(map(str, max(asked)))
            notes[cell.benchmark] = (
                f"{cell.benchmark} has fewer rows than asked for: {_sizes_text(task)} (asked: {wanted})"
            )
    return list(notes.values())


def _asked(study: Study, bench: Benchmark) -> tuple[int, ...]:
    """Train, val and test rows that a study without phases asks for."""
    seeds = {name: getattr(bench, name) for name in SEEDS_OF.values()}
    return tuple(sizes_of(study, seeds).values())


def _data_notes(waiting: Sequence[CellTask]) -> list[str]:
    """What must be said of the rows."""
    notes = []
    if any(task.bench.source == "sample" for task in waiting):
        notes.append(
            "the rows are small samples that ship with this program: the scores show how it works and are not results"
        )
    for name, note in sorted({(task.cell.benchmark, task.bench.note) for task in waiting if task.bench.note}):
        notes.append(f"{name}: {note}")
    if any(task.cell.pilot for task in waiting):
        notes.append("this is a pilot: one run on few rows, to see that the study works; its scores are not results")
    for name in sorted({task.cell.benchmark for task in waiting if task.cell.closed_book}):
        notes.append(f"closed-book: {name} is asked without the tables that hold the answers")
    return notes
