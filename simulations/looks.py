"""Sequential designs on simulated studies: what they call supported, and what they cost beside the fixed design.

The rule is that of scaling/analysis/looks.py. Only H1's "mixed" and H4's other scales are left out, which take verdicts
away and give none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scaling.analysis.hypotheses import SMALLEST
from scaling.analysis.sequential_holm import FamilyLook, Flags, chance_of_rise, family_at_look
from scaling.analysis.stats import SIGNIFICANCE
from scaling.sequential import SequentialDesign
from simulations.studies import CELLS, NAMES, STEPS, Array, Benchmarks, Contrast, contrast, scores, sums_of, weights_of

AT_A_TIME = 100  # studies, which bounds the memory
BUDGET, CHECK_ROWS = (
    1000,
    50,
)  # of the default study: rollouts of a cell, and rows that both programs answer on the side
H2, H3 = NAMES.index("H2"), NAMES.index("H3")
Pattern = tuple[int, int]  # runs of the cells of 1 and 5 steps, and of those of 3 steps


class Tests(NamedTuple):
    """The tests of many studies: p as in QuestionLook and effects, (studies, hypotheses) each; of H2's rise and of the
    gate (studies,) each."""

    p: Array
    exclusion_p: Array
    effect: Array
    rise: Array
    rise_p: Array
    gate_z: Array


@dataclass(frozen=True)
class Ended:
    """What many studies ended as: verdicts, (studies, hypotheses), and the runs that they made, (studies,)."""

    supported: Flags
    contradicted: Flags
    runs: npt.NDArray[np.int64]
    runs_of_three: npt.NDArray[np.int64]

    def calls(self, benchmarks: Benchmarks, trimmed: bool = True) -> float:
        """Mean calls of a study. trimmed: without what no hypothesis uses."""
        each = {k: self.runs_of_three if k == 3 else self.runs for k in STEPS}
        total = sum(runs * calls_of_steps(benchmarks, k, trimmed) for k, runs in each.items())
        two = 0 if trimmed else self.runs * calls_of_cell(benchmarks, "banking77", 2, True)
        return float(np.mean(total + two))


def calls_of_steps(benchmarks: Benchmarks, steps: int, trimmed: bool) -> int:
    """Calls of one run of all cells of so many steps."""
    early = steps == 5 if trimmed else steps > 1
    return sum(calls_of_cell(benchmarks, name, steps, early) for name in benchmarks)


def calls_of_cell(benchmarks: Benchmarks, name: str, steps: int, early: bool) -> int:
    """Calls of both optimizers' cells: the budget, check rows and test rows of both programs, and the early program's.

    As the runner makes them where each optimizer finds something.
    """
    rows = benchmarks[name]
    answered = (1 + rows.draws) * rows.rows + (rows.rows if early else 0)
    return 2 * steps * (BUDGET + 2 * CHECK_ROWS + answered)


def tests_of(
    rng: np.random.Generator,
    means: Mapping[str, Array],
    run_sd: Mapping[str, Array],
    benchmarks: Benchmarks,
    studies: int,
    waves: tuple[int, ...],
) -> dict[Pattern, Tests]:
    """The tests of so many studies at each look, also where the cells of 3 steps stopped before the others."""
    patterns = [(runs, three) for runs in waves for three in waves if three <= runs]
    by_cell = [[three if steps == 3 else runs for _, steps in CELLS] for runs, three in patterns]
    parts: dict[Pattern, list[Tests]] = {pattern: [] for pattern in patterns}
    weights = weights_of(benchmarks)
    for start in range(0, studies, AT_A_TIME):
        count = min(AT_A_TIME, studies - start)
        sums = {
            name: sums_of(scores(rng, means[name], run_sd[name], rows, count, waves[-1]), by_cell)
            for name, rows in benchmarks.items()
        }
        for place, pattern in enumerate(patterns):
            here = {name: sums[name][place] for name in benchmarks}
            parts[pattern].append(_tests({name: contrast(here, w) for name, w in weights.items()}))
    return {pattern: Tests(*map(np.concatenate, zip(*some, strict=True))) for pattern, some in parts.items()}


def _tests(contrasts: Mapping[str, Contrast]) -> Tests:
    rise, first = contrasts["rise"], contrasts["H1"]
    rise_p = rise.p_two_sided()
    p = np.stack([contrasts[name].p_two_sided() for name in NAMES], axis=1)
    p[:, H2] = np.maximum(p[:, H2], rise_p)
    exclusion_p = np.stack([contrasts[name].p_at_least(SMALLEST[name]) for name in NAMES], axis=1)
    exclusion_p[:, H3] = np.maximum(exclusion_p[:, H3], contrasts["H3"].p_at_most(-SMALLEST["H3"]))
    effect = np.stack([contrasts[name].effect for name in NAMES], axis=1)
    return Tests(p, exclusion_p, effect, rise.effect, rise_p, first.effect / first.se)


def run_design(tests: Mapping[Pattern, Tests], design: SequentialDesign) -> Ended:
    """Many studies by one design, look by look. A design of one wave is a fixed one."""
    first = design.waves[0]
    whole = tests[first, first]
    studies = len(whole.p)
    runs = np.full(studies, first)
    has_three = np.ones(studies, bool) if design.gate is None else whole.gate_z > design.gate
    three = np.where(has_three, first, 0)
    goes_on, none = np.ones(studies, bool), np.zeros((studies, len(NAMES)), bool)
    supported, contradicted, shown, excluded = none, none, none, none
    for number, now in enumerate(design.waves, 1):
        at = _at(tests, now, three)
        no_effect = family_at_look(at.p / 2, shown, design, number)
        effect = family_at_look(at.exclusion_p, excluded, design, number)
        new = goes_on[:, None] & ~(supported | contradicted)
        up, down = _verdicts(at, no_effect.crossed, effect.crossed)
        supported, contradicted = supported | (new & up), contradicted | (new & down)
        shown, excluded = shown | no_effect.rejected, excluded | effect.rejected
        if now < design.waves[-1]:
            chance = _chance(at, no_effect, effect)
            is_open = ~(supported | contradicted) & (chance >= design.futility)
            is_open[:, H2] &= has_three
            goes_on = goes_on & is_open.any(axis=1)
            runs = np.where(goes_on, design.waves[number], runs)
            three = np.where(goes_on & is_open[:, H2] & (three == now), design.waves[number], three)
    return Ended(supported, contradicted, runs, three)


def _at(tests: Mapping[Pattern, Tests], runs: int, three: npt.NDArray[np.int64]) -> Tests:
    """Each study's tests at these runs; H2 has none where its cells have not run."""
    found = Tests(*(column.copy() for column in tests[runs, runs]))
    for count in set(three[three > 0].tolist()) - {runs}:
        here = three == count
        for column, other in zip(found, tests[runs, count], strict=True):
            column[here] = other[here]
    found.p[three == 0, H2] = found.exclusion_p[three == 0, H2] = 1.0
    return found


def _verdicts(at: Tests, is_shown: Flags, is_excluded: Flags) -> tuple[Flags, Flags]:
    """(supported, contradicted), as `hypotheses.said`."""
    is_rise = (at.rise_p < SIGNIFICANCE) & (at.rise > 0)
    may = np.ones(at.p.shape, bool)
    may[:, H2] = is_rise
    right_way = at.effect > 0
    right_way[:, H3] = True
    supported = may & is_shown & right_way
    return supported, may & ~supported & (is_excluded | is_shown)


def _chance(at: Tests, no_effect: FamilyLook, effect: FamilyLook) -> Array:
    """Conditional power of a verdict, as `looks`."""
    excluding = effect.chance
    excluding[:, H2] = np.minimum(excluding[:, H2], chance_of_rise(at.rise, at.rise_p, effect.information))
    return np.maximum(no_effect.chance, excluding)
