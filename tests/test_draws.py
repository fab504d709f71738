"""Several sampled answers a row: bought, kept, averaged within the row, counted, and a cell of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.loading import load
from scaling.analysis.stats import Arm, contrast
from scaling.planning.study import load_study, narrow
from scaling.records.draws import rows_of
from scaling.records.record import PredictionLine
from scaling.testing import ScriptedServer
from scaling.types import Cell
from tests.support.files import lines, read
from tests.support.small import vary_answers


@pytest.fixture(autouse=True)
def answers_vary(server: ScriptedServer) -> None:
    """The server answers a request otherwise each time that it is asked again."""
    vary_answers(server)


def finals(folder: Path) -> list[dict]:
    path = next(folder.rglob("predictions.jsonl"))
    return [line for line in lines(path) if line["program"] == "final"]


def test_one_draw_leaves_a_cell_as_it_was_and_more_make_another() -> None:
    cell = Cell("toy", "chain", 1, "none", "m", "m")
    assert cell.cell_id == Cell("toy", "chain", 1, "none", "m", "m", draws=1).cell_id
    assert cell.cell_id != replace(cell, draws=2).cell_id
    assert "3 draws" in replace(cell, draws=3).label


def test_each_row_is_answered_so_often_and_each_answer_is_kept(
    command: Callable, tmp_path: Path, server: ScriptedServer
) -> None:
    assert script.main(command(draws="3")) == 0
    own = finals(tmp_path)
    assert Counter(line["id"] for line in own) == dict.fromkeys({line["id"] for line in own}, 3)
    assert [line["draw"] for line in own[:3]] == [0, 1, 2]
    by_row: dict[str, set[float]] = {}
    for line in own:
        by_row.setdefault(line["id"], set()).add(line["score"])
    assert any(len(scores) == 2 for scores in by_row.values())  # draws are independent answers
    assert server.calls == 3 * 20


def test_scores_are_means_of_rows_and_nothing_is_counted_twice(command: Callable, tmp_path: Path) -> None:
    assert script.main(command(draws="3")) == 0
    record = read(next(tmp_path.rglob("results.json")))
    own = finals(tmp_path)
    assert record["n"] == 20 and record["prediction_lines"]["final"] == 60
    assert record["final_score"] == pytest.approx(np.mean([line["score"] for line in own]))
    assert record["usage"]["evaluate"]["calls"] == 60 and record["lm_calls_per_example"] == 1
    results = load([tmp_path / "out"])
    (key,) = results.data
    answers = results.answers(key)["final"]
    assert len(answers.items) == 20 and answers.calls == 1
    first = [line["score"] for line in own if line["id"] == answers.items[0]]
    assert answers.scores[0] == pytest.approx(np.mean(first))
    assert not results.left_out
    assert analyze_results.main(["--results-dir", "out", "--output-dir", "report"]) == 0


def test_the_first_draw_is_the_answer_of_a_cell_with_one_and_comes_from_its_cache(
    command: Callable, tmp_path: Path, server: ScriptedServer
) -> None:
    assert script.main(command()) == 0
    one = {line["id"]: line["prediction"] for line in finals(tmp_path)}
    asked = server.calls
    assert script.main(command(draws="2")) == 0
    assert server.calls == 2 * asked
    folder = next(path.parent for path in tmp_path.rglob("results.json") if read(path)["cell"].get("draws") == 2)
    both = finals(folder)
    assert {line["id"]: line["prediction"] for line in both if line["draw"] == 0} == one


@pytest.mark.parametrize("pipeline", ["chain", "vote"])
def test_an_optimized_program_is_drawn_and_its_baseline_once(
    command: Callable, tmp_path: Path, server: ScriptedServer, pipeline: str
) -> None:
    server.skill = lambda body: 0.9 if "Rule" in str(body["messages"]) else 0.3
    changes = {"optimizers": "mipro_instruct", "steps": "3", "val_size": "20", "rollout_budget": "80"}
    assert script.main([*command(draws="2", **changes), "--pipelines", pipeline]) == 0
    record = read(next(tmp_path.rglob("results.json")))
    assert record["unchanged"] is False
    assert record["prediction_lines"]["baseline"] == 20 and record["prediction_lines"]["final"] == 40
    low, high = read(tmp_path / "out/plan.json")[record["cell_id"]]["calls"]
    assert 0.8 * low <= sum(part["calls"] for part in record["usage"].values()) <= 1.2 * high


def test_a_study_sets_draws_by_benchmark_and_a_flag_sets_all(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('models = ["m"]\nbenchmarks = ["a", "b"]\n[draws_by_benchmark]\na = 3\n')
    study = load_study(str(file))
    assert study.draws_by_benchmark == {"a": 3} and study.draws == 1
    assert narrow(study, draws=2).draws_by_benchmark == {}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--draws", "0"), "give 1 or more"),
        (("--draws", "2", "--temperature", "0"), "the same answer 2 times"),
        (("--draws", "2", "--pipelines", "self_correct"), "scores each turn"),
    ],
)
def test_draws_that_make_no_sense_are_refused(
    command: Callable, refused: Callable, flags: tuple[str, ...], said: str
) -> None:
    assert said in refused([*command(), *flags])


def test_a_draw_that_was_lost_leaves_its_row_with_the_others() -> None:
    answered = [
        PredictionLine(program="final", id="a", draw=draw, score=score) for draw, score in enumerate((1.0, None))
    ]
    lost = [PredictionLine(program="final", id="b", draw=draw, score=None) for draw in range(2)]
    assert [row.score for row in rows_of([*answered, *lost])] == [1.0, None]


def test_a_draw_that_is_there_twice_stays_a_line_of_its_own() -> None:
    twice = [PredictionLine(program="final", id="a", draw=draw, score=1.0) for draw in (0, 1, 1)]
    assert len(rows_of(twice)) == 2


def test_cells_of_other_draws_are_not_mixed(command: Callable, tmp_path: Path) -> None:
    for draws in ("1", "2"):
        assert script.main(command(draws=draws)) == 0
    results = load([tmp_path / "out"])
    assert list(results.cells["status"]) == ["ok", "ok"]  # neither is a repeat of the other


def test_intervals_of_rows_that_were_drawn_several_times_hold_what_they_promise() -> None:
    """Two cells of three runs that score alike on 100 rows, three draws a row."""
    rng = np.random.default_rng(3)
    names = np.array([f"r{i}" for i in range(100)])
    covered = []
    for _ in range(400):
        chance = rng.beta(1.5, 1, (100, 1))
        arms = []
        for _arm in range(2):
            shifted = np.clip(chance + rng.normal(0, 0.02, 3), 0, 1)
            arms.append(Arm("toy", "gepa", names, names, rng.binomial(3, shifted) / 3))
        estimate = contrast([(1.0, arms[0]), (-1.0, arms[1])])
        covered.append(estimate.low <= 0 <= estimate.high)
    assert 0.92 <= np.mean(covered) <= 0.985
