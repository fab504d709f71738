"""A look of a sequential study: which of H1 to H4 are decided, which cannot be, and which cells the others need.

The boundaries are group-sequential (scaling/spending.py) inside Holm's procedure (`sequential_holm`). "No effect" and
"an effect of interest" are two families, as in a fixed study. The contrasts and their p values are those of
`hypotheses`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaling.analysis.comparisons import entries_of, grid_of
from scaling.analysis.hypotheses import Grid, Hypothesis, hypotheses_of, said, too_few_runs
from scaling.analysis.results import Results
from scaling.analysis.sequential_holm import HypothesisLook, chance_of_rise, family_at_look
from scaling.analysis.stats import Estimate
from scaling.analysis.verdicts import CANNOT_TELL, CONTRADICTED, SUPPORTED
from scaling.sequential import DECIDED, FUTILE, OPEN, Look, NeededCell, QuestionLook, SequentialDesign


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
    shown = np.array([name in was and was[name].no_effect_rejected for name in hypotheses])
    excluded = np.array([name in was and was[name].effect_rejected for name in hypotheses])
    p_sup = np.array([hypothesis.p_sup for hypothesis in hypotheses.values()])
    p_con = np.array([hypothesis.p_con(name) for name, hypothesis in hypotheses.items()])
    no_effect = family_at_look(p_sup / 2, shown, design, number)
    effect = family_at_look(p_con, excluded, design, number)
    sides = [(no_effect.of(place), effect.of(place)) for place in range(len(hypotheses))]
    return [
        was[name] if name in was and was[name].outcome == DECIDED
        else _judged(_Standing(name, hypothesis, *side, _untestable(grid, hypothesis)), design, number)
        for (name, hypothesis), side in zip(hypotheses.items(), sides, strict=True)
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
class _Standing:
    """A hypothesis at a look. untestable: why it can have no verdict now, whatever its p."""

    name: str
    hypothesis: Hypothesis
    no_effect: HypothesisLook
    effect: HypothesisLook
    untestable: str


def _judged(standing: _Standing, design: SequentialDesign, number: int) -> QuestionLook:
    name, hypothesis, no_effect, effect = standing.name, standing.hypothesis, standing.no_effect, standing.effect
    judged = QuestionLook(
        question=name, model="", look=number, outcome=OPEN, verdict=CANNOT_TELL,
        information=design.information[number - 1], boundary=2 * no_effect.level, exclusion_boundary=effect.level,
        p=hypothesis.p_sup, exclusion_p=hypothesis.p_con(name),
        no_effect_rejected=no_effect.rejected, effect_rejected=effect.rejected,
    )  # fmt: skip
    if hypothesis.estimate is None:
        return replace(judged, outcome=FUTILE, reason=hypothesis.reason)  # more runs bring no other cells
    judged = _with_numbers(judged, hypothesis.estimate)
    if no_effect.chance is not None and effect.chance is not None:
        chance = max(no_effect.chance, min(effect.chance, _chance_of_rise(hypothesis, judged.information)))
        judged = replace(judged, chance=chance, outcome=FUTILE if chance < design.futility else OPEN)
    if standing.untestable:
        return replace(judged, reason=standing.untestable)
    word, reason = said(name, hypothesis, no_effect.crossed, effect.crossed)
    is_decided = word in (SUPPORTED, CONTRADICTED)
    return replace(judged, verdict=word, reason=reason, outcome=DECIDED if is_decided else judged.outcome)


def _chance_of_rise(hypothesis: Hypothesis, information: float) -> float:
    """Conditional power of the rise without which H2 has no verdict; 1 for a hypothesis that needs none."""
    if hypothesis.rise is None:
        return 1.0
    return float(chance_of_rise(np.array(hypothesis.rise.effect), np.array(hypothesis.rise.p), information))


def _untestable(grid: Grid, hypothesis: Hypothesis) -> str:
    e = hypothesis.estimate
    return "" if e is None else e.untestable or too_few_runs(grid, e)


def _with_numbers(judged: QuestionLook, e: Estimate) -> QuestionLook:
    if math.isnan(e.effect):
        return judged
    return replace(judged, effect=e.effect, se=e.se, df=None if math.isnan(e.df) else e.df)
