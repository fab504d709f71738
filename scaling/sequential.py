"""A study that looks at its results between waves of runs: the design, what a look finds, and what runs next.

The design is fixed before the first call. A wave gives each cell that is still needed its next runs, and ends with a
look. Only a look decides; what is read between looks is interim. Everything here is plain data, so that the runner
writes it as JSON and the analysis reads it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scaling.types import UsageError

FIXED, SEQUENTIAL = "fixed", "sequential"
DESIGNS = (FIXED, SEQUENTIAL)
FIRST_RUNS = 2  # fewer say nothing about an optimizer
OBRIEN_FLEMING = "obrien-fleming"
DECIDED, FUTILE, OPEN = "decided", "futile", "open"  # outcomes of a question at a look
INTERIM = "interim, decides nothing"


@dataclass(frozen=True)
class SequentialDesign:
    """When a study looks, and by which rule it decides.

    waves: the runs that each needed cell has at each look, rising. alpha: the chance of any false "supported" among
    the questions of a family, two-sided; an effect of interest is excluded at half of it, one-sided. spending: how
    alpha is shared out over the looks. futility: a question whose chance of a verdict falls below it gets no more
    cells. gate: z of q5 - q1 above which the cells of 3 steps are run; None runs them all.
    """

    waves: tuple[int, ...]
    alpha: float = 0.05
    spending: str = OBRIEN_FLEMING
    futility: float = 0.1
    gate: float | None = None

    @property
    def information(self) -> tuple[float, ...]:
        """The share of the planned runs that each look has. It is the least that the share of information can be.

        Runs do not shrink the part of the variance that is between rows, so the true share is larger. Boundaries for
        the smaller one keep alpha, and can be printed before the first call.
        """
        return tuple(runs / self.waves[-1] for runs in self.waves)

    @property
    def spending_times(self) -> tuple[float, ...]:
        """The share of the degrees of freedom between runs that each look has: the clock by which alpha is spent.

        It runs behind `information` at first. The p values of two runs are the least exact where cells differ in their
        run variance, so the first look gets less of alpha.
        """
        return tuple((runs - 1) / (self.waves[-1] - 1) for runs in self.waves)


@dataclass(frozen=True)
class NeededCell:
    """A cell that an open question needs, for all runs of the next wave."""

    model: str
    benchmark: str
    optimizer: str
    steps: int


@dataclass(frozen=True)
class QuestionLook:
    """One question of one model at a look. Effects are fractions; null is unknown.

    look: the look at which it was judged so, from 1; what an earlier look decided stays as it was. p is two-sided for
    no effect, exclusion_p one-sided for an effect of interest or more; each decides at or below its boundary, which
    is a level of p. chance: of a verdict at the last look if the true effect is the one seen (conditional power); null
    at the last look. outcome: what is not decided at the last look is open.
    verdict: as the report says it, "cannot tell" unless decided. reason: why there is no verdict. The rejected ones
    passed their part of alpha on, at this look or before.
    """

    question: str
    model: str
    look: int
    outcome: str
    verdict: str
    information: float
    boundary: float
    exclusion_boundary: float
    p: float = 1.0
    exclusion_p: float = 1.0
    effect: float | None = None
    se: float | None = None
    df: float | None = None
    chance: float | None = None
    reason: str = ""
    no_effect_rejected: bool = False
    effect_rejected: bool = False


@dataclass(frozen=True)
class Look:
    """What one look found: its number from 1, the runs that needed cells have, and the cells that it looked at.

    needed: cells that open questions need; nothing after the last look, and where no question is open. cells: ids of
    the cells whose scores were judged, sorted.
    """

    number: int
    runs: int
    questions: tuple[QuestionLook, ...]
    needed: tuple[NeededCell, ...]
    cells: tuple[str, ...]

    @property
    def ends_study(self) -> bool:
        return not self.needed


def sequential_design(runs: int, gate: float | None = None) -> SequentialDesign:
    """The design of a study of so many runs: a look after two, and one after each further run. Raises UsageError."""
    if runs <= FIRST_RUNS:
        raise UsageError(
            f"--design sequential needs {FIRST_RUNS + 1} runs or more: its first look is after {FIRST_RUNS}. "
            f"Type --runs {FIRST_RUNS + 1}, or --design fixed."
        )
    return SequentialDesign(tuple(range(FIRST_RUNS, runs + 1)), gate=gate)


def runs_text(waves: Sequence[int]) -> str:
    """Numbers of runs in words: '2, 3 and 4'."""
    *first, last = map(str, waves)
    return f"{', '.join(first)} and {last}" if first else last
