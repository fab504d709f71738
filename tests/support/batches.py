"""Sweeps whose scoring goes to a batch API on loopback, and what they were billed."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from scaling.testing import BatchServer
from scaling.types import EXIT_OK
from tests.support.files import read
from tests.support.sweeps import outcome, run, write_study

BATCH = ["--batch", "evaluate"]
BATCH_PRICE = "batch_price = {input_usd_per_million = 1.5, output_usd_per_million = 5.5}\n"


def write_batch_study(folder: Path, url: str, steps: list[int], optimizers: list[str], runs: int = 1) -> list[str]:
    """As write_study, of a model that costs half in a batch."""
    flags = write_study(folder, url, steps, optimizers, runs)
    models = folder / "models.toml"
    models.write_text(models.read_text() + BATCH_PRICE)
    return flags


def bills(output: Path) -> list[tuple[Any, ...]]:
    """(phase, usd, state) of each bill of a results folder."""
    with sqlite3.connect(output / ".ledger" / "bills.sqlite") as db:
        return db.execute("SELECT phase, usd, state FROM bills ORDER BY bill").fetchall()


def requests_left(output: Path) -> int:
    """How many requests of batches are not settled and forgotten."""
    with sqlite3.connect(output / ".ledger" / "bills.sqlite") as db:
        return db.execute("SELECT COUNT(*) FROM batch_requests").fetchone()[0]


def spent(output: Path) -> float:
    return sum(usd for _, usd, _ in bills(output))


def records(output: Path) -> list[dict]:
    return [read(path) for path in sorted(output.rglob("results.json"))]


def undisturbed_and(server: BatchServer, folder: Path, steps: list[int]) -> tuple[list[str], dict]:
    """Flags of a small sweep, and what it gives live."""
    flags = write_batch_study(folder, server.url, steps, ["none"])
    assert run(flags, folder / "live")[0] == EXIT_OK
    return flags, outcome(folder / "live")
