"""The tables of docs/sequential-studies.md, from the CSV files beside this: `python -m simulations.tables`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from scaling.sequential import SequentialDesign, sequential_design
from scaling.spending import levels_of
from simulations.sequential import AT_EQUAL_CALLS, FIXED_STUDY, GATED, RUN_SDS, SEQUENTIAL_STUDY
from simulations.study_rows import ASKED_OF_WHOLE, HYPOTHESES, SIDES, StudyRow, read_sides, read_studies

ROOT = Path(__file__).parent.parent
PAGE, STUDIES = ROOT / "docs" / "sequential-studies.md", ROOT / "simulations" / "sequential.csv"
Rows = Sequence[StudyRow]


def page_with_tables(page: str, rows: Rows) -> str:
    """The page with each of its tables made anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        page = before + begin + table(rows) + end + rest.partition(end)[2]
    return page


def boundaries_table(rows: Rows) -> str:
    """The level of p at each look, by how many questions share alpha."""
    head = ["look", *(f"{count} share alpha" if count > 1 else "the last one" for count in (4, 3, 2, 1))]
    body = [[f"{design.waves[-1]} runs planned, after {runs}", *_levels(design, place)]
            for design in map(sequential_design, (3, 4, 5)) for place, runs in enumerate(design.waves)]  # fmt: skip
    return _table(head, body)


def _levels(design: SequentialDesign, place: int) -> list[str]:
    """Two-sided."""
    found = [2 * levels_of(design, count)[place] for count in (4, 3, 2, 1)]
    return [f"{level:.4f}" if level >= 0.0001 else "below 0.0001" for level in found]


def truths_table(rows: Rows) -> str:
    """By truth at a run sd of 2: false verdicts, power and calls of the three designs."""
    head = ["truth, points", "power, %: fixed", "sequential", "with gate", "false supported, %: fixed", "sequential",
            "with gate", "calls, %: sequential", "with gate"]  # fmt: skip
    body = []
    for truth in dict.fromkeys(row.truth for row in rows if row.design == FIXED_STUDY):
        three = [_one(rows, truth, "2", design) for design in (FIXED_STUDY, SEQUENTIAL_STUDY, GATED)]
        body.append([truth, *map(_power, three), *(f"{row.false:.1f}" for row in three),
                     *(f"{row.calls:.0f}" for row in three[1:])])  # fmt: skip
    return _table(head, body)


def _power(row: StudyRow) -> str:
    """The power for the question that the truth is about; all four where all are true, none on a null."""
    if row.truth.startswith("all"):
        return ", ".join(f"{share:.0f}" for share in row.supported)
    name = "H2" if row.truth.startswith("rise and fall") else row.truth[:2]
    return f"{row.supported[HYPOTHESES.index(name)]:.1f}" if name in HYPOTHESES else ""


def sds_table(rows: Rows) -> str:
    """By run sd: the worst of the truths in false verdicts, and the mean calls."""
    head = ["run sd, points", "any false supported, worst truth, %: fixed", "sequential", "with gate",
            "calls, mean of the truths, %: sequential", "with gate"]  # fmt: skip
    body = []
    for sd in RUN_SDS:
        three = [[row for row in rows if (row.run_sd, row.design) == (sd, design)]
                 for design in (FIXED_STUDY, SEQUENTIAL_STUDY, GATED)]  # fmt: skip
        calls = [f"{sum(row.calls for row in own) / len(own):.0f}" for own in three[1:]]
        body.append([sd, *(f"{max(row.false for row in own):.1f}" for own in three), *calls])
    return _table(head, body)


def equal_table(rows: Rows) -> str:
    """The power that the saved calls can buy."""
    head = ["truth, points", "power, %: fixed, 3 runs", AT_EQUAL_CALLS, "its calls, %"]
    mine = [row for row in rows if row.design == AT_EQUAL_CALLS and row.truth != "null"]
    body = [[row.truth, _power(_one(rows, row.truth, row.run_sd, FIXED_STUDY)), _power(row), f"{row.calls:.0f}"]
            for row in mine]  # fmt: skip
    return _table(head, body)


def whole_table(rows: Rows) -> str:
    """Studies that the whole program ran (simulations/side_by_side.csv): verdicts, calls, dollars of both designs."""
    head = ["planted, points", *(f"{name}: fixed, sequential" for name in ASKED_OF_WHOLE), "calls: fixed, sequential",
            "dollars: fixed, sequential"]  # fmt: skip
    sides = read_sides()
    body = []
    for truth in dict.fromkeys(side.truth for side in sides):
        fixed, sequential = (next(s for s in sides if (s.truth, s.design) == (truth, design)) for design in SIDES)
        verdicts = [_both(*pair) for pair in zip(fixed.verdicts, sequential.verdicts, strict=True)]
        body.append([truth, *verdicts, f"{fixed.calls:,}, {sequential.calls:,}",
                     f"{fixed.usd:.2f}, {sequential.usd:.2f}"])  # fmt: skip
    return _table(head, body)


def _both(fixed: str, sequential: str) -> str:
    return f"{fixed}, both" if fixed == sequential else f"{fixed}, {sequential}"


def _one(rows: Rows, truth: str, run_sd: str, design: str) -> StudyRow:
    return next(row for row in rows if (row.truth, row.run_sd, row.design) == (truth, run_sd, design))


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


TABLES: dict[str, Callable[[Rows], str]] = {
    "boundaries": boundaries_table, "truths": truths_table, "sds": sds_table, "equal": equal_table,
    "whole": whole_table,
}  # fmt: skip

if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8"), read_studies(STUDIES)), encoding="utf-8")
