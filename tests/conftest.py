"""Fixtures of all tests: a model server on loopback, a toy benchmark, and no way out to any network."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import run_scaling_experiment as script
from scaling import models
from scaling.llm import gateway
from scaling.testing import ScriptedServer
from tests.support import toy as toy_benchmark
from tests.support.command import GOOD
from tests.support.files import tree

# The same examples each time: a test that fails for one session fails for the next.
hypothesis.settings.register_profile("same", max_examples=50, deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("same")

SMALL: dict[str, Any] = {
    "benchmark": "toy",
    "num_steps": 1,
    "optimizer": "none",
    "rollout_budget": 40,
    "model": "openai/scripted",
    "data": "sample",
    "train_size": 10,
    "val_size": 20,
    "test_size": 20,
}


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails, wherever it runs."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def the_day_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that end later do not make tests fail then; the test that is to fail asks for the real date."""
    monkeypatch.setattr(models, "today", lambda: datetime.date(2026, 11, 27))


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed calls are tried again at once, as often as ever."""
    monkeypatch.setattr(gateway, "backoff_seconds", lambda state: 0.0)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """The scripted server, right on six classifications of ten."""
    with ScriptedServer(skill=lambda body: 0.6, truth=toy_benchmark.truth()) as running:
        yield running


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Puts the toy benchmark into BENCHMARK_CONFIG; call it again with changes to its entry (None removes a key)."""

    def put(name: str = "toy", **changes: Any) -> dict[str, Any]:
        entry = toy_benchmark.config(**changes)
        monkeypatch.setitem(script.BENCHMARK_CONFIG, name, entry)
        return entry

    put()
    return put


@pytest.fixture
def experiment(server: ScriptedServer, toy: Callable, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs one small cell against the server and gives its record; keywords as of run_single_experiment."""

    def run(**changes: Any) -> dict[str, Any]:
        keywords = SMALL | {"output_dir": tmp_path / "cell", "api_base": server.url} | changes
        return asyncio.run(script.run_single_experiment(**keywords))

    return run


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
