"""All pairs of the programs of a comparison: difference, interval, test, Holm's correction, power, rows that differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from scaling.analysis.pairs import difference
from scaling.analysis.stats import Arm, Estimate, RunVariance, holm, run_variances, share_rows
from scaling.analysis.verdicts import detectable, direction
from scaling.compare.matching import Matched, Program

ROUNDING = 1e-9  # between two means over runs


@dataclass(frozen=True)
class Differing:
    """A row that the two programs score differently; scores are means over runs."""

    key: str
    first: float
    second: float


@dataclass(frozen=True)
class Pair:
    """second - first on the rows that both were asked. p_holm is over all pairs of the command.

    detectable: the smallest effect that would have been seen with 80 % power. only_first, only_second: rows that the
    other was not asked.
    """

    matched: Matched
    first: Program
    second: Program
    estimate: Estimate
    differing: tuple[Differing, ...]
    only_first: int
    only_second: int
    p_holm: float = math.nan
    verdict: str = ""
    detectable: float = math.nan

    @property
    def gained(self) -> int:
        """Rows that the second program scores higher."""
        return sum(row.second > row.first for row in self.differing)

    @property
    def lost(self) -> int:
        """Rows that the second program scores lower."""
        return len(self.differing) - self.gained

    @property
    def compared(self) -> bool:
        return not math.isnan(self.estimate.effect)


def judged(comparisons: Sequence[Matched]) -> list[Pair]:
    """All pairs with Holm's correction over those that can be compared."""
    pairs = [pair for matched in comparisons for pair in _pairs(matched)]
    adjusted = iter(holm([pair.estimate.p for pair in pairs if pair.compared]))
    of = sum(pair.compared for pair in pairs)
    return [_decided(pair, next(adjusted) if pair.compared else math.nan, of) for pair in pairs]


def _pairs(matched: Matched) -> list[Pair]:
    pooled = run_variances([program.arm for program in matched.programs])
    return [_pair(matched, first, second, pooled) for first, second in combinations(matched.programs, 2)]


def _pair(matched: Matched, first: Program, second: Program, pooled: Mapping[str, RunVariance]) -> Pair:
    both = first.asked & second.asked
    arms = [_restricted(program.arm, both) for program in (first, second)]
    estimate = difference(arms[0], arms[1], pooled)
    rows = _differing(arms[0], arms[1])
    only = len(first.asked - both), len(second.asked - both)
    return Pair(matched, first, second, estimate, rows, *only)


def _restricted(arm: Arm, asked: frozenset[str]) -> Arm:
    """The arm on the rows that both programs were asked."""
    items = arm.items[[item in asked for item in arm.items.tolist()]] if len(arm.items) else arm.items
    unscored = np.array([item for item in arm.unscored.tolist() if item in asked], dtype=str)
    return replace(arm.at(items), unscored=unscored)


def _differing(first: Arm, second: Arm) -> tuple[Differing, ...]:
    (_, before), (_, after) = share_rows([(-1.0, first), (1.0, second)])[0]
    columns = zip(before.items.tolist(), before.item_means.tolist(), after.item_means.tolist(), strict=True)
    return tuple(Differing(*row) for row in columns if abs(row[1] - row[2]) > ROUNDING)


def _decided(pair: Pair, p_holm: float, of: int) -> Pair:
    smallest = detectable(pair.estimate, of) if pair.compared else math.nan
    return replace(pair, p_holm=p_holm, verdict=direction(pair.estimate, p_holm), detectable=smallest)
