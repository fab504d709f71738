"""Synth's hosted MIPRO as an optimizer: a job at its service, whose rollouts run on our task app beside it.

The job runs and is billed at Synth: our cap sends it what it may spend, counts its rollouts at list prices, and cannot
see more.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dspy

from scaling.hosted.app import create_app
from scaling.hosted.client import NotThere, SynthClient, SynthError
from scaling.hosted.follow import RunningJob, drive, follow
from scaling.hosted.job import job_body, task_name
from scaling.hosted.outcome import ENDED_BADLY, ENDED_WELL, Outcome, outcome_of, status_of
from scaling.hosted.prompts import PromptError, Stage, keeps_format, read_prompt, stages_of, with_prompts
from scaling.hosted.rollout import Task
from scaling.hosted.settings import app_keys, host_of
from scaling.hosted.stored_job import StoredJob, store, stored
from scaling.hosted.tunnel import look_at_app, reachable, served
from scaling.llm.adapters import make_adapter
from scaling.llm.gateway import Gateway
from scaling.records.record import CallRecord, HostedJob, Proposals
from scaling.run.context import OptimizerContext
from scaling.types import CellStopped, HostedSettings

CALLS_BEFORE_A_KILL = "its rollouts were made for a command that was killed, and are not counted here"


def optimize(context: OptimizerContext) -> dspy.Module:
    """The optimizer `synth_mipro`: what the hosted job found, put into our program stage by stage.

    Raises SynthError, in one line, when there is none. A job of this cell that was submitted before is never sent
    again by the same command: one that ended well lies in the cell's folder, one whose command was killed is looked for
    at the backend.
    """
    meter, settings, path = context.optimizer_lm.meter, _settings_of(context), context.files.hosted
    facts = HostedJob(mode=context.cell.synth_mode, backend=host_of(settings))
    meter.start_hosted_job(facts)
    context.proposals = Proposals(None, None, None)  # how many Synth tried is not told
    stages = stages_of(context.core, make_adapter(context.model))
    earlier = stored(path, meter.cell_id, settings.since)
    try:
        if earlier is None:
            _run(context, settings, stages, facts)
        elif earlier.stage == "ended":
            facts = _restore(earlier, context)
        else:
            _take_up(earlier, context, settings, facts)
    finally:
        _mark_unknown_tokens(context)
    try:
        program = _program_of(facts, context, stages)
    except SynthError:
        path.unlink(missing_ok=True)  # --retry-failed sends another
        raise
    store(path, meter, facts, "ended")
    return program


def _settings_of(context: OptimizerContext) -> HostedSettings:
    if context.hosted is None:
        raise SynthError("nobody said where hosted jobs are sent")
    return context.hosted


def _gateway_of(context: OptimizerContext) -> Gateway:
    """The sweep's own gateway: a task app stands beside it, in the command's process."""
    gateway = context.optimizer_lm.gateway
    if not isinstance(gateway, Gateway):
        raise SynthError("hosted jobs run in the command's own process: type --engine local")
    return gateway


def _run(context: OptimizerContext, settings: HostedSettings, stages: list[Stage], facts: HostedJob) -> None:
    """The job from the task app's start to its outcome in `facts`; it is cancelled on every other way out."""
    gateway, meter, path = _gateway_of(context), context.optimizer_lm.meter, context.files.hosted
    started = time.monotonic()
    with ExitStack() as stack:
        keys = app_keys() or frozenset([secrets.token_hex(32)])
        key = sorted(keys)[0]
        client = stack.enter_context(SynthClient(settings, gateway.sleep))
        client.secrets |= keys
        app = create_app(_task(context), keys)
        url = stack.enter_context(served(app, settings, lambda: gateway.check(context.model)))
        if facts.mode == "offline":
            url = stack.enter_context(reachable(url, settings, gateway.sleep))
        look_at_app(url, key, gateway.sleep)
        facts.max_cost_usd = stack.enter_context(_under_cap(context, stages))
        name = f"call-scaling-{secrets.token_hex(12)}"
        body = job_body(context, settings, stages, url, facts.max_cost_usd, name)
        if facts.mode == "offline" and not client.upload_task_app_key(key):
            body["config_body"]["prompt_learning"]["task_app_api_key"] = key
        store(path, meter, facts, "submitting", name)
        try:
            facts.job_id = client.submit(body, name)
        except BaseException:
            path.unlink()  # the record says what is known of it
            raise
        store(path, meter, facts, "running")
        context.show(f"{facts.job_id} is running at {facts.backend}", None)
        job = RunningJob(facts.job_id, client, context, settings, facts, url, key)
        try:
            _note(facts, follow(job) if facts.mode == "offline" else drive(job))
        except BaseException:
            _cancel(client, context, facts)
            raise
        facts.elapsed_seconds = time.monotonic() - started


def _cancel(client: SynthClient, context: OptimizerContext, facts: HostedJob) -> None:
    """End the job at the backend; where that cannot be done the file stays, so that the next command does it."""
    if facts.job_status not in ENDED_BADLY:
        try:
            client.cancel(str(facts.job_id), "stopped by the caller")
        except (SynthError, CellStopped):
            return
    context.files.hosted.unlink(missing_ok=True)


