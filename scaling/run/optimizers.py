"""The prompt optimizers, each held to the same rollout budget, choosing on the same `select` rows.

A rollout is one run of the whole program on one example, counted in the program's call. All optimizers
are planned to stay at or below the budget (STATISTICS 1.1, 1.2). To add one: write a function that takes a
`Job` and returns the optimized core, add it to `OPTIMIZERS` here and its name to `types.OPTIMIZERS`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from scaling.llm.gateway import Meter, MeteredLM
from scaling.models import Model
from scaling.record import CurvePoint
from scaling.run import dspy_optimizers
from scaling.run.scoring import safe_metric
from scaling.store import CellFiles
from scaling.types import Benchmark, Cell

GEPA_MINIBATCH = 3
MAX_DEMOS = 4
# Share of the budget that planned selection passes take; what is left bounds bootstrapping (below 30 %).
PASSES_SHARE = 0.8
# A bootstrapped demo must have scored at least this; as a bool every Prediction(score=0.0) is True.
DEMO_THRESHOLD = 0.5
NO_ERROR_LIMIT = 10**9  # optimizers give up at 10 errors unless told otherwise


@dataclass
class Job:
    """What an optimizer gets: the core program, its rows, its budget in rollouts, and who answers."""

    core: dspy.Module
    bench: Benchmark
    train: list[dspy.Example]
    select: list[dspy.Example]
    budget: int
    seed: int
    threads: int
    optimizer_lm: MeteredLM
    proposals: dict[str, int | None] = field(default_factory=lambda: {"tried": 0, "unparsed": 0, "accepted": 0})
    # What a hosted optimizer needs beyond: the cell, its model and files, where jobs are sent, where progress is shown.
    cell: Cell | None = None
    model: Model | None = None
    files: CellFiles | None = None
    hosted: Any = None
    show: Callable[[str, float | None], None] = lambda what, best: None

    def metric(self, gold: dspy.Example, pred: Any, trace: Any = None) -> float:
        """A plain float, with an answer that is missing scored 0."""
        return safe_metric(self.bench, gold, pred)


def gepa(job: Job) -> dspy.Module:
    """GEPA (Agrawal et al. 2025, arXiv 2507.19457): reflects on feedback, keeps a Pareto front of prompts."""

    class Counter:
        def on_proposal_start(self, event: dict) -> None:
            job.proposals["tried"] += 1
            job.proposals["unparsed"] += 1

        def on_proposal_end(self, event: dict) -> None:
            job.proposals["unparsed"] -= 1

        def on_candidate_accepted(self, event: dict) -> None:
            job.proposals["accepted"] += 1

    optimizer = dspy_optimizers.gepa()(
        metric=_metric_with_feedback(job),
        # It checks its budget between steps, each of which may run a pass over select and two minibatches.
        max_metric_calls=job.budget - len(job.select) - 2 * GEPA_MINIBATCH + 1,
        reflection_minibatch_size=GEPA_MINIBATCH,
        reflection_lm=job.optimizer_lm.copy(role="reflection"),
        add_format_failure_as_feedback=True,
        num_threads=job.threads,
        seed=job.seed,
        gepa_kwargs={"callbacks": [Counter()]},
    )
    return optimizer.compile(job.core, trainset=job.train, valset=job.select)


def mipro(job: Job) -> dspy.Module:
    """MIPROv2 (Opsahl-Ong et al. 2024, arXiv 2406.11695): instructions and demos by Bayesian search."""
    return _mipro(job, MAX_DEMOS)


def mipro_instruct(job: Job) -> dspy.Module:
    """MIPROv2 without demos: the same kind of change as GEPA makes."""
    return _mipro(job, 0)


def bootstrap(job: Job) -> dspy.Module:
    """BootstrapFewShot with random search over demo sets: demos only, instructions stay."""
    passes, candidates, rows = plan_bootstrap(job.budget, len(job.select), len(job.train))
    job.proposals["tried"] = passes - 1
    optimizer = dspy_optimizers.bootstrap_random_search()(
        metric=job.metric,
        metric_threshold=DEMO_THRESHOLD,
        max_bootstrapped_demos=MAX_DEMOS,
        max_labeled_demos=MAX_DEMOS,
        num_candidate_programs=candidates,
        num_threads=job.threads,
        max_errors=NO_ERROR_LIMIT,
    )
    return optimizer.compile(job.core, trainset=job.train[:rows], valset=job.select)


def synth_mipro(job: Job) -> dspy.Module:
    """Synth's hosted MIPRO: a job at its service, whose rollouts run on our task app (scaling/hosted/optimizer.py)."""
    from scaling.hosted import optimizer as hosted  # FastAPI and httpx, which nothing else here needs

    return hosted.optimize(job)


OPTIMIZERS: dict[str, Callable[[Job], dspy.Module]] = {
    "none": lambda job: job.core,
    "gepa": gepa,
    "mipro": mipro,
    "mipro_instruct": mipro_instruct,
    "bootstrap": bootstrap,
    "synth_mipro": synth_mipro,
}


