"""What a cell will use, before it is run: calls, tokens and dollars, a low and a high figure, from its real prompts.

Prompt sizes are those of the real rows in the model's own format; rollouts are those that the optimizer's plan
makes. What only the run can tell (does the optimizer find anything, how long are notes) is in `LOW` and `HIGH`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

import dspy

from scaling.batch_offers import at_batch_price
from scaling.llm.adapters import make_adapter
from scaling.models import Model
from scaling.pipelines import PIPELINES
from scaling.planning.budgets import MAX_TOOL_TURNS, Budget, Workload
from scaling.planning.optimizers import NONE, OPTIMIZERS, TRANSFER, options_of
from scaling.records.record import CellPlan
from scaling.run.scoring import as_example
from scaling.run.start import core_of
from scaling.run.task import CellTask
from scaling.types import Benchmark, Cell, Effort, Row, Splits

SECONDS_A_CALL = 1.0
KINDS = ("optimize", "propose", "evaluate")  # of calls


@dataclass(frozen=True)
class Guess:
    """One end of the range: what nobody knows before the run."""

    improves: bool  # the optimizer finds another program (and, with several steps, an early one)
    note_tokens: int  # of a role's answer
    demos: float  # share of the demos that are filled in a prompt that gives the answer
    role_demos: float  # the same in the other roles' prompts
    instruction_tokens: int  # of a proposed instruction
    tool_turns: int  # calls of a step with tools before its answer
    reasoning_tokens: Mapping[Effort, int]  # before an answer, by effort


LOW = Guess(
    improves=False, note_tokens=15, demos=0.5, role_demos=0.0, instruction_tokens=30, tool_turns=2,
    reasoning_tokens={"none": 0, "minimal": 0, "low": 30, "medium": 100, "high": 300, "xhigh": 500, "max": 1000},
)  # fmt: skip
HIGH = Guess(
    improves=True, note_tokens=50, demos=0.9, role_demos=0.4, instruction_tokens=250, tool_turns=MAX_TOOL_TURNS,
    reasoning_tokens={
        "none": 0, "minimal": 100, "low": 400, "medium": 1000, "high": 4000, "xhigh": 8000, "max": 12000
    },
)  # fmt: skip
USUAL_EFFORT: Effort = "medium"  # of most providers where nobody sets one


@dataclass(frozen=True)
class PlannedCalls:
    """Calls of one kind, and the tokens of all their answers together."""

    calls: float = 0.0
    output_tokens: float = 0.0

    def _with(self, other: PlannedCalls, sign: int) -> PlannedCalls:
        return PlannedCalls(self.calls + sign * other.calls, self.output_tokens + sign * other.output_tokens)


@dataclass(frozen=True)
class Estimate:
    """(low, high) of each figure; dollars are list cost, None when a price is not known.

    chain: calls of a cell that wait for one another, so that no concurrency makes it faster.
    likely: by kind, the calls that are likely. reasoning: the part of the tokens that comes before answers.
    scoring_usd: the part of the dollars that scoring the programs takes; batch_usd: the same in batches.
    """

    calls: tuple[int, int]
    tokens: tuple[int, int]
    usd: tuple[float, float] | None
    chain: tuple[int, int]
    likely: dict[str, PlannedCalls] = field(default_factory=dict)
    reasoning: tuple[int, int] = (0, 0)
    scoring_usd: tuple[float, float] | None = None
    batch_usd: tuple[float, float] | None = None

    def plan_of(self, cell: Cell) -> CellPlan:
        """What plan.json keeps of it."""
        return CellPlan(self.calls, self.tokens, cell, self.usd, self.chain, self.reasoning)

    def __add__(self, other: Estimate) -> Estimate:
        return self._with(other, 1)

    def __sub__(self, other: Estimate) -> Estimate:
        """Without the calls of another; those that wait for one another stay."""
        return self._with(other, -1)

    def _with(self, other: Estimate, sign: int) -> Estimate:
        return Estimate(
            (self.calls[0] + sign * other.calls[0], self.calls[1] + sign * other.calls[1]),
            (self.tokens[0] + sign * other.tokens[0], self.tokens[1] + sign * other.tokens[1]),
            _sum_of(self.usd, other.usd, sign),
            (max(self.chain[0], other.chain[0]), max(self.chain[1], other.chain[1])),
            {kind: calls._with(other.likely.get(kind, PlannedCalls()), sign) for kind, calls in self.likely.items()},
            reasoning=(self.reasoning[0] + sign * other.reasoning[0], self.reasoning[1] + sign * other.reasoning[1]),
            scoring_usd=_sum_of(self.scoring_usd, other.scoring_usd, sign),
            batch_usd=_sum_of(self.batch_usd, other.batch_usd, sign),
        )


@dataclass(frozen=True)
class Size:
    """Tokens of one predictor's call: its prompt, all demos, its answer with its reasoning, and the reasoning alone."""

    prompt: float
    demos: float
    answer: float
    reasoning: int
    times: int = 1  # calls per example


