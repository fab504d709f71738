"""What stands behind the numbers: prompts that optimizers changed, and answers that turned."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scaling.analysis.results import Results
from scaling.records.record import PredictionLine

EXAMPLES_A_CELL, CELLS_WITH_EXAMPLES, LONGEST_TEXT = 3, 30, 300
Words = list[tuple[str, str]]  # (kept | removed | added, text)


@dataclass(frozen=True)
class ChangedProgram:
    """A program whose instructions an optimizer changed; each role's prompt as words kept, removed and added."""

    name: str
    roles: dict[str, Words]


@dataclass(frozen=True)
class Answer:
    """One item's answer before and after optimization, as text."""

    item: str
    gold: str
    before: str
    after: str


@dataclass(frozen=True)
class TurnedAnswers:
    """A cell's answers that turned: how many in words, and a few of each kind."""

    name: str
    counts: str
    turned: dict[str, list[Answer]]


def changed_programs(results: Results) -> Iterator[ChangedProgram]:
    """Programs whose instructions changed."""
    for key in results.cells[results.cells["status"] == "ok"].index:
        changed = {role: _difference(text.before, text.after) for role, text in results.instructions(key).items()}
        if changed:
            yield ChangedProgram(results.name(key), changed)


def turned_answers(results: Results) -> Iterator[TurnedAnswers]:
    """Answers that optimization turned from wrong to right and from right to wrong, a few a changed cell."""
    cells = results.cells
    changed = cells[(cells["status"] == "ok") & ~cells["unchanged"].fillna(True).astype(bool)]
    for key in changed.index[:CELLS_WITH_EXAMPLES]:
        pairs = list(_pairs(results, key))
        turned = {
            "wrong to right": [pair for pair in pairs if _gain(*pair) > 0],
            "right to wrong": [pair for pair in pairs if _gain(*pair) < 0],
        }
        if any(turned.values()):
            counts = ", ".join(f"{len(some)} {name}" for name, some in turned.items())
            shown = {name: [_answer(*pair) for pair in some[:EXAMPLES_A_CELL]] for name, some in turned.items()}
            yield TurnedAnswers(results.name(key), counts, shown)


def _pairs(results: Results, key: str) -> Iterator[tuple[PredictionLine, PredictionLine]]:
    """Prediction lines of the same item before and after optimization, both with a score."""
    by_program: dict[str, dict[str | int, PredictionLine]] = {"baseline": {}, "final": {}}
    for line in results.lines(key):
        if line.program in by_program and line.score is not None and line.draw == 0:
            by_program[line.program][line.id] = line
    for item, before in by_program["baseline"].items():
        if item in by_program["final"]:
            yield before, by_program["final"][item]


def _gain(before: PredictionLine, after: PredictionLine) -> float:
    return (after.score or 0.0) - (before.score or 0.0)


def _difference(before: str, after: str) -> Words:
    old, new = before.split(), after.split()
    pieces = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(("kept", " ".join(old[a:b])))
            continue
        if b > a:
            pieces.append(("removed", " ".join(old[a:b])))
        if d > c:
            pieces.append(("added", " ".join(new[c:d])))
    return pieces


def _answer(before: PredictionLine, after: PredictionLine) -> Answer:
    return Answer(str(before.id), _short(before.gold), _shown(before), _shown(after))


def _shown(line: PredictionLine) -> str:
    notes = "; ".join(f"{role}: {_short(text)}" for role, text in (line.notes or {}).items())
    return f"{_short(line.prediction)} (score {line.score:g})" + (f" — {notes}" if notes else "")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
