"""The stand-in for Synth's backend as a command: what each of its options changes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import run_scaling_experiment as script
from scaling.testing import ScriptedServer
from tests.support.hosted import KEYS, PLANTED, PROPOSALS, program_in, record_in

ROOT = Path(script.__file__).parent


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Starts the command with its flags, names it in the environment, and gives its address."""
    running: list[subprocess.Popen[str]] = []

    def start(*flags: str) -> str:
        command = [sys.executable, "-m", "scaling.testing.synth_backend", "--port", "0", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        running.append(process)
        assert process.stdout is not None
        (url,) = re.findall(r"on (http://[\d.:]+)", process.stdout.readline())
        monkeypatch.setenv("SYNTH_BACKEND_URL", url)
        return url

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_it_takes_its_key_its_proposals_and_its_model(
    started: Callable, command: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    url = started("--key", KEYS["SYNTH_API_KEY"], "--proposals", *PROPOSALS, "--model-url", server.url)
    assert httpx.get(f"{url}/api/v1/me", headers={"X-API-Key": "another"}).status_code == 401
    assert script.main(command()) == 0
    assert program_in(tmp_path)["classifier"]["after"] == PLANTED
    asked = [body["messages"][0]["content"] for body in server.requests]
    assert all(any(text in message for message in asked) for text in PROPOSALS)


def test_it_fails_as_it_is_told_and_takes_any_key_unless_told_one(
    started: Callable, command: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    url = started("--fault", "job_fails", "--proposals", PLANTED, "--model-url", server.url)
    assert httpx.get(f"{url}/api/v1/me", headers={"X-API-Key": "another"}).status_code == 200
    assert script.main(command()) == 1
    record = record_in(tmp_path)
    assert record["status"] == "error" and "the optimizer broke down" in record["error"]["message"]
