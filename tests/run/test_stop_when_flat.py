"""--stop-when-flat: an optimizer ends once its best score has not improved over a share of its budget."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.loading import load
from scaling.testing import ScriptedServer
from scaling.types import Cell
from tests.support.files import read

OPTIMIZERS = ["gepa", "mipro", "mipro_instruct", "bootstrap"]


def best_of(curve: list[dict]) -> list[tuple[int, float]]:
    """(rollouts, score) of each new best."""
    found: list[tuple[int, float]] = []
    for point in curve:
        best = point["best_val_score"]
        if best is not None and (not found or best > found[-1][1]):
            found.append((point["rollouts"], best))
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_ends_by_the_rule_with_its_best_program(
    experiment: Callable, tmp_path: Path, optimizer: str
) -> None:
    whole = experiment(optimizer=optimizer, rollout_budget=200)
    flat = experiment(optimizer=optimizer, rollout_budget=200, stop_when_flat=0.2, output_dir=tmp_path / "flat")
    assert flat["status"] == "ok", flat["error"]
    assert flat["stopped_when_flat"] is True and whole["stopped_when_flat"] is None
    assert flat["rollouts_used"] < whole["rollouts_used"]
    curve = read(tmp_path / "flat/learning_curve.json")["points"]
    bests = best_of(curve)
    assert curve[-1]["rollouts"] - bests[-1][0] >= 40  # a fifth of the budget
    assert all(point["rollouts"] - bests[-1][0] < 40 for point in curve[:-1])
    assert flat["val_final_score"] == bests[-1][1]
    assert flat["proposals"]["tried"] is None  # not known, and not 0


def test_an_optimizer_that_keeps_improving_uses_its_whole_budget(experiment: Callable, server: ScriptedServer) -> None:
    record = experiment(optimizer="mipro_instruct", rollout_budget=80, stop_when_flat=0.99)
    assert record["stopped_when_flat"] is False and record["proposals"]["tried"]


def test_it_is_a_cell_of_its_own(experiment: Callable) -> None:
    cell = Cell("toy", "chain", 1, "gepa", "m", "m")
    assert replace(cell, stop_when_flat=None).cell_id == cell.cell_id != replace(cell, stop_when_flat=0.3).cell_id
    assert "stop-when-flat 0.3" in replace(cell, stop_when_flat=0.3).label
    assert experiment(stop_when_flat=None)["cell"]["stop_when_flat"] is None


def test_such_cells_are_compared_with_each_other_only(command: Callable, tmp_path: Path) -> None:
    line = command(optimizers="gepa mipro", rollout_budget="80", val_size="20", runs="2")
    assert script.main(line) == 0
    assert script.main([*line, "--stop-when-flat", "0.2"]) == 0
    results = load([tmp_path / "out"])
    assert (results.cells["status"] == "ok").all() and len(results.cells) == 8
    assert not results.cells["flagged"][results.cells["stop_when_flat"].notna()].any()
    assert analyze_results.main(["--results-dir", "out", "--output-dir", "report"]) == 0
    page = (tmp_path / "report/summary_results.md").read_text()
    assert "Stopped when flat: some or all optimizers of toy" in page
    with (tmp_path / "report/summary_tests.csv").open() as file:
        pairs = [row["comparison"] for row in csv.DictReader(file) if row["family"].startswith("optimizers at equal")]
    assert pairs == [  # and no pair of the two kinds
        "toy 1 chain gepa (stop_when_flat 0.2) - mipro",
        "toy 1 chain gepa (stop_when_flat None) - mipro",
    ]


def test_a_study_that_compares_optimizers_stops_all_of_them_or_none(
    command: Callable, refused: Callable, tmp_path: Path
) -> None:
    study = (
        'benchmarks = ["toy"]\nmodels = ["openai/scripted"]\noptimizers = ["gepa", "mipro"]\ndata = "sample"\n'
        "[phases.1]\n[phases.2]\nstop_when_flat = 0.3\n"
    )
    (tmp_path / "own.toml").write_text(study)
    flags = command(benchmarks=None, models=None, steps=None, optimizers=None, runs=None, data=None)
    said = refused(["--study", "own.toml", "--phase", "all", *flags])
    assert "this study compares optimizers, and gepa, mipro would use the whole budget" in said


def test_there_must_be_an_optimizer_to_stop(command: Callable, refused: Callable) -> None:
    assert "no optimizer here can be stopped" in refused([*command(), "--stop-when-flat", "0.3"])
    assert "give more than 0" in refused([*command(optimizers="gepa"), "--stop-when-flat", "0"])


def test_the_estimate_begins_where_nothing_improves(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    line = command(
        optimizers="mipro_instruct gepa bootstrap", rollout_budget="200", val_size="20", stop_when_flat="0.2"
    )
    assert script.main(line) == 0
    planned = read(tmp_path / "out/plan.json")
    for path in tmp_path.rglob("results.json"):
        record = read(path)
        low, high = planned[record["cell_id"]]["calls"]
        used = sum(part["calls"] for part in record["usage"].values())
        assert 0.7 * low <= used <= 1.2 * high, (record["cell"]["optimizer"], low, used, high)
