"""What a simulation observed and what is accepted.

Accepted is the 99.9 % band of the binomial around the target for as many repeats, so that a right procedure fails
one time in a thousand; error rates have an upper limit only, and intervals that may be too wide a lower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from simulations.study_rows import StudyRow


@dataclass(frozen=True)
class Outcome:
    """What a simulation observed, in per cent (or points), and the range that is accepted. studies: what it is made
    of, where that is kept, too."""

    what: str
    observed: float
    low: float
    high: float
    studies: tuple[StudyRow, ...] = ()

    @property
    def passed(self) -> bool:
        return self.low <= self.observed <= self.high


Procedure = Callable[[np.random.Generator, int], Iterator[Outcome]]


def band(target: float, repeats: int, upper_only: bool = False) -> tuple[float, float]:
    """99.9 % band in per cent of a share `target` seen in `repeats`."""
    low, high = np.asarray(distributions.binom.ppf((0.0005, 0.9995), repeats, target)) * 100 / repeats
    return (0.0, float(high)) if upper_only else (float(low), float(high))


def share(hits: Sequence[bool]) -> float:
    """In per cent."""
    return 100 * float(np.mean(hits))


def covered(what: str, hits: Sequence[bool], target: float = 0.95) -> Outcome:
    return Outcome(what, share(hits), *band(target, len(hits)))


def at_least(what: str, hits: Sequence[bool], target: float = 0.95) -> Outcome:
    """Coverage that may be too high: the larger of two variances was taken."""
    return Outcome(what, share(hits), band(target, len(hits))[0], 100.0)


def at_most(what: str, hits: Sequence[bool], target: float) -> Outcome:
    return Outcome(what, share(hits), *band(target, len(hits), upper_only=True))


def never(what: str, hits: Sequence[bool]) -> Outcome:
    return Outcome(what, share(hits), 0.0, 0.0)
