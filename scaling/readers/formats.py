"""All formats that can be read, and the reader of a path. A new format is one entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scaling.readers import every_eval_ever, inspect_log, lm_eval, own_results, plain, promptfoo
from scaling.readers.files import Source
from scaling.readers.rows import Format, Result, runs_joined
from scaling.types import UsageError

FORMATS: tuple[Format, ...] = (
    own_results.FORMAT, inspect_log.FORMAT, lm_eval.FORMAT, every_eval_ever.FORMAT, promptfoo.FORMAT, plain.FORMAT,
)  # fmt: skip


def read(argument: str, group_field: str) -> list[Result]:
    """The results that a path holds, which may stand behind a name and a '='. Raises UsageError where there are none.

    group_field: the field of a row that says which rows belong together.
    """
    label, path = named(argument)
    source = Source(path)
    results = [_without_placeholder(result) for result in runs_joined(format_of(source).read(source, group_field))]
    if not any(result.rows for result in results):
        raise UsageError(f"{path} holds no scored row.")
    if not label:
        return results
    several = len({result.name for result in results}) > 1
    return [replace(result, name=f"{label} {result.name}" if several else label) for result in results]


def _without_placeholder(result: Result) -> Result:
    """The result without inputs where all rows have the same one: programs write such a text in place of rows that they
    may not show."""
    if len({row.input for row in result.rows}) > 1 or len({row.id for row in result.rows}) < 2:
        return result
    return replace(result, rows=tuple(replace(row, input=None) for row in result.rows))


def named(argument: str) -> tuple[str, Path]:
    """'NAME=PATH' as both, or ("", path). Raises UsageError for a path that is not there."""
    label, sign, rest = argument.partition("=")
    if Path(argument).exists():
        return "", Path(argument)
    if sign and label and Path(rest).exists():
        return label, Path(rest)
    raise UsageError(f"there is no file or folder {argument}. Give a path, or NAME=PATH.")


def format_of(source: Source) -> Format:
    """The first format that recognizes the source. Raises UsageError where none does."""
    for known in FORMATS:
        if known.recognizes(source):
            return known
    raise UsageError(f"{source.path} is of no known format. Known are: {'; '.join(known.what for known in FORMATS)}.")
