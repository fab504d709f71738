"""JSON to the types of `record.py` and back: checked where it is read, one clear line for what does not fit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
# JSON's and Python's names of types, for people.
WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "an object",
}  # fmt: skip


class RecordError(ValueError):
    """A file, or a line of one, that does not fit its type; the message is one line and names the field."""


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be used: its number, counted from 1, and why."""

    number: int
    reason: str


def encode(value: Any, indent: int = 0) -> bytes:
    """A value as JSON in UTF-8, on one line or indented: NaN as null, what JSON does not know as its text."""
    try:
        data: bytes = msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:  # half a surrogate pair, as models write them: a question mark takes its place
        text = json.dumps(msgspec.to_builtins(value, enc_hook=_plain), ensure_ascii=False)
        data = text.encode("utf-8", "replace")
    return msgspec.json.format(data, indent=indent) + b"\n" if indent else data


def decode(data: bytes, kind: type[T]) -> T:
    """One object of this kind. Raises RecordError for anything else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise RecordError(_reason(error)) from None


def decode_lines(data: bytes, kind: type[T]) -> tuple[list[T], list[BadLine]]:
    """The lines of a .jsonl file that are of this kind, and the others with the reason. Empty lines count as none."""
    decoder = msgspec.json.Decoder(kind)
    try:
        return decoder.decode_lines(data), []
    except (ValueError, RecursionError):
        pass  # found out line by line which one it was
    good: list[T] = []
    bad: list[BadLine] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                good.append(decoder.decode(line))
            except (ValueError, RecursionError) as error:
                bad.append(BadLine(number, _reason(error)))
    return good, bad


def check_readable(value: T) -> T:
    """The value itself, if what is written of it can be read again. Raises RecordError when it cannot."""
    decode(encode(value), type(value))
    return value


def as_plain(record: msgspec.Struct) -> dict[str, Any]:
    """A record as the plain data that its file holds."""
    plain: dict[str, Any] = msgspec.json.decode(encode(record))
    return plain


def _plain(value: Any) -> Any:
    """A value of a type that JSON does not know: numpy's floats are floats, everything else is its text."""
    return float(value) if isinstance(value, float) else str(value)


def _reason(error: BaseException) -> str:
    """msgspec's error in one plain line: the field first, where there is one."""
    if isinstance(error, msgspec.ValidationError):
        text, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").lstrip(".")
        text = re.sub("`([^`]*)`", lambda kind: _in_words(kind[1]), text[0].lower() + text[1:])
        return f"field '{field}': {text}" if field else text
    return "nested too deeply" if isinstance(error, RecursionError) else "it is not JSON"


def _in_words(kind: str) -> str:
    """'int | null' as 'a whole number or null'; the name of a field stays."""
    return " or ".join(WORDS.get(name, name) for name in kind.split(" | "))
