"""The design of a study: fixed, or sequential with its plan. In a results folder it stays as the study was started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scaling.planning.questions import asked_by
from scaling.planning.study import Study
from scaling.records.codec import RecordError
from scaling.records.record import SequentialPlan, SweepPlan
from scaling.records.store import PLAN, read_plan
from scaling.run.task import CellTask
from scaling.sequential import FIXED, SEQUENTIAL, SequentialDesign, runs_text, sequential_design
from scaling.types import UsageError

GATE = 1.0  # z of 5 steps minus 1 step above which the chains of 3 steps are run
JUDGED = ("H1", "H2", "H3", "H4")  # the questions that looks judge


def sequential_plan(study: Study, tasks: Sequence[CellTask], results: Path) -> SequentialPlan | None:
    """The plan of a sequential study, as it was started in this folder or new; None for a fixed study.

    Raises UsageError where the command wants another design, and for cells that no look could judge.
    """
    known = _plan_in(results)
    ids = {task.cell.cell_id for task in tasks}
    for plan in known.sequential:
        if plan.study == study.name or ids & set(plan.cells):
            _refuse_changes(plan, study, tasks, results)
            return plan
    if study.design != SEQUENTIAL:
        if study.gate:
            raise UsageError("--gate waits for a look. Type --design sequential with it, or leave it out.")
        return None
    if ids & set(known.cells) or any(_was_run(task) for task in tasks):
        raise UsageError(
            f"{results}: this study was started with --design fixed and stays so. Type --design fixed, or give "
            f"another --output-dir."
        )
    if not set(asked_by([task.cell for task in tasks])) & set(JUDGED):
        raise UsageError(
            f"--design sequential: looks judge {', '.join(JUDGED)}, which need optimized chains of several numbers of "
            f"steps. Add them, or type --design fixed."
        )
    return SequentialPlan(study=study.name, design=_design_of(study, tasks), cells=sorted(ids))


def _design_of(study: Study, tasks: Sequence[CellTask]) -> SequentialDesign:
    return sequential_design(_runs(tasks), GATE if study.gate else None)


def _runs(tasks: Sequence[CellTask]) -> int:
    return max(task.cell.run for task in tasks) + 1


def _was_run(task: CellTask) -> bool:
    record = task.files.read_record()
    return record is not None and record.status != "skipped"


def _plan_in(results: Path) -> SweepPlan:
    path = results / PLAN
    try:
        return read_plan(path) if path.exists() else SweepPlan()
    except RecordError as error:
        raise UsageError(f"{path} is damaged ({error}). Move it away and type the same command again.") from None


def _refuse_changes(plan: SequentialPlan, study: Study, tasks: Sequence[CellTask], results: Path) -> None:
    """Raise UsageError where the command wants something else than the study was started with."""
    began, has_gate = f"{results}: the study '{plan.study}' was started", plan.design.gate is not None
    fix = ""
    if study.design == FIXED:
        fix = "with --design sequential and stays so. Type --design sequential"
    elif study.gate not in (None, has_gate):
        fix = f"{'with' if has_gate else 'without'} --gate and stays so. {'Add' if has_gate else 'Leave out'} --gate"
    elif _runs(tasks) != plan.design.waves[-1]:
        runs = runs_text(plan.design.waves)
        fix = f"with looks after {runs} runs, and only they decide. Type --runs {plan.design.waves[-1]}"
    elif {task.cell.cell_id for task in tasks} != set(plan.cells):
        fix = (
            f"with {len(plan.cells)} cells that are judged together, and not with these {len(tasks)}. Type its command"
        )
    if fix:
        raise UsageError(f"{began} {fix}, or give another --output-dir.")
