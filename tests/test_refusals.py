"""What cannot be meant is refused in one line before any call, and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import run_scaling_experiment as script
from scaling.testing import ScriptedServer
from tests.support.command import GOOD
from tests.support.files import tree

BAD_FLAGS: list[tuple[dict[str, str | None], list[str]]] = [
    ({"benchmarks": "bankng77"}, ["benchmark 'bankng77'", "banking77", "heartdisease", "hotpotqa", "toy"]),
    ({"optimizers": "gepa copro"}, ["optimizer 'copro'", "gepa", "mipro_instruct", "bootstrap"]),
    ({"pipelines": "ring"}, ["pipeline 'ring'", "chain", "repeat", "vote"]),
    ({"models": "gpt-77", "api_base": None}, ["model 'gpt-77'", "groq/openai/gpt-oss-20b", "--api-base"]),
    ({"models": "gpt-77"}, ["openai/gpt-77"]),
    ({"optimizer_model": "gpt-77", "api_base": None, "models": "local/smollm2-135m"}, ["model 'gpt-77'"]),
    ({"study": "pipline"}, ["study 'pipline'", "pipeline", "quick"]),
    ({"phase": "1"}, ["--phase 1", "'pipeline' has no phases"]),
    ({"study": "model-scaling", "phase": "4"}, ["phase '4'", "1, 2, 3, all"]),
    ({"models": "size:tiny"}, ["size 'tiny'", "small, medium, large"]),
    ({"models": "grok/*"}, ["model 'grok/*'", "groq/openai/gpt-oss-20b"]),
    ({"study": "not-there.toml"}, ["not-there.toml", "pipeline"]),
    ({"steps": "0"}, ["steps 0", "1 to 5"]),
    ({"steps": "1 6"}, ["steps 6", "1 to 5"]),
    ({"steps": "6", "pipelines": "vote"}, ["steps 6", "1 to 5"]),
    ({"runs": "0"}, ["--runs 0"]),
    ({"optimizers": "gepa", "rollout_budget": "19"}, ["--rollout-budget 19", "5 rows", "--rollout-budget 20"]),
    ({"optimizers": "gepa", "rollout_budget": "0"}, ["--rollout-budget 0"]),
    ({"test_size": "200"}, ["--test-size 200", "toy", "105"]),
    ({"test_size": "-1"}, ["--test-size"]),
    ({"train_size": "0"}, ["--train-size 0"]),
    ({"train_size": "200"}, ["--train-size 200", "toy"]),
    ({"labels": "9"}, ["--labels 9", "toy", "4"]),
    ({"models_file": "not-there.toml"}, ["--models-file", "not-there.toml"]),
    ({"max_concurrency": "0"}, ["--max-concurrency 0"]),
    ({"max_cost": "1"}, ["--max-cost", "openai/scripted", "--models-file"]),
    ({"data": "no-such-folder", "benchmarks": "banking77"}, ["no-such-folder", "--data sample", "--data hub"]),
]


@pytest.mark.parametrize(
    ("changes", "says"), BAD_FLAGS, ids=[" ".join(f"{k}={v}" for k, v in changes.items()) for changes, _ in BAD_FLAGS]
)
def test_a_bad_flag_is_refused(
    command: Callable, refused: Callable, changes: dict[str, str | None], says: list[str]
) -> None:
    said = refused(command(**changes))

    assert not [words for words in says if words not in said], said


def test_a_cap_that_is_no_number_caps_nothing_and_is_refused(
    command: Callable, refused: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(
        f'[models."toy/x"]\nroute = "openai/scripted"\napi_base = "{server.url}"\n'
        "input_usd_per_million = 1.0\noutput_usd_per_million = 1.0\n"
    )

    refused(command(models_file="mine.toml", models="toy/x", max_cost="nan"))


@pytest.mark.parametrize("axis", ["benchmarks", "steps", "optimizers", "models"])
def test_a_name_given_twice_is_one_cell(command: Callable, capsys: pytest.CaptureFixture, axis: str) -> None:
    once = GOOD[f"--{axis}"]

    assert script.main(command(**{axis: f"{once} {once}"})) == 0
    assert "1 cell: 1 ok" in capsys.readouterr().out


def test_the_smallest_budget_that_is_offered_works(command: Callable) -> None:
    assert script.main(command(optimizers="gepa", rollout_budget="20")) == 0


@pytest.mark.parametrize("pipeline", ["vote", "repeat"])
def test_draws_at_temperature_0_are_refused(
    command: Callable, refused: Callable, tmp_path: Path, pipeline: str
) -> None:
    (tmp_path / "cold.toml").write_text(f'pipelines = ["chain", "{pipeline}"]\ntemperature = 0.0\n')

    said = refused(command(study="cold.toml"))
    assert pipeline in said
    assert "temperature" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = [1, 2", "TOML"),
        ("stepps = [1, 2]", "stepps"),
        ('temperature = "warm"', "temperature"),
        ("steps_by_benchmark = [1, 2]", "steps_by_benchmark"),
        ("pipelines = 3", "pipelines"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(
    command: Callable, refused: Callable, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)

    assert says in refused(command(study="mine.toml", steps=None))


@pytest.mark.parametrize(
    "text",
    [
        "no toml at all",
        '[models."toy/x"]\nprice = 3\n',
        '[models."toy/x"]\nmax_output_tokens = "few"\n',
        'models = "toy/x"\n',
    ],
    ids=["no TOML", "unknown field", "wrong type", "no table"],
)
def test_a_models_file_that_cannot_be_meant_is_refused(
    command: Callable, refused: Callable, tmp_path: Path, text: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)

    assert "mine.toml" in refused(command(models_file="mine.toml", models="toy/x"))


@pytest.mark.parametrize("key", ["loader", "signature", "metric", "train_seeds", "val_seeds"])
def test_an_entry_without_a_key_is_refused(command: Callable, refused: Callable, toy: Callable, key: str) -> None:
    toy(**{key: None})

    said = refused(command())
    assert "'toy'" in said
    assert f"lacks {key}" in said


@pytest.mark.parametrize("error", [FileNotFoundError, ValueError])
def test_a_loader_that_fails_is_the_users_to_mend(
    command: Callable, refused: Callable, toy: Callable, error: type[Exception]
) -> None:
    def loader() -> list:
        raise error("rows.csv")

    toy(loader=loader)
    said = refused(command())
    assert "toy" in said
    assert "rows.csv" in said


def test_too_few_val_rows_for_a_check_are_refused(command: Callable, refused: Callable, toy: Callable) -> None:
    toy(test_seeds=None)

    assert "--val-size" in refused(command(val_size="5", test_size=None))


def test_a_missing_key_is_refused_and_named(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)

    said = refused(command(models="groq/openai/gpt-oss-20b", api_base=None))
    assert "GROQ_API_KEY" in said
    assert "groq/openai/gpt-oss-20b" in said


def test_a_dry_run_needs_no_key_and_writes_nothing(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)

    assert script.main([*command(models="groq/openai/gpt-oss-20b", api_base=None), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 cell to run on groq/openai/gpt-oss-20b" in said and "toy 1step none run0" in said
    assert tree(tmp_path) == {}


def test_a_hub_that_cannot_be_reached_is_no_reason_to_take_other_data(command: Callable, refused: Callable) -> None:
    said = refused(command(benchmarks="banking77", data="hub"))

    assert "PolyAI/banking77" in said
    assert "--data sample" in said
    assert "--data DIR" in said


@pytest.mark.parametrize("line", ["this is no assignment", "1KEY=x", "=value", "MY KEY=3"])
def test_a_dotenv_that_does_not_parse_is_refused(
    command: Callable, refused: Callable, tmp_path: Path, line: str
) -> None:
    (tmp_path / ".env").write_text(f"# fine\nFINE=1\n{line}\n")

    said = refused(command())
    assert ".env" in said
    assert "line 3" in said


def test_the_environment_wins_over_dotenv(command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_FROM_BOTH", "environment")
    monkeypatch.setenv("TOY_FROM_FILE", "")
    monkeypatch.delenv("TOY_FROM_FILE")
    (tmp_path / ".env").write_text('export TOY_FROM_FILE="file"\nTOY_FROM_BOTH=file\n\n')

    assert script.main(command()) == 0
    assert os.environ["TOY_FROM_FILE"] == "file"
    assert os.environ["TOY_FROM_BOTH"] == "environment"
