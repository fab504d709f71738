"""A look of a sequential study: which of H1 to H4 are decided, which cannot be, and which cells the others need.

The boundaries are group-sequential (scaling/spending.py) inside Holm's procedure: alpha is shared equally by the
hypotheses of a family that are not rejected, and one that is rejected passes its part on (Maurer & Bretz 2013, Stat
Biopharm Res 5:311). "No effect" and "an effect of interest" are two families, as in a fixed study. The contrasts and
their p values are those of `hypotheses`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import special

from scaling.analysis.comparisons import entries_of, grid_of
from scaling.analysis.hypotheses import Grid, Hypothesis, hypotheses_of, said, too_few_runs
from scaling.analysis.results import Results
from scaling.analysis.verdicts import CANNOT_TELL, CONTRADICTED, SUPPORTED
from scaling.sequential import DECIDED, FUTILE, OPEN, Look, NeededCell, QuestionLook, SequentialDesign
from scaling.spending import boundaries, conditional_power, levels


def judge_look(results: Results, design: SequentialDesign, earlier: Sequence[Look] = ()) -> Look:
    """The next look at a study's cells, after the `earlier` ones. It judges all chain cells that are ok.

    What an earlier look decided stays as it was. A question that was called futile is judged again on what the cells
    of other questions bring. Each model has H1 to H4 as a family of its own. Raises ValueError when all looks of the
    design have been made.
    """
    number = len(earlier) + 1
    if number > len(design.waves):
        raise ValueError(f"the design has {len(design.waves)} looks, and all have been made")
    entries = [entry for entry in entries_of(results) if entry.series.pipeline == "chain"]
    questions: list[QuestionLook] = []
    needed: set[NeededCell] = set()
    for model in sorted({entry.series.model for entry in entries}):
        grid, _ = grid_of(results, [entry for entry in entries if entry.series.model == model])
        before = [question for question in earlier[-1].questions if question.model == model] if earlier else []
        hypotheses = hypotheses_of(grid)
        judged = judge_family(grid, hypotheses, design, number, before)
        questions += [replace(question, model=model) for question in judged]
        asking = [hypotheses[question.question] for question in judged if question.outcome == OPEN]
        needed |= {NeededCell(model, *key) for hypothesis in asking for key in hypothesis.needs}
    is_last = number == len(design.waves)
    in_order = sorted(needed, key=lambda cell: (cell.model, cell.benchmark, cell.optimizer, cell.steps))
    cells = sorted({str(results.cells.loc[key, "cell_id"]) for entry in entries for key in entry.keys})
    return Look(number, design.waves[number - 1], tuple(questions), () if is_last else tuple(in_order), tuple(cells))


def judge_family(
    grid: Grid,
    hypotheses: Mapping[str, Hypothesis],
    design: SequentialDesign,
    number: int,
    before: Sequence[QuestionLook] = (),
) -> list[QuestionLook]:
    """H1 to H4 of one model at the look of this number. before: the same at the look before it."""
    was = {question.question: question for question in before}
    sides = _Sides(
        no_effect=_side({n: h.p_sup / 2 for n, h in hypotheses.items()},
                        {n for n, q in was.items() if q.no_effect_rejected}, design, number),
        effect=_side({n: h.p_con(n) for n, h in hypotheses.items()},
                     {n for n, q in was.items() if q.effect_rejected}, design, number),
    )  # fmt: skip
    return [
        was[name] if name in was and was[name].outcome == DECIDED
        else _judged(name, hypothesis, grid, design, number, sides)
        for name, hypothesis in hypotheses.items()
    ]  # fmt: skip


def gate_z(results: Results) -> dict[str, float]:
    """By model, z of q5 - q1 (H1's contrast); a model without that contrast is absent.

    A study with a gate runs the cells of 3 steps only where this is above it.
    """
    entries = [entry for entry in entries_of(results) if entry.series.pipeline == "chain"]
    found: dict[str, float] = {}
    for model in sorted({entry.series.model for entry in entries}):
        grid, _ = grid_of(results, [entry for entry in entries if entry.series.model == model])
        estimate = hypotheses_of(grid)["H1"].estimate
        if estimate is not None and not math.isnan(estimate.effect):
            found[model] = estimate.effect / estimate.se if estimate.se > 0 else 0.0
    return found


@dataclass(frozen=True)
class _Side:
    """One family at a look, by hypothesis: one-sided p, its level, and the z that the last look needs.

    rejected: at this look or an earlier one, for alpha that is passed on; a verdict needs a p that crosses now.
    """

    p: Mapping[str, float]
    level: Mapping[str, float]
    last: Mapping[str, float]
    rejected: frozenset[str]

    def crossed(self, name: str) -> bool:
        return name in self.rejected and self.p[name] <= self.level[name]

    def chance(self, name: str, information: float) -> float:
        """Conditional power of a rejection at the last look."""
        return conditional_power(float(-special.ndtri(self.p[name])), information, self.last[name])


@dataclass(frozen=True)
class _Sides:
    no_effect: _Side
    effect: _Side


def _side(p: Mapping[str, float], already: Collection[str], design: SequentialDesign, number: int) -> _Side:
    """Holm's procedure at one look: those that are not rejected share alpha / 2. already: rejected at earlier looks."""
    waiting = sorted((name for name in p if name not in already), key=lambda name: p[name])
    sharing = dict.fromkeys(already, len(waiting) + 1)
    rejected = set(already)
    for name in waiting:
        sharing[name] = len(p) - len(rejected)
        if p[name] <= design_level(design, number, sharing[name]):
            rejected.add(name)
    return _Side(
        p=p,
        level={name: design_level(design, number, hypotheses) for name, hypotheses in sharing.items()},
        last={n: boundaries(design.alpha / 2 / m, design.information)[-1] for n, m in sharing.items()},
        rejected=frozenset(rejected),
    )


def design_level(design: SequentialDesign, number: int, sharing: int) -> float:
    """The one-sided p at or below which a look rejects one of so many hypotheses that share alpha."""
    return levels(design.alpha / 2 / sharing, design.information)[number - 1]


def _judged(
    name: str, hypothesis: Hypothesis, grid: Grid, design: SequentialDesign, number: int, sides: _Sides
) -> QuestionLook:
    information = design.information[number - 1]
    judged = QuestionLook(
        question=name, model="", look=number, outcome=OPEN, verdict=CANNOT_TELL, information=information,
        boundary=2 * sides.no_effect.level[name], exclusion_boundary=sides.effect.level[name],
        p=hypothesis.p_sup, exclusion_p=sides.effect.p[name],
        no_effect_rejected=name in sides.no_effect.rejected, effect_rejected=name in sides.effect.rejected,
    )  # fmt: skip
    e = hypothesis.estimate
    if e is None:
        return replace(judged, outcome=FUTILE, reason=hypothesis.reason)  # more runs bring no other cells
    if not math.isnan(e.effect):
        judged = replace(judged, effect=e.effect, se=e.se, df=None if math.isnan(e.df) else e.df)
    if number < len(design.waves):
        chance = max(side.chance(name, information) for side in (sides.no_effect, sides.effect))
        judged = replace(judged, chance=chance, outcome=FUTILE if chance < design.futility else OPEN)
    if why := e.untestable or too_few_runs(grid, e):
        return replace(judged, reason=why)
    word, reason = said(name, hypothesis, sides.no_effect.crossed(name), sides.effect.crossed(name))
    is_decided = word in (SUPPORTED, CONTRADICTED)
    return replace(judged, verdict=word, reason=reason, outcome=DECIDED if is_decided else judged.outcome)
