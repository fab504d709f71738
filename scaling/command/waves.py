"""The waves of a sequential study: which cells run next, and what the look after them decides.

The rule is in plan.json before the first call. What a look decided is in a file of its own (scaling/records/looks.py),
so that a command that goes on after a kill decides nothing twice. A study of the fixed design is one wave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scaling.records.looks import (
    GateDecision,
    LookDecision,
    look_path,
    read_gate,
    read_looks,
    scores_digest,
    write_once,
)
from scaling.records.record import SequentialPlan
from scaling.run.task import CellTask
from scaling.standing import Standing, opened_by


@dataclass(frozen=True)
class Decided:
    """A sequential study with what it has decided: its plan, the gate's decision, and those of its looks in order."""

    plan: SequentialPlan
    gate: GateDecision | None
    looks: list[LookDecision]

    @property
    def standing(self) -> Standing:
        opened = None if self.gate is None else self.gate.opened
        return Standing(self.plan.design, opened, tuple(decision.look for decision in self.looks))

    @property
    def scores(self) -> dict[str, str]:
        """By cell_id, digests of the scores that were judged last."""
        judged = [self.gate.scores] if self.gate else []
        judged += [decision.scores for decision in self.looks]
        return {cell_id: score for scores in judged for cell_id, score in scores.items()}


def decided_so_far(plan: SequentialPlan, results: Path) -> Decided:
    """The decisions that are kept in the results folder."""
    return Decided(plan, read_gate(results, plan.study), read_looks(results, plan.study))


def waves(
    decided: Decided | None,
    tasks: Sequence[CellTask],
    waiting: Sequence[CellTask],
    results: Path,
    tell: Callable[[Decided], None],
) -> Iterator[list[CellTask]]:
    """The waiting cells, wave by wave. After each one, when they have run, the next look decides and `tell` is told.

    tasks: all cells of the study. waiting: those that are to run, in order. It ends with the study, or where a cell
    that the next look needs has no score.
    """
    if decided is None:
        yield list(waiting)
        return
    started: set[str] = set()
    while not decided.standing.is_ended:
        wave = [t for t in waiting if decided.standing.needs_now(t.cell) and t.cell.cell_id not in started]
        started |= {task.cell.cell_id for task in wave}
        if wave:
            yield wave
        if without_score(decided, tasks):
            return
        decided = decide(decided, tasks, results)
        tell(decided)


def without_score(decided: Decided, tasks: Sequence[CellTask]) -> list[CellTask]:
    """The cells that the next decision waits for."""
    return [task for task in tasks if decided.standing.needs_now(task.cell) and _status(task) != "ok"]


def decide(decided: Decided, tasks: Sequence[CellTask], results: Path) -> Decided:
    """Decide the gate or the next look on the scores that there are, and keep that. What was decided before stands."""
    from scaling.analysis.loading import load  # pandas and its friends start slowly
    from scaling.analysis.looks import gate_z, judge_look

    plan, standing = decided.plan, decided.standing
    judged = [task for task in tasks if task.cell.run < standing.runs and _status(task) == "ok"]
    scores = {task.cell.cell_id: scores_digest(task.files) for task in judged}
    found = load([task.files.folder for task in judged])
    if standing.gate_is_next:
        z = gate_z(found)
        opened = opened_by(z, plan.design)
        gate = GateDecision(study=plan.study, design=plan.design, z=z, opened=opened, scores=scores)
        write_once(look_path(results, plan.study, "gate"), gate)
    else:
        look = judge_look(found, plan.design, standing.looks)
        decision = LookDecision(study=plan.study, design=plan.design, look=look, scores=scores, gate=decided.gate)
        write_once(look_path(results, plan.study, look.number), decision)
    return decided_so_far(plan, results)


def changed_since(decided: Decided, tasks: Sequence[CellTask]) -> list[CellTask]:
    """The cells whose scores are no longer those that were judged. What was decided stands all the same."""
    judged = {task.cell.cell_id: task for task in tasks if task.cell.cell_id in decided.scores}
    return [task for cell_id, task in judged.items() if scores_digest(task.files) != decided.scores[cell_id]]


def _status(task: CellTask) -> str | None:
    record = task.files.read_record()
    return None if record is None else record.status
