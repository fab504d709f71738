"""What simulated studies came to, a row a truth, run sd and design, as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HYPOTHESES = ("H1", "H2", "H3", "H4")
WHAT = ("truth", "run_sd", "design", "studies")


@dataclass(frozen=True)
class StudyRow:
    """What many simulated studies of one truth, run sd and design came to, in per cent.

    calls: of those of the fixed study of 3 runs; false: any "supported" that is not true; supported and contradicted:
    H1 to H4.
    """

    truth: str
    run_sd: str
    design: str
    studies: int
    calls: float
    false: float
    supported: tuple[float, ...]
    contradicted: tuple[float, ...]


def write_studies(path: Path, rows: Sequence[StudyRow]) -> None:
    """Write the rows, shares with two decimals."""
    head = [
        *WHAT,
        "calls",
        "false",
        *(f"{verdict} {h}" for verdict in ("supported", "contradicted") for h in HYPOTHESES),
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for row in rows:
            shares = (row.calls, row.false, *row.supported, *row.contradicted)
            writer.writerow([*(getattr(row, name) for name in WHAT), *(f"{share:.2f}" for share in shares)])


def read_studies(path: Path) -> list[StudyRow]:
    """The rows of such a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(line) for line in list(csv.reader(file))[1:]]


def _row(line: Sequence[str]) -> StudyRow:
    truth, run_sd, design, studies, *shares = line
    calls, false, *verdicts = map(float, shares)
    count = len(HYPOTHESES)
    return StudyRow(truth, run_sd, design, int(studies), calls, false, tuple(verdicts[:count]), tuple(verdicts[count:]))


SIDES = ("fixed", "sequential")
ASKED_OF_WHOLE = ("H1", "H2", "H4")  # H3 needs two optimizers
SIDE_BY_SIDE = Path(__file__).parent / "side_by_side.csv"


@dataclass(frozen=True)
class WholeStudy:
    """A planted study that the whole program ran by one design; verdicts: on H1, H2 and H4."""

    truth: str
    design: str
    cells: int
    calls: int
    usd: float
    verdicts: tuple[str, ...]


def write_sides(rows: Sequence[WholeStudy], path: Path = SIDE_BY_SIDE) -> None:
    """Write the rows, dollars with four decimals."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["truth", "design", "cells", "calls", "usd", *ASKED_OF_WHOLE])
        for row in rows:
            writer.writerow([row.truth, row.design, row.cells, row.calls, f"{row.usd:.4f}", *row.verdicts])


def read_sides(path: Path = SIDE_BY_SIDE) -> list[WholeStudy]:
    """The rows of such a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [WholeStudy(truth, design, int(cells), int(calls), float(usd), tuple(verdicts))
                for truth, design, cells, calls, usd, *verdicts in list(csv.reader(file))[1:]]  # fmt: skip
