"""How many rollouts an optimizer may make, and what it plans to do with them. Nothing here imports DSPy.

A rollout is one run of the whole program on one example. Every optimizer stays at or below the same rollout budget and
chooses its program on the same `select` rows (statistical plan, sections 1.1 and 1.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scaling.types import UsageError

SMALLEST_SELECT = 5
GEPA_MINIBATCH = 3
MAX_DEMOS = 4
# With tools: turns a step may take before it must answer.
MAX_TOOL_TURNS = 6
# Share of the budget that planned selection passes take. What is left bounds bootstrapping (below 30 %).
PASSES_SHARE = 0.8
# Tokens of DSPy 3.4's own text around what is shown to the model that proposes (measured on its calls).
REFLECTION_TEXT, PROPOSER_TEXT = 450, 1150


@dataclass(frozen=True)
class Budget:
    """What an optimizer has in one cell: sizes in rows and rollouts, lengths in tokens."""

    rollouts: int
    select: int
    train: int
    predictors: int  # of the program; each is proposed for
    row_tokens: float  # of a train row
    answer_tokens: float  # of the program's last answer
    note_tokens: float  # of an answer of another role
    improves: bool  # the high end of an estimate: the optimizer finds another program


@dataclass(frozen=True)
class Workload:
    """What an optimizer does with its budget."""

    bare: float = 0.0  # rollouts without demos in their prompts
    with_demos: float = 0.0
    proposals: float = 0.0
    proposal_prompt: float = 0.0  # tokens
    rounds: float = 0.0  # evaluations that wait for one another


# What an optimizer plans to do with a budget.
Planner = Callable[[Budget], Workload]


def select_size(val_size: int, rollout_budget: int) -> int:
    """Rows of val that optimizers choose on: max(5, min(val / 2, budget / 10)) (statistical plan, section 1.2)."""
    return max(SMALLEST_SELECT, min(val_size // 2, rollout_budget // 10))


def budget_of_trials(trials: int, val_size: int) -> int:
    """The smallest rollout budget at which MIPROv2 makes that many trials on the rows that it selects on.

    Raises UsageError for less than one trial.
    """
    if trials < 1:
        raise UsageError(f"--trials {trials}: at least 1 is needed. Type --trials 20.")
    budget = 1
    while True:
        select = min(select_size(val_size, budget), val_size)
        if budget >= 4 * max(SMALLEST_SELECT, select) and plan_mipro(budget, select, 1)[0] >= trials:
            return budget
        budget += 1


def plan_mipro(budget: int, select: int, train: int, demos: int = MAX_DEMOS) -> tuple[int, int, int]:
    """(trials, candidates, train rows) that cannot exceed the budget.

    The default program and each trial take one pass over `select` rows. Each bootstrapped demo set runs at most
    `train rows` rollouts. One of the candidates' sets is empty and, with demos, one is labelled rows. Without demos
    MIPROv2 bootstraps that one too, for its proposer.
    """
    passes = _passes(budget, select)
    left = budget - passes * select
    not_bootstrapped = 2 if demos else 1
    candidates = max(3, min(10, passes, not_bootstrapped + left // 3))
    rows = max(1, min(train, left // (candidates - not_bootstrapped)))
    return passes - 1, candidates, rows


def plan_bootstrap(budget: int, select: int, train: int) -> tuple[int, int, int]:
    """(passes, shuffled candidates, train rows): zero-shot, labelled, unshuffled and shuffled sets, a pass each."""
    passes = max(3, _passes(budget, select))
    candidates = passes - 3
    left = budget - passes * select
    while candidates > 0 and left < 2 * (candidates + 1):
        passes, candidates, left = passes - 1, candidates - 1, left + select
    return passes, candidates, max(1, min(train, left // (candidates + 1)))


def no_work(budget: Budget) -> Workload:
    """A cell without an optimizer."""
    return Workload()


def gepa_work(budget: Budget) -> Workload:
    """A reflection each two minibatches; one that helps is followed by a pass over select."""
    used = budget.rollouts if budget.improves else gepa_limit(budget.rollouts, budget.select)
    iterations = (used - budget.select) / (2 * GEPA_MINIBATCH + (0 if budget.improves else budget.select / 2))
    shown = REFLECTION_TEXT + GEPA_MINIBATCH * (budget.row_tokens + budget.answer_tokens + budget.note_tokens)
    return Workload(used, 0, iterations, shown, 1 + 2 * iterations)


def gepa_limit(budget: int, select: int) -> int:
    """GEPA's `max_metric_calls`. It looks at its limit between steps, and one step may still run a pass over select
    and two minibatches."""
    return budget - select - 2 * GEPA_MINIBATCH + 1


def mipro_work(budget: Budget) -> Workload:
    """MIPROv2 with demos."""
    bootstrapped, passes, work = _mipro_work(budget, MAX_DEMOS)
    return Workload(budget.select, bootstrapped + passes, work.proposals, work.proposal_prompt, work.rounds)


def mipro_instruct_work(budget: Budget) -> Workload:
    """MIPROv2 without demos."""
    bootstrapped, passes, work = _mipro_work(budget, 0)
    return Workload(bootstrapped + budget.select + passes, 0, work.proposals, work.proposal_prompt, work.rounds)


def bootstrap_work(budget: Budget) -> Workload:
    """Demo sets only: nothing is proposed."""
    passes, shuffled, rows = plan_bootstrap(budget.rollouts, budget.select, budget.train)
    bootstrapped = (shuffled + 1) * (rows if budget.improves else min(rows, 2))
    return Workload(budget.select, bootstrapped + (passes - 1) * budget.select, rounds=bootstrapped + passes)


def hosted_work(budget: Budget) -> Workload:
    """A hosted job's rollouts, one pass after another. Its proposals are made and billed at its service."""
    rollouts = budget.rollouts if budget.improves else PASSES_SHARE * budget.rollouts
    return Workload(rollouts, rounds=math.ceil(budget.rollouts / budget.select))


def _mipro_work(budget: Budget, demos: int) -> tuple[int, int, Workload]:
    """(bootstrapped rollouts, rollouts of trials, proposals and rounds)."""
    trials, candidates, rows = plan_mipro(budget.rollouts, budget.select, budget.train, demos)
    sets = candidates - (2 if demos else 1)
    bootstrapped = sets * rows if budget.improves else sets * min(rows, 2)
    # Three calls a predictor and candidate, and a look at the train rows, ten at a time.
    looks = math.ceil(rows / 10)
    proposals = 3 * candidates * budget.predictors + 1 + looks
    shown = PROPOSER_TEXT + looks * 10 * budget.row_tokens / proposals
    rounds = Workload(proposals=proposals, proposal_prompt=shown, rounds=bootstrapped + 1 + trials)
    return bootstrapped, trials * budget.select, rounds


def _passes(budget: int, select: int) -> int:
    """Selection passes that a budget pays for."""
    return min(math.ceil(PASSES_SHARE * budget / select), (budget - GEPA_MINIBATCH) // select)