def estimate(task: CellTask) -> Estimate:
    """Estimate one cell; no call is made."""
    if task.cell.optimizer == TRANSFER.name:
        return _transferred(replace(task, cell=replace(task.cell, optimizer=NONE.name)))
    core = core_of(task.cell, task.bench, task.start)
    ends = [_one_end(task, guess, core) for guess in (LOW, HIGH)]
    calls, tokens, usd, chain, planned, reasoning, scoring, batch = zip(*ends, strict=True)
    return Estimate(
        calls, tokens, _known(usd), chain, _likely(*planned), reasoning, scoring_usd=_known(scoring),
        batch_usd=_known(batch),
    )  # fmt: skip


def _transferred(given: CellTask) -> Estimate:
    """A given program on test and check rows and, where it is another one, the plain program on the test rows."""
    plain = replace(given, start=None, splits=replace(given.splits, check=[]))
    states = [core_of(task.cell, task.bench, task.start).dump_state() for task in (plain, given)]
    return estimate(given) if states[0] == states[1] else estimate(plain) + estimate(given)


def seconds(total: Estimate, concurrency: int) -> tuple[float, float]:
    """Wall time in seconds, (low, high), at `concurrency` calls at a time with a call of about a second."""
    low, high = (
        SECONDS_A_CALL * max(calls / concurrency, chain) for calls, chain in zip(total.calls, total.chain, strict=True)
    )
    return low, high


def estimate_lines(cells: list[Cell], estimates: dict[str, Estimate]) -> list[str]:
    """A line per cell: calls, tokens and dollars, low to high. The model is named where there are several."""
    several = len({cell.model for cell in cells}) > 1
    rows = []
    for cell in cells:
        name = cell.label if several else cell.label.replace(f" {cell.model}", "")
        rows.append((name, *figures(estimates[cell.cell_id])))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"  {name:{widths[0]}}  " + "  ".join(f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True))
        for name, *numbers in rows
    ]


def figures(estimated: Estimate) -> tuple[str, str, str]:
    """Calls, tokens and dollars as people read them, low to high."""
    usd = "price not known" if estimated.usd is None else dollars(estimated.usd)
    return f"{count(*estimated.calls)} calls", f"{count(*estimated.tokens)} tokens", usd


def count(low: float, high: float) -> str:
    """A number of calls or tokens, low to high, as people read it."""
    return _range(_short(low), _short(high))


def dollars(usd: tuple[float, float]) -> str:
    """Dollars as people read them, low to high."""
    return _range(*(f"${value:.{_digits(usd[1])}f}" for value in usd))


def minutes(low: float, high: float) -> str:
    """A time in seconds, low to high, as people read it."""
    unit, size = ("s", 1) if high < 120 else ("min", 60) if high < 7200 else ("h", 3600)
    return f"{_range(f'{low / size:.0f}', f'{high / size:.0f}')} {unit}"


