"""The command line of a small sweep, and the records that it leaves."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

from scaling.testing import Body, ScriptedServer
from tests.support.files import read


def sweep(server: ScriptedServer, output: Path, *flags: str) -> list[str]:
    """The command line of a small sweep against the server."""
    sizes = ["--train-size", "10", "--val-size", "20", "--test-size", "20", "--rollout-budget", "40"]
    where = ["--api-base", server.url, "--output-dir", str(output)]
    one = ["--models", "openai/scripted", "--steps", "1", "--optimizers", "none", "--runs", "1", "--data", "sample"]
    return [*sizes, *where, *one, *flags]


def vary_answers(server: ScriptedServer) -> None:
    """Make the server answer a request otherwise each time that it is asked again, as a model that samples does."""
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(body: Body) -> str:
        with lock:
            asked[str(body["messages"])] += 1
            number = asked[str(body["messages"])]
        return server.default_answer(body | {"seed": number})

    server.answer = answer


def records_in(folder: Path) -> dict[str, dict[str, Any]]:
    """benchmark -> record, of a folder with one cell a benchmark."""
    return {record["cell"]["benchmark"]: record for record in map(read, folder.rglob("results.json"))}
