"""Fixtures of the tests of hosted jobs: a command line and a backend on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.hosted import client as synth_client
from scaling.hosted import tunnel as tunnels
from scaling.testing import Body, ScriptedServer, whole_prompt
from scaling.testing.synth_backend import SynthBackend
from tests.support.hosted import FLAGS, KEYS, PROPOSALS
from tests.support.sweeps import start


def skill(body: Body) -> float:
    """The planted instruction makes all answers right."""
    return 1.0 if "zebra" in whole_prompt(body) else 0.35


@pytest.fixture
def command(
    toy: Callable, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """A command line for a hosted cell, with flags changed (None leaves one out); run in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for module in (synth_client, tunnels):
        monkeypatch.setattr(module, "MAX_ATTEMPTS", 2)
    server.skill = skill

    def line(**changes: str | None) -> list[str]:
        flags = FLAGS | {"--api-base": server.url}
        flags |= {"--" + name.replace("_", "-"): value for name, value in changes.items()}
        return [word for flag, value in flags.items() if value is not None for word in (flag, *value.split())]

    return line


@pytest.fixture
def backend(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SynthBackend]]:
    """Starts a backend that forwards to the scripted server, and names it in the environment."""
    running: list[SynthBackend] = []

    def start(**options: Any) -> SynthBackend:
        defaults = {"proposals": PROPOSALS, "key": KEYS["SYNTH_API_KEY"]}
        running.append(SynthBackend(server.url, **defaults | options).__enter__())
        monkeypatch.setenv("SYNTH_BACKEND_URL", running[-1].url)
        return running[-1]

    yield start
    for one in running:
        one.__exit__()


@pytest.fixture
def refused(server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[[list[str]], str]:
    """Runs a command line that must be refused before anything is spent, and gives its one line."""

    def run(argv: list[str]) -> str:
        assert script.main(argv) == 2
        said = capsys.readouterr().err
        assert len(said.strip().splitlines()) == 1 and said.startswith("error: "), said
        assert not server.requests and not list(tmp_path.rglob("results.json"))
        return said

    return run


@pytest.fixture
def killed(server: ScriptedServer, tmp_path: Path, backend: Callable) -> Callable[..., tuple[SynthBackend, list[str]]]:
    """A command that is killed while its job runs, or is submitted: its backend, and the command line for another."""

    def kill(fault: str) -> tuple[SynthBackend, list[str]]:
        fake = backend(fault=fault)
        flags = FLAGS | {"--benchmarks": "banking77", "--labels": "4", "--api-base": server.url}
        words = [word for flag, value in flags.items() if flag != "--output-dir" for word in (flag, value)]
        process = start(words, tmp_path / "out")
        assert (fake.idle if fault.endswith("never_ends") else fake.submitted).wait(60)
        process.kill()
        process.wait()
        process.stdout.close()
        fake.fault = None
        return fake, [*words, "--output-dir", str(tmp_path / "out")]

    return kill
