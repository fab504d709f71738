"""A results folder with a healthy study, and beside it one cell of each kind of damage that we could think of.

Cells that must be left out whole are further runs of the study's own series, with scores that would turn its verdicts.
Those of which a part can be used belong to another model.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.records.store import CellFiles
from scaling.types import Cell
from tests.support.files import lines, read
from tests.support.made_up import write_cell

MODEL, OTHER_MODEL = "made/up", "other/model"
LEVELS = {"planted-a": (0.3, "reasoning"), "planted-b": (0.5, "classification")}
Damage = Callable[[CellFiles], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of damage: what must be named as left out ("" for nothing), in which file, and how it is done."""

    name: str
    unit: str
    file: str
    damage: Damage
    pipeline: str = "chain"

    @property
    def cell(self) -> Cell:
        number = [kind.name for kind in KINDS].index(self.name)
        if self.unit == "cell":
            return made("planted-a", 1, "gepa", run=10 + number)
        feature = Cell("partial", self.pipeline, 3, "gepa", OTHER_MODEL, OTHER_MODEL, run=number, data_sha256="0")
        return feature


def made(benchmark: str, steps: int, optimizer: str, run: int) -> Cell:
    """A cell of the healthy study."""
    return Cell(benchmark, "chain", steps, optimizer, MODEL, MODEL, run=run, test_size=40, data_sha256=str(run))


def write_healthy(results: Path) -> None:
    """Two benchmarks x 1, 3, 5 steps x two optimizers x three runs: scores rise with steps."""
    for benchmark, steps, optimizer, run in itertools.product(LEVELS, (1, 3, 5), ("gepa", "mipro"), range(3)):
        level, task_class = LEVELS[benchmark]
        write_cell(results, made(benchmark, steps, optimizer, run), level + 0.05 * steps, 0.1, task_class)


def write_damaged(results: Path) -> dict[str, Path]:
    """One cell of each kind; gives the file that is damaged, by kind."""
    paths = {}
    for kind in KINDS:
        files = write_cell(results, kind.cell, 0.9, 0.05, "reasoning" if kind.unit == "cell" else None)
        kind.damage(files)
        paths[kind.name] = files.folder / kind.file if kind.file else files.folder
    return paths


def field(path: str, value: Any) -> Damage:
    """Put a value into a field of the record, which is named by its path."""

    def damage(files: CellFiles) -> None:
        record = read(files.record)
        inner, (*parents, name) = record, path.split(".")
        for parent in parents:
            inner = inner[parent]
        inner[name] = value
        files.record.write_text(json.dumps(record))

    return damage


def content(name: str, data: bytes | Callable[[bytes], bytes]) -> Damage:
    """Write these bytes in place of a file's own, or what a function makes of those."""

    def damage(files: CellFiles) -> None:
        path = files.folder / name
        path.write_bytes(data if isinstance(data, bytes) else data(path.read_bytes()))

    return damage


def each_line(change: Callable[[int, dict[str, Any]], dict[str, Any] | None]) -> Damage:
    """Change each prediction line, by its number; None takes it away."""

    def damage(files: CellFiles) -> None:
        changed = [change(i, line) for i, line in enumerate(lines(files.predictions))]
        files.predictions.write_text("".join(json.dumps(line) + "\n" for line in changed if line is not None))

    return damage


def line_field(number: int, name: str, value: Any) -> Damage:
    """Put a value into a field of one prediction line."""
    return each_line(lambda i, line: line | {name: value} if i == number else line)


def repeated_ids(number: int, line: dict[str, Any]) -> dict[str, Any]:
    """Two lines of each program of the pair with one id."""
    return line | {"id": "row000"} if number in (3, 43) else line


def only_required(files: CellFiles) -> None:
    """A record without any field that may be absent, and lines without theirs."""
    record = read(files.record)
    files.record.write_text(json.dumps({k: record[k] for k in ("schema_version", "status", "cell_id", "cell")}))
    each_line(lambda i, line: {name: line[name] for name in ("program", "id", "score")})(files)


def with_unknown(files: CellFiles) -> None:
    """Fields that this version does not know, in the record and in a line."""
    field("of_a_later_version", {"a": [1]})(files)
    line_field(0, "of_a_later_version", {"a": [1]})(files)


def lost_call(files: CellFiles) -> None:
    """A baseline row that the infrastructure lost, as the runner allows for 2 % of them."""
    line_field(0, "score", None)(files)
    scores = {
        name: [line for line in lines(files.predictions) if line["program"] == name] for name in ("baseline", "final")
    }
    for name, own in scores.items():
        field(f"{name}_score", sum(line["score"] for line in own[1:]) / len(own[1:]))(files)
    field("n", len(scores["final"]) - 1)(files)


def copied_with_an_error(files: CellFiles) -> None:
    """The same cell in a folder that comes first, where it failed."""
    copy = files.folder.parents[4] / "a-copy"
    copy.mkdir()
    (copy / "results.json").write_text(json.dumps(read(files.record) | {"status": "error", "error": None}))


