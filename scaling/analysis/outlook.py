"""What a study can answer, before it spends: its questions by the analysis' own rules, on scores that are assumed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np

from scaling.analysis.answers import Answer, answers_of, evidence_of, tests_of
from scaling.analysis.assumed import Planned, assumed_results
from scaling.planning.questions import UNIT_SIZE
from scaling.records.record import PlannedAnswer

SAMPLES = 5  # of assumed scores; the smallest effect is their median
MANY_CELLS = 500  # with more, one sample is as good, and five would take minutes


def outlook(planned: Sequence[Planned], names: Iterable[str]) -> list[PlannedAnswer]:
    """Each of these questions: in how many contrasts the cells can answer it, from which effect on, or why not."""
    samples = []
    for sample in range(0 if not planned else 1 if len(planned) > MANY_CELLS else SAMPLES):
        rows, _ = tests_of(evidence_of(assumed_results(planned, np.random.default_rng(sample))))
        samples.append(answers_of(rows, names))
    if not samples:
        samples = [answers_of([], names)]
    return [_foretold(versions) for versions in zip(*samples, strict=True)]


def _foretold(versions: Sequence[Answer]) -> PlannedAnswer:
    """versions: the answer to one question in each sample. Where rows are few, a sample may lack a contrast."""
    first = max(versions, key=lambda answer: len(answer.rows))
    effects = [row.detectable for answer in versions for row in answer.rows if row.answerable]
    known = [effect for effect in effects if effect is not None and not math.isnan(effect)]
    return PlannedAnswer(
        question=first.question.name,
        answerable=sum(row.answerable for row in first.rows),
        contrasts=len(first.rows),
        smallest_effect=UNIT_SIZE[first.question.unit] * median(known) if known else None,
        unit=first.question.unit,
        level=next((row.level for row in first.rows if row.answerable), None),
        missing=list(dict.fromkeys(reason for answer in versions if answer.rows for reason in answer.missing))
        or first.missing,
    )
