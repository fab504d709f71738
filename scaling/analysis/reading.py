"""One cell's files as arrays, and what in them cannot be used.

What cannot be used is left out by the smallest unit that holds it: a row, a row of the turn table, a program, a
learning curve, a cell. Each is counted and named with its file and the reason, and the rest is analysed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from scaling.records.codec import BadLine, RecordError
from scaling.records.draws import rows_of
from scaling.records.record import (
    TOKEN_KINDS,
    CurvePoint,
    Instruction,
    LearningCurve,
    PredictionLine,
    ProgramText,
    Record,
)
from scaling.records.store import CURVE, PREDICTIONS, PROGRAM, read_checked, read_objects
from scaling.types import BREAKDOWNS

PAIR = ("baseline", "final")  # the programs that a cell cannot do without
SCORE_TOLERANCE = 1e-6  # between a score in the record and the mean of its predictions
CURVE_FIELDS = ("rollouts", "lm_calls", "list_cost_usd", "candidate_val_score", "best_val_score")


@dataclass(frozen=True)
class LeftOut:
    """Something that the analysis does not use: how many of which unit, in which file, and why."""

    unit: str
    file: Path
    reason: str
    count: int = 1


@dataclass(frozen=True)
class Answers:
    """One program's scored answers in one cell: ids and groups (n,), scores (n,) with NaN where there is none.

    A score is the mean over the draws of its row.
    extra: scores by other metrics, (n,) each. turns: scores of each turn or draw, (n, turns), NaN in rows without;
    None where no row has any. calls and tokens are means: of an answered example, and of an example. usd and
    tokens_by_kind are means of an example that the infrastructure did not lose, NaN where a row does not say: list
    cost with every kind of token at its own price, and tokens by TOKEN_KINDS. categories: by property of the rows, the
    value of each, (n,) each, "" for a row without. noise: the variance between the draws of each row that has several,
    (m,); None where none has.
    """

    items: np.ndarray
    groups: np.ndarray
    scores: np.ndarray
    extra: dict[str, np.ndarray]
    turns: np.ndarray | None
    calls: float
    tokens: float
    usd: float
    tokens_by_kind: dict[str, float]
    categories: dict[str, np.ndarray] = field(default_factory=dict)
    noise: np.ndarray | None = None


@dataclass(frozen=True)
class CellData:
    """What lies beside one record: answers by program, the learning curve by field, changed instructions by role.

    unusable: why the cell as a whole cannot be analysed; None for one that can.
    """

    answers: dict[str, Answers]
    curve: dict[str, np.ndarray]
    instructions: dict[str, Instruction]
    left_out: list[LeftOut]
    unusable: str | None


@dataclass
class CellReader:
    """Reads the files of cells; cells that have the same rows share one array of ids and one of groups."""

    _shared: dict[tuple[str, ...], tuple[np.ndarray, str | None]] = field(default_factory=dict)

    def read(self, folder: Path, record: Record) -> CellData:
        """Everything beside the record of a cell that is ok."""
        lines, bad = read_objects(folder / PREDICTIONS, PredictionLine)
        by_program = _by_program(lines)
        left_out = bad_rows(folder / PREDICTIONS, bad) + _missing_rows(
            folder / PREDICTIONS, record, by_program, len(bad)
        )
        answers: dict[str, Answers] = {}
        for program, own in by_program.items():
            repeated = self._array(rows_of(own))[1]
            if repeated:
                left_out.append(LeftOut(f"program {program}", folder / PREDICTIONS, repeated))
            else:
                answers[program] = self._answers(own)
        left_out += _lost_draws(folder / PREDICTIONS, by_program)
        left_out += _lost_calls(folder / PREDICTIONS, answers) + _lost_turns(folder / PREDICTIONS, answers)
        unusable = _unusable(folder, record, answers, len(bad))
        if unusable:
            left_out.append(LeftOut("cell", folder / PREDICTIONS, unusable))
        curve = _curve(folder, record, left_out)
        return CellData(answers, curve, _instructions(folder, left_out), left_out, unusable)

    def _answers(self, lines: list[PredictionLine]) -> Answers:
        rows = rows_of(lines)
        groups = tuple(str(row.id if row.group is None else row.group) for row in rows)
        names = next((row.extra_scores for row in rows if row.extra_scores), {})
        extra = {name: _floats([(row.extra_scores or {}).get(name) for row in rows]) for name in names}
        answered = [line for line in lines if line.error is None] or lines
        reached = [line for line in lines if line.error != "infrastructure"] or lines
        return Answers(
            self._array(rows)[0],
            self._shared.setdefault(groups, (np.array(groups), None))[0],
            _floats([row.score for row in rows]),
            extra,
            _turn_table(rows),
            calls=sum(line.calls or 0 for line in answered) / len(answered),
            tokens=sum(line.tokens or 0 for line in lines) / len(lines),
            usd=_mean([line.list_cost_usd for line in reached]),
            tokens_by_kind={kind: _mean([getattr(line, kind) for line in reached]) for kind in TOKEN_KINDS},
            categories=_categories(rows),
            noise=_noise(lines),
        )

    def _array(self, lines: list[PredictionLine]) -> tuple[np.ndarray, str | None]:
        """The ids of the lines, and what is said of those that come more than once."""
        ids = tuple([str(line.id) for line in lines])
        if ids not in self._shared:
            array = np.array(ids)
            values, counts = np.unique(array, return_counts=True)
            again = values[counts > 1]
            said = f"ids that come more than once: {len(again)} (first: '{again[0]}')" if len(again) else None
            self._shared[ids] = array, said
        return self._shared[ids]


def bad_rows(path: Path, bad: Iterable[BadLine]) -> list[LeftOut]:
    """Lines that cannot be used, those with the same reason together."""
    left_out = []
    for reason, lines in groupby(sorted(bad, key=lambda line: line.reason), key=lambda line: line.reason):
        numbers = [line.number for line in lines]
        left_out.append(LeftOut("row", path, f"{reason} (first: line {min(numbers)})", len(numbers)))
    return left_out


def places(where: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Index of each item in `where`, which holds all of them."""
    if where is items:
        return np.arange(len(items))
    place = {item: i for i, item in enumerate(where)}
    return np.array([place[item] for item in items], dtype=int)


