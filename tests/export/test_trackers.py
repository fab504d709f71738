"""Trackers are told of cells after their records are written; whatever they do, cells and commands go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import export_results
import run_scaling_experiment as script
from scaling.command import tracking
from scaling.export import live, targets
from scaling.export.targets import Target
from scaling.types import EXIT_OK, EXIT_USAGE
from tests.support import trackers
from tests.support.damaged import made
from tests.support.files import lines
from tests.support.made_up import write_cell


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[type], Path]:
    """Puts a tracker in MLflow's place; gives the file of its notes."""

    def put(kind: type) -> Path:
        target = Target("mlflow", "a tracker", f"{kind.__module__}:{kind.__name__}", is_tracker=True)
        monkeypatch.setitem(targets.TARGETS, "mlflow", target)
        monkeypatch.setenv(trackers.NOTES, str(tmp_path / "notes.jsonl"))
        return tmp_path / "notes.jsonl"

    return put


def test_a_tracker_is_told_of_each_cell_that_ends(
    command: Callable[..., list[str]], tracker: Callable[[type], Path]
) -> None:
    notes = tracker(trackers.Notes)
    assert script.main([*command(steps="1 2", optimizers="none gepa"), "--track", "mlflow"]) == EXIT_OK
    *cells, last = lines(notes)
    assert len(cells) == 4 and all(cell["is_ok"] for cell in cells) and last == "closed"
    optimized = next(cell for cell in cells if "1step gepa" in cell["name"])
    curve = optimized["curve"]
    assert optimized["metrics"]["final_score"] == pytest.approx(curve[-1]["metrics"]["test_score"])
    assert {name for step in curve for name in step["metrics"]} >= {"best_val_score", "candidate_train_score"}
    assert [step["rollouts"] for step in curve] == sorted(step["rollouts"] for step in curve)
    assert optimized["tags"]["warning"].startswith("sample rows: not a result")
    assert set(optimized["files"]) == {"instructions.json", "program.json"}


@pytest.mark.parametrize("kind", [trackers.Raising, trackers.Dying])
def test_a_tracker_that_fails_is_told_once_and_fails_no_cell(
    command: Callable[..., list[str]], tracker: Callable[[type], Path], kind: type, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tracker(kind)
    assert script.main([*command(steps="1 2 3"), "--track", "mlflow"]) == EXIT_OK
    said = capsys.readouterr().out
    assert said.count("the tracker has failed") == 1
    assert "python export_results.py out --to mlflow" in said
    assert len(list(tmp_path.rglob("results.json"))) == 3


def test_a_tracker_that_hangs_holds_nothing_up(
    command: Callable[..., list[str]], tracker: Callable[[type], Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    tracker(trackers.Hanging)
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.01)
    assert script.main([*command(steps="1 2"), "--track", "mlflow"]) == EXIT_OK
    assert "the tracker had not finished and was ended" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("results.json"))) == 2


def test_without_the_flag_no_tracker_is_opened(
    command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tracker was opened")

    monkeypatch.setattr(tracking, "Follower", refuse)
    assert script.main(command()) == EXIT_OK


def test_a_tracker_that_is_not_there_is_told_before_anything_is_asked(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "possible: mlflow, wandb" in refused([*command(), "--track", "comet"])
    missing = Target("mlflow", "runs", "nowhere:tracker", is_tracker=True, needs="no_such_package_here")
    monkeypatch.setitem(targets.TARGETS, "mlflow", missing)
    said = refused([*command(), "--track", "mlflow"])
    assert "--track mlflow needs no_such_package_here" in said and "pip install 'call-scaling[mlflow]'" in said


def test_a_target_that_is_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(targets.TARGETS, "inspect", Target("inspect", "logs", "a:b", needs="no_such_package_here"))
    assert export_results.main([str(tmp_path), "--to", "inspect"]) == EXIT_USAGE
    assert "pip install 'call-scaling[inspect]'" in capsys.readouterr().err


@pytest.fixture
def results(tmp_path: Path, toy: Callable[..., Any]) -> Path:
    """A made-up sweep of two cells with learning curves."""
    toy(licence="MIT")
    for optimizer in ("gepa", "mipro"):
        write_cell(tmp_path / "my-sweep", made("toy", 1, optimizer, 0), 0.5, 0.1)
    return tmp_path / "my-sweep"


@pytest.mark.filterwarnings("ignore")  # of its libraries
def test_mlflow_has_a_run_a_sweep_and_one_below_it_a_cell(results: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    for _ in range(2):  # a second time changes nothing
        assert export_results.main([str(results), "--to", "mlflow", "--out", str(tmp_path / "ml")]) == EXIT_OK
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "call-scaling"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert parent.info.run_name == "my-sweep" and len(children) == 2
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    for run in children:
        assert run.data.metrics["final_score"] == pytest.approx(0.6)
        assert run.data.params["optimizer"] in ("gepa", "mipro")
        curve = client.get_metric_history(run.info.run_id, "best_val_score")
        assert [(point.step, point.value) for point in curve] == [(50, 0.5), (100, 0.6)]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"instructions.json", "program.json"}


@pytest.mark.filterwarnings("ignore")  # of its libraries
def test_wandb_keeps_a_run_a_cell_offline(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    assert export_results.main([str(results), "--to", "wandb", "--out", str(tmp_path / "wb")]) == EXIT_OK
    runs = list((tmp_path / "wb" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 2 and all(path.stat().st_size for path in runs)


@pytest.mark.filterwarnings("ignore")  # of its libraries
def test_inspects_own_reader_takes_the_logs(results: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="the extra inspect is not installed")
    assert export_results.main([str(results), "--to", "inspect", "--out", str(tmp_path / "logs")]) == EXIT_OK
    found = [log.read_eval_log(info.name) for info in log.list_eval_logs(str(tmp_path / "logs"))]
    assert len(found) == 4
    for one in found:
        assert one.status == "success" and one.eval.dataset.samples == 40
        (score,) = one.results.scores
        scores = [sample.scores["score"].value for sample in one.samples]
        assert score.metrics["mean"].value == pytest.approx(sum(scores) / len(scores))
        assert one.samples[0].target == "a"
