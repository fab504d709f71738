"""Rows that were answered several times: the draws of a row are averaged before anything else is worked out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from scaling.records.record import PredictionLine


def rows_of(lines: Sequence[PredictionLine]) -> list[PredictionLine]:
    """One line for each row, in the order of the rows; its scores are the means over the draws that have one.

    What else the line says is of the row's first draw. A draw that is there twice stays a line of its own.
    """
    if not any(line.draw for line in lines):
        return list(lines)
    seen: Counter[tuple[str | int, int]] = Counter()
    by_row: dict[tuple[str | int, int], list[PredictionLine]] = {}
    for line in lines:
        by_row.setdefault((line.id, seen[line.id, line.draw]), []).append(line)
        seen[line.id, line.draw] += 1
    return [_averaged(draws) for draws in by_row.values()]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _averaged(draws: Sequence[PredictionLine]) -> PredictionLine:
    names = dict.fromkeys(name for line in draws for name in line.extra_scores or {})
    extra = {name: mean((line.extra_scores or {}).get(name) for line in draws) for name in names}
    return replace(draws[0], score=mean(line.score for line in draws), extra_scores=extra)
