"""What a cell will use, before it is run: calls, tokens and dollars, a low and a high figure, from its real prompts.

Prompt sizes are those of the real rows in the model's own format; rollouts are those that the optimizer's plan
makes. What only the run can tell (does the optimizer find anything, how long are notes) is in `LOW` and `HIGH`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean
from typing import Any

import dspy

from scaling.llm.adapters import make_adapter
from scaling.models import Model
from scaling.run.optimizers import GEPA_MINIBATCH, MAX_DEMOS, PASSES_SHARE, plan_bootstrap, plan_mipro
from scaling.run.pipelines import MAX_TOOL_TURNS, make_core
from scaling.run.scoring import as_example
from scaling.types import HOSTED, Benchmark, Cell, Row, Splits

SECONDS_A_CALL = 1.0
# Tokens of DSPy 3.4's own text around what is shown to the model that proposes (measured on its calls).
REFLECTION_TEXT, PROPOSER_TEXT = 450, 1150


@dataclass(frozen=True)
class Guess:
    """One end of the range: what nobody knows before the run."""

    improves: bool  # the optimizer finds another program (and, with several steps, an early one)
    note_tokens: int  # of a role's answer
    demos: float  # share of the demo places filled in a prompt that gives the answer
    role_demos: float  # the same in the other roles' prompts
    instruction_tokens: int  # of a proposed instruction
    tool_turns: int  # calls of a step with tools before its answer


LOW = Guess(improves=False, note_tokens=15, demos=0.5, role_demos=0.0, instruction_tokens=30, tool_turns=2)
HIGH = Guess(
    improves=True, note_tokens=50, demos=0.9, role_demos=0.4, instruction_tokens=250, tool_turns=MAX_TOOL_TURNS
)


@dataclass(frozen=True)
class Estimate:
    """(low, high) of each figure; dollars are list cost, None when a price is not known.

    chain: calls of a cell that wait for one another, so that no number of places makes it faster.
    """

    calls: tuple[int, int]
    tokens: tuple[int, int]
    usd: tuple[float, float] | None
    chain: tuple[int, int]

    def __add__(self, other: Estimate) -> Estimate:
        usd = None if None in (self.usd, other.usd) else _pairwise(sum, self.usd, other.usd)
        return Estimate(
            _pairwise(sum, self.calls, other.calls),
            _pairwise(sum, self.tokens, other.tokens),
            usd,
            _pairwise(max, self.chain, other.chain),
        )


@dataclass(frozen=True)
class Plan:
    """What an optimizer does with its budget: rollouts without and with demos, its proposals, what waits for what."""

    bare: float = 0.0
    with_demos: float = 0.0
    proposals: float = 0.0
    proposal_prompt: float = 0.0
    rounds: float = 0.0  # evaluations that wait for one another


@dataclass(frozen=True)
class Size:
    """Tokens of one predictor's call: its prompt, all demo places filled, and its answer."""

    prompt: float
    demos: float
    answer: float
    times: int = 1  # calls an example


def estimate(cell: Cell, bench: Benchmark, deal: Splits, model: Model, proposer: Model) -> Estimate:
    """Estimate one cell; no call is made."""
    ends = [_one_end(cell, bench, deal, model, proposer, guess) for guess in (LOW, HIGH)]
    calls, tokens, usd, chain = zip(*ends, strict=True)
    return Estimate(calls, tokens, None if None in usd else usd, chain)


def seconds(total: Estimate, places: int) -> tuple[float, float]:
    """Wall time in seconds, (low, high), at `places` calls at a time with a call of about a second."""
    return _pairwise(lambda pair: SECONDS_A_CALL * max(pair[0] / places, pair[1]), total.calls, total.chain)


def print_estimates(cells: list[Cell], estimates: dict[str, Estimate]) -> None:
    """A line a cell: calls, tokens and dollars, low to high. The model is named where there are several."""
    several = len({cell.model for cell in cells}) > 1
    lines = []
    for cell in cells:
        name = cell.label if several else cell.label.replace(f" {cell.model}", "")
        lines.append((name, *figures(estimates[cell.cell_id])))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for name, *numbers in lines:
        print(f"  {name:{widths[0]}}  " + "  ".join(f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True)))


def figures(one: Estimate) -> tuple[str, str, str]:
    """Calls, tokens and dollars as people read them, low to high."""
    usd = "price not known" if one.usd is None else _range(*(f"${value:.{_digits(one.usd[1])}f}" for value in one.usd))
    return f"{_range(*map(_short, one.calls))} calls", f"{_range(*map(_short, one.tokens))} tokens", usd


def minutes(low: float, high: float) -> str:
    """A time in seconds, low to high, as people read it."""
    unit, size = ("s", 1) if high < 120 else ("min", 60) if high < 7200 else ("h", 3600)
    return f"{_range(f'{low / size:.0f}', f'{high / size:.0f}')} {unit}"


