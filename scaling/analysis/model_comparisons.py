"""Models beside each other: the same program on the same rows, in pairs and with their sizes and prices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from scaling.analysis.comparisons import Comparison, Entry
from scaling.analysis.money import pareto
from scaling.analysis.results import Results
from scaling.analysis.series import OF_MODELS, SERIES, SHARED_IN_BENCHMARK, Terms
from scaling.analysis.stats import Arm, RunVariance, contrast, covariance, run_variances, share_rows
from scaling.analysis.verdicts import BETTER, HIGHER_HERE, LOWER_HERE, WORSE
from scaling.pipelines import PIPELINES, step_name

ALL = "all benchmarks"  # stands for the mean over them
_TURNED = {WORSE: BETTER, LOWER_HERE: HIGHER_HERE}
_NAMED = ("benchmark", "pipeline", "optimizer")
_OF_PROGRAMS = [name for name in SERIES if name not in (*_NAMED, *OF_MODELS, *SHARED_IN_BENCHMARK)]


@dataclass(frozen=True)
class ModelGroup:
    """One program on one benchmark, or on each of several (ALL), with two models or more, small ones first.

    by_model: its entries, one a benchmark, the benchmarks in the same order for all models.
    """

    program: str
    benchmark: str
    by_model: dict[str, list[Entry]]

    def pair_name(self, first: str, second: str) -> str:
        """What the comparison second - first is called."""
        return f"{self.benchmark} {self.program}: {second} - {first}"


@dataclass(frozen=True)
class ModelScore:
    """A model's score with one program on one benchmark, or its mean over all. Scores are fractions; NaN is unknown.

    variance: of the score; shared_variance: the part of it that all models share, as they answer the same rows.
    usd_per_example: list cost of an answer. on_front: no model that costs as little scores as high; None where a
    price is not known. beaten_by: a model that costs no more and scores no less, and whether the difference is shown.
    """

    program: str
    benchmark: str
    model: str
    score: float
    low: float
    high: float
    variance: float
    shared_variance: float
    n: int
    runs: int
    size: float
    status: str
    output_usd_per_million: float
    usd_per_example: float
    on_front: bool | None = None
    beaten_by: str = ""


def model_groups(entries: list[Entry]) -> list[ModelGroup]:
    """Every program that two models or more ran: on all of its benchmarks, where there are several, then on each.

    Controls (vote, repeat, resample) are left out: they are there for the program that they control.
    """
    alike: dict[Terms, list[Entry]] = {}
    rivals: dict[Terms, list[Entry]] = {}
    for entry in entries:
        if not _is_control(entry.series.pipeline):
            alike.setdefault((entry.steps, entry.series.across_models), []).append(entry)
            rivals.setdefault(_program_and_benchmark(entry), []).append(entry)
    by_program: dict[Terms, list[ModelGroup]] = {}
    for same in alike.values():
        group = _group(same, rivals[_program_and_benchmark(same[0])])
        if len(group.by_model) > 1:
            by_program.setdefault((same[0].steps, same[0].series.across_models_and_benchmarks), []).append(group)
    return [group for groups in by_program.values() for group in [*_over_benchmarks(groups), *groups]]


def model_pairs_over_benchmarks(entries: list[Entry]) -> Iterator[Comparison]:
    """All pairs of models on the mean over benchmarks; one family a program."""
    return (pair for group in model_groups(entries) if group.benchmark == ALL for pair in _pairs(group))


def model_pairs(entries: list[Entry]) -> Iterator[Comparison]:
    """All pairs of models on each benchmark; one family a program."""
    return (pair for group in model_groups(entries) if group.benchmark != ALL for pair in _pairs(group))


def model_scores(results: Results, entries: list[Entry], summary: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """A row (`ModelScore`) a program, benchmark and model. summary: in the order of entries; tests: the pairs'."""
    pooled = run_variances([entry.final for entry in entries])
    rows_of = {id(entry): row for entry, (_, row) in zip(entries, summary.iterrows(), strict=True)}
    verdicts = dict(zip(tests["comparison"], tests["verdict"], strict=True))
    columns = [field.name for field in fields(ModelScore)]
    frames = []
    for group in model_groups(entries):
        shared = shared_variance(group)
        scores = [_score(results, group, model, rows_of, pooled, shared) for model in group.by_model]
        frames.append(_with_front(pd.DataFrame(scores, columns=columns), group, verdicts))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _is_control(pipeline: str) -> bool:
    return pipeline in PIPELINES and PIPELINES[pipeline].draws


def _small_first(entry: Entry) -> tuple[float, str]:
    return entry.size[0] or math.inf, entry.series.model


def _program_and_benchmark(entry: Entry) -> Terms:
    return entry.steps, *entry.series.terms(*_NAMED)


