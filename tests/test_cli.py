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


def test_the_command_that_the_others_change_works(command: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    assert script.main(command()) == 0
    assert server.calls == 20
    assert len(list((tmp_path / "out").rglob("results.json"))) == 1


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
