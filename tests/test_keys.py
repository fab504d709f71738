"""Keys: which are missing is said at once, what has its key can run, and `.env` is read everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import run_scaling_experiment as script
from benchmarks import banking77
from scaling.hosted import task_app
from scaling.testing import ScriptedServer
from tests.support.files import read, tree

MODELS = """
[models."toy/open"]
route = "openai/scripted"
api_base = "{url}"
[models."toy/keyed"]
route = "openai/scripted"
key_env = "TOY_KEY"
"""


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOY_KEY", "GROQ_API_KEY", "OPENAI_API_KEY", "TOGETHERAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def two(command: Callable, server: ScriptedServer, tmp_path: Path, no_keys: None) -> list[str]:
    """A sweep of two models, one of which lacks its key."""
    (tmp_path / "models.toml").write_text(MODELS.format(url=server.url))
    return command(models="toy/open toy/keyed", api_base=None, models_file="models.toml")


def test_all_keys_that_are_missing_are_named_at_once(command: Callable, refused: Callable, no_keys: None) -> None:
    names = "groq/openai/gpt-oss-20b groq/openai/gpt-oss-120b gpt-6-luna together_ai/Qwen/Qwen2.5-72B-Instruct"
    said = refused(command(models=names, api_base=None))
    for words in (
        "GROQ_API_KEY (for groq/openai/gpt-oss-120b, groq/openai/gpt-oss-20b)",
        "OPENAI_API_KEY (for openai/gpt-6-luna)", "TOGETHERAI_API_KEY", "are not set",
        "--skip-missing-keys", "export", ".env",
    ):  # fmt: skip
        assert words in said, said


def test_the_proposers_key_is_needed_with_an_optimizer_only(
    command: Callable, refused: Callable, no_keys: None, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text(MODELS.format(url=server.url))
    flags = {"models": "toy/open", "optimizer_model": "toy/keyed", "models_file": "models.toml", "api_base": None}
    assert "TOY_KEY (for toy/keyed) is not set" in refused(command(**flags, optimizers="gepa"))
    assert script.main(command(**flags)) == 0


def test_without_any_key_nothing_is_skipped_but_all_is_refused(
    command: Callable, refused: Callable, no_keys: None
) -> None:
    said = refused([*command(models="groq/openai/gpt-oss-20b gpt-6-luna", api_base=None), "--skip-missing-keys"])
    assert "GROQ_API_KEY" in said and "OPENAI_API_KEY" in said and "type --skip-missing-keys" not in said


def test_what_has_its_key_runs_and_the_rest_runs_once_its_key_is_there(
    two: list[str], server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert script.main([*two, "--skip-missing-keys"]) == 0
    said = capsys.readouterr().out
    assert "1 cell to run on toy/open" in said
    assert "skipped 1 cell: the environment variable TOY_KEY (for toy/keyed) is not set" in said
    assert "2 cells: 1 ok, 1 skipped" in said
    asked = len(server.requests)
    records = {record["cell"]["model"]: record for record in map(read, (tmp_path / "out").rglob("results.json"))}
    assert records["toy/keyed"]["status"] == "skipped" and "TOY_KEY" in records["toy/keyed"]["error"]["message"]

    assert script.main([*two, "--skip-missing-keys"]) == 0
    assert "0 cells to run, 2 settled already" in capsys.readouterr().out
    assert len(server.requests) == asked

    monkeypatch.setenv("TOY_KEY", "a key")
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    assert script.main([*two, "--skip-missing-keys"]) == 0
    assert "2 cells: 2 ok" in capsys.readouterr().out
    assert len(server.requests) == 2 * asked


def test_a_dry_run_says_what_would_be_skipped(two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = tree(tmp_path)
    assert script.main([*two, "--dry-run", "--skip-missing-keys"]) == 0
    said = capsys.readouterr().out
    assert "1 cell to run on toy/open" in said and "skipped 1 cell" in said and "TOY_KEY" in said
    assert tree(tmp_path) == before
    assert script.main([*two, "--dry-run"]) == 0
    assert "2 cells to run" in capsys.readouterr().out


def test_check_ends_with_a_table_that_has_every_model(
    two: list[str], server: ScriptedServer, capsys: pytest.CaptureFixture
) -> None:
    assert script.main([*two, "--check"]) == 2
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert lines[0] == "toy/keyed: set TOY_KEY"
    head, keyed, is_open = (line.split() for line in lines[1:])
    assert head == ["model", "ready", "key", "reachable", "price", "ends", "seconds"]
    assert keyed[:6] == ["toy/keyed", "no", "TOY_KEY", "is", "missing", "not"]
    assert is_open[:5] == ["toy/open", "yes", "not", "needed", "yes"]
    assert len(server.requests) == 1


def test_a_task_app_reads_its_key_from_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(task_app, "serve_until_stopped", lambda app, listener: listener.close())
    flags = ["--data", "sample", "--port", "0", "--labels", "4"]
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "")
    monkeypatch.delenv("ENVIRONMENT_API_KEY")
    assert task_app.main("banking77", banking77.CONFIG, 1, flags) == 2
    assert "ENVIRONMENT_API_KEY is not set" in capsys.readouterr().err
    (tmp_path / ".env").write_text("ENVIRONMENT_API_KEY=from-the-file\n")
    assert task_app.main("banking77", banking77.CONFIG, 1, flags) == 0
    assert "with ENVIRONMENT_API_KEY" in capsys.readouterr().out
