"""The hypotheses of plan.txt as contrasts over the records: H1 to H4, each with one of its verdicts.

A hypothesis whose contrast cannot be formed (missing cells, one run, unequal terms) says why and stays
"cannot tell". Effects are fractions; smallest effects of interest are the plan's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scaling.analysis.stats import (
    FEWEST_RUN_DF,
    SIGNIFICANCE,
    Arm,
    Estimate,
    RunVariance,
    contrast,
    holm,
    run_variances,
    share_rows,
)
from scaling.analysis.test_rows import TestRow, left_out_note
from scaling.analysis.verdicts import (
    BETTER,
    CANNOT_TELL,
    MIXED,
    SUPPORTED,
    WORSE,
    detectable,
    direction,
    settling_size,
    verdict,
)
from scaling.planning.questions import QUESTIONS

HYPOTHESES = "H1-H4"  # how the family's name begins; with several models each has a family of its own
SMALLEST = {"H1": 0.02, "H2": 0.01, "H3": 0.03, "H4": 0.03}  # effects of interest
REASONING, CLASSIFICATION = "reasoning", "classification"
Key = tuple[str, str, int]  # benchmark, optimizer, steps
Weights = list[tuple[float, Key]]


@dataclass(frozen=True)
class Grid:
    """Cells that share all terms, by (benchmark, optimizer, steps).

    arms: the chain; vote: the same calls without the chain; early: the incumbent at budget / steps; exact: the
    same answers under exact match where a benchmark scores F1. flagged: keys whose rollouts were off budget.
    model: named in the family where there are several.
    """

    arms: dict[Key, Arm]
    task_class: dict[str, str]
    vote: dict[Key, Arm] = field(default_factory=dict)
    early: dict[Key, Arm] = field(default_factory=dict)
    exact: dict[Key, Arm] = field(default_factory=dict)
    flagged: frozenset[Key] = frozenset()
    model: str = ""

    @property
    def family(self) -> str:
        return f"{HYPOTHESES} ({self.model})" if self.model else HYPOTHESES

    @property
    def pooled(self) -> dict[str, RunVariance]:
        return run_variances(list(self.arms.values()))

    @property
    def benchmarks(self) -> list[str]:
        return sorted({b for b, _, _ in self.arms})

    @property
    def optimizers(self) -> list[str]:
        """The optimizers that q_k averages over: GEPA and MIPROv2 where they were run, else all there are."""
        names = sorted({o for _, o, _ in self.arms if o != "none"})
        return [o for o in names if o in ("gepa", "mipro")] or names

    def has(self, benchmark: str, optimizers: list[str], steps: tuple[int, ...]) -> bool:
        return all((benchmark, o, k) in self.arms for o in optimizers for k in steps)

    def complete(self, steps: tuple[int, ...]) -> list[str]:
        """Benchmarks with every cell at these steps; those with one run drop out where two or more have several."""
        having = [b for b in self.benchmarks if self.optimizers and self.has(b, self.optimizers, steps)]
        several = [b for b in having if all(self.arms[b, o, k].runs >= 2 for o in self.optimizers for k in steps)]
        return several if len(several) >= 2 else having

    def score(self, steps: int, weight: float, benchmarks: list[str]) -> Weights:
        """weight x q_steps: the mean over these benchmarks and the optimizers."""
        share = weight / (len(benchmarks) * len(self.optimizers))
        return [(share, (b, o, steps)) for b in benchmarks for o in self.optimizers]

    def five_minus_one(self, benchmarks: list[str]) -> Weights:
        return self.score(5, 1.0, benchmarks) + self.score(1, -1.0, benchmarks)

    def estimate(self, weights: Weights) -> Estimate:
        """The contrast of chain cells, each with its own variance between runs."""
        return contrast([(w, self.arms[key]) for w, key in weights])

    def why_not(self, needed: str) -> str:
        """Why a contrast that needs `needed` cannot be formed."""
        if not self.arms:
            return "not run: no cell of the pipeline chain has a score"
        if not self.optimizers:
            return "not run: all cells are without an optimizer, and H1 to H4 are about optimized programs"
        return f"not run: {needed}"


@dataclass(frozen=True)
class Hypothesis:
    """A hypothesis' contrast, or why there is none.

    needs: its cells; rise: the first rise that H2 needs; note: what the sentence always adds; veto: why there is no
    verdict although there is a contrast.
    """

    comparison: str
    estimate: Estimate | None = None
    needs: frozenset[Key] = frozenset()
    reason: str = ""
    rise: Estimate | None = None
    note: str = ""
    veto: str = ""

    @property
    def p_sup(self) -> float:
        """p of 'no effect': the larger one where a rise must be shown, too; 1 where there is no contrast."""
        if self.estimate is None:
            return 1.0
        return max(self.estimate.p, self.rise.p) if self.rise else self.estimate.p

    def p_con(self, name: str) -> float:
        """p of 'an effect of interest is there'; for H3 in either direction."""
        if self.estimate is None:
            return 1.0
        smallest = SMALLEST[name]
        above = self.estimate.p_at_least(smallest)
        return max(above, self.estimate.p_at_most(-smallest)) if name == "H3" else above


def hypotheses_of(grid: Grid) -> dict[str, Hypothesis]:
    """H1 to H4 by name, as the cells that there are let them be formed."""
    builders: dict[str, Callable[[Grid], Hypothesis]] = {"H1": _h1, "H2": _h2, "H3": _h3, "H4": _h4}
    return {name: build(grid) for name, build in builders.items()}


def judge(grid: Grid) -> list[TestRow]:
    """Rows of summary_tests.csv for H1 to H4, one Holm family of four also when one is not run."""
    hypotheses = hypotheses_of(grid)
    sup = holm([h.p_sup for h in hypotheses.values()])
    con = holm([h.p_con(name) for name, h in hypotheses.items()])
    return [
        _row(name, h, p_sup, p_con, grid) for (name, h), p_sup, p_con in zip(hypotheses.items(), sup, con, strict=True)
    ]


def _h1(grid: Grid) -> Hypothesis:
    benchmarks = grid.complete(QUESTIONS["H1"].steps)
    if len(benchmarks) < 2:
        return Hypothesis("q5 - q1", reason=grid.why_not("fewer than two benchmarks have all cells at 1 and 5 steps"))
    pooled = grid.pooled
    each = [contrast([(w, grid.arms[key]) for w, key in grid.five_minus_one([b])], pooled) for b in benchmarks]
    words = [direction(e, p) for e, p in zip(each, holm([e.p for e in each]), strict=True)]
    mixed = {BETTER, WORSE} <= set(words)
    veto = f"{MIXED}: " + ", ".join(f"{w} on {b}" for b, w in zip(benchmarks, words, strict=True)) if mixed else ""
    note = " ".join(part for part in (_by_steps(grid, benchmarks), _at_equal_optimization(grid, benchmarks)) if part)
    weights = grid.five_minus_one(benchmarks)
    name = f"q5 - q1 {_where(grid, benchmarks)}"
    return Hypothesis(name, grid.estimate(weights), _keys(weights), note=note, veto=veto)


def _by_steps(grid: Grid, benchmarks: list[str]) -> str:
    """Chain 5 against 5 votes: does the chain pay, or do the calls?"""
    weights = grid.score(5, 1.0, benchmarks)
    if not all(key in grid.vote for _, key in weights):
        return "vote 5 was not run: whether steps pay or calls do is open."
    chain, votes = ([(sign * w, arms[key]) for w, key in weights] for sign, arms in ((1, grid.arms), (-1, grid.vote)))
    difference = contrast(chain + votes)
    pays = "pays by steps" if difference.effect > 0 and difference.p < SIGNIFICANCE else "pays by calls, or not shown"
    return f"chain 5 - vote 5: {_points(difference)}: {pays}."


def _at_equal_optimization(grid: Grid, benchmarks: list[str]) -> str:
    weights = grid.score(5, 1.0, benchmarks)
    if not all(key in grid.early for _, key in weights):
        return ""
    early = [(w, grid.early[key]) for w, key in weights]
    one_step = [(w, grid.arms[key]) for w, key in grid.score(1, -1.0, benchmarks)]
    return f"q5 at a fifth of the budget - q1: {_points(contrast(early + one_step))}."


def _h2(grid: Grid) -> Hypothesis:
    name = "(q3 - q1)/2 - (q5 - q3)/2"
    benchmarks = grid.complete(QUESTIONS["H2"].steps)
    if len(benchmarks) < 2:
        return Hypothesis(name, reason=grid.why_not("fewer than two benchmarks have all cells at 1, 3 and 5 steps"))

    def estimate(*parts: tuple[int, float]) -> Estimate:
        return grid.estimate([pair for steps, weight in parts for pair in grid.score(steps, weight, benchmarks)])

    bend, rise = estimate((3, 1.0), (1, -0.5), (5, -0.5)), estimate((3, 1.0), (1, -1.0))
    veto = "" if rise.p < SIGNIFICANCE and rise.effect > 0 else "no rise from 1 to 3 steps is shown that could diminish"
    note = "A curve that flattens, not a corner at 3: a logarithm bends too."
    needs = _keys(grid.five_minus_one(benchmarks) + grid.score(3, 1.0, benchmarks))
    return Hypothesis(f"{name} {_where(grid, benchmarks)}", bend, needs, rise=rise, note=note, veto=veto)


def _h3(grid: Grid) -> Hypothesis:
    name = "(GEPA - MIPROv2 at 5) - (GEPA - MIPROv2 at 1)"
    benchmarks = [b for b in grid.benchmarks if grid.has(b, ["gepa", "mipro"], QUESTIONS["H3"].steps)]
    if len(benchmarks) < 2:
        needed = "fewer than two benchmarks have all cells at 1 and 5 steps with both optimizers"
        return Hypothesis(name, reason=grid.why_not(needed))
    signs = ((5, "gepa", 1.0), (5, "mipro", -1.0), (1, "gepa", -1.0), (1, "mipro", 1.0))
    weights = [(w / len(benchmarks), (b, o, k)) for b in benchmarks for k, o, w in signs]
    if {key for _, key in weights} & grid.flagged:
        return Hypothesis(name, reason="not compared: a cell's rollouts are outside 80 to 100 % of its budget")
    note = _main_effect(grid, benchmarks, "mipro", "MIPROv2")
    if all(grid.has(b, ["mipro_instruct"], QUESTIONS["H3"].steps) for b in benchmarks):
        note += " " + _main_effect(grid, benchmarks, "mipro_instruct", "MIPROv2 without demos")
    return Hypothesis(f"{name} on {', '.join(benchmarks)}", grid.estimate(weights), _keys(weights), note=note)


def _main_effect(grid: Grid, benchmarks: list[str], other: str, its_name: str) -> str:
    share = 1 / (2 * len(benchmarks))
    signs = (("gepa", share), (other, -share))
    weights = [(w, (b, o, k)) for b in benchmarks for k in QUESTIONS["H3"].steps for o, w in signs]
    return f"GEPA - {its_name} over both: {_points(grid.estimate(weights))}."


def _h4(grid: Grid) -> Hypothesis:
    name = "(q5 - q1 on reasoning) - (q5 - q1 on classification)"
    complete = grid.complete(QUESTIONS["H4"].steps)
    by_class = {c: [b for b in complete if grid.task_class.get(b) == c] for c in (REASONING, CLASSIFICATION)}
    if not all(by_class.values()):
        needed = "a reasoning and a classification benchmark at 1 and 5 steps are needed"
        return Hypothesis(name, reason=grid.why_not(needed))
    weights = grid.five_minus_one(by_class[REASONING])
    weights += [(-w, key) for w, key in grid.five_minus_one(by_class[CLASSIFICATION])]
    estimate = grid.estimate(weights)
    where = "; ".join(f"{c}: {', '.join(names)}" for c, names in by_class.items())
    veto = _other_scales(grid, weights, estimate.effect)
    return Hypothesis(f"{name}: {where}", estimate, _keys(weights), veto=veto)


def _other_scales(grid: Grid, weights: Weights, effect: float) -> str:
    """Why the sign may be the scale's doing: it must hold with exact match and on the logit scale."""
    exact = contrast([(w, grid.exact.get(key, grid.arms[key])) for w, key in weights]).effect
    for scale, other in (("exact match", exact), ("the logit scale", _on_logits(grid.arms, weights))):
        if np.sign(other) != np.sign(effect):  # a scale that could not be compared has no sign
            return f"the sign turns on {scale}" if not math.isnan(other) else f"not compared on {scale}"
    return ""


