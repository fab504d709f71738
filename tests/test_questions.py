"""Which questions a study can answer is said before it spends, kept in plan.json, and taken up by the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.planning.questions import QUESTIONS, asked_by
from scaling.planning.study import load_study, study_names
from scaling.records.store import read_plan, read_records
from scaling.types import PlannedCell
from tests.support.files import read

REASON = "too few runs: one run says nothing about the next one"


def dry_run(capsys: pytest.CaptureFixture, *flags: str) -> list[str]:
    """The lines of a plan on the samples."""
    capsys.readouterr()
    assert script.main([*flags, "--data", "sample", "--dry-run"]) == 0
    return capsys.readouterr().out.splitlines()


def said_of(lines: list[str], question: str) -> str:
    (line,) = [line for line in lines if line.startswith((f"- {question} ", f"- {question}: "))]
    return line


def test_a_plan_says_of_each_question_what_it_can_show_or_what_is_missing(capsys: pytest.CaptureFixture) -> None:
    lines = dry_run(capsys, "--study", "pipeline")
    for question in load_study("pipeline").questions:
        assert "It can be answered" in said_of(lines, question)
    first = said_of(lines, "H1")
    smallest = float(first.split("from ")[1].split()[0])
    assert 1 < smallest < 10  # points: 60 cells of 50 to 80 rows
    fewer = said_of(dry_run(capsys, "--study", "pipeline", "--test-size", "30"), "H1")
    assert float(fewer.split("from ")[1].split()[0]) > 1.1 * smallest


@pytest.mark.parametrize(
    ("flags", "question", "missing"),
    [
        (("--runs", "1"), "H1", REASON),
        (("--optimizers", "gepa"), "H3", "with both optimizers"),
        (("--optimizers", "gepa"), "optimizers", "two optimizers on equal terms are needed"),
        (("--benchmarks", "banking77", "heartdisease"), "H4", "a reasoning and a classification benchmark"),
        (("--steps", "1"), "H1", "fewer than two benchmarks have all cells at 1 and 5 steps"),
        (("--benchmarks", "banking77"), "H2", "fewer than two benchmarks have all cells at 1, 3 and 5 steps"),
        (("--optimizers", "none"), "H1", "all cells are without an optimizer"),
        (("--test-size", "9"), "H1", "too few rows: "),
    ],
)
def test_what_is_missing_is_named(
    flags: tuple[str, ...], question: str, missing: str, capsys: pytest.CaptureFixture
) -> None:
    said = said_of(dry_run(capsys, "--study", "pipeline", *flags), question)
    assert "It cannot be answered: " in said and missing in said


def test_a_study_that_can_answer_nothing_says_so_first(capsys: pytest.CaptureFixture) -> None:
    lines = dry_run(capsys, "--study", "pipeline-controls", "--optimizers", "none")
    assert lines[0].startswith("WARNING: none of this study's questions can be answered")
    assert "It cannot be answered: chains (study pipeline) and controls" in said_of(lines, "controls")
    assert not dry_run(capsys, "--study", "pipeline")[0].startswith("WARNING")


STUDY = """
benchmarks = ["toy"]
pipelines = ["{pipeline}"]
steps = [3]
models = ["openai/scripted"]
runs = 2
train_size = 10
val_size = 20
test_size = 20
data = "sample"
questions = ["{question}"]
"""


@pytest.fixture
def study(command: Callable, tmp_path: Path) -> Callable[..., list[str]]:
    """The flags of a small study of one pipeline that asks one question."""

    def flags(pipeline: str, question: str) -> list[str]:
        (tmp_path / f"{pipeline}.toml").write_text(STUDY.format(pipeline=pipeline, question=question))
        given = command(models=None, benchmarks=None, steps=None, optimizers=None, runs=None, test_size=None,
                        train_size=None, val_size=None, rollout_budget=None, data=None)  # fmt: skip
        return ["--study", str(tmp_path / f"{pipeline}.toml"), *given]

    return flags


def test_cells_that_lie_in_the_results_folder_count(study: Callable, capsys: pytest.CaptureFixture) -> None:
    assert "cannot be answered: chains" in said_of(dry_run(capsys, *study("vote", "controls")), "controls")
    assert script.main(study("chain", "controls")) == 0
    said = said_of(dry_run(capsys, *study("vote", "controls")), "controls")
    assert "It can be answered, from " in said


def test_the_plan_is_kept_and_the_report_begins_with_its_questions(
    study: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results = tmp_path / "results"
    for pipeline in ("chain", "vote"):
        assert script.main([*study(pipeline, "controls"), "--output-dir", str(results)]) == 0
    kept = read(results / "plan.json")
    assert [answer["question"] for answer in kept["questions"]] == ["controls"]
    plan = read_plan(results / "plan.json")
    assert plan.questions[0].answerable == 1 and plan.questions[0].smallest_effect
    assert set(plan.cells) == {record.cell_id for _, record in read_records([results])}
    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(tmp_path)]) == 0
    page = (tmp_path / "summary_results.md").read_text()
    lead = page.split("\n\n")[:5]
    assert any("controls: Is the chain better" in part and "95 % interval [" in part for part in lead)
    assert "H1" not in page


def test_an_old_plan_without_questions_is_read(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    assert read_plan(tmp_path / "plan.json").questions == []


def test_an_unknown_question_is_refused_with_those_that_are_known(refused: Callable, study: Callable) -> None:
    said = refused(study("chain", "H9"))
    assert "unknown question 'H9'" in said and "H1" in said


def test_questions_follow_from_cells() -> None:
    def cell(**fields: object) -> PlannedCell:
        known = {"benchmark": "toy", "pipeline": "chain", "steps": 1, "optimizer": "none", "model": "m"}
        return PlannedCell(**known | {"optimizer_model": "m"} | fields)  # type: ignore[arg-type]

    assert asked_by([cell()]) == []
    assert asked_by([cell(optimizer="gepa")]) == ["improvement"]
    steps = [cell(optimizer="gepa", steps=k) for k in (1, 3)]
    assert asked_by(steps) == ["H1", "H2", "H3", "H4", "improvement"]
    assert asked_by([cell(pipeline="self_correct", steps=3)]) == ["correction"]


def test_every_study_asks_and_names_known_questions() -> None:
    for name in study_names():
        assert set(load_study(name).questions) <= set(QUESTIONS)
