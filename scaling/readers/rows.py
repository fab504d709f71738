"""What every reader makes of its files: a `Result` is one program's scored answers to one dataset by one metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from scaling.readers.files import Source

UNGROUPED = "none"  # in place of a field to group by
BY_INPUT = "input"
NO_OPTIMIZER = "none"
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Row:
    """One answer to one row of a dataset.

    score: None where there is none, as when a call was lost. run: names repeats of the whole dataset. group: what rows
    that are not independent share. input: what was asked, as text. document: the whole row of the dataset, which is the
    same for every prompt, in the form of its format. cost: US dollars.
    """

    id: str
    score: float | None
    run: str = ""
    group: str | None = None
    input: str | None = None
    document: str | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Result:
    """Rows with what must be equal for a comparison: dataset, version and metric, None where the file does not say.

    optimizer: "none" where runs are draws of one fixed program, else a name that the runs of one optimizer share.
    settings: what else must be equal for two results of one name to be runs of one.
    notes: sentences for every output, as that the results are simulated.
    """

    name: str
    source: str
    format: str
    rows: tuple[Row, ...]
    dataset: str | None = None
    version: str | None = None
    metric: str | None = None
    optimizer: str = NO_OPTIMIZER
    settings: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format that can be read. what: a word or two for people.

    recognizes: whether a source is of this format. read: its results; the second argument names the field of a row
    that says which rows belong together.
    """

    what: str
    recognizes: Callable[[Source], bool]
    read: Callable[[Source, str], list[Result]]


def runs_joined(results: list[Result]) -> list[Result]:
    """Results of one name, dataset, version, metric and settings as the runs of one result."""
    alike: dict[tuple[str | None, ...], list[Result]] = {}
    for result in results:
        key = (result.name, result.dataset, result.version, result.metric, result.settings)
        alike.setdefault(key, []).append(result)
    return [_joined(same) for same in alike.values()]


def last_message(prompt: str) -> str:
    """Of a prompt that is a JSON list of messages, the last one's text; any other prompt as it is."""
    if not prompt.startswith("[{"):
        return prompt
    try:
        messages = msgspec.json.decode(prompt, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        return prompt
    return str(messages[-1].get("content", prompt))


def text_of(value: object) -> str | None:
    """A field's value as the name of a group; None where there is none."""
    return None if value is None or value == "" else str(value)


def _joined(same: list[Result]) -> Result:
    if len(same) == 1:
        return same[0]
    rows = [replace(row, run=f"{number} {row.run}") for number, result in enumerate(same, 1) for row in result.rows]
    notes = tuple(dict.fromkeys(note for result in same for note in result.notes))
    return replace(same[0], rows=tuple(rows), notes=notes)
