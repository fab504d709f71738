"""What a cell will use, before it is run: calls, tokens and dollars, a low and a high figure, from its real prompts."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from scaling.adapters import make_adapter
from scaling.models import Model
from scaling.optimizers import MAX_DEMOS, plan_mipro
from scaling.pipelines import make_core
from scaling.scoring import as_example
from scaling.types import Benchmark, Cell, Deal

ROWS_LOOKED_AT = 10
BYTES_A_TOKEN = 4.0
# Tokens that a task answer takes, between terse and using its whole allowance.
LOW_ANSWER_TOKENS = 20
SECONDS_A_CALL = 1.0


@dataclass(frozen=True)
class Estimate:
    """(low, high) of each figure; dollars are list cost, None when a price is not known."""

    calls: tuple[int, int]
    tokens: tuple[int, int]
    usd: tuple[float, float] | None

    def __add__(self, other: Estimate) -> Estimate:
        usd = None if None in (self.usd, other.usd) else _add(self.usd, other.usd)
        return Estimate(_add(self.calls, other.calls), _add(self.tokens, other.tokens), usd)


def estimate(cell: Cell, bench: Benchmark, deal: Deal, model: Model, proposer: Model) -> Estimate:
    """Estimate one cell; no call is made."""
    prompt = _prompt_tokens(cell, bench, deal, model)
    demo = mean(len(str(row)) for row in deal.test[:ROWS_LOOKED_AT]) / BYTES_A_TOKEN
    has_demos = cell.optimizer in ("mipro", "bootstrap")
    low_rollouts, high_rollouts = _rollouts(cell)
    calls = low_rollouts * cell.steps, high_rollouts * cell.steps
    prompt_high = prompt + (2 * MAX_DEMOS * demo if has_demos else 0)
    answer_high = max(LOW_ANSWER_TOKENS, cell.max_output_tokens / 2)
    task = _priced(model, calls, (prompt, prompt_high), (LOW_ANSWER_TOKENS, answer_high))
    proposals = _proposer_calls(cell, len(deal.train))
    return task + _priced(
        proposer, proposals, (3 * prompt, 12 * prompt), (100, proposer.optimizer_max_output_tokens / 4)
    )


def seconds(total: Estimate, places: int) -> tuple[float, float]:
    """Wall time at `places` calls at a time, with a call of about a second."""
    return total.calls[0] * SECONDS_A_CALL / places, total.calls[1] * SECONDS_A_CALL / places


def _rollouts(cell: Cell) -> tuple[int, int]:
    """Rollouts of a cell: optimization, and test rows under one program (nothing changed) to three."""
    if cell.optimizer == "none":
        return cell.test_size, cell.test_size
    used_low = round(0.8 * cell.rollout_budget)
    programs = 2 if cell.steps == 1 else 3
    return used_low + cell.test_size, cell.rollout_budget + programs * cell.test_size


def _proposer_calls(cell: Cell, train: int) -> tuple[int, int]:
    """Calls to the reflection or proposer model."""
    budget, select = cell.rollout_budget, cell.select_size
    predictors = cell.steps if cell.pipeline == "chain" else 1
    if cell.optimizer == "gepa":
        left = budget - select
        return left // (6 + select), left // 3
    if cell.optimizer in ("mipro", "mipro_instruct"):
        _, candidates, _ = plan_mipro(budget, select, train)
        return candidates * predictors, 10 + 3 * candidates * predictors
    return 0, 0


def _prompt_tokens(cell: Cell, bench: Benchmark, deal: Deal, model: Model) -> float:
    """Mean tokens of a task prompt: the real prompts of real rows through the model's adapter, 4 bytes a token."""
    core = make_core(cell.pipeline, bench.signature, cell.steps, bench.roles)
    adapter = make_adapter(model)
    sizes = []
    for row in deal.test[:ROWS_LOOKED_AT]:
        inputs = dict(as_example(row, bench).inputs())
        for _, predictor in core.named_predictors():
            notes = {n: "x" * 2 * model.max_output_tokens for n in predictor.signature.input_fields if n not in inputs}
            messages = adapter.format(predictor.signature, [], inputs | notes)
            sizes.append(sum(len(m["content"].encode()) for m in messages if isinstance(m["content"], str)))
    return mean(sizes) / BYTES_A_TOKEN


def _priced(model: Model, calls: tuple[int, int], prompt: tuple[float, float], answer: tuple[float, float]) -> Estimate:
    tokens = tuple(round(c * (p + a)) for c, p, a in zip(calls, prompt, answer, strict=True))
    costs = [model.cost(round(c * p), round(c * a)) for c, p, a in zip(calls, prompt, answer, strict=True)]
    return Estimate(calls, tokens, None if None in costs else tuple(costs))


def _add(a: tuple, b: tuple) -> tuple:
    return a[0] + b[0], a[1] + b[1]
