"""Synth's hosted MIPRO against a backend on loopback: both modes, every form of a result, every fault, equal terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import run_scaling_experiment as script
from tests.support.files import lines, read
from tests.support.server import Body, ScriptedServer, whole_prompt
from tests.support.synth_backend import SynthBackend

PLANTED = "Look at the zebra first, then name the label."
PROPOSALS = ["Name a label quickly.", PLANTED, "Say what comes to mind."]
FLAGS = {
    "--benchmarks": "toy", "--models": "openai/scripted", "--steps": "1", "--optimizers": "synth_mipro", "--runs": "1",
    "--rollout-budget": "40", "--train-size": "10", "--val-size": "12", "--test-size": "20", "--data": "sample",
    "--output-dir": "out",
}  # fmt: skip


def skill(body: Body) -> float:
    """The planted instruction makes nearly all answers right."""
    return 0.95 if "zebra" in whole_prompt(body) else 0.35


@pytest.fixture
def command(
    toy: Callable, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """A command line for a hosted cell, with flags changed; run in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTH_API_KEY", "synth-key")
    monkeypatch.delenv("ENVIRONMENT_API_KEY", raising=False)
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

    def start(**options) -> SynthBackend:
        running.append(SynthBackend(server.url, **{"proposals": PROPOSALS} | options).__enter__())
        monkeypatch.setenv("SYNTH_BACKEND_URL", running[-1].url)
        return running[-1]

    yield start
    for one in running:
        one.__exit__()


def the_record(tmp_path: Path) -> dict:
    (path,) = tmp_path.rglob("results.json")
    return read(path)


@pytest.mark.parametrize("steps", [1, 3])
def test_an_offline_job_finds_the_planted_instruction(
    command: Callable, backend: Callable, tmp_path: Path, steps: int
) -> None:
    fake = backend()
    assert script.main(command(steps=str(steps))) == 0
    record = the_record(tmp_path)
    assert record["status"] == "ok"
