"""What no question reads is not bought unless asked for, and cells in no hypothesis are named with their price."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.testing import ScriptedServer
from tests.support.files import lines, read
from tests.support.sweeps import write_study
from tests.test_questions import dry_run


@pytest.fixture
def folder(command: Callable, tmp_path: Path) -> Path:
    """Where the cells of `line` are written."""
    return tmp_path / "out/toy"


@pytest.fixture
def line(command: Callable) -> list[str]:
    """A sweep of chains of 3 and 5 steps."""
    return command(steps="3 5", optimizers="mipro_instruct", rollout_budget="40", val_size="20")


def programs(folder: Path, steps: int) -> set[str]:
    path = next((folder / f"{steps}step").rglob("predictions.jsonl"))
    return {line["program"] for line in lines(path)}


def score(folder: Path, steps: int) -> float | None:
    return read(next((folder / f"{steps}step").rglob("results.json")))["at_equal_calls_score"]


def test_the_score_at_equal_calls_is_bought_where_a_question_reads_it(line: list[str], folder: Path) -> None:
    assert script.main(line) == 0
    assert programs(folder, 3) == {"baseline", "final", "check"}
    assert programs(folder, 5) == {"baseline", "final", "at_equal_calls", "check"}
    assert score(folder, 3) is None and score(folder, 5) is not None


def test_what_was_not_bought_is_no_failure(line: list[str], folder: Path, tmp_path: Path) -> None:
    assert script.main(line) == 0
    assert analyze_results.main(["--results-dir", "out", "--output-dir", "report"]) == 0
    page = (tmp_path / "report/summary_results.md").read_text()
    assert "could not be used" not in page


def test_it_can_be_bought_later_and_nothing_else_is_paid_again(
    line: list[str], folder: Path, server: ScriptedServer
) -> None:
    assert script.main(line) == 0
    before, asked = read(next((folder / "3step").rglob("results.json"))), server.calls
    assert script.main(line) == 0 and server.calls == asked
    assert script.main([*line, "--equal-calls"]) == 0
    after = read(next((folder / "3step").rglob("results.json")))
    assert after["at_equal_calls_score"] is not None
    assert {name: after[name] for name in ("cell_id", "final_score", "baseline_score", "program")} == {
        name: before[name] for name in ("cell_id", "final_score", "baseline_score", "program")
    }
    assert server.calls - asked in (0, 3 * 20)  # one more program of three calls on 20 test rows, or none
    asked = server.calls
    assert script.main([*line, "--equal-calls"]) == 0 and server.calls == asked


def test_runs_that_bought_it_and_runs_that_did_not_are_told_apart(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sizes = {"optimizers": "mipro_instruct", "val_size": "20", "steps": "3"}
    assert script.main([*command(**sizes), "--equal-calls"]) == 0
    assert script.main(command(**sizes, runs="2")) == 0
    assert analyze_results.main(["--results-dir", "out", "--output-dir", "report"]) == 0
    page = (tmp_path / "report/summary_results.md").read_text()
    assert "this run did not buy it, others of its series have it" in page


def test_the_plan_counts_what_is_bought(tmp_path: Path, server: ScriptedServer, capsys: pytest.CaptureFixture) -> None:
    flags = [*write_study(tmp_path, server.url, [3], ["gepa"], 1), "--dry-run"]

    def highest(*more: str) -> str:
        capsys.readouterr()
        assert script.main([*flags, *more, "--output-dir", str(tmp_path / "out")]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if "3step" in line).split("-")[1]

    assert highest() != highest("--equal-calls")


def test_cells_in_no_hypothesis_are_named_with_their_price(capsys: pytest.CaptureFixture) -> None:
    (note,) = [line for line in dry_run(capsys, "--study", "pipeline") if "in no hypothesis" in line]
    assert "6 cells (banking77 2step)" in note and " calls, " in note and "$" in note
    assert not any(
        "in no hypothesis" in line for line in dry_run(capsys, "--study", "pipeline", "--steps", "1", "3", "5")
    )
    assert not any("in no hypothesis" in line for line in dry_run(capsys, "--study", "pipeline-controls"))
