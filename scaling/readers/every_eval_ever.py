"""Every Eval Ever: the instance JSONL of schema 0.2 and 0.3, with the aggregate JSON beside it where it is there.

The fields are those of `instance_level_eval.schema.json`. The aggregate tells the dataset's and the metric's names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from scaling.readers.files import Source, read_lines, read_object
from scaling.readers.rows import Format, Result, Row, text_of
from scaling.types import UsageError, digest

INSTANCE = {"evaluation_id", "sample_id", "evaluation"}
AGGREGATE = {"evaluation_id", "evaluation_results"}
UNKNOWN_LEVEL = -1  # of a metric with `has_unknown_level`
SCORED_ERRORS = ("parse", "too_long")  # of this program's exports: the answer was there, and scores 0


class Input(msgspec.Struct):
    """What was asked."""

    raw: str


class Evaluation(msgspec.Struct):
    """How the answer was judged."""

    score: float | None = None


class Instance(msgspec.Struct):
    """One line of the JSONL file."""

    evaluation_id: str
    model_id: str
    evaluation_name: str
    sample_id: str
    input: Input
    evaluation: Evaluation
    evaluation_result_id: str | None = None
    error: str | None = None
    metadata: dict[str, Any] | None = None


class Data(msgspec.Struct):
    """Where the rows are from."""

    dataset_name: str | None = None


class Metric(msgspec.Struct):
    """How it was scored."""

    metric_id: str | None = None
    metric_name: str | None = None
    lower_is_better: bool = False
    has_unknown_level: bool = False


class Aggregated(msgspec.Struct):
    """One number of the aggregate file, with what it is about."""

    evaluation_name: str
    source_data: Data
    metric_config: Metric
    generation_config: dict[str, Any] = {}
    evaluation_result_id: str | None = None


class Details(msgspec.Struct):
    """Where the instances are."""

    file_path: str | None = None


class Aggregate(msgspec.Struct):
    """The aggregate file."""

    evaluation_results: list[Aggregated]
    detailed_evaluation_results: Details | None = None


def recognizes(source: Source) -> bool:
    """Whether the file is of this format; a folder, when it holds one that is."""
    if source.suffix == ".jsonl":
        return source.keys >= INSTANCE
    if source.suffix == ".json":
        return source.keys >= AGGREGATE
    return any(Source(path).keys >= INSTANCE for path in source.files("*.jsonl")[:1])


def read(source: Source, group_field: str) -> list[Result]:
    """A result for each model and metric; several evaluations of one model are its runs."""
    if source.suffix == ".json":
        return _of_instances(_instances_of(source.path), group_field)
    paths = [source.path] if source.suffix else source.files("*.jsonl")
    return [result for path in paths for result in _of_instances(path, group_field)]


def _of_instances(path: Path, group_field: str) -> list[Result]:
    numbers = _aggregated(path)
    by_result: dict[tuple[str, str, str], list[Instance]] = {}
    for line in read_lines(path, Instance):
        number = line.evaluation_result_id or line.evaluation_name
        by_result.setdefault((line.model_id, number, line.evaluation_id), []).append(line)
    return [
        _result(path, model, lines, numbers.get(number), group_field)
        for (model, number, _), lines in by_result.items()
        if number not in numbers or not numbers[number].metric_config.lower_is_better
    ]


def _result(path: Path, model: str, lines: list[Instance], number: Aggregated | None, group_field: str) -> Result:
    metric = number.metric_config if number else Metric()
    dataset = (number.source_data.dataset_name if number else None) or lines[0].evaluation_name
    named = metric.metric_id or metric.metric_name or lines[0].evaluation_result_id
    rows = tuple(_row(line, metric, group_field) for line in lines)
    evaluated = lines[0].evaluation_name
    name = model if evaluated == dataset else f"{model} {evaluated}"
    made = number.generation_config.get("generation_args") if number else None
    return Result(
        name, str(path), FORMAT.what, rows, dataset, metric=named, optimizer=name, settings=digest([evaluated, made])
    )


def _row(line: Instance, metric: Metric, group_field: str) -> Row:
    unknown = metric.has_unknown_level and line.evaluation.score == UNKNOWN_LEVEL
    lost = line.error is not None and line.error not in SCORED_ERRORS
    score = None if lost or unknown else line.evaluation.score
    group = text_of((line.metadata or {}).get(group_field))
    return Row(id=line.sample_id, score=score, group=group, input=line.input.raw)


def _aggregated(instances: Path) -> dict[str, Aggregated]:
    """The numbers of the aggregate file beside the instances, by the name that instances call them; {} without one."""
    for stem in dict.fromkeys((instances.stem.removesuffix("_samples"), instances.stem)):
        path = instances.with_name(f"{stem}.json")
        if path.exists() and Source(path).keys >= AGGREGATE:
            numbers = read_object(path, Aggregate).evaluation_results
            return {number.evaluation_result_id or number.evaluation_name: number for number in numbers}
    return {}


def _instances_of(aggregate: Path) -> Path:
    """The JSONL file of an aggregate. Raises UsageError where there is none."""
    details = read_object(aggregate, Aggregate).detailed_evaluation_results
    name = Path(details.file_path).name if details and details.file_path else f"{aggregate.stem}_samples.jsonl"
    path = aggregate.with_name(name)
    if not path.exists():
        raise UsageError(f"{aggregate} has means without rows, and {path} is not there. Give the JSONL file.")
    return path


FORMAT = Format("Every Eval Ever's instance JSONL", recognizes, read)