def plan_mipro(budget: int, select: int, train: int, demos: int = MAX_DEMOS) -> tuple[int, int, int]:
    """(trials, candidates, train rows) that cannot exceed the budget.

    The default program and each trial take one pass over `select` rows; each bootstrapped demo set runs at
    most `train rows` rollouts. Of the candidates' sets one is empty and, with demos, one is labelled rows;
    without demos MIPROv2 bootstraps that one too, for its proposer.
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


def _passes(budget: int, select: int) -> int:
    return min(math.ceil(PASSES_SHARE * budget / select), (budget - GEPA_MINIBATCH) // select)


def _mipro(job: Job, demos: int) -> dspy.Module:
    trials, candidates, rows = plan_mipro(job.budget, len(job.select), len(job.train), demos)
    job.proposals["tried"] = trials
    optimizer = dspy_optimizers.mipro_v2()(
        metric=job.metric,
        metric_threshold=DEMO_THRESHOLD,
        prompt_model=job.optimizer_lm.copy(role="proposer"),
        auto=None,
        num_candidates=candidates,
        max_bootstrapped_demos=demos,
        max_labeled_demos=demos,
        num_threads=job.threads,
        max_errors=NO_ERROR_LIMIT,
        seed=job.seed,
    )
    rows_for_demos = job.train[:rows]
    program = optimizer.compile(
        job.core, trainset=rows_for_demos, valset=job.select, num_trials=trials, minibatch=False
    )
    job.proposals["unparsed"] = job.optimizer_lm.meter.unparsed_proposals
    return program


def _metric_with_feedback(job: Job) -> Callable[..., dspy.Prediction]:
    """GEPA's metric: the score, and for the role under revision what was wrong and what is right."""

    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: str | None = None, pred_trace: Any = None) -> Any:
        score = job.metric(gold, pred)
        return dspy.Prediction(score=score, feedback=_feedback(job.bench, gold, pred, pred_name))

    return metric


def _feedback(bench: Benchmark, gold: Any, pred: Any, role: str | None) -> str:
    failure = getattr(pred, "failure", None)
    if failure:
        right = ", ".join(f"{name}: {gold.get(name)}" for name in bench.outputs)
        said = f"No usable answer ({failure}): keep to the output format. The right answer is {right}."
    elif bench.feedback:
        said = bench.feedback(gold, pred)
    else:
        right = ", ".join(f"{name}: {gold.get(name)}" for name in bench.outputs)
        said = f"Score {safe_metric(bench, gold, pred):g}. The right answer is {right}."
    role = role and role.split(".")[0]  # with tools a role has predictors of its own
    if role in (None, "classifier"):
        return said
    return f"{said} You wrote the {role}'s notes: they should lead the last step to the right answer."


class Curve(BaseCallback):
    """The learning curve: a point each time an optimizer has evaluated a candidate.

    Points come from DSPy's evaluate callbacks, never interpolated. `rows` says on which rows: GEPA tries a
    candidate on a minibatch of train first; only full passes over select move `best_val_score`.
    `incumbents` holds (rollouts, program) each time a full pass was the best so far.
    """

    def __init__(self, meter: Meter, select_ids: list[str], on_point: Callable[[list[CurvePoint]], None]):
        self.points: list[CurvePoint] = []
        self.incumbents: list[tuple[int, dspy.Module]] = []
        self.accepted = 0
        self._meter, self._ids, self._on_point = meter, set(select_ids), on_point
        self._running: dict[str, tuple[list, Any]] = {}
        self._started = time.monotonic()

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        devset = inputs.get("devset") or instance.devset
        self._running[call_id] = (devset, inputs.get("program"))

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        devset, program = self._running.pop(call_id)
        if exception is not None:
            return
        on_select = {example.get("id") for example in devset} <= self._ids
        scores = [float(getattr(score, "score", score)) for *_, score in outputs.results]
        score, full = sum(scores) / len(scores), on_select and len(devset) == len(self._ids)
        best = self.points[-1].best_val_score if self.points else None
        rollouts = self._meter.rollouts["optimize"]
        if full and (best is None or score > best):
            incumbent = program.deepcopy()
            incumbent.__dict__.pop("forward", None)  # GEPA evaluates with a forward that returns a trace as well
            self.incumbents.append((rollouts, incumbent))
            self.accepted += best is not None
            best = score
        used = self._meter.total()
        self.points.append(
            CurvePoint(
                rollouts=rollouts,
                lm_calls=used.calls,
                tokens=used.prompt_tokens + used.completion_tokens,
                list_cost_usd=used.list_cost_usd,
                elapsed_seconds=time.monotonic() - self._started,
                rows="select" if on_select else "train",
                val_n=len(devset),
                candidate_val_score=score,
                best_val_score=best,
            )
        )
        self._on_point(self.points)

    def incumbent_at(self, rollouts: float) -> dspy.Module | None:
        """The best program known after that many rollouts; None before the first full pass."""
        known = [program for at, program in self.incumbents if at <= rollouts]
        return known[-1] if known else None
