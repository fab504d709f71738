"""How many rollouts an optimizer may make, and what it plans to do with them. Nothing here imports DSPy.

A rollout is one run of the whole program on one example. Every optimizer stays at or below the same rollout budget and
chooses its program on the same `select` rows (statistical plan, sections 1.1 and 1.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaling.planning.optimizer_options import (
    BootstrapOptions,
    GepaOptions,
    MiproInstructOptions,
    MiproOptions,
    OptimizerOptions,
)
from scaling.types import UsageError

SMALLEST_SELECT = 5
LEFT_FOR_DEMOS = 3  # rollouts, of any budget
# MIPROv2 scores the best candidate by minibatches on all rows after so many trials, and after the last one.
FULL_PASS_AFTER = 5
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
    options: Any = OptimizerOptions()  # the optimizer's, an object of its `OptimizerSpec.options`


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
        if budget >= 4 * max(SMALLEST_SELECT, select) and plan_mipro(budget, select, 1, MiproOptions())[0] >= trials:
            return budget
        budget += 1


def plan_mipro(budget: int, select: int, train: int, options: MiproInstructOptions) -> tuple[int, int, int]:
    """(trials, candidates, train rows) that cannot exceed the budget.

    The default program and each trial take one pass over `select` rows, or a minibatch. Each bootstrapped demo set
    runs at most `train rows` rollouts. One of the candidates' sets is empty and, with labelled demos, one is labelled
    rows. Without demos MIPROv2 bootstraps that one too, for its proposer. Raises UsageError where the candidates that
    are asked for leave no trial.
    """
    if options.minibatch_size > select:
        raise UsageError(
            f"--optimizer-option minibatch_size={options.minibatch_size} is more than the {select} rows that "
            f"candidates are selected on. Give {select} or less."
        )
    not_bootstrapped = 2 if options.demo_limits[1] else 1
    asked = options.num_candidates
    needed = 0 if asked is None else asked - not_bootstrapped
    trials = _trials(budget, select, needed, options.minibatch_size)
    left = budget - select - _trial_rollouts(trials, select, options.minibatch_size)
    candidates = asked or max(3, min(10, trials + 1, not_bootstrapped + left // 3))
    chosen = asked is not None or options.minibatch_size > 0
    if left < candidates - not_bootstrapped or (chosen and trials < 1):
        raise UsageError(
            f"MIPROv2 with {candidates} candidates has no trial in a budget of {budget} rollouts. "
            f"Give a larger --rollout-budget, or a smaller num_candidates or minibatch_size."
        )
    rows = max(1, min(train, left // (candidates - not_bootstrapped)))
    return trials, candidates, rows


def plan_bootstrap(budget: int, select: int, train: int, asked: int | None = None) -> tuple[int, int, int]:
    """(passes, shuffled candidates, train rows): zero-shot, labelled, unshuffled and shuffled sets, a pass each.

    asked: the shuffled candidates that a user wants. Raises UsageError where the budget is too small for them.
    """
    if asked is not None:
        left = budget - (3 + asked) * select
        if left < asked + 1:
            raise UsageError(
                f"--optimizer-option num_candidate_programs={asked} is more than a budget of {budget} rollouts pays "
                f"for. Give fewer, or --rollout-budget {(3 + asked) * select + asked + 1}."
            )
        return 3 + asked, asked, max(1, min(train, left // (asked + 1)))
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
    options: GepaOptions = budget.options
    rows = options.reflection_minibatch_size
    used = budget.rollouts if budget.improves else gepa_limit(budget.rollouts, budget.select, rows)
    iterations = (used - budget.select) / (2 * rows + (0 if budget.improves else budget.select / 2))
    shown = REFLECTION_TEXT + rows * (budget.row_tokens + budget.answer_tokens + budget.note_tokens)
    revised = budget.predictors if options.component_selector == "all" else 1
    return Workload(used, 0, revised * iterations, shown, 1 + 2 * iterations)


def gepa_limit(budget: int, select: int, minibatch: int) -> int:
    """GEPA's `max_metric_calls`. It looks at its limit between steps, and one step may still run a pass over select
    and two minibatches. Raises UsageError where no reflection is left."""
    limit = budget - select - 2 * minibatch + 1
    if limit <= select:
        raise UsageError(
            f"--optimizer-option reflection_minibatch_size={minibatch} leaves no reflection in a budget of {budget} "
            f"rollouts. Give a smaller one, or --rollout-budget {2 * select + 2 * minibatch} or more."
        )
    return limit


def mipro_work(budget: Budget) -> Workload:
    """MIPROv2 with demos."""
    bootstrapped, passes, work = _mipro_work(budget)
    return Workload(budget.select, bootstrapped + passes, work.proposals, work.proposal_prompt, work.rounds)


def mipro_instruct_work(budget: Budget) -> Workload:
    """MIPROv2 without demos."""
    bootstrapped, passes, work = _mipro_work(budget)
    return Workload(bootstrapped + budget.select + passes, 0, work.proposals, work.proposal_prompt, work.rounds)


def bootstrap_work(budget: Budget) -> Workload:
    """Demo sets only: nothing is proposed."""
    options: BootstrapOptions = budget.options
    passes, shuffled, rows = plan_bootstrap(
        budget.rollouts, budget.select, budget.train, options.num_candidate_programs
    )
    bootstrapped = (shuffled + 1) * (rows if budget.improves else min(rows, 2))
    return Workload(budget.select, bootstrapped + (passes - 1) * budget.select, rounds=bootstrapped + passes)


def hosted_work(budget: Budget) -> Workload:
    """A hosted job's rollouts, one pass after another. Its proposals are made and billed at its service."""
    rollouts = budget.rollouts if budget.improves else PASSES_SHARE * budget.rollouts
    return Workload(rollouts, rounds=math.ceil(budget.rollouts / budget.select))