def _one_end(
    task: CellTask, guess: Guess, core: dspy.Module
) -> tuple[int, int, float | None, int, dict[str, PlannedCalls], int, float | None, float | None]:
    """(calls, tokens, dollars, calls that wait for one another, calls by kind, reasoning tokens, dollars of scoring,
    the same in batches) at one end.
    """
    cell, model, proposer = task.cell, task.model, task.optimizer_model
    optimizer = OPTIMIZERS[cell.optimizer]
    sizes = _sizes(cell, task.bench, task.splits, model, guess, core)
    work = optimizer.plan(_budget(cell, task.splits, sizes, guess, proposer.bytes_per_token))
    if cell.stop_when_flat is not None and not guess.improves:
        work = _stopped_early(work, cell.select_size + cell.stop_when_flat * cell.rollout_budget)
    bare, with_demos = _tested(task, guess.improves and optimizer is not NONE)
    planned = {
        "optimize": _task_calls(sizes, work.bare + work.with_demos),
        "evaluate": _task_calls(sizes, bare + with_demos),
    }
    if not optimizer.adds_demos:
        bare, with_demos = bare + with_demos, 0
    scored = _tokens(sizes, bare, with_demos)
    bare, with_demos = bare + work.bare, with_demos + work.with_demos
    prompt, answer, task_reasoning = _tokens(sizes, bare, with_demos)
    calls = sum(s.times for s in sizes)
    asked = work.proposals * work.proposal_prompt
    thought = _reasoning_tokens(proposer, guess)
    proposed = work.proposals * min(guess.instruction_tokens + thought, proposer.optimizer_output_limit)
    reasoning = task_reasoning, work.proposals * thought
    costs = _usd(model, prompt, answer, task_reasoning), _usd(proposer, asked, proposed, reasoning[1])
    return (
        round((bare + with_demos) * calls + work.proposals),
        round(prompt + answer + asked + proposed),
        None if costs[0] is None or costs[1] is None else costs[0] + costs[1],
        round(work.rounds * calls + work.proposals + cell.steps),
        planned | {"propose": PlannedCalls(work.proposals, proposed)},
        round(sum(reasoning)),
        _usd(model, *scored),
        _usd(at_batch_price(model), *scored),
    )


def _tokens(sizes: list[Size], bare: float, with_demos: float) -> tuple[float, float, float]:
    """(prompt, answer, reasoning) tokens of so many runs of the core, without demos and with them."""
    prompt = sum(s.times * ((bare + with_demos) * s.prompt + with_demos * s.demos) for s in sizes)
    answer = sum(s.times * (bare + with_demos) * s.answer for s in sizes)
    return prompt, answer, round(sum(s.times * (bare + with_demos) * s.reasoning for s in sizes))


def _usd(model: Model, prompt: float, answer: float, reasoning: float) -> float | None:
    return model.cost(round(prompt), round(answer), 0, round(reasoning))


def _known(ends: tuple[float | None, ...]) -> tuple[float, float] | None:
    low, high = ends
    return None if low is None or high is None else (low, high)


def _sum_of(
    first: tuple[float, float] | None, other: tuple[float, float] | None, sign: int
) -> tuple[float, float] | None:
    """Of dollars, low and high; None where a part of it is not known."""
    if first is None or other is None:
        return None
    return first[0] + sign * other[0], first[1] + sign * other[1]


def _stopped_early(work: Workload, rollouts: float) -> Workload:
    """The part of an optimizer's work that is done by so many rollouts: nothing improves on the first candidate."""
    part = min(1.0, rollouts / (work.bare + work.with_demos))
    return replace(
        work, bare=part * work.bare, with_demos=part * work.with_demos, proposals=part * work.proposals,
        rounds=part * work.rounds,
    )  # fmt: skip


def _task_calls(sizes: list[Size], rollouts: float) -> PlannedCalls:
    return PlannedCalls(rollouts * sum(s.times for s in sizes), rollouts * sum(s.times * s.answer for s in sizes))


