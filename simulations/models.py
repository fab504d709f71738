"""Models beside each other: false labels in the table of pairs, its power, and the score expected at another size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Entry
from scaling.analysis.families import table_rows
from scaling.analysis.fit_table import score_fits
from scaling.analysis.model_comparisons import ModelScore, model_groups, model_pairs, shared_variance
from scaling.analysis.series import SERIES, SeriesKey
from scaling.analysis.test_rows import TestRow
from scaling.analysis.verdicts import CANNOT_TELL, NO_DIFFERENCE_HERE
from simulations.data import Means, arms
from simulations.outcome import Outcome, at_least, at_most, share
from simulations.shapes import SIZES

MODELS = 6
UNDECIDED = (CANNOT_TELL, NO_DIFFERENCE_HERE)


def entries(rng: np.random.Generator, by_benchmark: Mapping[str, list[float]], **setting: Any) -> list[Entry]:
    """One call without an optimizer of as many models as there are expected scores, on each benchmark."""
    means: Means = {(name, "none", i): q for name, own in by_benchmark.items() for i, q in enumerate(own)}
    made = []
    for (benchmark, _, number), arm in arms(rng, means, **({"items": 200, "runs": 3} | setting)).items():
        values: dict[str, Any] = dict.fromkeys(SERIES) | {"benchmark": benchmark, "pipeline": "chain"}
        series = SeriesKey.of(values | {"optimizer": "none", "model": f"m{number}"})
        made.append(Entry(series, 1, ["a key"], arm, arm, (None, "unknown")))
    return made


def pairs(made: list[Entry]) -> list[TestRow]:
    """The table of all pairs of models."""
    return table_rows("models", list(model_pairs(made)), {})


def model_tables(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Any label in a table of equal models, and among the equal ones beside a better one."""
    settings: dict[str, dict[str, Any]] = {
        "one run": {"runs": 1}, "three runs": {}, "one run, groups of 3": {"runs": 1, "group_size": 3},
        "one run, F1 scores": {"runs": 1, "partial": True}, "one run, near the ceiling": {"runs": 1, "q": 0.95},
    }  # fmt: skip
    for name, setting in settings.items():
        q = setting.pop("q", 0.7)
        false = [_any(pairs(entries(rng, dict.fromkeys("ab", [q] * MODELS), **setting))) for _ in range(repeats)]
        yield at_most(f"tables of {MODELS} equal models on 2 benchmarks, {name}: any label", false, 0.05)
    false = []
    for _ in range(repeats):
        rows = pairs(entries(rng, dict.fromkeys("ab", [0.8] + [0.7] * (MODELS - 1)), runs=1))
        false.append(_any([row for row in rows if "m0" not in row.comparison]))
    yield at_most("a better model among equal ones: any label of the equal ones", false, 0.05)


def model_power(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """A pair is shown about as often as is printed, where the effect is the one that is printed with 80 % power."""
    slack = 0 if repeats >= 1000 else 22
    for runs in (1, 3):
        first = [pairs(entries(rng, {"a": [0.7] * MODELS}, runs=runs, items=500))[0] for _ in range(20)]
        effect = float(np.median([row.detectable or np.nan for row in first]))
        better = {"a": [0.7 - effect / 2, 0.7 + effect / 2, *[0.7] * (MODELS - 2)]}
        shown = [pairs(entries(rng, better, runs=runs, items=500))[0].verdict not in UNDECIDED for _ in range(repeats)]
        what = (
            f"a pair of {MODELS} models, 500 rows x {runs}, {100 * effect:.1f} points are true, printed as 80 % power"
        )
        yield Outcome(what, share(shown), 74 - slack, 90 + slack)


def expected_scores(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """The interval at another size holds the score that one more model of it has on new rows."""
    at, amplitude, alpha = 6.0, 0.45, 0.12
    for m, s in SIZES.items():
        size = np.array(s)
        for scatter in (0.0, 0.02):
            inside = []
            for _ in range(repeats):
                truth = amplitude * size**alpha + rng.normal(0, scatter, m)
                group = model_groups(entries(rng, {"a": truth.tolist()}, items=500, runs=1))[0]
                fits = score_fits(_frame(group.by_model, s, shared_variance(group)), [at])
                for _, row in fits[fits["family"] == f"expected score at {at:g} billion"].iterrows():
                    own = amplitude * at**alpha + rng.normal(0, scatter)
                    inside.append(bool(row["ci_low"] <= own <= row["ci_high"]))
            where = f"m = {m}, scatter {100 * scatter:g} points"
            yield at_least(f"expected score at another size, {where}", inside)
            yield Outcome(f"expected score at another size is given, {where}", 100 * len(inside) / repeats, 60, 100)


def _frame(by_model: Mapping[str, list[Entry]], sizes: tuple[float, ...], shared: float) -> pd.DataFrame:
    scores = []
    for (model, (entry,)), size in zip(by_model.items(), sizes, strict=True):
        mean = entry.final.mean
        variance = mean * (1 - mean) / len(entry.final.items)
        scores.append(
            ModelScore("1step none", "a", model, mean, 0, 1, variance, shared, 500, 1, size, "published", 1.0, 1.0)
        )
    return pd.DataFrame(scores)


def _any(rows: list[TestRow]) -> bool:
    return any(row.verdict not in UNDECIDED for row in rows)