def _by_program(lines: list[PredictionLine]) -> dict[str, list[PredictionLine]]:
    by_program: dict[str, list[PredictionLine]] = {}
    for line in lines:
        by_program.setdefault(line.program, []).append(line)
    return by_program


def _categories(lines: list[PredictionLine]) -> dict[str, np.ndarray]:
    """By property of the rows, the value of each row; only properties that some row has."""
    said = [line.categories or {} for line in lines]
    names = [name for name in BREAKDOWNS if any(name in categories for categories in said)]
    return {name: np.array([categories.get(name, "") for categories in said]) for name in names}


def _noise(lines: list[PredictionLine]) -> np.ndarray | None:
    """The variance between the draws of each row that has several scored ones."""
    if not any(line.draw for line in lines):
        return None
    scores: dict[str | int, list[float]] = {}
    for line in lines:
        scores.setdefault(line.id, []).extend([] if line.score is None else [line.score])
    several = [np.var(own, ddof=1) for own in scores.values() if len(own) > 1]
    return np.array(several) if several else None


def _missing_rows(path: Path, record: Record, by_program: dict[str, list[PredictionLine]], bad: int) -> list[LeftOut]:
    """Rows that were written and are not there, by program. bad: lines that are there and cannot be used."""
    there = {program: len(lines) for program, lines in by_program.items()}
    written = record.prediction_lines or _lines_of_earlier(record, there)
    missing = {program: count - there.get(program, 0) for program, count in written.items()}
    lost = sum(count for count in missing.values() if count > 0) - bad
    if lost <= 0 or not path.exists():  # a file that is not there is told of its cell
        return []
    named = ", ".join(f"{program}: {count} of {written[program]}" for program, count in missing.items() if count > 0)
    return [LeftOut("row", path, f"the file has lost rows ({named})", lost)]


def _lines_of_earlier(record: Record, there: dict[str, int]) -> dict[str, int]:
    """How many lines each program had, for a record that does not say: all programs answer the same test rows."""
    tested = {*PAIR, *there} - {"check"} | ({"at_equal_calls"} if record.at_equal_calls_score is not None else set())
    most = max((there.get(program, 0) for program in tested), default=0)
    return dict.fromkeys(sorted(tested), most)