def _on_logits(arms: Mapping[Key, Arm], weights: Weights) -> float:
    """The contrast of the logits of the optimizers' mean scores, on the rows that all arms share."""
    shared, _ = share_rows([(w, arms[key]) for w, key in weights])
    cells: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for (_, (benchmark, _, steps)), (w, arm) in zip(weights, shared, strict=True):
        cells.setdefault((benchmark, steps), []).append((w, arm.mean))
    return sum(sum(w for w, _ in cell) * _logit(float(np.mean([q for _, q in cell]))) for cell in cells.values())


def _logit(q: float) -> float:
    q = min(max(q, 0.005), 0.995)  # a score of 0 or 1 has no logit
    return math.log(q / (1 - q))


def _row(name: str, hypothesis: Hypothesis, p_holm: float, p_con: float, grid: Grid) -> TestRow:
    row = TestRow(grid.family, QUESTIONS[name].sentence, hypothesis.comparison, asks=name)
    e = hypothesis.estimate
    if e is None:
        return row.refused(hypothesis.reason)
    left_out = sum(len(rows.rows) for rows in e.left_out)
    row = replace(row, level=e.level, n=e.n, runs=e.runs, left_out=left_out, note=left_out_note(e))
    if not math.isnan(e.effect):
        row = replace(row, effect=e.effect, ci_low=e.low, ci_high=e.high, p=hypothesis.p_sup, p_holm=p_holm,
                      detectable=detectable(e, len(SMALLEST)))  # fmt: skip
    if e.untestable:
        return row.refused(e.untestable)
    row = replace(row, to_settle=settling_size(e, SMALLEST[name], len(SMALLEST)))
    if too_few := too_few_runs(grid, e):
        return row.refused(too_few)
    note = " ".join(text for text in (hypothesis.note, row.note) if text)
    word, reason = said(name, hypothesis, p_holm < SIGNIFICANCE, p_con < SIGNIFICANCE / 2)
    return replace(row, verdict=word, reason=reason, note=note)


