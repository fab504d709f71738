"""summary_fits.csv: the shape of each series over its steps, the families that fit it, and gains against model size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pandas as pd
from scipy import special

from scaling.analysis.comparisons import Entry
from scaling.analysis.fits import (
    FEWEST_DECADES,
    FEWEST_SIZES,
    Family,
    PowerLaw,
    families,
    family_set,
    log_line,
    power_law,
    shape_label,
    size_line,
)
from scaling.analysis.research import size_line_of
from scaling.analysis.series import SeriesKey, Terms
from scaling.analysis.stats import (
    MOST_LEFT_OUT,
    THIS_PROGRAM,
    Arm,
    RunVariance,
    contrast,
    covariance,
    run_variances,
    share_rows,
)
from scaling.analysis.text import plural
from scaling.analysis.verdicts import CANNOT_TELL, NOT_COMPARED
from scaling.intervals import LEVEL

POINTS_FOR_FAMILIES = 5
ROUND_SIZES = [digit * 10.0**power for power in range(-2, 4) for digit in (1, 2, 5)]  # billions of parameters
NO_VERDICT = "with assumed sizes: no verdict"


@dataclass(frozen=True)
class FitRow:
    """A row of summary_fits.csv: a series over `x` (steps or parameters), a family and what is said of it."""

    benchmark: str
    x: str
    family: str | None = None
    parameters: str | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    r2: float | None = None
    verdict: str = ""
    reason: str | None = None


COLUMNS = [field.name for field in fields(FitRow)]


def fits_frame(entries: list[Entry]) -> pd.DataFrame:
    """Each series over its steps; the improvement by each optimizer over three or more model sizes."""
    pooled = run_variances([entry.final for entry in entries])
    rows: list[FitRow] = []
    for by_steps in series_of(entries):
        if len(by_steps) > 1:  # at one number of steps there is nothing to fit
            rows += _over_steps(by_steps, pooled)
    for group in _by_size(entries):
        rows += _over_sizes(group, pooled)
    return _frame(rows)


def gain_fits(gains: pd.DataFrame) -> pd.DataFrame:
    """Gain of self-correction against model size, over all tasks and by task; published sizes first."""
    rows: list[FitRow] = []
    if gains.empty:
        return _frame(rows)
    tasks = {"all tasks": gains} | {str(name): part for name, part in gains.groupby("benchmark")}
    for name, part in tasks.items():
        seen = 0
        for statuses, note in ((("published",), ""), (("published", "assumed"), NO_VERDICT)):
            by_model, line = size_line_of(part, statuses)
            if line is not None and len(by_model) > seen:
                sizes, values, variances = (by_model[column].tolist() for column in ("size", "gain", "variance"))
                rows += size_rows(f"{name}: gain by self-correction", sizes, values, variances, note)
                seen = len(by_model)
    return _frame(rows)


def score_fits(models: pd.DataFrame, asked: Sequence[float] = ()) -> pd.DataFrame:
    """Score against model size, by program and benchmark (rows of `models`), and the score to expect at other sizes.

    asked: sizes in billions of parameters beside ROUND_SIZES.
    """
    rows: list[FitRow] = []
    usable = models[models["variance"].notna()]
    for (program, benchmark), part in usable.groupby(["program", "benchmark"], sort=False):
        rows += _scores_over_sizes(f"{benchmark} {program}: score", part, asked)
    return _frame(rows)


def _frame(rows: list[FitRow]) -> pd.DataFrame:
    return pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)


def series_of(entries: list[Entry]) -> list[dict[int, Entry]]:
    """Series as steps -> entry."""
    by_series: dict[SeriesKey, dict[int, Entry]] = {}
    for entry in entries:
        by_series.setdefault(entry.series, {})[entry.steps] = entry
    return list(by_series.values())


def fitted(by_steps: dict[int, Entry], pooled: Mapping[str, RunVariance]) -> list[Family]:
    """The families over 1 to 5 steps, on the rows that all steps share; none with fewer points or too few rows."""
    steps = sorted(by_steps)
    arms = _on_shared_rows([by_steps[k].final for k in steps])
    if len(steps) < POINTS_FOR_FAMILIES or not arms:
        return []
    ends = contrast([(1.0, arms[-1]), (-1.0, arms[0])], pooled)
    if ends.untestable:
        return []
    return families(steps, [arm.mean for arm in arms], covariance(arms, pooled), ends.df)


def curves_of(entries: list[Entry], summary: pd.DataFrame) -> dict[tuple[str, str], list[Family]]:
    """(benchmark, line of the summary) -> fitted families, for the series with five points."""
    pooled = run_variances([entry.final for entry in entries])
    lines = {e.series: row["line"] for e, (_, row) in zip(entries, summary.iterrows(), strict=True)}
    curves = {}
    for by_steps in series_of(entries):
        series = next(iter(by_steps.values())).series
        curves[series.benchmark, lines[series]] = fitted(by_steps, pooled)
    return curves


def _on_shared_rows(arms: list[Arm]) -> list[Arm]:
    """The arms on the rows that all have; [] when too many are left out."""
    shared, left_out = share_rows([(1.0, arm) for arm in arms])
    return [] if any(rows.share > MOST_LEFT_OUT for rows in left_out) else [arm for _, arm in shared]


def _over_steps(by_steps: dict[int, Entry], pooled: Mapping[str, RunVariance]) -> list[FitRow]:
    steps = sorted(by_steps)
    first = by_steps[steps[0]]
    name = f"{first.series.benchmark} {first.series.pipeline} {first.series.optimizer} {first.series.model}"
    row = FitRow(name, "steps")
    if len(steps) < 3:
        return [replace(row, verdict="not run", reason=f"{len(steps)} points: a shape needs 3")]
    arms = _on_shared_rows([by_steps[k].final for k in steps])
    if not arms:
        return [replace(row, verdict=NOT_COMPARED, reason="more than 2 % of the rows lack a score in some cell")]
    scores = [arm.mean for arm in arms]
    intercept, slope, r2 = log_line(steps, scores)
    text = f"start {intercept:.4f}; a doubling {slope:+.4f}"
    label, reason = shape_of(dict(zip(steps, arms, strict=True)), pooled)
    rows = [
        replace(row, family="shape", verdict=label, reason=reason),
        replace(row, family="log, described", parameters=text, r2=r2, verdict="description"),
    ]
    fitted_families = fitted(by_steps, pooled)
    rows += [_family_row(row, family, steps, scores) for family in fitted_families]
    if fitted_families:
        kept = family_set(fitted_families)
        rows.append(replace(row, family="set not rejected at 5 %", verdict=kept, reason=reason))
    return rows


def _family_row(row: FitRow, family: Family, steps: list[int], scores: list[float]) -> FitRow:
    text = "; ".join(f"{name} {value:.4f}" for name, value in family.parameters.items())
    word = "rejected" if family.rejected else "not rejected"
    return replace(row, family=family.name, parameters=text, verdict=word, reason=f"misfit p {family.p:.3f}",
                   r2=_r2(family, steps, scores))  # fmt: skip


def shape_of(arms: dict[int, Arm], pooled: Mapping[str, RunVariance]) -> tuple[str, str]:
    """(label, reason): slopes per step before and after the middle step, which is 3 or the one in the middle."""
    steps = sorted(arms)
    first, last = steps[0], steps[-1]
    middle = 3 if 3 in steps[1:-1] else steps[len(steps) // 2]
    before, after = 1 / (middle - first), 1 / (last - middle)
    early = contrast([(before, arms[middle]), (-before, arms[first])], pooled)
    late = contrast([(after, arms[last]), (-after, arms[middle])], pooled)
    bend = contrast([(before + after, arms[middle]), (-before, arms[first]), (-after, arms[last])])
    label = shape_label(early, late, bend)
    if early.untestable and late.untestable:
        return CANNOT_TELL, early.untestable
    if early.level == THIS_PROGRAM:
        return f"on these rows: {label}", "one run: about these programs only"
    return label, ""


def _r2(family: Family, steps: list[int], scores: list[float]) -> float:
    mean = sum(scores) / len(scores)
    total = sum((q - mean) ** 2 for q in scores)
    left = sum((q - f) ** 2 for q, f in zip(scores, family.curve(np.array(steps)), strict=True))
    return float(1 - left / total) if total else float("nan")


def _by_size(entries: list[Entry]) -> Iterable[list[tuple[float, str, Entry]]]:
    """Entries that differ in the model only, with the model's size in billions and its status."""
    groups: dict[tuple[int, Terms], list[tuple[float, str, Entry]]] = {}
    for entry in entries:
        size, status = entry.size
        if size is None or entry.series.optimizer == "none":
            continue
        groups.setdefault((entry.steps, entry.series.across_models), []).append((size, status, entry))
    return [group for group in groups.values() if len({size for size, _, _ in group}) >= 3]


