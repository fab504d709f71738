"""From results to arms of one statistic: rows matched by id or by their input, runs beside each other, clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from scaling.analysis.stats import Arm
from scaling.compare.grouping import Comparable, rows_by_run
from scaling.compare.options import BY_ID, BY_INPUT, Choices
from scaling.readers.rows import BY_INPUT as GROUP_BY_INPUT
from scaling.readers.rows import NO_OPTIMIZER, UNGROUPED, Result, Row
from scaling.types import UsageError, digest

Keys = Callable[[Sequence[Row]], list[str]]
Asked = Callable[[Row], str | None]


@dataclass(frozen=True)
class Program:
    """One result as an arm. The arm's items are keys that all programs of a comparison share.

    asked: the rows that all of its runs have. partly: how many rows only some runs have. usd: an answer's mean cost,
    NaN where it is not known.
    """

    letter: str
    result: Result
    arm: Arm
    asked: frozenset[str]
    partly: int
    usd: float


@dataclass(frozen=True)
class Matched:
    """The programs of one comparison. ids: how the first program calls each row; inputs: what was asked, where known.

    grouped: how many clusters there are, 0 where rows are taken as independent.
    """

    comparable: Comparable
    programs: tuple[Program, ...]
    ids: Mapping[str, str]
    inputs: Mapping[str, str]
    grouped: int
    notes: tuple[str, ...]


def matched(comparable: Comparable, letters: Sequence[str], choices: Choices) -> Matched:
    """The arms of the results. Raises UsageError, with what to do, where rows do not match or may be clustered."""
    results = comparable.results
    asked = _asked(results)
    keys, notes = _keys(results, asked, choices.match)
    keyed = [_keyed(result, keys) for result in results]
    group_of = _groups(results, keyed, asked, choices.group)
    programs = tuple(
        _program(letter, result, rows, group_of, comparable.dataset)
        for letter, result, rows in zip(letters, results, keyed, strict=True)
    )
    ids: dict[str, str] = {}
    inputs: dict[str, str] = {}
    for row_key, row in _all_rows(keyed):
        ids.setdefault(row_key, row.id)
        if row.input or row.document:
            inputs.setdefault(row_key, row.input or row.document or "")
    clusters = len({group_of.get(key, key) for key in ids}) if group_of else 0
    notes = [*comparable.notes, *notes, *_notes(clusters, len(ids), programs, choices)]
    return Matched(comparable, programs, ids, inputs, clusters, tuple(notes))


def _asked(results: Sequence[Result]) -> Asked:
    """What tells rows apart: the document, where all results are of one format that has it; else the input."""
    one_format = len({result.format for result in results}) == 1
    if one_format and all(row.document is not None for result in results for row in result.rows):
        return lambda row: row.document
    return lambda row: row.input


def _keys(results: Sequence[Result], asked: Asked, by: str | None) -> tuple[Keys, list[str]]:
    """What rows are matched by, and what is said of it. Raises UsageError where it does not fit.

    Without a choice of the user: ids, where they are shared, stand for the same inputs and match no fewer pairs; else
    inputs.
    """
    pairs = list(combinations(results, 2))
    others = next((ids for a, b in pairs if (ids := _other_inputs(a, b, asked))), [])
    by_id = sum(bool(_shared(a, b, ids_of)) for a, b in pairs)
    inputs = _keys_of_inputs(asked)
    complete = all(asked(row) is not None for result in results for row in result.rows)
    by_input = sum(bool(_shared(a, b, inputs)) for a, b in pairs) if complete else 0
    if by == BY_INPUT and not complete:
        raise UsageError("input: rows cannot be matched by what was asked: some do not say it. Type --match id")
    if by_id and (by == BY_ID or (by is None and not others and by_id >= by_input)):
        worded = [f"{len(others)} ids stand for inputs that differ; you said that ids match."] if others else []
        return ids_of, ["Rows are matched by their ids.", *worded]
    if by_input and by != BY_ID:
        return inputs, ["Rows are matched by what was asked."]
    first, second = results[:2]
    if others:
        raise UsageError(
            f"input: {len(others)} ids stand for another input in {second.source} than in {first.source} (first: "
            f"'{others[0]}'), and no input is in both. If they are the same rows, type --match id"
        )
    examples = " and ".join(f"'{result.rows[0].id}' ({result.source})" for result in (first, second))
    raise UsageError(f"no row of one result is in another. Their ids are like {examples}.")


def ids_of(rows: Sequence[Row]) -> list[str]:
    """The rows' ids."""
    return [row.id for row in rows]


def _keys_of_inputs(asked: Asked) -> Keys:
    """A digest of what was asked in each row; an input that comes again has a number behind it."""

    def keys_of(rows: Sequence[Row]) -> list[str]:
        seen: dict[str, int] = {}
        keys = []
        for row in rows:
            key = _digest(asked(row))
            seen[key] = seen.get(key, 0) + 1
            keys.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
        return keys

    return keys_of


def _digest(text: str | None) -> str:
    """Of a text without its layout."""
    return digest(" ".join((text or "").split()))[:16]


def _shared(first: Result, second: Result, keys: Keys) -> set[str]:
    return set(_run_keys(first, keys)) & set(_run_keys(second, keys))