def said(name: str, hypothesis: Hypothesis, is_shown: bool, is_excluded: bool) -> tuple[str, str]:
    """(verdict, its reason) where "no effect" is rejected (is_shown), or an effect of interest (is_excluded)."""
    if hypothesis.veto:
        return MIXED if hypothesis.veto.startswith(MIXED) else CANNOT_TELL, hypothesis.veto
    effect = hypothesis.estimate.effect if hypothesis.estimate else 0.0
    if name == "H3" and is_shown:
        return SUPPORTED, f"{'GEPA' if effect > 0 else 'MIPROv2'} prefers more steps"
    return verdict(effect, is_shown, is_excluded), ""


def too_few_runs(grid: Grid, estimate: Estimate) -> str:
    """Why there are too few runs for a verdict about an optimizer, or ""."""
    if estimate.runs < 2:
        return "too few runs: one run says nothing about the next one"
    pooled = grid.pooled
    df = min((pooled[o].df for o in grid.optimizers if o in pooled), default=0)
    enough = df >= FEWEST_RUN_DF
    return "" if enough else f"too few runs: {df} degrees of freedom between runs, {FEWEST_RUN_DF} are needed"


def _keys(weights: Weights) -> frozenset[Key]:
    return frozenset(key for _, key in weights)


def _where(grid: Grid, benchmarks: list[str]) -> str:
    return f"on {', '.join(benchmarks)}; {', '.join(grid.optimizers)}"


def _points(e: Estimate) -> str:
    if e.untestable:
        return e.untestable
    return f"{100 * e.effect:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"