def _mipro_work(budget: Budget) -> tuple[int, int, Workload]:
    """(bootstrapped rollouts, rollouts of trials, proposals and rounds)."""
    options: MiproInstructOptions = budget.options
    trials, candidates, rows = plan_mipro(budget.rollouts, budget.select, budget.train, options)
    sets = candidates - (2 if options.demo_limits[1] else 1)
    bootstrapped = sets * rows if budget.improves else sets * min(rows, 2)
    # Three calls a predictor and candidate, and a look at the train rows, ten at a time.
    looks = math.ceil(rows / 10)
    proposals = 3 * candidates * budget.predictors + 1 + looks
    shown = PROPOSER_TEXT + looks * 10 * budget.row_tokens / proposals
    rounds = Workload(proposals=proposals, proposal_prompt=shown, rounds=bootstrapped + 1 + trials)
    return bootstrapped, _trial_rollouts(trials, budget.select, options.minibatch_size), rounds


def _trials(budget: int, select: int, needed: int, minibatch: int) -> int:
    """MIPROv2's trials that a budget pays for, where `needed` rollouts stay for demos; 0 where it pays for none."""
    most = min(_passes(budget, select) * select, budget - max(LEFT_FOR_DEMOS, needed)) - select
    if not minibatch:
        return max(0, most // select)
    trials = 0
    while _trial_rollouts(trials + 1, select, minibatch) <= most:
        trials += 1
    return trials


def _trial_rollouts(trials: int, select: int, minibatch: int) -> int:
    """The most rollouts of MIPROv2's trials, without the pass of the default program."""
    return trials * minibatch + (trials // FULL_PASS_AFTER + 1) * select if minibatch else trials * select


def _passes(budget: int, select: int) -> int:
    """Selection passes that a budget pays for."""
    return min(math.ceil(PASSES_SHARE * budget / select), (budget - LEFT_FOR_DEMOS) // select)
