"""summary_fits.csv: the shape of each series over its steps, the families that fit it, and gains against model size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.fits import Family, PowerLaw, families, family_set, log_line, power_law, shape_label, size_line
from scaling.analysis.research import size_line_of
from scaling.analysis.stats import RunVariance, contrast, covariance, run_variances

COLUMNS = ["benchmark", "x", "family", "parameters", "ci_low", "ci_high", "r2", "verdict", "reason"]
POINTS_FOR_FAMILIES = 5


def fits_frame(entries: list[Entry]) -> pd.DataFrame:
    """All fits: each series over its steps; each benchmark, steps and optimizer over three or more model sizes."""
    between = run_variances([entry.final for entry in entries])
    rows: list[dict[str, Any]] = []
    for by_steps in series_of(entries):
        if len(by_steps) > 1:  # at one number of steps there is nothing to fit
            rows += _over_steps(by_steps, between)
    for group in _by_size(entries):
        rows += _over_sizes(group, between)
    return pd.DataFrame(rows, columns=COLUMNS)


def gain_fits(gains: pd.DataFrame) -> pd.DataFrame:
    """Gain of self-correction against model size, over all tasks and by task; published sizes first."""
    rows: list[dict[str, Any]] = []
    if gains.empty:
        return pd.DataFrame(rows, columns=COLUMNS)
    tasks = {"all tasks": gains} | {name: part for name, part in gains.groupby("benchmark")}
    for name, part in tasks.items():
        seen = 0
        for statuses, note in ((("published",), ""), (("published", "assumed"), "with assumed sizes: no verdict")):
            by_model, line = size_line_of(part, statuses)
            if line is not None and len(by_model) > seen:
                values = (by_model[column].tolist() for column in ("size", "gain", "variance"))
                rows += size_rows(f"{name}: gain by self-correction", *values, note)
                seen = len(by_model)
    return pd.DataFrame(rows, columns=COLUMNS)


def series_of(entries: list[Entry]) -> list[dict[int, Entry]]:
    """Series as steps -> entry."""
    found: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        found.setdefault(str(entry.fields), {})[entry.steps] = entry
    return list(found.values())


def fitted(by_steps: dict[int, Entry], between: dict[str, RunVariance]) -> list[Family]:
    """The families over 1 to 5 steps; none with fewer points, as they could not be told apart."""
    steps = sorted(by_steps)
    if len(steps) < POINTS_FOR_FAMILIES:
        return []
    arms = [by_steps[k].final for k in steps]
    ends = contrast([(1.0, arms[-1]), (-1.0, arms[0])], between)
    return families(steps, [arm.mean for arm in arms], covariance(arms, between), ends.df)


def curves_of(entries: list[Entry], summary: pd.DataFrame) -> dict[tuple[str, str], list[Family]]:
    """(benchmark, line of the summary) -> fitted families, for the series with five points."""
    between = run_variances([entry.final for entry in entries])
    lines = {str(e.fields): row["line"] for e, (_, row) in zip(entries, summary.iterrows(), strict=True)}
    curves = {}
    for by_steps in series_of(entries):
        fields = next(iter(by_steps.values())).fields
        curves[fields["benchmark"], lines[str(fields)]] = fitted(by_steps, between)
    return curves


def _over_steps(by_steps: dict[int, Entry], between: dict[str, RunVariance]) -> list[dict[str, Any]]:
    steps = sorted(by_steps)
    first = by_steps[steps[0]]
    name = f"{first.fields['benchmark']} {first.fields['pipeline']} {first.fields['optimizer']} {first.fields['model']}"
    row = dict.fromkeys(COLUMNS) | {"benchmark": name, "x": "steps"}
    if len(steps) < 3:
        return [row | {"verdict": "not run", "reason": f"{len(steps)} points: a shape needs 3"}]
    scores = [by_steps[k].final.mean for k in steps]
    middle = 3 if 3 in by_steps else steps[len(steps) // 2]
    early = contrast([(1.0, by_steps[middle].final), (-1.0, first.final)], between)
    late = contrast([(1.0, by_steps[steps[-1]].final), (-1.0, by_steps[middle].final)], between)
    reason = "one run: about these programs only" if first.final.runs == 1 else ""
    intercept, slope, r2 = log_line(steps, scores)
    text = f"start {intercept:.4f}; a doubling {slope:+.4f}"
    rows = [row | {"family": "shape", "verdict": shape_label(early, late), "reason": reason}]
    rows.append(row | {"family": "log, described", "parameters": text, "r2": r2, "verdict": "description"})
    fits = fitted(by_steps, between)
    for one in fits:
        text = "; ".join(f"{name} {value:.4f}" for name, value in one.parameters.items())
        said = "rejected" if one.rejected else "not rejected"
        rows.append(row | {"family": one.name, "parameters": text, "verdict": said, "reason": f"misfit p {one.p:.3f}",
                           "r2": _r2(one, steps, scores)})  # fmt: skip
    if fits:
        rows.append(row | {"family": "set not rejected at 5 %", "verdict": family_set(fits), "reason": reason})
    return rows


def _r2(one: Family, steps: list[int], scores: list[float]) -> float:
    mean = sum(scores) / len(scores)
    total = sum((q - mean) ** 2 for q in scores)
    left = sum((q - f) ** 2 for q, f in zip(scores, one.curve(steps), strict=True))
    return 1 - left / total if total else float("nan")


def _by_size(entries: list[Entry]) -> Iterable[list[tuple[float, str, Entry]]]:
    """Entries that differ in the model only, with the model's size in billions and its status."""
    groups: dict[tuple, list[tuple[float, str, Entry]]] = {}
    for entry in entries:
        size, status = entry.size
        if entry.fields["optimizer"] == "none" or size is None:
            continue
        same = {
            n: str(v) for n, v in entry.fields.items() if n not in ("model", "optimizer_model", "max_output_tokens")
        }
        groups.setdefault((entry.steps, *same.items()), []).append((size, status, entry))
    return [group for group in groups.values() if len({size for size, _, _ in group}) >= 3]