def _take_up(earlier: StoredJob, context: OptimizerContext, settings: HostedSettings, facts: HostedJob) -> None:
    """A job whose command was killed: its outcome where it ended well, else it is cancelled and SynthError raised."""
    path = context.files.hosted
    facts.max_cost_usd = earlier.facts.max_cost_usd
    context.optimizer_lm.meter.lose_hosted_calls()
    with SynthClient(settings, _gateway_of(context).sleep) as client:
        job_id = earlier.facts.job_id or (client.find(earlier.name) if earlier.name else None)
        if job_id is None:
            path.unlink()
            raise SynthError(
                f"a command was killed while it submitted a job, which {facts.backend} may have taken: look for it "
                f"there. --retry-failed sends another"
            )
        facts.job_id = job_id
        try:
            state = client.job(str(job_id))
        except NotThere:
            path.unlink()
            raise
        facts.job_status = status_of(state)
        if facts.job_status in ENDED_WELL:
            _note(facts, outcome_of(client, state, str(job_id)))
            facts.note = CALLS_BEFORE_A_KILL
            return
        if facts.job_status not in ENDED_BADLY:
            client.cancel(str(job_id), "its command was killed")
    path.unlink()
    raise SynthError(
        f"job {job_id} was {facts.job_status} after its command was killed, and is cancelled where it was not ended. "
        f"--retry-failed sends another"
    )


def _note(facts: HostedJob, outcome: Outcome) -> None:
    facts.job_status, facts.best_prompt, facts.best_score = "succeeded", outcome.best_prompt, outcome.best_score


def _program_of(facts: HostedJob, context: OptimizerContext, stages: list[Stage]) -> dspy.Module:
    """Our program with the job's prompt. Raises SynthError where it has none, or one that the program cannot hold."""
    if facts.best_prompt is None:
        raise SynthError(f"job {facts.job_id} succeeded and holds no prompt, in none of the places it may be in")
    try:
        prompts = read_prompt(facts.best_prompt, stages)
        if not keeps_format(facts.best_prompt, stages):
            note = "the best prompt also changes what stands around the inputs; its instructions are taken"
            facts.note = "; ".join(filter(None, [facts.note, note]))
    except PromptError as error:
        raise SynthError(f"job {facts.job_id}: {error}") from None
    return with_prompts(context.core, prompts)


@contextmanager
def _under_cap(context: OptimizerContext, stages: list[Stage]) -> Iterator[float | None]:
    """Hold the job's highest cost back from the cap while it runs, and settle what its rollouts cost at list prices.

    Gives the dollars that the job may spend; None without a cap. A job whose calls did not say what they used stays
    at its highest cost. Its proposals and Synth's own fee are in no price list: the cap does not hold them.
    """
    lm, gateway = context.optimizer_lm, _gateway_of(context)
    facts = lm.meter.hosted
    highest = _highest_cost(context, stages)
    with gateway.holding_cost(lm.meter.cell_id, context.model, highest) as settle:
        try:
            yield highest if gateway.max_cost is not None else None
        finally:
            cost = _list_cost(lm.meter.hosted_calls)
            if facts is not None:
                facts.rollouts_list_cost_usd = cost
            settle(cost)


def _list_cost(calls: list[CallRecord]) -> float | None:
    """USD at list prices; None where a call did not say what it used."""
    known = [call.list_cost_usd for call in calls if call.list_cost_usd is not None]
    return sum(known) if len(known) == len(calls) else None


def _highest_cost(context: OptimizerContext, stages: list[Stage]) -> float | None:
    """USD of all rollouts of a job, if each call is as long as it can be; None where there is no price."""
    text = sum(len((stage.system + stage.user).encode()) for stage in stages)
    rows = [*context.train, *context.select]
    longest = max(len(json.dumps(example.toDict(), default=str).encode()) for example in rows)
    output = context.cell.max_output_tokens * len(stages)
    cost = context.model.highest_cost(text + longest * len(stages), output)
    return None if cost is None else cost * context.budget


def _task(context: OptimizerContext) -> Task:
    rows = [example.toDict() for example in [*context.train, *context.select]]
    meter = context.optimizer_lm.meter
    return Task(task_name(context), context.bench, context.core, rows, context.model, meter)


def _restore(earlier: StoredJob, context: OptimizerContext) -> HostedJob:
    """What a job that had ended before found and used, as if it had run now."""
    meter = context.optimizer_lm.meter
    meter.start_hosted_job(earlier.facts)
    for call in earlier.calls:
        meter.add_call(call)
    for _ in range(earlier.rollouts):
        meter.add_rollout("optimize")
    return earlier.facts


def _mark_unknown_tokens(context: OptimizerContext) -> None:
    """Tokens of calls of which one did not say what it used are not known."""
    meter = context.optimizer_lm.meter
    answered = [call for call in meter.hosted_calls if call.error is None]
    unknown = [
        name for name in ("prompt_tokens", "completion_tokens") if any(getattr(call, name) is None for call in answered)
    ]
    meter.mark_unknown("optimize", *unknown)
