"""Which questions of a study its cells can answer: what is known of the cells, handed to the analysis' own rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.command.prepare import Sweep
from scaling.planning.questions import QUESTIONS, UNIT_SIZE, asked_by
from scaling.planning.study import Study, phases_of
from scaling.records.record import PlannedAnswer
from scaling.records.store import read_records
from scaling.run.record import new_record
from scaling.run.task import CellTask
from scaling.types import Splits

if TYPE_CHECKING:
    from scaling.analysis.assumed import Planned, Rows
    from scaling.analysis.headroom import Headroom
    from scaling.analysis.outlook import Chance

KnownRows = dict[tuple[str, str | None], "Rows"]
# Results that are drawn for the chance that a study decides, and how many cells they may have together.
FEWEST_SAMPLES, MOST_SAMPLES, MOST_DRAWN_CELLS = 10, 100, 6000
NONE_ANSWERABLE = "none of this study's questions can be answered by these cells; the reasons are below"


def planned_answers(study: Study, sweep: Sweep, results: Path) -> tuple[list[PlannedAnswer], frozenset[str]]:
    """Each question of the study: can the cells of the sweep, with those settled in `results`, answer it?

    And the ids of the cells that no hypothesis is about; none where no hypothesis is asked.
    """
    names = _names(study, sweep)
    if not names:
        return [], frozenset()
    from scaling.analysis.outlook import outlook  # pandas and its friends start slowly

    found = outlook(list(_planned(sweep, results)), names)
    return found.answers, found.in_no_hypothesis


def planned_chances(study: Study, sweep: Sweep, results: Path, headrooms: Sequence[Headroom]) -> list[Chance]:
    """The chance that the cells decide each question of the study, given what its pilot of headroom found."""
    import numpy as np

    from scaling.analysis.headroom import truth_of
    from scaling.analysis.outlook import chances

    names = _names(study, sweep)
    rng = np.random.default_rng(study.seed)
    samples = max(FEWEST_SAMPLES, min(MOST_SAMPLES, MOST_DRAWN_CELLS // len(sweep.tasks))) if names else 0
    truths = [truth_of(headrooms, rng) for _ in range(samples)]
    return chances(list(_planned(sweep, results)), names, truths)


def _names(study: Study, sweep: Sweep) -> list[str]:
    """The questions that a study lists, and those that its cells ask."""
    listed = [name for part in phases_of(study) for name in part.questions]
    return [*listed, *asked_by([task.cell for task in sweep.tasks])]


def question_lines(answers: list[PlannedAnswer]) -> list[str]:
    """The lines of the plan about its questions; [] where it asks none."""
    if not answers:
        return []
    head = "questions, with the effects that are shown with 80 % power (at scores near 70 and a run sd of 2 points):"
    return [head, *(f"- {QUESTIONS[answer.question].sentence} {_said(answer)}" for answer in answers)]


def none_answerable(answers: list[PlannedAnswer]) -> bool:
    """Whether a study asks questions and its cells can answer none."""
    return bool(answers) and not any(answer.answerable for answer in answers)


def _said(answer: PlannedAnswer) -> str:
    missing = "; ".join(reason.removeprefix("not run: ") for reason in answer.missing)
    if not answer.answerable:
        return f"It cannot be answered: {missing}."
    where = "" if answer.answerable == answer.contrasts else f" in {answer.answerable} of {answer.contrasts} contrasts"
    effect = "" if answer.smallest_effect is None else f", from {_effect(answer.smallest_effect, answer.unit)} on"
    others = f" The others cannot: {missing}." if missing else ""
    return f"It can be answered{where}{effect}{_of_one_run(answer)}.{others}"


def _of_one_run(answer: PlannedAnswer) -> str:
    return ", for these programs on these rows (one run)" if (answer.level or "").startswith("this program") else ""


def _effect(size: float, unit: str) -> str:
    number = f"{size:.2f}" if size < 1 else f"{size:.1f}"
    return f"{number} {unit}" if UNIT_SIZE[unit] > 1 else f"a {unit} of {number}"


def _planned(sweep: Sweep, results: Path) -> Iterator[Planned]:
    """The cells that have a score or will have one: the sweep's, and others that lie in the results folder."""
    from scaling.analysis.assumed import Planned

    known: KnownRows = {}
    scored = [task for task in sweep.settled if (record := task.files.read_record()) and record.status == "ok"]
    yield from planned_tasks([*scored, *sweep.waiting], known)
    own = {task.cell.cell_id for task in sweep.tasks}
    for _, record in read_records([results]):
        if record.status == "ok" and record.n and record.cell_id not in own:
            same = known.get((record.cell.benchmark, record.data.test_sha256 if record.data else None))
            yield Planned(record, same or _numbered(record.n))


def planned_tasks(tasks: Iterable[CellTask], known: KnownRows) -> Iterator[Planned]:
    """The cells with their rows; cells on the same rows share what is `known` of these."""
    from scaling.analysis.assumed import Planned

    for task in tasks:
        splits = task.splits
        key = task.cell.benchmark, splits.test_sha256 if splits.split == "test" else splits.sha256
        if key not in known:
            known[key] = _rows_of(splits)
        yield Planned(new_record(task, "ok"), known[key])


def _rows_of(splits: Splits) -> Rows:
    import numpy as np

    from scaling.analysis.assumed import Rows

    return Rows(*(np.array([str(row[name]) for row in splits.test]) for name in ("id", "group")))


def _numbered(rows: int) -> Rows:
    """So many rows of which no more is known."""
    import numpy as np

    from scaling.analysis.assumed import Rows

    names = np.arange(rows).astype(str)
    return Rows(names, names)
