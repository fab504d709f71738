"""The prompt optimizers, each held to the same rollout budget, choosing on the same `select` rows.

A rollout is one run of the whole program on one example, counted in the program's call. All optimizers stay at or
below the budget that scaling/planning/budgets.py plans. To add one, write a function that takes an `OptimizerContext`
and returns the optimized core, and add it to the table in scaling/planning/optimizers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy

from scaling.planning.budgets import FULL_PASS_AFTER, gepa_limit, plan_bootstrap, plan_mipro
from scaling.planning.optimizer_options import BootstrapOptions, GepaOptions, MiproInstructOptions
from scaling.planning.optimizers import options_of
from scaling.records.record import Proposals
from scaling.run import dspy_optimizers
from scaling.run.context import OptimizerContext
from scaling.run.scoring import safe_metric
from scaling.types import Benchmark

# A bootstrapped demo must have scored at least this; as a bool every Prediction(score=0.0) is True.
DEMO_THRESHOLD = 0.5
NO_ERROR_LIMIT = 10**9  # optimizers give up at 10 errors unless told otherwise


def none(context: OptimizerContext) -> dspy.Module:
    """No optimizer: the program as it is."""
    return context.core


def gepa(context: OptimizerContext) -> dspy.Module:
    """GEPA (Agrawal et al. 2025, arXiv 2507.19457): reflects on feedback, keeps a Pareto front of prompts."""
    counter = _GepaCounter()
    options: GepaOptions = options_of(context.cell)
    optimizer = dspy_optimizers.gepa()(
        metric=_metric_with_feedback(context),
        max_metric_calls=gepa_limit(context.budget, len(context.select), options.reflection_minibatch_size),
        reflection_minibatch_size=options.reflection_minibatch_size,
        candidate_selection_strategy=options.candidate_selection_strategy,
        component_selector=options.component_selector,
        use_merge=options.use_merge,
        reflection_lm=context.optimizer_lm.copy(role="reflection"),
        add_format_failure_as_feedback=True,
        num_threads=context.threads,
        seed=context.seed,
        gepa_kwargs={"callbacks": [counter]},
    )
    program: dspy.Module = optimizer.compile(context.core, trainset=context.train, valset=context.select)
    context.proposals = Proposals(counter.started, counter.started - counter.ended, counter.accepted)
    return program


def bootstrap(context: OptimizerContext) -> dspy.Module:
    """BootstrapFewShot with random search over demo sets: demos only, instructions stay."""
    options: BootstrapOptions = options_of(context.cell)
    passes, candidates, rows = plan_bootstrap(
        context.budget, len(context.select), len(context.train), options.num_candidate_programs
    )
    context.proposals.tried = passes - 1
    optimizer = dspy_optimizers.bootstrap_random_search()(
        metric=context.metric,
        metric_threshold=DEMO_THRESHOLD,
        max_bootstrapped_demos=options.max_bootstrapped_demos,
        max_labeled_demos=options.max_labeled_demos,
        num_candidate_programs=candidates,
        num_threads=context.threads,
        max_errors=NO_ERROR_LIMIT,
    )
    program: dspy.Module = optimizer.compile(context.core, trainset=context.train[:rows], valset=context.select)
    return program


def mipro(context: OptimizerContext) -> dspy.Module:
    """MIPROv2 (Opsahl-Ong et al. 2024, arXiv 2406.11695): instructions by Bayesian search, and demos.

    Without demos (mipro_instruct) it makes the same kind of change as GEPA.
    """
    options: MiproInstructOptions = options_of(context.cell)
    trials, candidates, rows = plan_mipro(context.budget, len(context.select), len(context.train), options)
    bootstrapped, labeled = options.demo_limits
    context.proposals.tried = trials
    optimizer = dspy_optimizers.mipro_v2()(
        metric=context.metric,
        metric_threshold=DEMO_THRESHOLD,
        prompt_model=context.optimizer_lm.copy(role="proposer"),
        auto=None,
        num_candidates=candidates,
        max_bootstrapped_demos=bootstrapped,
        max_labeled_demos=labeled,
        num_threads=context.threads,
        max_errors=NO_ERROR_LIMIT,
        seed=context.seed,
    )
    rows_for_demos = context.train[:rows]
    program: dspy.Module = optimizer.compile(
        context.core,
        trainset=rows_for_demos,
        valset=context.select,
        num_trials=trials,
        minibatch=bool(options.minibatch_size),
        minibatch_size=options.minibatch_size,
        minibatch_full_eval_steps=FULL_PASS_AFTER,
    )
    context.proposals.unparsed = context.optimizer_lm.meter.unparsed_proposals
    return program


class _GepaCounter:
    """Counts GEPA's proposals, as one of its callbacks."""

    def __init__(self) -> None:
        self.started = self.ended = self.accepted = 0

    def on_proposal_start(self, event: dict[str, Any]) -> None:
        self.started += 1

    def on_proposal_end(self, event: dict[str, Any]) -> None:
        self.ended += 1

    def on_candidate_accepted(self, event: dict[str, Any]) -> None:
        self.accepted += 1


def _metric_with_feedback(context: OptimizerContext) -> Callable[..., dspy.Prediction]:
    """GEPA's metric: the score, and for the role under revision what was wrong and what is right."""

    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: str | None = None, pred_trace: Any = None) -> Any:
        score = context.metric(gold, pred)
        return dspy.Prediction(score=score, feedback=_feedback(context.bench, gold, pred, pred_name))

    return metric


def _feedback(bench: Benchmark, gold: Any, pred: Any, role: str | None) -> str:
    failure = getattr(pred, "failure", None)
    right = ", ".join(f"{name}: {gold.get(name)}" for name in bench.outputs)
    if failure:
        comment = f"No usable answer ({failure}): keep to the output format. The right answer is {right}."
    elif bench.feedback:
        comment = bench.feedback(gold, pred)
    else:
        comment = f"Score {safe_metric(bench, gold, pred):g}. The right answer is {right}."
    role = role and role.split(".")[0]  # with tools a role has predictors of its own
    if role in (None, "classifier"):
        return comment
    return f"{comment} You wrote the {role}'s notes: they should lead the last step to the right answer."