def _over_sizes(group: list[tuple[float, str, Entry]], pooled: Mapping[str, RunVariance]) -> list[FitRow]:
    """Improvement by optimization against the model's size: published sizes decide, assumed ones are a second line."""
    rows: list[FitRow] = []
    for wanted, note in ((("published",), ""), (("published", "assumed"), NO_VERDICT)):
        chosen = [(size, entry) for size, status, entry in group if status in wanted]
        if len(chosen) < 3 or (note and len(chosen) == sum(status == "published" for _, status, _ in group)):
            continue
        values = [contrast([(-1.0, entry.base), (1.0, entry.final)], pooled) for _, entry in chosen]
        usable = [(size, v) for (size, _), v in zip(chosen, values, strict=True) if not math.isnan(v.effect)]
        if len({size for size, _ in usable}) >= 3:
            name = f"{chosen[0][1].name_without_model}: improvement"
            variances = [v.se**2 for _, v in usable]
            rows += size_rows(name, [size for size, _ in usable], [v.effect for _, v in usable], variances, note)
    return rows


def _scores_over_sizes(name: str, models: pd.DataFrame, asked: Sequence[float]) -> list[FitRow]:
    """One program's scores against the size of its models, and what further sizes can be expected to score."""
    sized = models[models["size"].notna()]
    published = sized[sized["status"] == "published"]
    rows: list[FitRow] = []
    for part, note in ((published, ""), (sized, NO_VERDICT)):
        if part["size"].nunique() >= 3 and (not note or len(part) > len(published)):
            sizes, scores, variances = (part[column].tolist() for column in ("size", "score", "variance"))
            rows += size_rows(name, sizes, scores, variances, note)
    return rows + _expected(name, published, asked)