def _run_keys(result: Result, keys: Keys) -> list[str]:
    return [key for rows in rows_by_run(result.rows).values() for key in keys(rows)]


def _other_inputs(first: Result, second: Result, asked: Asked) -> list[str]:
    """Ids that stand for different inputs in the two."""
    here = {row.id: _digest(asked(row)) for row in first.rows if asked(row) is not None}
    there = {row.id: _digest(asked(row)) for row in second.rows if asked(row) is not None}
    return sorted(name for name in here.keys() & there.keys() if here[name] != there[name])


def _keyed(result: Result, keys: Keys) -> dict[str, dict[str, Row]]:
    """The rows of each run by key. Raises UsageError for a key that a run has twice."""
    keyed = {}
    for run, rows in rows_by_run(result.rows).items():
        named = dict(zip(keys(rows), rows, strict=True))
        if len(named) < len(rows):
            seen: set[str] = set()
            again = next(row.id for row in rows if row.id in seen or seen.add(row.id))  # type: ignore[func-returns-value]
            where = f" in run '{run}'" if run else ""
            raise UsageError(
                f"id: '{again}' comes more than once{where} in {result.source}. Repeats of a row need a field 'run'."
            )
        keyed[run] = named
    return keyed


def _all_rows(keyed: Sequence[Mapping[str, Mapping[str, Row]]]) -> Iterator[tuple[str, Row]]:
    for runs in keyed:
        for rows in runs.values():
            yield from rows.items()


def _groups(
    results: Sequence[Result], keyed: Sequence[Mapping[str, Mapping[str, Row]]], asked: Asked, group: str | None
) -> dict[str, str]:
    """Key -> the cluster of the row; {} where rows are independent. Raises UsageError where that has to be decided."""
    if group == UNGROUPED:
        return {}
    if group == GROUP_BY_INPUT:
        if not all(asked(row) is not None for _, row in _all_rows(keyed)):
            raise UsageError("--group input: some rows do not say what was asked. Type --group with a field, or none.")
        return {key: _digest(asked(row)) for key, row in _all_rows(keyed)}
    groups: dict[str, str] = {}
    for key, row in _all_rows(keyed):
        if row.group is not None and groups.setdefault(key, row.group) != row.group:
            raise UsageError(
                f"group: row '{row.id}' is in '{groups[key]}' and in '{row.group}'. Give one grouping, or type "
                f"--group none"
            )
    if group is not None and not groups:
        raise UsageError(f"--group: no row has a field '{group}'. Type --group with another, input, or none.")
    if not groups:
        _ask_for_groups(results, keyed, asked)
    return groups


def _ask_for_groups(results: Sequence[Result], keyed: Sequence[Mapping[str, Mapping[str, Row]]], asked: Asked) -> None:
    """Raises UsageError where one input stands under several ids of a run: such rows are not independent."""
    for result, runs in zip(results, keyed, strict=True):
        for rows in runs.values():
            inputs = [_digest(asked(row)) for row in rows.values() if asked(row) is not None]
            repeated = len(inputs) - len(set(inputs))
            if repeated:
                raise UsageError(
                    f"group: {repeated} of {len(rows)} rows of {result.source} ask what another row asks. Such rows "
                    f"are not independent. Type --group input to take them as clusters, or --group none if you know "
                    f"better"
                )


def _program(
    letter: str, result: Result, runs: Mapping[str, Mapping[str, Row]], group_of: Mapping[str, str], dataset: str
) -> Program:
    columns = list(runs.values())
    asked = [key for key in columns[0] if all(key in rows for rows in columns)]
    scores = np.array([[_score(rows[key]) for rows in columns] for key in asked]).reshape(len(asked), len(columns))
    scored = ~np.isnan(scores).any(axis=1)
    items = np.array(asked, dtype=str)
    kept = items[scored]
    groups = np.array([group_of.get(key, key) for key in kept.tolist()]) if group_of else kept
    everything = set().union(*columns)
    costs = [row.cost for row in result.rows]
    known = [cost for cost in costs if cost is not None]
    optimizer = NO_OPTIMIZER if result.optimizer == NO_OPTIMIZER else f"{result.optimizer} of {result.format}"
    arm = Arm(dataset, optimizer, kept, groups, scores[scored], items[~scored])
    usd = sum(known) / len(known) if known and len(known) == len(costs) else float("nan")
    return Program(letter, result, arm, frozenset(asked), len(everything) - len(asked), usd)


def _score(row: Row) -> float:
    return float("nan") if row.score is None else row.score


def _notes(clusters: int, rows: int, programs: Sequence[Program], choices: Choices) -> Iterator[str]:
    if clusters and clusters < rows:
        how = "by input" if choices.group == GROUP_BY_INPUT else f"by the field {choices.group or 'group'}"
        yield f"Clusters are used: {rows} rows are {clusters} groups ({how})."
    if choices.scale != 1:
        yield f"You said that a perfect answer scores {choices.scale:g}: scores are divided by it."
    for program in programs:
        if program.partly:
            yield f"{program.letter}: {program.partly} rows are not in all of its runs and are left out."
        yield from (f"{program.letter}: {note}" for note in program.result.notes)
