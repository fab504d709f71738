"""Are the models of a study ready? One small question to each, before anything is planned on them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scaling.llm.cache import Cache
from scaling.llm.errors import CallFailed
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.llm.network import why_unreachable
from scaling.models import Model
from scaling.redact import redact
from scaling.types import CellStopped

# Whoever keeps to the limit of tokens cannot come far; the cost cap relies on it.
QUESTION = "Count from one to a hundred in words."
MAX_TOKENS = 16


def print_check(models: Iterable[Model], timeout: float) -> bool:
    """Print a table of the models (key, reachable, price, latency) and why one is not ready; whether all are."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "key", "reachable", "price", "seconds"):
        table.add_column(column)
    reasons = []
    for model in models:
        asked = model.has_key or model.api_base is not None
        reason, seconds = _ask(model, timeout) if asked else (f"set {model.key_env}", None)
        key = "not needed" if model.key_env is None else "set" if model.has_key else "missing"
        reachable = "yes" if seconds is not None else "no" if asked else "not asked"
        price = "known" if model.has_price else "not known"
        table.add_row(model.id, key, reachable, price, "" if seconds is None else f"{seconds:.1f}")
        reasons += [f"{model.id}: {reason}"] if reason else []
    Console(soft_wrap=True, highlight=False).print(table)
    for line in reasons:
        print(redact(line))
    return not reasons


def _ask(model: Model, timeout: float) -> tuple[str | None, float | None]:
    """(None or what is wrong, latency in seconds or None where nothing came). The answer is not kept."""
    if model.api_base and (reason := why_unreachable(model.api_base)):
        return reason, None
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "check.sqlite")
        meter = Meter("check")
        lm = make_lm(model, Gateway(cache), meter, 0, 0.0, phase="evaluate", timeout=timeout, max_tokens=MAX_TOKENS)
        try:
            lm(messages=[{"role": "user", "content": f"{QUESTION} ({os.getpid()})"}])
        except (CellStopped, CallFailed) as error:
            return str(error), None
        finally:
            cache.close()
    latency, used = time.monotonic() - started, meter.total().completion_tokens
    if used is not None and used > MAX_TOKENS:
        return f"it wrote {used} tokens where {MAX_TOKENS} were the limit, so no cost cap can hold it", latency
    return None, latency
