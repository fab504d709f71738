"""What a user can get wrong: one line that says what to do, exit code 2, no call made and nothing written over."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.testing import ScriptedServer
from tests.support.files import read, tree

GOOD = {
    "--benchmarks": "toy",
    "--models": "openai/scripted",
    "--steps": "1",
    "--optimizers": "none",
    "--runs": "1",
    "--rollout-budget": "40",
    "--train-size": "10",
    "--val-size": "5",
    "--test-size": "20",
    "--data": "sample",
    "--output-dir": "out",
}


@pytest.fixture
def command(
    toy: Callable, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """A command line that works, with flags changed (None leaves one out); run in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def line(**changes: str | None) -> list[str]:
        flags = GOOD | {"--api-base": server.url}
        flags |= {"--" + name.replace("_", "-"): value for name, value in changes.items()}
        return [word for flag, value in flags.items() if value is not None for word in (flag, *value.split())]

    return line


@pytest.fixture
def refused(server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[[list[str]], str]:
    """Runs a command line that must be refused, and gives its one line."""

    def run(argv: list[str]) -> str:
        asked, files = len(server.requests), tree(tmp_path)
        capsys.readouterr()
        code = script.main(argv)
        said = capsys.readouterr().err
        assert code == 2, said
        assert len(said.strip().splitlines()) == 1, said
        assert said.startswith("error: ")
        assert len(server.requests) == asked
        assert tree(tmp_path) == files
        return said

    return run


def test_the_command_that_the_others_change_works(command: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    assert script.main(command()) == 0
    assert server.calls == 20
    assert len(list((tmp_path / "out").rglob("results.json"))) == 1


BAD_FLAGS: list[tuple[dict[str, str | None], list[str]]] = [
    ({"benchmarks": "bankng77"}, ["benchmark 'bankng77'", "banking77", "heartdisease", "hotpotqa", "toy"]),
    ({"optimizers": "gepa copro"}, ["optimizer 'copro'", "gepa", "mipro_instruct", "bootstrap"]),
    ({"pipelines": "ring"}, ["pipeline 'ring'", "chain", "repeat", "vote"]),
    ({"models": "gpt-77", "api_base": None}, ["model 'gpt-77'", "groq/llama-3.1-8b-instant", "--api-base"]),
    ({"models": "gpt-77"}, ["openai/gpt-77"]),
    ({"optimizer_model": "gpt-77", "api_base": None, "models": "local/smollm2-135m"}, ["model 'gpt-77'"]),
    ({"study": "pipline"}, ["study 'pipline'", "pipeline", "quick"]),
    ({"phase": "1"}, ["--phase 1", "'pipeline' has no phases"]),
    ({"study": "model-scaling", "phase": "4"}, ["phase '4'", "1, 2, 3, all"]),
    ({"models": "size:tiny"}, ["size 'tiny'", "small, medium, large"]),
    ({"models": "grok/*"}, ["model 'grok/*'", "groq/gpt-oss-20b"]),
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

    said = refused(command(models="groq/llama-3.1-8b-instant", api_base=None))
    assert "GROQ_API_KEY" in said
    assert "groq/llama-3.1-8b-instant" in said


def test_a_dry_run_needs_no_key_and_writes_nothing(
    command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)

    assert script.main([*command(models="groq/llama-3.1-8b-instant", api_base=None), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 cell to run on groq/llama-3.1-8b-instant" in said and "toy 1step none run0" in said
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
    assert script.os.environ["TOY_FROM_FILE"] == "file"
    assert script.os.environ["TOY_FROM_BOTH"] == "environment"


def spoil(tmp_path: Path, how: str) -> Path:
    """Damages the only record under tmp_path."""
    (path,) = tmp_path.rglob("results.json")
    if how == "version":
        path.write_text(json.dumps(read(path) | {"schema_version": 99}))
    elif how == "cut off":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a list":
        path.write_text("[1, 2]")
    elif how == "no status":
        path.write_text(json.dumps({k: v for k, v in read(path).items() if k != "status"}))
    elif how == "binary":
        path.write_bytes(b"\xff\xfe\x00\x01")
    return path


DAMAGES = ["version", "cut off", "empty", "a list", "no status", "binary"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_record_that_cannot_be_read_is_refused(
    command: Callable, refused: Callable, tmp_path: Path, how: str
) -> None:
    assert script.main(command()) == 0
    path = spoil(tmp_path, how)

    said = refused(command())
    assert str(path.relative_to(tmp_path)) in said
    if how == "version":
        assert "99" in said


@pytest.mark.parametrize("how", ["version", "cut off"])
def test_a_bad_record_of_another_cell_is_told_before_any_call(
    command: Callable, refused: Callable, tmp_path: Path, how: str
) -> None:
    assert script.main(command()) == 0
    spoil(tmp_path, how)

    refused(command(steps="2"))


def test_a_bad_record_can_be_analysed_no_further_but_moved_away(
    command: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    assert script.main(command()) == 0
    calls = server.calls
    spoil(tmp_path, "cut off").unlink()

    assert script.main(command()) == 0
    assert server.calls == calls


def test_an_output_folder_that_is_a_file_is_refused(
    command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "out").write_text("mine")

    assert script.main(command()) != 0
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert server.calls == 0
    assert (tmp_path / "out").read_text() == "mine"


def test_ctrl_c_keeps_what_was_paid_for(
    command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(body: dict) -> str:
        if len(server.requests) == 5:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return server.default_answer(body)

    server.answer = interrupt
    slow = command(steps="5", test_size="40", max_concurrency="1")
    assert script.main(slow) == 130
    paid = server.calls
    assert 5 <= paid < 200
    shown = capsys.readouterr()
    assert "the same command to continue" in shown.out + shown.err
    (record,) = tmp_path.rglob("results.json")
    assert read(record)["status"] == "interrupted"
    assert read(record)["final_score"] is None

    assert script.main(slow) == 0
    assert server.calls == 200
    assert read(record)["status"] == "ok"
    assert read(record)["usage"]["evaluate"]["cache_hits"] == paid


@pytest.mark.parametrize("flag", ["--benchmark", "--dry", "--frobnicate"])
def test_a_flag_that_is_not_there_is_not_guessed(
    command: Callable, server: ScriptedServer, flag: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        script.main([*command(), flag, "toy"])

    assert stopped.value.code == 2
    assert flag in capsys.readouterr().err
    assert server.calls == 0


def test_fresh_runs_settled_cells_again_and_takes_no_answer_from_the_cache(
    command: Callable, server: ScriptedServer
) -> None:
    assert script.main(command()) == 0
    asked = len(server.requests)
    assert script.main(command()) == 0
    assert len(server.requests) == asked
    assert script.main([*command(), "--fresh"]) == 0
    assert len(server.requests) == 2 * asked


def test_pipelines_names_the_controls(command: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    assert script.main(command(pipelines="vote", steps="3")) == 0
    (record,) = tmp_path.rglob("results.json")
    assert "3vote" in record.parts
    assert len(server.requests) == 3 * read(record)["n"]


def test_the_optimizer_model_reflects_and_the_model_answers(
    command: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    flags = command(optimizers="gepa", rollout_budget="40", optimizer_model="openai/thinker")
    assert script.main(flags) == 0
    asked = {body["model"] for body in server.requests}
    assert asked == {"scripted", "thinker"}
    reflections = [body for body in server.requests if body["model"] == "thinker"]
    assert all("new_instruction" in str(body["messages"]) for body in reflections)


def test_check_asks_each_model_once_and_writes_nothing(
    command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert script.main([*command(), "--check"]) == 0
    said = capsys.readouterr().out
    assert "openai/scripted" in said and "yes" in said and "not known" in said
    assert len(server.requests) == 1
    assert tree(tmp_path) == {}
    server.fault = lambda n, body: ("status", 401)
    assert script.main([*command(), "--check"]) == 2
    assert "cannot be called" in capsys.readouterr().out


def test_check_finds_a_server_that_keeps_no_limit(
    command: Callable, server: ScriptedServer, capsys: pytest.CaptureFixture
) -> None:
    server.answer = lambda body: "one two three " * 50
    assert script.main([*command(), "--check"]) == 2
    assert "16 were the limit" in capsys.readouterr().out


def test_a_plan_names_calls_tokens_and_dollars_by_cell(command: Callable, capsys: pytest.CaptureFixture) -> None:
    assert script.main([*command(steps="1 2", optimizers="none gepa"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "toy 1step none run0" in said and " 20 calls" in said and "tokens" in said and "price not known" in said
    assert all(len(line) <= 80 for line in said.splitlines() if line.startswith("  ")), said


def test_what_must_be_said_of_a_benchmark_is_said_everywhere(
    command: Callable, toy: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    toy(note="each case is asked once")
    assert script.main(command()) == 0
    assert "note: toy: each case is asked once" in capsys.readouterr().out
    (record,) = (tmp_path / "out").rglob("results.json")
    assert read(record)["note"] == "each case is asked once"
    assert analyze_results.main(["--results-dir", "out", "--output-dir", "tables"]) == 0
    for name in ("summary_results.md", "report.html"):
        assert "toy: each case is asked once." in (tmp_path / "tables" / name).read_text()


def test_an_interrupted_fresh_sweep_goes_on_with_the_same_command(
    command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Nothing that the fresh sweep has paid for is paid for again, and nothing of before it is taken."""
    flags = [*command(steps="1 2", max_concurrency="1"), "--fresh"]
    assert script.main(flags[:-1]) == 0
    whole = server.calls

    def interrupt(body: dict) -> str:
        if server.calls == whole + whole // 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return server.default_answer(body)

    server.answer = interrupt
    assert script.main(flags) == 130
    assert "the same command to continue" in "".join(capsys.readouterr())
    assert whole < server.calls < 2 * whole
    server.answer = server.default_answer
    assert script.main(flags) == 0
    assert server.calls == 2 * whole
    assert "1 settled already" in capsys.readouterr().out
    assert script.main(flags) == 0
    assert server.calls == 3 * whole
