"""What a hosted job cannot do is refused before any call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def test_no_key_is_refused_where_nothing_else_could_run(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNTH_API_KEY")
    monkeypatch.delenv("SYNTH_BACKEND_URL", raising=False)
    said = refused(command())
    assert "SYNTH_API_KEY is not set" in said and "--local" in said


def test_a_wrong_key_is_told_before_any_call(command: Callable, refused: Callable, backend: Callable) -> None:
    fake = backend(fault="401")
    said = refused(command())
    assert "refused SYNTH_API_KEY (401)" in said and not fake.jobs


def test_a_backend_that_is_not_there_is_told_before_any_call(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_BACKEND_URL", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1 cannot be reached" in refused(command())


def test_a_remote_backend_needs_a_way_to_the_task_app(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_BACKEND_URL", "https://synth.example")
    monkeypatch.setenv("PATH", "")
    said = refused(command())
    assert "cloudflared" in said and "--task-app-url" in said and "8015" in said


def test_a_model_that_synth_cannot_call_is_refused(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYNTH_BACKEND_URL", "https://synth.example")
    (tmp_path / "mine.toml").write_text('[models."toy/x"]\nroute = "anthropic/x"\n')
    assert "openai, groq, google" in refused(command(models="toy/x", models_file="mine.toml"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "sideways"}, "mode 'sideways'; possible: offline, online"),
        ({"rollouts": "0"}, "--rollouts 0"),
        ({"trials": "0", "rollout_budget": None}, "--trials 0"),
        ({"trials": "5"}, "--trials and --rollout-budget"),
        ({"optimizers": "none", "mode": "online"}, "--mode is for synth_mipro"),
        ({"optimizers": "none", "rollouts": "3"}, "--rollouts is for synth_mipro"),
        ({"optimizers": "none", "task_app_url": "http://x"}, "--task-app-url is for synth_mipro"),
        ({"job_timeout": "0"}, "--job-timeout 0"),
        ({"task_app_port": "8015"}, "--task-app-port says where --task-app-url leads to"),
        ({"task_app_url": "http://x", "mode": "online"}, "--task-app-url: in online mode"),
        ({"engine": "dask"}, "Type --engine local"),
        ({"task_app_url": "my.host"}, "--task-app-url my.host is not possible"),
    ],
    ids=str,
)
def test_a_flag_that_means_nothing_is_refused(
    command: Callable, refused: Callable, changes: dict[str, str], says: str
) -> None:
    assert says in refused(command(**changes))
