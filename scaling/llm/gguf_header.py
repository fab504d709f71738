"""The header of a GGUF file (version 3): its fields, and how many parameters its tensors have.

The package `gguf` reads it too, but takes 3 to 10 seconds for a vocabulary of usual size; this takes a tenth of one.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
LONGEST_LIST = 10_000  # longer ones are vocabularies, which nobody here reads
LONGEST_TEXT = 2**24  # bytes


class NotGguf(Exception):
    """The file does not begin as a GGUF file does."""


@dataclass(frozen=True)
class GgufHeader:
    """fields: by name, without long lists. last_tensor: the byte of the file at which the last tensor begins."""

    fields: dict[str, Any]
    parameters: int
    last_tensor: int


def read_header(path: Path) -> GgufHeader:
    """Raises NotGguf, and struct.error, UnicodeDecodeError or KeyError for a header that is damaged or cut short."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise NotGguf
        _, tensors, count = _numbers(file, "IQQ")
        fields = {}
        for _ in range(count):
            name = _text(file)
            fields[name] = _value(file, _number(file, "I"))
        parameters, last = 0, 0
        for _ in range(tensors):
            _text(file)
            shape = _numbers(file, f"{_number(file, 'I')}Q")
            _, offset = _numbers(file, "IQ")
            parameters, last = parameters + math.prod(shape), max(last, offset)
        return GgufHeader(fields, parameters, file.tell() + last)


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _text(file)
    if kind != ARRAY:
        return _number(file, NUMBERS[kind])
    of, length = _numbers(file, "IQ")
    if of in NUMBERS:
        values = struct.Struct(f"<{length if length <= LONGEST_LIST else 1}{NUMBERS[of]}")
        if length <= LONGEST_LIST:
            return list(values.unpack(_bytes(file, values.size)))
        file.seek(values.size * length, 1)
        return None
    items = [_value(file, of) if of == ARRAY else _bytes(file, _length(file)) for _ in range(length)]
    return items if length <= LONGEST_LIST else None


def _text(file: BinaryIO) -> str:
    return _bytes(file, _length(file)).decode()


def _length(file: BinaryIO) -> int:
    return int(_number(file, "Q"))


def _number(file: BinaryIO, kind: str) -> Any:
    return _numbers(file, kind)[0]


def _numbers(file: BinaryIO, kinds: str) -> tuple[Any, ...]:
    form = struct.Struct("<" + kinds)
    return form.unpack(_bytes(file, form.size))


def _bytes(file: BinaryIO, size: int) -> bytes:
    """The next bytes; struct.error where the file ends before, or where so many cannot be meant."""
    found = file.read(size) if size <= LONGEST_TEXT else b""
    if len(found) != size:
        raise struct.error("the file ends here")
    return found
