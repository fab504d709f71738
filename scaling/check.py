"""Are the models of a study ready? One small question to each, before anything is planned on them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scaling.cache import Cache
from scaling.lm import CallFailed, Meter, Seam, make_lm
from scaling.models import Model
from scaling.types import CellStopped

QUESTION = "Answer with the word yes."


def check_models(models: Iterable[Model], timeout: float) -> tuple[Table, bool]:
    """A table of the models (key, reachable, price, latency), and whether all of them are ready."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "key", "reachable", "price", "seconds"):
        table.add_column(column)
    ready = True
    for model in models:
        key = (
            "not needed"
            if model.key_env is None
            else f"{model.key_env} set"
            if model.has_key
            else f"set {model.key_env}"
        )
        reachable, seconds = _ask(model, timeout) if model.has_key or model.api_base else ("not asked", "—")
        price = "known" if model.has_price else "not known"
        table.add_row(model.id, key, reachable, price, seconds)
        ready = ready and reachable == "yes"
    return table, ready


def print_check(models: Iterable[Model], timeout: float) -> bool:
    """Print the table; returns whether all models are ready."""
    table, ready = check_models(models, timeout)
    Console(soft_wrap=True, highlight=False).print(table)
    return ready


def _ask(model: Model, timeout: float) -> tuple[str, str]:
    """("yes" or why not, latency). The answer is not kept: the cache is a file that goes with this call."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "check.sqlite")
        lm = make_lm(model, Seam(cache), Meter("check"), 0, 0.0, phase="evaluate", timeout=timeout, max_tokens=16)
        try:
            lm(messages=[{"role": "user", "content": f"{QUESTION} ({os.getpid()})"}])
        except (CellStopped, CallFailed) as error:
            return f"no: {error}", "—"
        finally:
            cache.close()
    return "yes", f"{time.monotonic() - started:.1f}"
