"""Programs on models that they were not optimized on: what is planted is found, and every contract of a cell holds."""

from __future__ import annotations

import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.stats import SIGNIFICANCE
from scaling.records.store import read_records
from scaling.testing import ScriptedServer, whole_prompt
from tests.support import toy as toy_benchmark
from tests.support.carried import PLAIN, carried_answers
from tests.support.chaos import only_in_chaos
from tests.support.files import read
from tests.support.sweeps import lasting, outcome

CHANCES = {
    ("a", "a"): 0.85, ("b", "b"): 0.85,  # their own optima
    ("a", "b"): 0.7, ("b", "a"): 0.25,  # a gain and a loss
    ("a", "c"): 0.8, ("b", "c"): 0.5,  # a gain and nothing, where no optimum was run
}  # fmt: skip
ENDS = 0.85  # share of intervals that must hold what was planted; 95 % are expected
ROWS = 800


@pytest.fixture
def carried(toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """The server on which prompts help and harm by model, with a toy benchmark of many rows."""
    monkeypatch.chdir(tmp_path)
    rows = toy_benchmark.rows(ROWS)
    toy(loader=lambda: rows, test_seeds=range(500))
    truth = {row["message"]: row["label"] for row in rows}
    with ScriptedServer(answer=carried_answers(truth, CHANCES)) as server:
        yield server


def optimize(server: ScriptedServer, *flags: str, models: str = "a b", output: str = "out") -> int:
    """The own optima: a cell of GEPA a model."""
    names = [f"openai/{name}" for name in models.split()]
    sizes = ["--rollout-budget", "60", "--train-size", "10", "--val-size", "12", "--test-size", "100"]
    study = ["--benchmarks", "toy", "--steps", "1", "--optimizers", "gepa", "--runs", "1", "--data", "sample"]
    where = ["--api-base", server.url, "--output-dir", output]
    return script.main([*study, "--models", *names, *sizes, *where, *flags])


def transfer(server: ScriptedServer, *flags: str, models: str = "a b c", output: str = "out") -> int:
    """The programs in `out` on these models."""
    names = [f"openai/{name}" for name in models.split()]
    where = ["--api-base", server.url, "--output-dir", output]
    return script.main(["--transfer-from", "out", "--models", *names, *where, *flags])


def transferred(folder: Path) -> list[dict[str, Any]]:
    """The records of transfers, by where their programs are from and where they ran."""
    records = [read(path) for path, _ in read_records([folder])]
    mine = [record for record in records if record["cell"]["optimizer"] == "transfer"]
    return sorted(mine, key=lambda record: (record["start"]["cell"]["model"], record["cell"]["model"]))


def model_of(name: str) -> str:
    return name.removeprefix("openai/")


@only_in_chaos
def test_planted_gains_and_losses_are_found(
    carried: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert optimize(carried, "--test-size", "150", "--runs", "3") == 0
    capsys.readouterr()
    assert transfer(carried) == 0
    plan = capsys.readouterr().out
    assert "study transfer: 12 cells to run on 3 models" in plan
    assert "It can be answered" in plan

    frame = analyze_results.find([tmp_path / "out"], None, False).transfers
    moved = frame[~frame["own"]]
    assert {(model_of(row["optimized_on"]), model_of(row["run_on"])) for _, row in moved.iterrows()} == {
        ("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"),
    }  # fmt: skip
    inside = []
    for _, row in frame.iterrows():
        source, target = model_of(row["optimized_on"]), model_of(row["run_on"])
        true = CHANCES[source, target] - PLAIN
        inside.append(row["improvement_low"] <= true <= row["improvement_high"])
        if not row["own"]:
            expected = "better" if true > 0 else "worse" if true < 0 else "cannot tell"
            assert row["improvement_verdict"] == expected, (source, target)
            assert (row["improvement_p_holm"] < SIGNIFICANCE) == (true != 0)
        if not row["own"] and target == "c":
            assert pd.isna(row["own_score"]) and row["against_own_verdict"] == ""
        elif not row["own"]:
            true = CHANCES[source, target] - CHANCES[target, target]
            inside.append(row["against_own_low"] <= true <= row["against_own_high"])
            assert row["against_own_verdict"] == "worse"
    assert sum(inside) / len(inside) >= ENDS, inside


def test_the_matrix_is_in_the_report_the_table_for_a_paper_and_a_figure(
    carried: ScriptedServer, tmp_path: Path
) -> None:
    assert optimize(carried) == 0 and transfer(carried) == 0
    analyze_results.analyze([tmp_path / "out"], tmp_path, ["png"])
    for name in ("summary_results.md", "summary_results.tex", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "Transferred programs" in text and "not run" in text, name
    assert (tmp_path / "visualizations" / "transfer_toy-1step-gepa.png").exists()
    frame = pd.read_csv(tmp_path / "summary_transfer.csv")
    assert len(frame) == 6 and set(frame["own"]) == {True, False}
    # The transfers are in no table of optimizers.
    tests = pd.read_csv(tmp_path / "summary_tests.csv")
    others = tests[tests["family"] != "transferred programs (exploratory)"]
    assert len(others) < len(tests) and not others["comparison"].str.contains("transfer").any()


def test_transfers_alone_can_be_analysed(carried: ScriptedServer, tmp_path: Path) -> None:
    assert optimize(carried, models="a") == 0
    assert transfer(carried, models="b", output="other") == 0
    analyze_results.analyze([tmp_path / "other"], tmp_path, ["png"])
    text = (tmp_path / "summary_results.md").read_text(encoding="utf-8")
    assert "All scores are of transferred programs" in text and "not run" in text


def test_a_record_says_where_its_program_is_from_and_nothing_is_optimized(
    carried: ScriptedServer, tmp_path: Path
) -> None:
    assert optimize(carried, models="a") == 0
    (source,) = [record for _, record in read_records([tmp_path / "out"])]
    before = len(carried.requests)
    assert transfer(carried, models="b") == 0

    (record,) = transferred(tmp_path / "out")
    assert record["start"]["cell_id"] == record["cell"]["start_cell"] == source.cell_id
    assert record["start"]["cell"]["model"] == "openai/a"
    assert record["start"]["sha256"] == record["cell"]["start_sha256"]
    assert record["rollouts_used"] == 0 and record["usage"]["optimize"]["calls"] == 0
    assert record["baseline_score"] is not None and record["improvement_ci95"] is not None
    asked = carried.requests[before:]
    assert {body["model"] for body in asked} == {"b"}
    told = ["Rule of a." in whole_prompt(body) for body in asked]
    assert told.count(False) == 100 and told.count(True) == 100 + 6  # test rows of both, check rows of its program
    # The settings are those of the source, so that both have the same rows.
    assert record["data"]["test_sha256"] == source.data.test_sha256


@only_in_chaos
def test_the_plan_is_an_upper_end_and_the_same_command_runs_nothing_twice(
    carried: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert optimize(carried) == 0
    capsys.readouterr()
    before = len(carried.requests)
    assert transfer(carried, "--dry-run") == 0
    plan = capsys.readouterr().out
    assert len(carried.requests) == before and "note: cells share answers" in plan
    low, high = re.search(r"^in total (\d+)(?:-(\d+))? calls", plan, re.MULTILINE).groups()
    assert transfer(carried) == 0
    assert 0 < len(carried.requests) - before <= int(high or low)
    again = len(carried.requests)
    assert transfer(carried) == 0
    assert len(carried.requests) == again and "0 cells to run" in capsys.readouterr().out


@only_in_chaos
def test_an_interrupted_transfer_goes_on_where_it_stopped(carried: ScriptedServer, tmp_path: Path) -> None:
    assert optimize(carried) == 0
    shutil.copytree("out", "whole", ignore=shutil.ignore_patterns(".cache", ".ledger"))
    assert transfer(carried, output="whole") == 0
    first, good, fired = len(carried.requests), carried.answer, threading.Event()

    def interrupt(body: dict[str, Any]) -> str:
        if len(carried.requests) >= first + 150 and not fired.is_set():
            fired.set()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return good(body)

    carried.answer = interrupt
    assert transfer(carried) == 130
    stopped = len(carried.requests)
    carried.answer = good
    assert transfer(carried) == 0
    # Own optima and transfers as without an interruption, and no answer was asked for twice.
    assert lasting(_scores(tmp_path / "out")) == lasting(_scores(tmp_path / "whole"))
    assert len(carried.requests) - stopped < 600


def _scores(folder: Path) -> dict[str, Any]:
    return {name: cell["predictions"] for name, cell in outcome(folder).items()}


def test_a_cap_stops_a_transfer_and_is_not_exceeded(carried: ScriptedServer, tmp_path: Path) -> None:
    assert optimize(carried, models="a") == 0
    (tmp_path / "models.toml").write_text(
        f'[models."toy/priced"]\nroute = "openai/b"\napi_base = "{carried.url}"\ninput_usd_per_million = 3.0\n'
        'output_usd_per_million = 11.0\nprice_date = "today"\nprice_source = "made up"\nmax_output_tokens = 100\n',
        encoding="utf-8",
    )
    flags = ["--transfer-from", "out", "--models", "toy/priced", "--models-file", "models.toml", "--output-dir", "out"]
    assert script.main([*flags, "--max-cost", "0.02"]) == 3
    (record,) = transferred(tmp_path / "out")
    assert record["status"] == "budget"
    assert script.main(flags) == 0
    (record,) = transferred(tmp_path / "out")
    assert record["status"] == "ok"


def test_a_pilot_of_transfers_is_marked_and_small(
    carried: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert optimize(carried, "--runs", "2", models="a") == 0
    capsys.readouterr()
    assert transfer(carried, "--pilot", models="b") == 0
    assert "this is a pilot" in capsys.readouterr().out
    (record,) = transferred(tmp_path / "out")
    assert record["cell"]["pilot"] and record["n"] == 2 and record["cell"]["run"] == 0


def test_another_benchmark_of_the_same_signature(
    carried: ScriptedServer, toy: Callable[..., Any], tmp_path: Path
) -> None:
    toy("other", loader=lambda: toy_benchmark.rows(200))
    assert optimize(carried, models="a") == 0
    assert transfer(carried, "--benchmarks", "other", "--test-size", "30", models="a") == 0
    (record,) = transferred(tmp_path / "out")
    assert (record["cell"]["benchmark"], record["cell"]["model"]) == ("other", "openai/a")
    frame = analyze_results.find([tmp_path / "out"], None, False).transfers
    assert list(frame["optimized_on"]) == ["openai/a (toy)"]


def test_settings_are_the_sources_but_for_flags(carried: ScriptedServer, tmp_path: Path) -> None:
    assert optimize(carried, "--temperature", "0.3", "--seed", "5", models="a") == 0
    assert transfer(carried, "--test-size", "50", models="b") == 0
    (record,) = transferred(tmp_path / "out")
    assert (record["cell"]["temperature"], record["cell"]["seed"], record["cell"]["test_size"]) == (0.3, 5, 50)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--transfer-from needs the models"),
        (["--models", "openai/a"], "all programs there were optimized on openai/a itself"),
        (["--models", "openai/b", "--optimizers", "mipro"], "no cell there has ended with an optimized program. Run"),
        (["--models", "openai/b", "--rollout-budget", "50"], "--rollout-budget is for optimizers"),
        (["--models", "openai/b", "--start-from", "x"], "--start-from is for optimizers"),
        (["--models", "openai/b", "--benchmarks", "banking77"], "A program runs on benchmarks of its own signature"),
    ],
)
def test_what_cannot_be_transferred_is_one_line(
    carried: ScriptedServer, refused: Callable[[list[str]], str], flags: list[str], said: str
) -> None:
    assert optimize(carried, models="a") == 0
    where = ["--api-base", carried.url, "--output-dir", "out"]
    assert said in refused(["--transfer-from", "out", *where, *flags])


def test_a_source_that_is_not_settled_has_no_program_or_is_not_there(
    carried: ScriptedServer, refused: Callable[[list[str]], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--models", "openai/b", "--api-base", carried.url, "--output-dir", "out"]
    assert "there is no such folder" in refused(["--transfer-from", "nowhere", *flags])
    assert optimize(carried) == 0
    (tmp_path / "out/toy/1step/gepa/openai-a/run0/program.json").unlink()
    capsys.readouterr()
    assert transfer(carried, models="c") == 0
    assert "note: cells without a program to transfer: 1 whose program.json is missing" in capsys.readouterr().out
    path = tmp_path / "out/toy/1step/gepa/openai-b/run0/results.json"
    path.write_text(path.read_text().replace('"status": "ok"', '"status": "interrupted"'), encoding="utf-8")
    said = refused(["--transfer-from", "out/toy/1step/gepa", *flags])
    assert "no cell there has ended with an optimized program (1 whose program.json is missing, 1 with status" in said


@only_in_chaos
def test_a_transfer_on_workers_is_the_same(carried: ScriptedServer, tmp_path: Path) -> None:
    assert optimize(carried, models="a") == 0
    assert transfer(carried, models="b", output="here") == 0
    assert transfer(carried, "--engine", "dask", "--workers", "1", models="b", output="there") == 0
    assert lasting(outcome(tmp_path / "there")) == lasting(outcome(tmp_path / "here"))
