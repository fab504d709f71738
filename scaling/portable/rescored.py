"""Scoring an exported program on the rows of its cell: its calls go through the gateway, everything else is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import ContextWindowExceededError

from scaling.concurrency import most_at_a_time
from scaling.intervals import Interval, mean_interval, paired_interval
from scaling.llm.gateway import CellGateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.portable.made import Source, response_form
from scaling.portable.outside import Messages, NoAnswer, Program, Step, run
from scaling.records.draws import rows_of
from scaling.records.record import PredictionLine
from scaling.run.runner import MAX_THREADS_A_CELL
from scaling.run.scoring import score_programs
from scaling.run.steps import no_answer
from scaling.types import Row


@dataclass(frozen=True)
class Comparison:
    """The scores of a program and of its exported form on the same rows, 0 to 1, with 95 % intervals.

    changed: rows with another score. lost: rows without a score in one of them, which are left out.
    """

    rows: int
    changed: int
    lost: int
    before: float
    before_ci95: Interval | None
    after: float
    after_ci95: Interval | None
    difference_ci95: Interval | None


class _Outside:
    """A portable program as `score_programs` calls programs. forms: role -> what its answers are held to."""

    def __init__(self, program: Program, outputs: list[str], forms: dict[str, Any]):
        self._program, self._outputs, self._forms = program, outputs, forms

    def __call__(self, **inputs: Any) -> dspy.Prediction:
        try:
            answer = run(self._program, {name: str(value) for name, value in inputs.items()}, self._ask)
        except NoAnswer:
            return no_answer(self._outputs, "parse", {})
        return dspy.Prediction(**answer, failure=None)

    def _ask(self, step: Step, messages: Messages, draw: int) -> str:
        form = self._forms[step.role]
        settings = {} if form is None else {"response_format": form}
        lm = dspy.settings.lm.copy(role=step.role, draw=draw)
        try:
            (output,) = lm(messages=messages, **settings)
        except ContextWindowExceededError as error:
            raise NoAnswer("the prompt is too long") from error
        return str(output.get("text") if isinstance(output, dict) else output)


def rescore(
    program: Program, source: Source, rows: list[Row], gateway: CellGateway, meter: Meter
) -> list[PredictionLine]:
    """Prediction lines of the exported program, as many for each row as the cell has draws. Raises CellStopped."""
    cell, model, bench = source.cell, source.model, source.bench
    forms = {name: response_form(part.signature, model) for name, part in source.core.named_predictors()}
    outside = _Outside(program, bench.outputs, forms)
    lm = make_lm(model, gateway, meter, cell.run, cell.temperature, phase="evaluate")
    threads = min(MAX_THREADS_A_CELL, most_at_a_time(model, gateway.max_concurrency))
    with dspy.context(lm=lm):
        return score_programs({"exported": outside}, rows, bench, threads, {"exported": cell.draws})["exported"]


def compared(before: Sequence[PredictionLine], after: Sequence[PredictionLine]) -> Comparison:
    """Both programs on the rows that each has a score for, draws averaged. Raises ValueError where there is none."""
    after_of = {line.id: line for line in rows_of(after)}
    pairs = [(line, after_of[line.id]) for line in rows_of(before) if line.id in after_of]
    scored = [(a, b) for a, b in pairs if a.score is not None and b.score is not None]
    if not scored:
        raise ValueError("no row has a score in both programs")
    first, second = ([float(line.score or 0.0) for line in lines] for lines in zip(*scored, strict=True))
    groups = [str(a.id if a.group is None else a.group) for a, _ in scored]
    return Comparison(
        rows=len(scored),
        changed=sum(a != b for a, b in zip(first, second, strict=True)),
        lost=len(pairs) - len(scored),
        before=sum(first) / len(first),
        before_ci95=mean_interval(first, groups),
        after=sum(second) / len(second),
        after_ci95=mean_interval(second, groups),
        difference_ci95=paired_interval(first, second, groups),
    )