def _likely(low: dict[str, PlannedCalls], high: dict[str, PlannedCalls]) -> dict[str, PlannedCalls]:
    """What is likely between the ends: nearer to the low one, as most proposals improve nothing."""
    share = 1 / 3
    return {
        kind: PlannedCalls(
            (1 - share) * low[kind].calls + share * high[kind].calls,
            (1 - share) * low[kind].output_tokens + share * high[kind].output_tokens,
        )
        for kind in KINDS
    }


def _tested(task: CellTask, improves: bool) -> tuple[float, float]:
    """Runs of the core on test and check rows: (of the program as it was, of programs that the optimizer found)."""
    cell = task.cell
    runs = cell.steps if PIPELINES[cell.pipeline].draws else 1  # of the core, for one answer
    checked = len(task.splits.check) if task.splits.split == "test" else 0
    if not improves:
        return runs * (cell.draws * cell.test_size + checked), 0
    return runs * (cell.test_size + checked), runs * (cell.draws + task.buys_equal_calls) * cell.test_size


def _budget(cell: Cell, splits: Splits, sizes: list[Size], guess: Guess, bytes_per_token: float) -> Budget:
    """What the optimizer's planner is told."""
    return Budget(
        rollouts=cell.rollout_budget,
        select=cell.select_size,
        train=len(splits.train),
        predictors=len(sizes) - len(cell.frozen_roles),
        row_tokens=mean(_length(row, list(row)) for row in splits.train) / bytes_per_token,
        answer_tokens=sizes[-1].answer - sizes[-1].reasoning,
        note_tokens=guess.note_tokens,
        improves=guess.improves,
        options=options_of(cell),
    )


def _sizes(cell: Cell, bench: Benchmark, splits: Splits, model: Model, guess: Guess, core: dspy.Module) -> list[Size]:
    """Tokens of each predictor's call: one row formatted, and the mean length of all rows' inputs in its place."""
    adapter = make_adapter(model)
    note = "x" * round(model.bytes_per_token * min(guess.note_tokens, model.output_limit))
    first = splits.train[0]
    most_demos = max(options_of(cell).demo_limits)
    extra = mean(_length(r, bench.inputs) for r in splits.test or splits.train) - _length(first, bench.inputs)
    sizes, thought = [], _reasoning_tokens(model, guess)
    for name, predictor in core.named_predictors():
        signature = predictor.signature
        shown = dict(as_example(first, bench).inputs())
        shown |= {name: note for name in signature.input_fields if name not in shown}
        outputs = {name: first.get(name, note) for name in signature.output_fields}
        answers = set(signature.output_fields) <= set(bench.outputs)
        filled = guess.demos if answers else guess.role_demos
        demos = predictor.demos
        bare = _formatted(adapter, signature, demos, shown)
        demo = _formatted(adapter, signature, [*demos, dspy.Example(**shown, **outputs)], shown) - bare + extra
        answer = len(adapter.format_assistant_message_content(signature, outputs).encode()) / model.bytes_per_token
        sizes.append(
            Size(
                prompt=(bare + extra) / model.bytes_per_token,
                demos=filled * most_demos * demo / model.bytes_per_token,
                answer=min(answer + thought, model.output_limit),
                reasoning=thought,
                times=(guess.tool_turns if name.endswith(".react") else 1)
                * PIPELINES[cell.pipeline].calls(name, cell.steps),
            )
        )
    return sizes


def _reasoning_tokens(model: Model, guess: Guess) -> int:
    return guess.reasoning_tokens[model.reasoning_effort or USUAL_EFFORT] if model.is_reasoning else 0


def _formatted(adapter: dspy.Adapter, signature: Any, demos: list[dspy.Example], inputs: dict[str, Any]) -> int:
    """Bytes of the messages that the adapter makes."""
    messages = adapter.format(signature, demos, inputs)
    return sum(len(m["content"].encode()) for m in messages if isinstance(m["content"], str))


def _length(row: Row, names: list[str]) -> int:
    return sum(len(str(row[name]).encode()) for name in names if name in row)


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
