"""Are the models of a study ready? One small question to each, before anything is planned on them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
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
from scaling.ready import lacks_key
from scaling.redact import redact
from scaling.types import CellStopped

# Whoever keeps to the limit of tokens cannot come far; the cost cap relies on it.
QUESTION = "Count from one to a hundred in words."
MAX_TOKENS = 16
REASONING_QUESTION = "Say yes."  # to a model that refuses so low a limit


@dataclass(frozen=True)
class Checked:
    """What is known of a model once it was asked. seconds: to its answer, None without one. problem: None if ready."""

    model: Model
    seconds: float | None
    problem: str | None


def print_check(models: Iterable[Model], timeout: float) -> bool:
    """Ask each model, print what is wrong with any of them and then a table of all; whether all are ready."""
    checked = [_check(model, timeout) for model in models]
    for one in checked:
        if one.problem:
            print(redact(f"{one.model.id}: {one.problem}"))
    table = Table(box=None, pad_edge=False)
    for column in ("model", "ready", "key", "reachable", "price", "ends", "seconds"):
        table.add_column(column)
    for one in checked:
        table.add_row(*_row(one))
    Console(soft_wrap=True, highlight=False).print(table)
    return all(one.problem is None for one in checked)


def _row(one: Checked) -> tuple[str, ...]:
    model, asked = one.model, not lacks_key(one.model)
    return (
        model.id,
        "yes" if one.problem is None else "no",
        "not needed" if model.key_env is None else "set" if model.has_key else f"{model.key_env} is missing",
        "yes" if one.seconds is not None else "no" if asked else "not asked",
        "known" if model.has_price else "not known",
        "" if model.end_date is None or model.api_base is not None else str(model.end_date),
        "" if one.seconds is None else f"{one.seconds:.1f}",
    )


def _check(model: Model, timeout: float) -> Checked:
    """Ask a model whose key is there. The answer is not kept."""
    if lacks_key(model):
        return Checked(model, None, f"set {model.key_env}")
    if model.api_base and (reason := why_unreachable(model.api_base)):
        return Checked(model, None, reason)
    limit = model.output_limit if model.is_reasoning else max(MAX_TOKENS, model.least_output_tokens)
    question = QUESTION if limit == MAX_TOKENS else REASONING_QUESTION
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "check.sqlite")
        meter = Meter("check")
        lm = make_lm(model, Gateway(cache), meter, 0, 0.0, phase="evaluate", timeout=timeout, max_tokens=limit)
        try:
            lm(messages=[{"role": "user", "content": f"{question} ({os.getpid()})"}])
        except (CellStopped, CallFailed) as error:
            return Checked(model, None, str(error))
        finally:
            cache.close()
    latency, used = time.monotonic() - started, meter.total().completion_tokens
    if used is not None and used > limit:
        return Checked(
            model, latency, f"it wrote {used} tokens where {limit} were the limit, so no cost cap can hold it"
        )
    return Checked(model, latency, None)
