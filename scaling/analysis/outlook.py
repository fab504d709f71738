"""What a study can answer, before it spends: its questions by the analysis' own rules, on scores that are assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from scaling.analysis.answers import Answer, Evidence, answers_of, evidence_of, tests_of
from scaling.analysis.assumed import Planned, Truth, assumed_results
from scaling.analysis.comparisons import grid_of
from scaling.analysis.hypotheses import SMALLEST, hypotheses_of
from scaling.analysis.sentences import UNDECIDED
from scaling.intervals import Interval, mean_interval
from scaling.planning.questions import UNIT_SIZE, Question
from scaling.records.record import PlannedAnswer

SAMPLES = 5  # of assumed scores; the smallest effect is their median
MANY_CELLS = 500  # with more, one sample is as good, and five would take minutes


@dataclass(frozen=True)
class Outlook:
    """What the cells of a study can answer. in_no_hypothesis: ids of the cells that no hypothesis is made of."""

    answers: list[PlannedAnswer]
    in_no_hypothesis: frozenset[str]


def outlook(planned: Sequence[Planned], names: Sequence[str]) -> Outlook:
    """Each of these questions: in how many contrasts the cells can answer it, from which effect on, or why not."""
    samples = []
    unused: frozenset[str] = frozenset()
    for sample in range(0 if not planned else 1 if len(planned) > MANY_CELLS else SAMPLES):
        evidence = evidence_of(assumed_results(planned, np.random.default_rng(sample)))
        unused = _in_no_hypothesis(evidence) if not set(names).isdisjoint(SMALLEST) else unused
        samples.append(answers_of(tests_of(evidence)[0], names))
    if not samples:
        samples = [answers_of([], names)]
    return Outlook([_foretold(versions) for versions in zip(*samples, strict=True)], unused)


@dataclass(frozen=True)
class Chance:
    """How often a question is decided by results that are drawn: a share, with its 95 % interval over the samples."""

    question: Question
    share: float
    samples: int
    interval: Interval | None

    @property
    def text(self) -> str:
        """'62 % [52, 71]'."""
        ends = f" [{100 * self.interval[0]:.0f}, {100 * self.interval[1]:.0f}]" if self.interval else ""
        return f"{100 * self.share:.0f} %{ends}"


def chances(planned: Sequence[Planned], names: Sequence[str], truths: Sequence[Truth]) -> list[Chance]:
    """The chance that the cells decide each of these questions, over the expected scores that may hold.

    Of a question with several contrasts it is the mean share of them that is decided. One sample of scores a truth.
    """
    decided: dict[Question, list[float]] = {}
    for sample, truth in enumerate(truths):
        evidence = evidence_of(assumed_results(planned, np.random.default_rng(sample), truth))
        for answer in answers_of(tests_of(evidence)[0], names):
            words = [row.verdict not in UNDECIDED for row in answer.rows]
            decided.setdefault(answer.question, []).append(float(np.mean(words)) if words else 0.0)
    return [
        Chance(question, float(np.mean(shares)), len(shares), mean_interval(shares))
        for question, shares in decided.items()
    ]


def _in_no_hypothesis(evidence: Evidence) -> frozenset[str]:
    """Ids of the cells that are in none of H1 to H4 as they can be formed; none where none can be."""
    used: set[str] = set()
    for model in {entry.series.model for entry in evidence.entries if entry.series.pipeline == "chain"}:
        own = [entry for entry in evidence.entries if entry.series.model == model]
        grid, _ = grid_of(evidence.results, own)
        for key in {key for hypothesis in hypotheses_of(grid).values() for key in hypothesis.needs}:
            read = (grid.arms.get(key), grid.vote.get(key))  # H1 also says whether as many votes do as well
            used |= {name for entry in own if any(entry.final is arm for arm in read) for name in entry.keys}
    cells = evidence.results.cells
    return frozenset(cells.loc[~cells.index.isin(used), "cell_id"]) if used else frozenset()


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
