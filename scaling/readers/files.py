"""Files of other programs as typed objects: what a path holds, and one clear line for what cannot be read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from scaling.records.codec import RecordError, decode, decode_lines
from scaling.types import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A path that a user named."""

    path: Path

    @cached_property
    def suffix(self) -> str:
        """The file's ending in small letters; "" for a folder."""
        return "" if self.path.is_dir() else self.path.suffix.lower()

    @cached_property
    def keys(self) -> frozenset[str]:
        """Names in a CSV's header, in a JSON object, or in the first object of a JSONL file; none for others."""
        if self.suffix == ".csv":
            return frozenset(next(_csv_lines(self.path), []))
        if self.suffix == ".json":
            return frozenset(_keys(self.path.read_bytes()))
        if self.suffix == ".jsonl":
            with self.path.open("rb") as lines:
                return frozenset(_keys(next((line for line in lines if line.strip()), b"")))
        return frozenset()

    def files(self, *patterns: str) -> list[Path]:
        """Files of these names in the folder and below, sorted; [] for a file."""
        return sorted({path for pattern in patterns for path in self.path.rglob(pattern)}) if not self.suffix else []


def read_object(path: Path, kind: type[T]) -> T:
    """The one object of a JSON file. Raises UsageError."""
    return object_of(path.read_bytes(), kind, path)


def object_of(data: bytes, kind: type[T], where: Path) -> T:
    """JSON as this kind. NaN and Infinity are numbers, as Python's own json writes them. Raises UsageError."""
    try:
        return decode(data, kind)
    except RecordError as error:
        first = error
    try:
        return msgspec.convert(json.loads(data), kind)
    except (ValueError, RecursionError):
        raise UsageError(f"{where} cannot be read: {first}.") from None


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """The objects of a JSONL file. Raises UsageError, with the number of the line, for one that cannot be read."""
    data = path.read_bytes()
    good, bad = decode_lines(data, kind)
    if not bad:
        return good
    lines = enumerate(data.split(b"\n"), 1)
    return [object_of(line, kind, Path(f"{path} line {number}")) for number, line in lines if line.strip()]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file by the names in its header. Raises UsageError for a line with too many or too few."""
    lines = _csv_lines(path)
    header = next(lines, [])
    rows = []
    for number, line in enumerate(lines, 2):
        if line and len(line) != len(header):
            raise UsageError(f"{path} line {number} has {len(line)} values, and the header has {len(header)}.")
        if line:
            rows.append(dict(zip(header, line, strict=True)))
    return rows


def _csv_lines(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from csv.reader(lines)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not CSV in UTF-8 ({str(error)[:100]}).") from None


def _keys(data: bytes) -> list[str]:
    try:
        return list(decode(data, dict[str, msgspec.Raw]))
    except RecordError:
        pass
    try:
        value: Any = json.loads(data)  # NaN
    except (ValueError, RecursionError):
        return []
    return list(value) if isinstance(value, dict) else []