def _turn_table(lines: list[PredictionLine]) -> np.ndarray | None:
    """Turn scores (n, turns), where turns is their commonest number; a row with another number is NaN."""
    lengths = [len(line.turn_scores or ()) for line in lines]
    if not any(lengths):
        return None
    counts = np.bincount(lengths)
    counts[0] = 0
    turns = int(counts.argmax())
    missing = [np.nan] * turns
    return np.array([line.turn_scores if n == turns else missing for line, n in zip(lines, lengths, strict=True)])


def _lost_draws(path: Path, by_program: dict[str, list[PredictionLine]]) -> list[LeftOut]:
    """Draws that have no score, of rows that have others."""
    lost = {
        program: sum(line.score is None for line in lines) - sum(row.score is None for row in rows_of(lines))
        for program, lines in by_program.items() if any(line.draw for line in lines)
    }  # fmt: skip
    return [LeftOut("draw", path, f"{name}: no score, a call failed", count) for name, count in lost.items() if count]


def _lost_calls(path: Path, answers: dict[str, Answers]) -> list[LeftOut]:
    """Rows that have no score, because a call failed; no other program of the cell is compared on them."""
    lost = {program: int(np.isnan(found.scores).sum()) for program, found in answers.items()}
    return [LeftOut("row", path, f"{name}: no score, a call failed", count) for name, count in lost.items() if count]


def _lost_turns(path: Path, answers: dict[str, Answers]) -> list[LeftOut]:
    left_out = []
    for program, found in answers.items():
        lost = 0 if found.turns is None else int(np.isnan(found.turns).any(axis=1).sum())
        if lost:
            reason = f"{program}: the scores of some turns are missing"
            left_out.append(LeftOut("row of the turn table", path, reason, lost))
    return left_out


def _unusable(folder: Path, record: Record, answers: dict[str, Answers], bad: int) -> str | None:
    """Why the predictions are not those of the record; None when they are. bad: lines that cannot be used."""
    if not (folder / PREDICTIONS).exists():
        return f"{PREDICTIONS} is missing"
    for program in PAIR:
        if program not in answers:
            return f"no usable lines of the program '{program}'"
    baseline, final = answers["baseline"], answers["final"]
    items = np.intersect1d(baseline.items, final.items) if baseline.items is not final.items else final.items
    before = baseline.scores[places(baseline.items, items)]
    after = final.scores[places(final.items, items)]
    both = ~np.isnan(before) & ~np.isnan(after)
    paired = int(both.sum())
    if not paired:
        return "no row has a score of both programs"
    if record.n is not None and not paired <= record.n <= paired + bad:
        return f"the record says n = {record.n}, and {paired} rows have the scores of both programs"
    for program, score, scores in (("baseline", record.baseline_score, before), ("final", record.final_score, after)):
        if score is not None and not bad and abs(scores[both].mean() - score) > SCORE_TOLERANCE:
            return f"the record says {program}_score = {score:.4f}, and the rows give {scores[both].mean():.4f}"
    if record.unchanged and not np.array_equal(before[both], after[both]):
        return "the record says that the program is unchanged, and the scores of its rows differ"
    return None


def _curve(folder: Path, record: Record, left_out: list[LeftOut]) -> dict[str, np.ndarray]:
    """The learning curve as arrays by field; {} when it has no point or cannot be used."""
    path = folder / CURVE
    if not path.exists() and record.cell.optimizer == "none":
        return {}
    try:
        points: list[CurvePoint] = read_checked(path, LearningCurve).points
    except RecordError as error:
        left_out.append(LeftOut("learning curve", path, str(error)))
        return {}
    if not points:
        return {}
    numbers = {name: _floats([getattr(point, name) for point in points]) for name in CURVE_FIELDS}
    return numbers | {"on_train": np.array([point.rows == "train" for point in points])}


def _instructions(folder: Path, left_out: list[LeftOut]) -> dict[str, Instruction]:
    """The instructions that optimization changed, by role."""
    path = folder / PROGRAM
    if not path.exists():
        return {}
    try:
        roles = read_checked(path, ProgramText).instructions
    except RecordError as error:
        left_out.append(LeftOut("text of the program", path, str(error)))
        return {}
    return {role: text for role, text in roles.items() if text.before != text.after}


def _mean(values: list[float | None] | list[int | None]) -> float:
    """Mean of values that are all known; NaN where one is not."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else float("nan")


def _floats(values: list[float | None]) -> np.ndarray:
    return np.array(values, dtype=float)