def _one_end(
    cell: Cell, bench: Benchmark, deal: Splits, model: Model, proposer: Model, guess: Guess
) -> tuple[int, int, float | None, int]:
    sizes = _sizes(cell, bench, deal, model, guess)
    plan = _plan(cell, deal, sizes, guess, proposer.bytes_per_token)
    calls_an_example = cell.steps if cell.pipeline in ("vote", "repeat", "resample") else 1  # of the core
    programs = (2 if cell.steps == 1 else 3) if guess.improves and cell.optimizer != "none" else 1
    tested = cell.test_size * calls_an_example
    changed = 0 if cell.optimizer == "none" else programs - 1
    has_demos = cell.optimizer in ("mipro", "bootstrap")
    bare, full = plan.bare + tested, plan.with_demos + (changed * tested if has_demos else 0)
    bare += 0 if has_demos else changed * tested
    bare += calls_an_example * (len(deal.check) if deal.split == "test" else 0)
    prompt = sum(s.times * ((bare + full) * s.prompt + full * s.demos) for s in sizes)
    answer = sum(s.times * (bare + full) * s.answer for s in sizes)
    calls = sum(s.times for s in sizes)
    asked = plan.proposals * plan.proposal_prompt
    proposed = plan.proposals * min(guess.instruction_tokens, proposer.optimizer_max_output_tokens)
    costs = model.cost(round(prompt), round(answer)), proposer.cost(round(asked), round(proposed))
    return (
        round((bare + full) * calls + plan.proposals),
        round(prompt + answer + asked + proposed),
        None if None in costs else sum(costs),
        round(plan.rounds * calls + plan.proposals + cell.steps),
    )


def _plan(cell: Cell, deal: Splits, sizes: list[Size], guess: Guess, bytes_per_token: float) -> Plan:
    """The optimizer's own plan (scaling/run/optimizers.py) in rollouts and proposals."""
    budget, select, train = cell.rollout_budget, cell.select_size, len(deal.train)
    row = mean(_length(r, list(r)) for r in deal.train) / bytes_per_token
    if cell.optimizer == "none":
        return Plan()
    if cell.optimizer == "gepa":
        used = budget if guess.improves else budget - select - 2 * GEPA_MINIBATCH + 1
        # A reflection each two minibatches; one that helps is followed by a pass over select.
        iterations = (used - select) / (2 * GEPA_MINIBATCH + (0 if guess.improves else select / 2))
        shown = REFLECTION_TEXT + GEPA_MINIBATCH * (row + sizes[-1].answer + guess.note_tokens)
        return Plan(used, 0, iterations, shown, 1 + 2 * iterations)
    if cell.optimizer in ("mipro", "mipro_instruct"):
        demos = MAX_DEMOS if cell.optimizer == "mipro" else 0
        trials, candidates, rows = plan_mipro(budget, select, train, demos)
        sets = candidates - (2 if demos else 1)
        bootstrapped = sets * rows if guess.improves else sets * min(rows, 2)
        # Three calls a predictor and candidate, and a look at the train rows, ten at a time.
        proposals = 3 * candidates * len(sizes) + 1 + math.ceil(rows / 10)
        passes = trials * select
        shown = PROPOSER_TEXT + math.ceil(rows / 10) * 10 * row / proposals
        if not demos:
            return Plan(bootstrapped + select + passes, 0, proposals, shown, bootstrapped + 1 + trials)
        return Plan(select, bootstrapped + passes, proposals, shown, bootstrapped + 1 + trials)
    if cell.optimizer in HOSTED:
        # Its rollouts, one pass after another; its own proposals are made and billed at its service.
        return Plan(budget if guess.improves else PASSES_SHARE * budget, 0, 0, 0, math.ceil(budget / select))
    passes, shuffled, rows = plan_bootstrap(budget, select, train)
    bootstrapped = (shuffled + 1) * (rows if guess.improves else min(rows, 2))
    return Plan(select, bootstrapped + (passes - 1) * select, 0, 0, bootstrapped + passes)


def _sizes(cell: Cell, bench: Benchmark, deal: Splits, model: Model, guess: Guess) -> list[Size]:
    """Tokens of each predictor's call: one row formatted, and the mean length of all rows' inputs in its place."""
    core = make_core(cell, bench)
    adapter = make_adapter(model)
    note = "x" * round(model.bytes_per_token * min(guess.note_tokens, model.max_output_tokens))
    first = deal.train[0]
    extra = mean(_length(r, bench.inputs) for r in deal.test or deal.train) - _length(first, bench.inputs)
    sizes = []
    for name, predictor in core.named_predictors():
        signature = predictor.signature
        shown = dict(as_example(first, bench).inputs())
        shown |= {name: note for name in signature.input_fields if name not in shown}
        outputs = {name: first.get(name, note) for name in signature.output_fields}
        answers = set(signature.output_fields) <= set(bench.outputs)
        filled = guess.demos if answers else guess.role_demos
        bare = _formatted(adapter, signature, [], shown)
        demo = _formatted(adapter, signature, [dspy.Example(**shown, **outputs)], shown) - bare + extra
        answer = len(adapter.format_assistant_message_content(signature, outputs).encode()) / model.bytes_per_token
        sizes.append(
            Size(
                prompt=(bare + extra) / model.bytes_per_token,
                demos=filled * MAX_DEMOS * demo / model.bytes_per_token,
                answer=min(answer, model.max_output_tokens),
                times=(guess.tool_turns if name.endswith(".react") else 1)
                * (cell.steps - 1 if name.startswith("review") else 1),
            )
        )
    return sizes


def _formatted(adapter: dspy.Adapter, signature: Any, demos: list[dspy.Example], inputs: dict[str, Any]) -> int:
    """Bytes of the messages that the adapter makes."""
    messages = adapter.format(signature, demos, inputs)
    return sum(len(m["content"].encode()) for m in messages if isinstance(m["content"], str))


def _length(row: Row, names: list[str]) -> int:
    return sum(len(str(row[name]).encode()) for name in names if name in row)


def _pairwise(combine: Any, a: tuple, b: tuple) -> tuple:
    return combine((a[0], b[0])), combine((a[1], b[1]))


def _short(number: float) -> str:
    """Three digits: 940, 1.25k, 12.5k, 3.4M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def _digits(usd: float) -> int:
    """Digits after the point that tell cents from nothing."""
    return 2 if usd >= 1 or usd == 0 else 4


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low}-{high}"
