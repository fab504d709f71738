"""--pilot-headroom: what calls, votes and prompts could win, without an optimizer and without a test row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.headroom import best_prompt, headrooms_of, truth_of
from scaling.analysis.loading import load
from scaling.analysis.outlook import chances
from scaling.analysis.stats import Arm
from scaling.command.options import LIBRARY, Options
from scaling.command.prepare import prepare_sweep
from scaling.command.questions import _planned
from scaling.planning.headroom import ROWS
from scaling.planning.study import load_study, narrow
from scaling.records.store import read_records
from scaling.testing import ScriptedServer
from scaling.types import Cell
from scaling.wordings import WORDINGS
from tests.support.chaos import only_in_chaos
from tests.support.files import lines, tree
from tests.support.toy import rows

SIZES = {"train_size": "30", "val_size": "20", "test_size": "40"}


def asked_rows(server: ScriptedServer) -> set[str]:
    """Ids of the rows that the server has been asked about."""
    prompts = [str(body["messages"]) for body in server.requests]
    return {row["id"] for row in rows() if any(row["message"] in prompt for prompt in prompts)}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="with test rows", marks=only_in_chaos),
        pytest.param({"test_seeds": None}, id="scored on check rows"),
    ],
)
def test_no_test_row_is_asked_about(
    command: Callable, toy: Callable, server: ScriptedServer, tmp_path: Path, changes: dict
) -> None:
    toy(**changes)
    line = command(steps="1 3", optimizers="none", **SIZES)
    assert script.main([*line, "--pilot-headroom"]) == 0
    asked = asked_rows(server)
    assert asked
    assert script.main(line) == 0
    scored = {
        line["id"]
        for path in (tmp_path / "out").rglob("predictions.jsonl")
        for line in lines(path) if line["program"] == "final"
    }  # fmt: skip
    assert scored and not scored & asked
    for path in (tmp_path / "out-headroom").rglob("predictions.jsonl"):
        assert {line["id"] for line in lines(path)} <= asked


def test_it_has_its_own_folder_is_marked_and_says_what_there_is_to_win(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    line = command(steps="1 3 5", optimizers="gepa mipro", runs="2", rollout_budget="80", **SIZES)
    assert script.main([*line, "--pilot-headroom"]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    records = [record for _, record in read_records([tmp_path / "out-headroom"])]
    assert len(records) == 3 + 1 + len(WORDINGS) - 1
    for record in records:
        assert record.cell.pilot and record.cell.headroom and record.cell.optimizer == "none"
        assert record.split == "train and check" and record.n == min(ROWS, 30 + 12)
    for page in (said, (tmp_path / "out-headroom/headroom.md").read_text()):
        assert "| one call | 3 calls | 5 calls | 5 votes | prompts |" in page
        assert "A pilot: no result." in page
        assert "the whole study pipeline: 12 cells to run, " in page
        assert "- H1 scaling: Is the score at 5 steps higher than at 1 step? 0 % [" in page  # of one benchmark
    assert analyze_results.main(["--results-dir", "out-headroom", "--output-dir", "report"]) == 0
    report = (tmp_path / "report/summary_results.md").read_text()
    assert "Pilot: some or all cells of toy" in report and "Pilot of headroom: some or all cells of toy" in report


def test_a_dry_run_tells_both_prices_and_asks_nothing(
    command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = tree(tmp_path)
    assert script.main([*command(optimizers="gepa", **SIZES), "--pilot-headroom", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "study pipeline-headroom: 8 cells to run" in said and "the whole study pipeline: 1 cell to run" in said
    assert not server.requests and tree(tmp_path) == before


def test_two_trials_at_once_are_refused(command: Callable, refused: Callable) -> None:
    assert "Give one of them" in refused([*command(), "--pilot", "--pilot-headroom"])


def test_what_is_wrong_with_the_whole_study_is_told_first(command: Callable, refused: Callable) -> None:
    assert "four passes" in refused([*command(optimizers="gepa", rollout_budget="10"), "--pilot-headroom"])


@only_in_chaos
def test_wordings_are_in_the_prompts_and_the_own_one_changes_nothing(command: Callable, server: ScriptedServer) -> None:
    assert script.main(command(**SIZES)) == 0
    plain = {str(body["messages"][0]) for body in server.requests}
    assert script.main([*command(steps="1", **SIZES), "--pilot-headroom"]) == 0
    heads = {str(body["messages"][0]) for body in server.requests}
    for name, sentence in WORDINGS.items():
        assert any(sentence in head for head in heads), name
    assert plain < heads
    cell = Cell("toy", "chain", 1, "none", "m", "m")
    assert cell.cell_id == Cell("toy", "chain", 1, "none", "m", "m", wording="own", headroom=False).cell_id


def wordings(rng: np.random.Generator, chances: list[float], size: int = 60) -> list[Arm]:
    names = np.array([f"r{i}" for i in range(size)])
    return [Arm("toy", "none", names, names, (rng.random(size) < p).astype(float)[:, None]) for p in chances]


def test_the_best_of_equal_prompts_wins_nothing() -> None:
    """Chosen on the rows that it is scored on, it would seem to win several points."""
    rng = np.random.default_rng(1)
    pilots = [wordings(rng, [0.6] * 5) for _ in range(400)]
    fair = [best_prompt(arms).mean for arms in pilots]
    flattered = [max(arm.mean for arm in arms) - arms[0].mean for arms in pilots]
    assert abs(np.mean(fair)) < 3 * np.std(fair) / 20
    assert np.mean(flattered) > 0.05


def test_a_prompt_that_is_better_is_found() -> None:
    rng = np.random.default_rng(2)
    fair = [best_prompt(wordings(rng, [0.5, 0.5, 0.75])).mean for _ in range(200)]
    assert 0.2 < np.mean(fair) < 0.25


def test_the_chance_to_decide_follows_the_headroom() -> None:
    study = narrow(load_study("pipeline"), data="sample")
    sweep = prepare_sweep(study, Options(dry_run=True), LIBRARY, script.BENCHMARK_CONFIG)
    planned = list(_planned(sweep, Path("nowhere")))

    def chance(win_of_calls: float) -> float:
        def truth(cell: Cell, program: str) -> float:
            return 0.5 + win_of_calls * (cell.steps - 1) / 4

        (found,) = chances(planned, ["H1"], [truth] * 8)
        return found.share

    assert chance(0.0) <= 0.25 and chance(0.2) >= 0.9


@only_in_chaos
def test_headroom_is_measured_and_shrunk(command: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    """A server that is right more often where a note stands before the answer: five calls win, prompts do not."""
    server.skill = lambda body: 0.95 if "synthesizer_notes" in str(body["messages"][-1]) else 0.4
    assert script.main([*command(**SIZES), "--pilot-headroom"]) == 0
    results = load([tmp_path / "out-headroom"])
    (found,) = headrooms_of(results, set(results.cells["cell_id"]))
    win = found.win("calls", 5)
    assert win is not None and 0.3 < win.estimate.effect < 0.7 and win.estimate.low > 0.2
    truths = [truth_of([found], np.random.default_rng(seed)) for seed in range(200)]
    cell = Cell("toy", "chain", 5, "none", found.model, found.model)
    expected = np.mean([truth(cell, "baseline") for truth in truths]) - found.one_call.mean
    assert 0 < expected < win.estimate.effect