def _over_sizes(group: list[tuple[float, str, Entry]], between: dict[str, RunVariance]) -> list[dict[str, Any]]:
    """Improvement against the model's size: published sizes decide, assumed ones are a second line."""
    rows = []
    for wanted, note in ((("published",), ""), (("published", "assumed"), "with assumed sizes: no verdict")):
        chosen = [(size, entry) for size, status, entry in group if status in wanted]
        if len(chosen) < 3 or (note and len(chosen) == sum(status == "published" for _, status, _ in group)):
            continue
        changes = [contrast([(-1.0, e.base), (1.0, e.final)], between) for _, e in chosen]
        sizes, gains = [size for size, _ in chosen], [one.effect for one in changes]
        rows += size_rows(chosen[0][1].name, sizes, gains, [one.se**2 for one in changes], note)
    return rows


def size_rows(name: str, sizes: list[float], gains: list[float], variances: list[float], note: str) -> list[dict]:
    """Two rows: the exponent of gain = A size^alpha with its set, or refused; and the slope on log10(size)."""
    row = dict.fromkeys(COLUMNS) | {"benchmark": name, "x": "parameters"}
    law: PowerLaw = power_law(sizes, gains)
    signs = "sign changes; " if min(gains) < 0 < max(gains) else ""
    grows = "" if law.amplitude >= 0 else " (A < 0: loss grows)"
    said = f"alpha {law.alpha:.2f}{grows}" if not (law.refused or note) else "refused"
    reason = "; ".join(part for part in (signs + law.refused, note) if part)
    line = size_line(sizes, gains, variances)
    low, high = line.slope_interval
    told = "cannot tell" if note or low <= 0 <= high else "rises" if low > 0 else "falls"
    return [
        row | {"family": "A size^alpha", "parameters": f"A {law.amplitude:.4f}; alpha {law.alpha:.3f}",
               "ci_low": law.low, "ci_high": law.high, "r2": law.r2, "verdict": said, "reason": reason},
        row | {"family": "slope a tenfold", "parameters": f"{line.slope:.4f}", "ci_low": low, "ci_high": high,
               "verdict": told, "reason": note or f"{len(sizes)} sizes, p {line.p:.3f}"},
    ]  # fmt: skip
