"""Does the score grow with the model's size? A test for each program, over its models of published size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from scaling.analysis.comparisons import Entry
from scaling.analysis.fits import power_law, size_line
from scaling.analysis.model_comparisons import ALL, ModelGroup, model_groups
from scaling.analysis.research import FEWEST_MODELS, LEVEL_MODELS
from scaling.analysis.stats import SIGNIFICANCE, Estimate, RunVariance, contrast, holm, run_variances
from scaling.analysis.test_rows import TestRow
from scaling.analysis.text import plural
from scaling.analysis.verdicts import CANNOT_TELL, smallest_effect
from scaling.planning.questions import QUESTIONS

FAMILY = "score against model size (exploratory)"


def test_sizes(entries: list[Entry]) -> list[TestRow]:
    """A row a program: the slope of its score on log10 size, over all of its benchmarks; Holm over programs."""
    pooled = run_variances([entry.final for entry in entries])
    groups = {group.program: group for group in reversed(model_groups(entries))}  # ALL comes first of a program
    rows = [_row(group, pooled, len(groups)) for group in reversed(groups.values())]
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else _with_verdict(row, next(adjusted)) for row in rows]


def _row(group: ModelGroup, pooled: Mapping[str, RunVariance], programs: int) -> TestRow:
    where = "" if group.benchmark == ALL else f"{group.benchmark} "
    comparison = f"{where}{group.program}: slope a tenfold of size"
    row = TestRow(FAMILY, QUESTIONS["size"].text, comparison, level=LEVEL_MODELS, asks="size")
    sizes, scores = _published(group, pooled)
    if len(set(sizes)) < FEWEST_MODELS:
        models = plural(len(set(sizes)), "published size")
        return row.refused(f"not run: {models}, {FEWEST_MODELS} are needed")
    values = [score.effect for score in scores]
    line, law = size_line(sizes, values, [score.se**2 for score in scores]), power_law(sizes, values)
    low, high = line.slope_interval
    exponent = f"exponent {law.alpha:.2f} [{law.low:.2f}, {law.high:.2f}]" if not law.refused else ""
    able = smallest_effect(math.sqrt(line.cov[1, 1]), line.df, programs)
    return replace(row, effect=line.slope, ci_low=low, ci_high=high, p=line.p, n=len(sizes), note=exponent,
                   detectable=able)  # fmt: skip


def _published(group: ModelGroup, pooled: Mapping[str, RunVariance]) -> tuple[list[float], list[Estimate]]:
    """Published sizes in billions of parameters, and the scores of their models."""
    sizes, scores = [], []
    for entries in group.by_model.values():
        size, status = entries[0].size
        score = contrast([(1 / len(entries), entry.final) for entry in entries], pooled)
        if size is not None and status == "published" and score.se > 0:
            sizes.append(size)
            scores.append(score)
    return sizes, scores


def _with_verdict(row: TestRow, p_holm: float) -> TestRow:
    word = "rises" if (row.effect or 0.0) > 0 else "falls"
    return replace(row, p_holm=p_holm, verdict=word if p_holm < SIGNIFICANCE else CANNOT_TELL)
