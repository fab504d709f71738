"""Scores of different programs under one name are refused by name; records that do not say are used and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import analyze_results
from scaling.records.programs import ProgramDigest
from scaling.records.store import CellFiles
from scaling.types import EXIT_USAGE, Cell
from tests.support.damaged import made
from tests.support.files import read
from tests.support.made_up import write_cell

FIRST = {"task": "a" * 16, "program": "b" * 16, "optimizer": "c" * 16}


def write(results: Path, cell: Cell | None = None, **changes: str) -> CellFiles:
    """A made-up cell of the first program, with changed parts of its digest."""
    files = write_cell(results, cell or made("toy", 1, "gepa", 0), 0.5)
    files.record.write_text(json.dumps(read(files.record) | {"program": FIRST | changes}))
    return files


@pytest.mark.parametrize(
    ("part", "said"),
    [("task", "the instruction or the metric"), ("program", "the prompts"), ("optimizer", "the optimizer")],
)
@pytest.mark.parametrize("folders", [("a", "b"), ("a", "a")], ids=["in two folders", "in one"])
def test_runs_of_different_programs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, part: str, said: str, folders: tuple[str, str]
) -> None:
    one = write(tmp_path / folders[0])
    other = write(tmp_path / folders[1], made("toy", 1, "gepa", 1), **{part: "f" * 16})
    assert analyze_results.main(["--results-dir", str(tmp_path), "--output-dir", str(tmp_path)]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(one.record) in error and str(other.record) in error and said in error and "--results-dir" in error


def test_the_same_cell_of_another_program_is_refused_and_not_taken_for_a_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", program="f" * 16)
    flags = ["--results-dir", str(tmp_path / "a"), str(tmp_path / "b"), "--output-dir", str(tmp_path)]
    assert analyze_results.main(flags) == EXIT_USAGE
    assert "different programs" in capsys.readouterr().err


def test_steps_and_optimizers_have_programs_of_their_own(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, made("toy", 3, "gepa", 0), program="e" * 16)
    write(tmp_path, made("toy", 1, "mipro", 0), optimizer="d" * 16)
    assert analyze_results.find([tmp_path], None, False).results.left_out == []


def test_a_metric_is_that_of_all_cells_of_its_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path)
    write(tmp_path, made("toy", 3, "gepa", 0), program="e" * 16, task="f" * 16)
    assert analyze_results.main(["--results-dir", str(tmp_path), "--output-dir", str(tmp_path)]) == EXIT_USAGE
    assert "the metric" in capsys.readouterr().err


def test_a_failed_cell_of_another_program_is_no_score_and_is_let_through(tmp_path: Path) -> None:
    write(tmp_path)
    failed = write(tmp_path, made("toy", 1, "gepa", 1), task="f" * 16)
    failed.record.write_text(json.dumps(read(failed.record) | {"status": "error", "final_score": None}))
    assert len(analyze_results.find([tmp_path], None, False).results.cells) == 2


def test_records_that_do_not_say_are_used_and_told(tmp_path: Path) -> None:
    write(tmp_path)
    write_cell(tmp_path, made("toy", 1, "gepa", 1), 0.5)
    flags = ["--results-dir", str(tmp_path), "--output-dir", str(tmp_path)]
    assert analyze_results.main(flags) == 0
    assert "1 of 2 cells do not say what their program was" in (tmp_path / "summary_results.md").read_text()


def test_the_digest_of_a_record_is_checked_like_the_rest_of_it(tmp_path: Path) -> None:
    write(tmp_path)
    damaged = write(tmp_path, made("toy", 1, "gepa", 1), task="nothing")
    results = analyze_results.find([tmp_path], None, False).results
    assert [unit.file for unit in results.left_out] == [damaged.record]
    assert ProgramDigest(**FIRST).task == "a" * 16
