"""Cells that start from a given program, and steps that no optimizer changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling.run.frozen import FrozenStep
from scaling.testing import ScriptedServer, whole_prompt
from scaling.types import Cell
from tests.support.files import read, tree

OPTIMIZING = ("gepa", "mipro", "mipro_instruct", "bootstrap")
MINE = "Read the message twice. Then sort it."


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "mine.txt"
    path.write_text(MINE + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("optimizer", ["none", *OPTIMIZING])
def test_the_baseline_is_the_given_program_and_the_record_says_so(
    experiment: Callable[..., Any], server: ScriptedServer, tmp_path: Path, text: str, optimizer: str
) -> None:
    record = experiment(optimizer=optimizer, start_from=text)
    assert record["status"] == "ok", record["error"]
    assert record["start"] == {
        "sha256": record["cell"]["start_sha256"], "file": "mine.txt", "cell_id": None, "cell": None
    }  # fmt: skip
    program = read(tmp_path / "cell/program.json")
    assert program["instructions"]["classifier"]["before"] == MINE
    asked = [whole_prompt(body) for body in server.requests]
    assert MINE in asked[0]  # the first thing that is tried
    assert str(tmp_path) not in (tmp_path / "cell/results.json").read_text().replace(text, "")


@pytest.mark.parametrize("optimizer", OPTIMIZING)
def test_an_optimizer_that_finds_nothing_better_keeps_the_given_instruction(
    experiment: Callable[..., Any], server: ScriptedServer, tmp_path: Path, text: str, optimizer: str
) -> None:
    server.skill = lambda body: 1.0 if MINE in whole_prompt(body) and len(body["messages"]) == 2 else 0.1
    record = experiment(optimizer=optimizer, start_from=text)
    program = read(tmp_path / "cell/program.json")
    assert record["unchanged"] and program["instructions"]["classifier"]["after"] == MINE


def test_a_cells_program_is_a_start_with_its_worked_examples(
    experiment: Callable[..., Any], server: ScriptedServer, tmp_path: Path
) -> None:
    server.skill = lambda body: 1.0 if len(body["messages"]) > 2 else 0.2
    source = experiment(optimizer="bootstrap", output_dir=tmp_path / "source")
    demos = read(tmp_path / "source/program.json")["classifier"]["demos"]
    assert demos
    record = experiment(optimizer="none", start_from=str(tmp_path / "source"))
    assert record["cell"]["start_cell"] == record["start"]["cell_id"] == source["cell_id"]
    assert read(tmp_path / "cell/program.json")["classifier"]["demos"] == demos
    assert record["baseline_score"] == record["final_score"] == source["final_score"] and record["unchanged"]


def test_the_id_holds_the_program_and_not_its_place(experiment: Callable[..., Any], tmp_path: Path, text: str) -> None:
    first = experiment(start_from=text)
    copy = tmp_path / "copy.txt"
    copy.write_text(MINE, encoding="utf-8")
    same = experiment(start_from=str(copy), output_dir=tmp_path / "same")
    copy.write_text(MINE + " Think.", encoding="utf-8")
    other = experiment(start_from=str(copy), output_dir=tmp_path / "other")
    plain = experiment(output_dir=tmp_path / "plain")
    assert first["cell_id"] == same["cell_id"]
    assert len({first["cell_id"], other["cell_id"], plain["cell_id"]}) == 3


def test_the_ids_of_cells_without_a_given_program_are_what_they_were() -> None:
    assert Cell("toy", "chain", 1, "gepa", "openai/scripted", "openai/scripted").cell_id == "261c571d1ccba430"


def test_a_text_has_an_instruction_for_each_step(
    experiment: Callable[..., Any], tmp_path: Path, server: ScriptedServer
) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("[analyzer]\nList the facts.\n[as they are]\n\n[classifier]\nSort it.\n", encoding="utf-8")
    experiment(num_steps=2, start_from=str(path))
    told = read(tmp_path / "cell/program.json")["instructions"]
    assert told["analyzer"]["before"] == "List the facts.\n[as they are]" and told["classifier"]["before"] == "Sort it."


def test_a_step_without_an_instruction_keeps_its_own(experiment: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("[analyzer]\nList the facts.\n", encoding="utf-8")
    experiment(num_steps=2, start_from=str(path))
    told = read(tmp_path / "cell/program.json")["instructions"]
    assert told["analyzer"]["before"] == "List the facts." and "Sort a message" in told["classifier"]["before"]


@pytest.mark.parametrize(
    ("written", "changes", "said"),
    [
        (None, {}, "there is no such file"),
        ("", {}, "there is no instruction. Write one"),
        ("Sort it.", {"steps": "2"}, "'toy chain 2' has several steps. Write a line [analyzer] [classifier] above"),
        ("[reasoner]\nThink.", {}, "its steps are reasoner; those of 'toy chain 1' are classifier"),
        ("[classifier]\nA\n[classifier]\nB", {}, "[classifier] is there twice"),
        ("Sort it.", {"optimizers": "synth_mipro"}, "synth_mipro starts from its own prompts"),
    ],
)
def test_what_is_no_start_is_one_line(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], tmp_path: Path,
    written: str | None, changes: dict[str, str], said: str,
) -> None:  # fmt: skip
    path = tmp_path / "mine.txt"
    if written is not None:
        path.write_text(written, encoding="utf-8")
    assert said in refused(command(start_from=str(path), **changes))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "it holds no step of a program"),
        ("nonsense", "it is no program that DSPy saved"),
        ('{"classifier": {"signature": 3}}', "it is no program that DSPy saved"),
        (json.dumps({"classifier": {"signature": {"instructions": "x", "fields": [{"prefix": "Question:"}]}}}),
         "its signature is 'Question', that of toy is 'Message, Label'"),
    ],
)  # fmt: skip
def test_a_json_file_that_is_no_program_of_this_benchmark_is_one_line(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content, encoding="utf-8")
    assert said in refused(command(start_from=str(path)))


def test_the_program_of_a_cell_that_has_not_ended_is_no_start(
    experiment: Callable[..., Any], command: Callable[..., list[str]], refused: Callable[[list[str]], str],
    tmp_path: Path,
) -> None:  # fmt: skip
    experiment()
    (tmp_path / "cell/results.json").unlink()
    assert "this cell has no program, as it is not settled" in refused(command(start_from=str(tmp_path / "cell")))


def test_transfer_needs_a_program(command: Callable[..., list[str]], refused: Callable[[list[str]], str]) -> None:
    assert "Type --start-from PROGRAM.json" in refused(command(optimizers="transfer"))


@pytest.mark.parametrize("optimizer", OPTIMIZING)
@pytest.mark.parametrize("role", ["analyzer", "classifier"])
def test_a_frozen_step_keeps_its_prompt(
    experiment: Callable[..., Any], server: ScriptedServer, tmp_path: Path, optimizer: str, role: str
) -> None:
    server.skill = lambda body: 0.9 if "of the house" in str(body) or len(body["messages"]) > 2 else 0.2
    record = experiment(optimizer=optimizer, num_steps=2, frozen_roles=[role], rollout_budget=60)
    assert record["status"] == "ok", record["error"]
    assert record["rollouts_used"] <= 60
    program = read(tmp_path / "cell/program.json")
    told = program["instructions"]
    assert told[role]["after"] == told[role]["before"] and not program[role]["demos"]
    assert list(told) == ["analyzer", "classifier"]


def test_freezing_makes_another_cell(experiment: Callable[..., Any], tmp_path: Path) -> None:
    ids = [
        experiment(optimizer="gepa", num_steps=2, output_dir=tmp_path / str(number), **changes)["cell_id"]
        for number, changes in enumerate(({}, {"frozen_roles": ["analyzer"]}))
    ]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"freeze": "analyzer", "optimizers": "gepa"}, "'toy chain 1' has no such step; its steps: classifier"),
        ({"freeze": "classifier", "optimizers": "gepa"}, "no step is left to optimize"),
        ({"freeze": "classifier"}, "none of these optimizers changes a prompt"),
        ({"freeze": "classifier", "optimizers": "synth_mipro"}, "synth_mipro starts from its own prompts"),
    ],
)
def test_what_cannot_be_frozen_is_one_line(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], changes: dict[str, str], said: str
) -> None:
    assert said in refused(command(**changes))


def test_nothing_stays_wrapped(experiment: Callable[..., Any], tmp_path: Path) -> None:
    experiment(optimizer="gepa", num_steps=2, frozen_roles=["analyzer"])
    assert FrozenStep.__name__ not in str(tree(tmp_path))