def _group(same: list[Entry], rivals: list[Entry]) -> ModelGroup:
    """Entries that differ in the model only; names tell them from rivals, and models from each other, where they must.

    rivals: all entries of this program and benchmark.
    """
    first = same[0]
    by_model = {}
    for entry in sorted(same, key=_small_first):
        twins = [other for other in same if other.series.model == entry.series.model]
        by_model[entry.series.model + _differing(entry, twins, OF_MODELS)] = [entry]
    program = f"{step_name(first.series.pipeline, first.steps)} {first.series.optimizer}"
    benchmark = first.series.benchmark + _differing(first, rivals, SHARED_IN_BENCHMARK)
    return ModelGroup(program + _differing(first, rivals, _OF_PROGRAMS), benchmark, by_model)


def _differing(entry: Entry, others: list[Entry], names: Sequence[str]) -> str:
    """' (rollout_budget 80)': the values of those fields in which others differ; "" where none does."""
    texts = [f"{name} {str(getattr(entry.series, name))[:12]}" for name in names
             if len({getattr(other.series, name) for other in others}) > 1]  # fmt: skip
    return f" ({', '.join(texts)})" if texts else ""


def _over_benchmarks(groups: list[ModelGroup]) -> list[ModelGroup]:
    """The models that are in the largest group of every benchmark, with all of them; [] for one benchmark."""
    largest: dict[str, ModelGroup] = {}
    for group in sorted(groups, key=lambda group: len(group.by_model)):
        largest[next(iter(group.by_model.values()))[0].series.benchmark] = group
    first, *others = largest.values()
    models = [model for model in first.by_model if all(model in other.by_model for other in others)]
    if not others or len(models) < 2:
        return []
    together = {model: [group.by_model[model][0] for group in largest.values()] for model in models}
    return [ModelGroup(first.program, ALL, together)]


def _pairs(group: ModelGroup) -> Iterator[Comparison]:
    for first, second in itertools.combinations(group.by_model, 2):
        minus, plus = (tuple(entry.final for entry in group.by_model[model]) for model in (first, second))
        yield Comparison(group.pair_name(first, second), minus, plus, holm=group.program)


def _score(
    results: Results,
    group: ModelGroup,
    model: str,
    rows_of: Mapping[int, pd.Series],
    pooled: Mapping[str, RunVariance],
    shared_variance: float,
) -> ModelScore:
    entries = group.by_model[model]
    rows = [rows_of[id(entry)] for entry in entries]
    mean = contrast([(1 / len(entries), entry.final) for entry in entries], pooled)
    low, high = np.clip([mean.low, mean.high], 0.0, 1.0).tolist()
    if len(entries) == 1:
        low, high = rows[0]["final_low"], rows[0]["final_high"]
    size, status = entries[0].size
    price = results.cells.loc[entries[0].keys[0]].to_dict()["output_usd_per_million"]
    return ModelScore(
        group.program, group.benchmark, model, float(np.mean([row["final_score"] for row in rows])), low, high,
        mean.se**2, shared_variance, mean.n, mean.runs, math.nan if size is None else size, status,
        math.nan if price is None else float(price), float(np.mean([row["usd_per_example"] for row in rows])),
    )  # fmt: skip


def shared_variance(group: ModelGroup) -> float:
    """Mean covariance of two models' scores over the rows that both answer: what easy or hard rows do to all."""
    by_benchmark: dict[str, list[Arm]] = {}
    for entries in group.by_model.values():
        for entry in entries:
            by_benchmark.setdefault(entry.series.benchmark, []).append(entry.final)
    total = 0.0
    for arms in by_benchmark.values():
        shared, _ = share_rows([(1.0, arm) for arm in arms])
        if len(np.unique(shared[0][1].groups)) > 1:
            matrix = covariance([arm for _, arm in shared], {})
            total += float(matrix[~np.eye(len(matrix), dtype=bool)].mean())
    return max(0.0, total) / len(by_benchmark) ** 2


def _with_front(scores: pd.DataFrame, group: ModelGroup, verdicts: Mapping[str, str]) -> pd.DataFrame:
    """The scores with the front of cost and score marked, where all prices are known."""
    cost = scores["usd_per_example"].to_numpy(float)
    if not (cost > 0).all():
        return scores
    on_front = scores.index.isin(pareto(cost, scores["score"].to_numpy(float)))
    beaten = ["" if on else _beaten_by(row, scores, group, verdicts)
              for on, (_, row) in zip(on_front, scores.iterrows(), strict=True)]  # fmt: skip
    return scores.assign(on_front=on_front, beaten_by=beaten)


def _beaten_by(row: pd.Series, scores: pd.DataFrame, group: ModelGroup, verdicts: Mapping[str, str]) -> str:
    """The best model that costs no more and scores no less, with the word of its test."""
    better = scores[(scores["usd_per_example"] <= row["usd_per_example"]) & (scores["score"] >= row["score"])]
    model, best = row["model"], better[better["model"] != row["model"]].sort_values("score")["model"].iloc[-1]
    told = {verdicts.get(group.pair_name(model, best)), _TURNED.get(verdicts.get(group.pair_name(best, model), ""))}
    return f"{best} ({'shown' if told & {BETTER, HIGHER_HERE} else 'not shown'})"
