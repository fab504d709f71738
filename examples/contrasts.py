"""What the studies in this folder share: programs with their scores, and planned contrasts with a verdict by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling.analysis.comparisons import Entry
from scaling.analysis.results import Results
from scaling.analysis.stats import Arm, Estimate, Weighted, contrast, holm, run_variances, score_interval

LEVEL = 0.05  # of the corrected tests of a family together
USE = ("calls", "tokens", "latency_seconds")


@dataclass(frozen=True)
class Way:
    """One way to spend calls: its score with a 95 % interval as fractions, and the mean use of an answer."""

    name: str
    score: float
    low: float
    high: float
    calls: float
    tokens: float
    seconds: float


@dataclass(frozen=True)
class Contrast:
    """A planned difference of scores, its 95 % interval, its corrected p, and what the rule says.

    won, lost: answers, over rows and runs, that only the second program has right, and that only the first has right;
    None where more than two programs are compared.
    """

    name: str
    estimate: Estimate
    p_holm: float
    won: int | None = None
    lost: int | None = None

    @property
    def p_text(self) -> str:
        return f"{self.p_holm:.3f}" if self.p_holm >= 0.001 else "below 0.001"

    @property
    def verdict(self) -> str:
        if not self.p_holm < LEVEL:
            return "cannot tell"
        return "higher" if self.estimate.effect > 0 else "lower"


def minus(second: Arm, first: Arm) -> Weighted:
    """The difference of two arms, for `contrasts`."""
    return [(-1.0, first), (1.0, second)]


def contrasts(planned: Mapping[str, Weighted], arms: Sequence[Arm]) -> list[Contrast]:
    """Weighted sums of arms by name; the names are one Holm family. arms: all of the study, for the run variances."""
    pooled = run_variances(list(arms))
    estimates = [contrast(weighted, pooled) for weighted in planned.values()]
    corrected = holm([estimate.p for estimate in estimates])
    return [
        Contrast(name, estimate, p, *(_won_and_lost(*(arm for _, arm in weighted)) if len(weighted) == 2 else ()))
        for (name, weighted), estimate, p in zip(planned.items(), estimates, corrected, strict=True)
    ]


def way(name: str, entry: Entry, results: Results, program: str = "final") -> Way:
    """Score and use of one program of an entry; tokens and seconds are means over its answers."""
    arm: Arm = entry.final if program == "final" else entry.base
    low, high = score_interval(arm, run_variances([arm])) or (math.nan, math.nan)
    lines = [line for key in entry.keys for line in results.lines(key) if line.program == program]
    mean = {field: sum(getattr(line, field) or 0 for line in lines) / len(lines) for field in USE}
    return Way(name, float(arm.scores.mean()), low, high, mean["calls"], mean["tokens"], mean["latency_seconds"])


def _won_and_lost(first: Arm, second: Arm) -> tuple[int, int]:
    """Answers that only the second has right, and that only the first has right; both have the same items and runs."""
    return int((second.scores > first.scores).sum()), int((second.scores < first.scores).sum())
