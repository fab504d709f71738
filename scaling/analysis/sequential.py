"""Sequential studies in the analysis: verdicts by the recorded looks, what is interim, and what the looks saved.

Only a look decides. What is read between looks, or before the last one, is interim.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scaling.analysis.test_rows import TestRow
from scaling.analysis.text import plural
from scaling.analysis.verdicts import CANNOT_TELL
from scaling.records.looks import read_gate, read_looks
from scaling.records.record import Record, SequentialPlan, SweepPlan
from scaling.records.savings import Saved, saved
from scaling.sequential import DECIDED, FUTILE, INTERIM, QuestionLook, runs_text
from scaling.standing import GATED_STEPS, Standing
from scaling.types import Cell

NOT_NEEDED = "not needed"  # status of a planned cell that no open question needs


@dataclass(frozen=True)
class SequentialStudy:
    """A study that looks between its runs: the ids of all cells that it may run, how far it is, and what it saved.

    gate_z: by model, z of 5 steps minus 1 step, where a gate has decided.
    """

    name: str
    cells: frozenset[str]
    standing: Standing
    gate_z: Mapping[str, float]
    saved: Saved

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to decide."""
        return self.standing.is_ended

    @property
    def where(self) -> str:
        """'look 1 of 2 was made, after 2 runs'."""
        looks, waves = self.standing.looks, self.standing.design.waves
        if not looks:
            return f"none of its {plural(len(waves), 'look')} was made"
        return f"look {looks[-1].number} of {len(waves)} was made, after {looks[-1].runs} runs"

    def found(self, model: str, question: str) -> QuestionLook | None:
        """What the last look found of a question; None before the first look."""
        questions = self.standing.looks[-1].questions if self.standing.looks else ()
        return next((q for q in questions if (q.model, q.question) == (model, question)), None)

    def why_not_run(self, cell: Cell) -> str:
        """Why a cell without a record will never have one; "" for one that may still run."""
        if self.standing.may_run(cell):
            return ""
        if cell.steps == GATED_STEPS and self.standing.opened is not None and cell.model not in self.standing.opened:
            return f"the gate is closed: z of 5 steps minus 1 step is {self.gate_z.get(cell.model, 0.0):.2f}"
        return f"no question that look {self.standing.looks[-1].number} left open needs it"


def sequential_studies(plans: Mapping[Path, SweepPlan], records: Sequence[Record]) -> list[SequentialStudy]:
    """Those of these plans, which are by results folder. Raises UsageError for a decision that cannot be read."""
    return [_study(folder, plan, own, records) for folder, plan in plans.items() for own in plan.sequential]


def _study(folder: Path, plan: SweepPlan, own: SequentialPlan, records: Sequence[Record]) -> SequentialStudy:
    gate = read_gate(folder, own.study)
    looks = tuple(decision.look for decision in read_looks(folder, own.study))
    standing = Standing(own.design, None if gate is None else gate.opened, looks)
    ran = {record.cell_id: record for record in records if record.cell_id in own.cells}
    without = [plan.cells[cell_id].cell for cell_id in own.cells if cell_id not in ran and cell_id in plan.cells]
    spared = [cell for cell in without if not standing.may_run(cell)]
    work = saved(spared, list(ran.values()), plan.cells)
    return SequentialStudy(own.study, frozenset(own.cells), standing, gate.z if gate else {}, work)


def study_of(cells: Collection[str], studies: Iterable[SequentialStudy]) -> SequentialStudy | None:
    """The sequential study that some of these cells belong to; what was started so is judged so for ever."""
    return next((study for study in studies if not study.cells.isdisjoint(cells)), None)


def by_looks(rows: Sequence[TestRow], model: str, study: SequentialStudy) -> list[TestRow]:
    """H1 to H4 of a model as the study's looks decided them; effects and intervals are those of all its runs."""
    return [_by_look(row, study.found(model, row.asks), study) for row in rows]


def _by_look(row: TestRow, found: QuestionLook | None, study: SequentialStudy) -> TestRow:
    row = replace(row, p_holm=None, verdict=CANNOT_TELL)
    if found is not None and found.outcome == DECIDED:
        why = f"decided at look {found.look}, after {study.standing.looks[found.look - 1].runs} runs: {_against(found)}"
        return replace(row, verdict=found.verdict, reason="; ".join(text for text in (found.reason, why) if text),
                       p=found.p, answerable=True)  # fmt: skip
    if not row.answerable:
        return row
    if not study.is_over or found is None:
        return replace(row, reason=f"{INTERIM}: {study.where}")
    why = f"given up at look {found.look}: a verdict had a chance of {100 * (found.chance or 0.0):.0f} %"
    why = why if found.outcome == FUTILE else f"not decided by the last look: {_against(found)}"
    return replace(row, verdict=found.verdict, p=found.p, reason="; ".join(t for t in (found.reason, why) if t))


def _against(found: QuestionLook) -> str:
    """p of the look beside its boundary."""
    excluded = found.exclusion_p <= found.exclusion_boundary and found.p > found.boundary
    p, boundary = (found.exclusion_p, found.exclusion_boundary) if excluded else (found.p, found.boundary)
    of = " of an effect of interest" if excluded else ""
    return f"p{of} is {p:.2g}, and {boundary:.2g} or less decides"


def notes_of_studies(studies: Sequence[SequentialStudy]) -> list[str]:
    """What a reader must know of sequential studies before any number."""
    return [_ended_note(study) if study.is_over else _interim_note(study) for study in studies]


def _interim_note(study: SequentialStudy) -> str:
    return (
        f"{INTERIM.capitalize()}: '{study.name}' is a sequential study, and {study.where}. Only its looks decide, and "
        f"all other numbers may change."
    )


def _ended_note(study: SequentialStudy) -> str:
    runs = runs_text([look.runs for look in study.standing.looks])
    return (
        f"'{study.name}' is a sequential study. It looked after {runs} runs, and only its looks decided. "
        f"{_saved_text(study.saved)} Which runs were made depended on what the looks found, and exploratory tables do "
        f"not allow for that."
    )


def _saved_text(work: Saved) -> str:
    if not work.cells:
        return "It needed every cell of the fixed design."
    usd = "" if work.work.usd is None else f" (${work.work.usd:,.2f})"
    return (
        f"It saved about {work.work.calls:,.0f} calls{usd} in {plural(work.cells, 'cell')}, {100 * work.share:.0f} % "
        f"of the fixed design's. They would pay for {work.more_runs:.1f} more runs of every cell."
    )