def _expected(name: str, published: pd.DataFrame, asked: Sequence[float]) -> list[FitRow]:
    """A row a size, measured sizes apart; one refusal where nothing may be said of other sizes."""
    row = FitRow(name, "parameters", family="expected score", verdict="refused")
    if published["size"].nunique() < FEWEST_SIZES:
        sizes = plural(published["size"].nunique(), "published size")
        return [replace(row, reason=f"{sizes}: {FEWEST_SIZES} over {FEWEST_DECADES} decades are needed")]
    law = power_law(published["size"].tolist(), published["score"].tolist())
    if law.unbounded:
        return [replace(row, reason=law.unbounded)]
    smallest, largest = published["size"].min(), published["size"].max()
    inside = [size for size in ROUND_SIZES if smallest < size < largest]
    rows_in_common = special.ndtri(0.5 + LEVEL / 2) * math.sqrt(published["shared_variance"].iloc[0])
    rows = []
    for size in sorted({*inside, *asked}):
        at = replace(row, family=f"expected score at {size:g} billion")
        if not smallest <= size <= largest:
            rows.append(replace(at, reason=f"outside the measured sizes, {smallest:g} to {largest:g} billion"))
            continue
        value, (low, high) = law.expected(size)
        low = max(0.0, value - math.hypot(value - low, rows_in_common))
        high = min(1.0, value + math.hypot(high - value, rows_in_common))
        verdict, reason = f"expect {100 * value:.1f} points", "one more model of this size"
        rows.append(replace(at, parameters=f"{value:.4f}", ci_low=low, ci_high=high, verdict=verdict, reason=reason))
    return rows


def size_rows(name: str, sizes: list[float], gains: list[float], variances: list[float], note: str) -> list[FitRow]:
    """Two rows: the exponent of gain = A size^alpha with its set, or refused; and the slope on log10(size)."""
    row = FitRow(name, "parameters")
    law: PowerLaw = power_law(sizes, gains)
    signs = "sign changes; " if min(gains) < 0 < max(gains) else ""
    grows = "" if law.amplitude >= 0 else " (A < 0: loss grows)"
    exponent = f"alpha {law.alpha:.2f}{grows}" if not (law.refused or note) else "refused"
    reason = "; ".join(part for part in (signs + law.refused, note) if part)
    line = size_line(sizes, gains, variances)
    low, high = line.slope_interval
    slope = CANNOT_TELL if note or low <= 0 <= high else "rises" if low > 0 else "falls"
    return [
        replace(row, family="A size^alpha", parameters=f"A {law.amplitude:.4f}; alpha {law.alpha:.3f}",
                ci_low=law.low, ci_high=law.high, r2=law.r2, verdict=exponent, reason=reason),
        replace(row, family="slope a tenfold", parameters=f"{line.slope:.4f}", ci_low=low, ci_high=high,
                verdict=slope, reason=note or f"{len(sizes)} sizes, p {line.p:.3f}"),
    ]  # fmt: skip
