"""Which results may be compared: those of one dataset, version and metric; what is refused is named with its field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scaling.compare.options import Choices
from scaling.readers.rows import Result, Row
from scaling.types import UsageError

MOST_RESULTS = 26  # of one dataset: a letter each
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Comparable:
    """Results of one dataset by one metric. dataset and metric: for people; notes: what was taken for granted."""

    dataset: str
    metric: str
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()


def comparable(arguments: Sequence[Sequence[Result]], choices: Choices) -> tuple[list[Comparable], list[str]]:
    """The results of all arguments by dataset, and a sentence for each that has no partner.

    Raises UsageError, with the field, where none can be compared or where two of a dataset differ in their terms.
    """
    chosen = [_one_metric(_of_datasets(results, choices), choices) for results in arguments]
    results = told_apart([_scaled(result, choices.scale) for own in chosen for result in own])
    if len(results) < 2:
        raise UsageError("a comparison needs two results: give a second file, or a file that holds several.")
    by_dataset = _by_dataset(results, choices)
    alone = [own[0] for own in by_dataset.values() if len(own) == 1]
    groups = [_comparable(name, own, choices) for name, own in by_dataset.items() if len(own) > 1]
    if not groups:
        first, second = alone[:2]
        raise UsageError(_differ("dataset", first, second, "--same dataset"))
    return groups, [f"{result.name}: no other result is of dataset {result.dataset}" for result in alone]


def told_apart(results: list[Result]) -> list[Result]:
    """The results, those of one name and dataset with their source, and with a number where that is one, too."""
    named = []
    for result in results:
        twins = [other for other in results if (other.name, other.dataset) == (result.name, result.dataset)]
        if len(twins) == 1:
            named.append(result)
        elif len({twin.source for twin in twins}) == len(twins):
            named.append(replace(result, name=f"{result.name} ({result.source})"))
        else:
            named.append(replace(result, name=f"{result.name} ({result.source}, {twins.index(result) + 1})"))
    return named


def _of_datasets(results: Sequence[Result], choices: Choices) -> list[Result]:
    """The results of the datasets that were asked for."""
    if not choices.datasets:
        return list(results)
    chosen = [result for result in results if result.dataset in choices.datasets or result.dataset is None]
    if not chosen:
        there = ", ".join(sorted({str(result.dataset) for result in results}))
        raise UsageError(f"--dataset: {results[0].source} has no {' or '.join(choices.datasets)}; it has {there}.")
    return chosen


def _one_metric(results: list[Result], choices: Choices) -> list[Result]:
    """The results by the metric that was asked for. Raises UsageError where there are several to choose from."""
    there = list(dict.fromkeys(result.metric for result in results if result.metric))
    if choices.metric is None:
        several = [result for result in results if len({r.metric for r in results if r.dataset == result.dataset}) > 1]
        if several:
            raise UsageError(f"{several[0].source} has several metrics: {', '.join(there)}. Type --metric {there[0]}")
        return results
    chosen = [result for result in results if result.metric in (choices.metric, None)]
    if not chosen:
        raise UsageError(f"--metric: {results[0].source} has no {choices.metric}; it has {', '.join(there)}.")
    return chosen


def _scaled(result: Result, scale: float) -> Result:
    """The result with fractions for scores. Raises UsageError for scores outside of 0 and 1."""
    rows = tuple(replace(row, score=row.score / scale) if row.score is not None else row for row in result.rows)
    rows = result.rows if scale == 1 else rows
    scores = [row.score for row in rows if row.score is not None]
    if scores and not 0 <= min(scores) <= max(scores) <= 1:
        low, high = min(scores) * scale, max(scores) * scale
        raise UsageError(
            f"scores of {result.source} go from {low:g} to {high:g}, and fractions from 0 to 1 are needed. Type "
            f"--scale with the score of a perfect answer, as in --scale 100"
        )
    return replace(result, rows=rows)


def _by_dataset(results: list[Result], choices: Choices) -> dict[str, list[Result]]:
    """Results by dataset; one that does not say its own belongs to the only one that there is."""
    known = list(dict.fromkeys(result.dataset for result in results if result.dataset))
    if "dataset" in choices.same or len(known) <= 1:
        return {known[0] if known else "": results}
    silent = [result for result in results if not result.dataset]
    if silent:
        raise UsageError(
            f"dataset: {silent[0].source} does not say its own, and the others have {', '.join(known)}. Type --dataset "
            f"{known[0]}"
        )
    return {name: [result for result in results if result.dataset == name] for name in known}


def _comparable(dataset: str, results: list[Result], choices: Choices) -> Comparable:
    if len(results) > MOST_RESULTS:
        raise UsageError(
            f"{len(results)} results of {dataset or 'one dataset'} are more than {MOST_RESULTS}. Give files or folders "
            f"with fewer, or --dataset."
        )
    notes = [note for field in ("dataset", "version", "metric") for note in _agreed(field, results, choices)]
    metric = next((result.metric for result in results if result.metric), "score")
    return Comparable(dataset or "one dataset", metric, tuple(results), tuple(notes))


def _agreed(field: str, results: list[Result], choices: Choices) -> list[str]:
    """What is taken for granted of a field. Raises UsageError where two results differ in it.

    Versions of different formats count different things, and are not held against each other.
    """
    notes = []
    formats = {result.format for result in results}
    parts = [[r for r in results if r.format == form] for form in formats] if field == "version" else [results]
    for part in parts:
        known = [result for result in part if getattr(result, field)]
        other = next((result for result in known if getattr(result, field) != getattr(known[0], field)), None)
        if other is None:
            continue
        if field not in choices.same:
            raise UsageError(_differ(field, known[0], other, f"--same {' '.join([*choices.same, field])}"))
        values = ", ".join(dict.fromkeys(str(getattr(result, field)) for result in known))
        notes.append(f"You said that these are the same {field}: {values}.")
    silent = [result.name for result in results if not getattr(result, field)]
    if silent and field != "version":
        notes.append(f"The {field} is taken to be the same; these do not say theirs: {', '.join(silent)}.")
    if field == "version" and len(formats) > 1:
        notes.append("Versions are not compared: they are of different programs.")
    return notes


def _differ(field: str, first: Result, second: Result, flag: str) -> str:
    return (
        f"{field}: {first.source} has '{getattr(first, field)}', {second.source} has '{getattr(second, field)}'. "
        f"Results of different ones are not compared. If they are the same, type {flag}"
    )


def rows_by_run(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each run."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)
    return runs
