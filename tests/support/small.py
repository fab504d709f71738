"""The command line of a small sweep, and the records that it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaling.testing import ScriptedServer
from tests.support.files import read


def sweep(server: ScriptedServer, output: Path, *flags: str) -> list[str]:
    """The command line of a small sweep against the server."""
    sizes = ["--train-size", "10", "--val-size", "20", "--test-size", "20", "--rollout-budget", "40"]
    where = ["--api-base", server.url, "--output-dir", str(output)]
    one = ["--models", "openai/scripted", "--steps", "1", "--optimizers", "none", "--runs", "1", "--data", "sample"]
    return [*sizes, *where, *one, *flags]


def records_in(folder: Path) -> dict[str, dict[str, Any]]:
    """benchmark -> record, of a folder with one cell a benchmark."""
    return {record["cell"]["benchmark"]: record for record in map(read, folder.rglob("results.json"))}