RECORD, PREDICTIONS, CURVE, PROGRAM = "results.json", "predictions.jsonl", "learning_curve.json", "program.json"
TURNS = "row of the turn table"
DEEP = b"[" * 100_000
KINDS = [
    Kind("record cut off", "cell", RECORD, content(RECORD, lambda data: data[:200])),
    Kind("record empty", "cell", RECORD, content(RECORD, b"")),
    Kind("record a list", "cell", RECORD, content(RECORD, b"[1, 2]")),
    Kind("record not text", "cell", RECORD, content(RECORD, b"\xff\xfe\x00\x01")),
    Kind("record nested deeply", "cell", RECORD, content(RECORD, b'{"schema_version": 1, "x": ' + DEEP)),
    Kind("record of another version", "cell", RECORD, field("schema_version", 99)),
    Kind("version a list", "cell", RECORD, field("schema_version", [1])),
    Kind("status unknown", "cell", RECORD, field("status", "x")),
    Kind("status missing", "cell", RECORD, field("status", None)),
    Kind("cell a list", "cell", RECORD, field("cell", [])),
    Kind("steps a word", "cell", RECORD, field("cell.steps", "three")),
    Kind("steps no steps", "cell", RECORD, field("cell.steps", 0)),
    Kind("budget beyond all numbers", "cell", RECORD, field("cell.rollout_budget", 10**30)),
    Kind("cell id a path", "cell", RECORD, field("cell_id", "../../elsewhere")),
    Kind("score a word", "cell", RECORD, field("check_score", "high")),
    Kind("score huge", "cell", RECORD, field("final_score", 1e308)),
    Kind("score negative", "cell", RECORD, field("baseline_score", -1)),
    Kind("flag a number", "cell", RECORD, field("unchanged", 1)),
    Kind("usage a list", "cell", RECORD, field("usage", [])),
    Kind("rates a word", "cell", RECORD, field("error_rates", "low")),
    Kind("proposals in a dict", "cell", RECORD, field("proposals.tried", {"a": 1})),
    Kind("time a word", "cell", RECORD, field("elapsed_seconds", "long")),
    Kind("not a number", "cell", RECORD, content(RECORD, lambda data: data.replace(b"60.0", b"NaN"))),
    Kind("n of other predictions", "cell", PREDICTIONS, field("n", 25)),
    Kind("predictions cut between lines", "cell", PREDICTIONS, each_line(lambda i, line: line if i < 70 else None)),
    Kind("predictions of another cell", "cell", PREDICTIONS, each_line(lambda i, line: line | {"score": 1.0})),
    Kind("unchanged with other scores", "cell", PREDICTIONS, field("unchanged", True)),
    Kind("predictions missing", "cell", PREDICTIONS, lambda files: files.predictions.unlink()),
    Kind("no baseline lines", "cell", PREDICTIONS, each_line(lambda i, line: line if i >= 40 else None)),
    Kind("all scores words", "cell", PREDICTIONS, each_line(lambda i, line: line | {"score": "1"})),
    Kind("ids twice", "cell", PREDICTIONS, each_line(repeated_ids)),
    Kind("no row with both scores", "cell", PREDICTIONS, each_line(lambda i, line: line | {"score": None})),
    Kind("ids twice early on", "program at_equal_calls", PREDICTIONS, line_field(81, "id", "row000")),
    Kind("score of a row a word", "row", PREDICTIONS, line_field(5, "score", "1")),
    Kind("score of a row above 1", "row", PREDICTIONS, line_field(5, "score", 1.5)),
    Kind("id of a row a list", "row", PREDICTIONS, line_field(5, "id", [1])),
    Kind("line cut off", "row", PREDICTIONS, content(PREDICTIONS, lambda data: data[:-30])),
    Kind("a row of turns failed", TURNS, PREDICTIONS, line_field(45, "turn_scores", None), "self_correct"),
    Kind("a row of turns too short", TURNS, PREDICTIONS, line_field(45, "turn_scores", [0.0]), "self_correct"),
    Kind("curve missing", "learning curve", CURVE, lambda files: files.curve.unlink()),
    Kind("curve cut off", "learning curve", CURVE, content(CURVE, lambda data: data[:50])),
    Kind("curve of words", "learning curve", CURVE, content(CURVE, b'{"points": [{"rollouts": "many"}]}')),
    Kind("program cut off", "text of the program", PROGRAM, content(PROGRAM, lambda data: data[:20])),
    Kind("cell twice, once failed", "copy of a cell", "", copied_with_an_error),
    Kind("a baseline call lost", "row", PREDICTIONS, lost_call),
    Kind("absent optional fields", "", RECORD, only_required),
    Kind("unknown fields", "", RECORD, with_unknown),
    Kind("names with marks", "", RECORD, field("cell.benchmark", "a|b <i>&_%$#^{}~\\ \x1b[31m")),
]  # fmt: skip
