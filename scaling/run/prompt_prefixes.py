"""What a plan expects of the providers' prompt caches: how much of the prompts is the same for all rows.

Prompts begin with the instruction, the labels and the demos, and end with the row. Providers keep beginnings of 1,024
tokens and more, and bill what they read from there at a lower price. Whether they do is theirs to decide, so the plan's
dollars count on none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling.llm.adapters import make_adapter
from scaling.models import Model
from scaling.run.estimate import Estimate
from scaling.run.start import core_of
from scaling.run.start_program import StartProgram
from scaling.run.task import CellTask
from scaling.types import Benchmark, Cell

# Below it, no provider caches a prompt (for some models of Anthropic's: below 4,096).
LEAST_TOKENS = 1024


@dataclass
class Expected:
    """Of a model's calls, on average over roles: the longest beginning, and what reading from a cache would save."""

    longest: float = 0.0
    tokens: float = 0.0
    usd: float = 0.0


def caching_notes(tasks: Sequence[CellTask], estimates: Mapping[str, Estimate]) -> list[str]:
    """A line for each model whose provider bills cached input at a lower price that is known."""
    expected: dict[str, Expected] = {}
    for task in tasks:
        model = task.model
        saved = (model.input_usd_per_million or 0.0) - (model.cached_input_usd_per_million or 0.0)
        if model.cached_input_usd_per_million is None or saved <= 0:
            continue
        beginnings = stable_tokens(task.cell, task.bench, model, task.start)
        calls = estimates[task.cell.cell_id].calls[0] / len(beginnings)
        tokens = calls * sum(length for length in beginnings if length >= LEAST_TOKENS)
        so_far = expected.setdefault(model.id, Expected())
        so_far.longest = max(so_far.longest, *beginnings)
        so_far.tokens, so_far.usd = so_far.tokens + tokens, so_far.usd + tokens * saved / 1e6
    return [_note(name, model) for name, model in sorted(expected.items())]


def stable_tokens(cell: Cell, bench: Benchmark, model: Model, start: StartProgram | None = None) -> list[float]:
    """Tokens at the beginning of each predictor's prompt that all rows share, before any demo is added."""
    adapter = make_adapter(model)
    predictors = core_of(cell, bench, start).named_predictors()
    texts = [adapter.format_system_message(predictor.signature) for _, predictor in predictors]
    return [len(text.encode()) / model.bytes_per_token for text in texts]


def _note(name: str, expected: Expected) -> str:
    if not expected.tokens:
        return (
            f"prompt caching of {name}: none is expected, as no prompt begins with {LEAST_TOKENS:,} tokens that all "
            f"rows share (the longest: about {expected.longest:,.0f}). Demos and longer instructions may reach that"
        )
    return (
        f"prompt caching of {name}: about {expected.tokens:,.0f} input tokens are beginnings that all rows share. "
        f"Where the provider reads them from its cache, they cost up to ${expected.usd:.2f} less; the dollars above do "
        f"not count on it"
    )
