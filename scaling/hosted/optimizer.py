"""Synth's hosted MIPRO as an optimizer: a job at its service, whose rollouts run on our task app beside it.

The job runs and is billed at Synth: our cap sends it what it may spend, counts its rollouts at list prices, and cannot
see more.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dspy
import httpx
import msgspec
from msgspec import structs

from scaling.budgets import plan_mipro
from scaling.hosted.app import create_app
from scaling.hosted.client import NotThere, SynthClient, SynthError, provider_of
from scaling.hosted.prompts import (
    Json,
    PromptError,
    Stage,
    initial_prompt,
    keeps_format,
    read_prompt,
    stages_of,
    with_prompts,
)
from scaling.hosted.rollout import Task
from scaling.hosted.settings import KEY_NAME, app_keys
from scaling.hosted.tunnel import look_at_app, reachable, served
from scaling.llm.adapters import make_adapter
from scaling.models import Model
from scaling.record import CallRecord
from scaling.run.context import OptimizerContext, Proposals
from scaling.store import read_json, write_json
from scaling.types import CellStopped

ENDED_WELL = ("succeeded", "success", "completed", "complete")
ENDED_BADLY = ("failed", "failure", "error", "cancelled", "canceled", "cancel")
SCORES = ("best_score", "best_reward", "best_train_score", "best_train_reward")
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two looks at a job
INSTRUCTIONS_A_BATCH = 4
MOST_ROLLOUTS_AT_A_TIME = 8  # of online mode, where candidates are born between rollouts
FAILURES_IN_A_ROW = 5


def optimize(job: OptimizerContext) -> dspy.Module:
    """The optimizer `synth_mipro`: what the hosted job found, put into our program stage by stage.

    Raises SynthError, in one line, when there is none. A job of this cell that had ended well is not run again: its
    outcome lies in the cell's folder.
    """
    meter = job.optimizer_lm.meter
    # What Synth bills, and what its own proposals use, is not known here; null, and never 0.
    meter.usage["optimize"].list_cost_usd = meter.usage["optimize"].billed_cost_usd = None
    stages = stages_of(job.core, make_adapter(job.model))
    facts = meter.hosted = {"mode": job.cell.synth_mode, "backend": job.hosted.host, "job_id": None}
    job.proposals = Proposals(None, None, None)  # how many Synth tried is not told
    try:
        if (kept := _kept(job)) is not None:
            _restore(kept, job)
        else:
            _run(job, stages, facts)
    finally:
        _own_up(job)
    if facts["best_prompt"] is None:
        raise SynthError(f"job {facts['job_id']} succeeded and holds no prompt, in none of the places it may be in")
    try:
        prompts = read_prompt(facts["best_prompt"], stages)
        if not keeps_format(facts["best_prompt"], stages):
            facts["note"] = "the best prompt also changes what stands around the inputs; its instructions are taken"
    except PromptError as error:
        raise SynthError(f"job {facts['job_id']}: {error}") from None
    _keep(job)
    return with_prompts(job.core, prompts)


def _run(job: OptimizerContext, stages: list[Stage], facts: Json) -> None:
    """The job from the task app's start to its outcome in `facts`; it is cancelled on every other way out."""
    gateway, hosted = job.optimizer_lm.gateway, job.hosted
    started = time.monotonic()
    with ExitStack() as stack:
        keys = app_keys() or frozenset([secrets.token_hex(32)])
        key = sorted(keys)[0]
        client = stack.enter_context(SynthClient(hosted, gateway.sleep))
        client.secrets |= keys
        app = create_app(_task(job), keys)
        address = stack.enter_context(served(app, hosted, lambda: gateway.check(job.model)))
        url = stack.enter_context(reachable(address, hosted, gateway.sleep)) if facts["mode"] == "offline" else address
        look_at_app(url, key, gateway.sleep)
        facts["max_cost_usd"] = stack.enter_context(_under_cap(job, stages))
        body = job_body(job, stages, url, facts["max_cost_usd"])
        if facts["mode"] == "offline" and not client.upload_task_app_key(key):
            body["config_body"]["prompt_learning"]["task_app_api_key"] = key
        submitted = client.submit(body)
        facts["job_id"] = submitted["job_id"]
        job.show(f"{facts['job_id']} is running at {hosted.host}", None)
        try:
            outcome = (
                _follow(client, job, facts) if facts["mode"] == "offline" else _drive(client, job, facts, url, key)
            )
        except BaseException:
            if facts.get("job_status") not in ENDED_BADLY:
                with suppress(SynthError, CellStopped):
                    client.cancel(facts["job_id"], "stopped by the caller")
            raise
        facts |= outcome | {"elapsed_seconds": time.monotonic() - started}


def job_body(job: OptimizerContext, stages: list[Stage], url: str, max_cost_usd: float | None) -> Json:
    """What is submitted: the baseline prompt, the seeds of train and select rows, the budget, the models."""
    cell, train, select = job.cell, len(job.train), len(job.select)
    trials, *_ = plan_mipro(job.budget, select, train, 0)
    bootstrap = max(1, min(train, job.budget - (trials + 1) * select))
    seeds = list(range(bootstrap))
    val = list(range(train, train + select))[: cell.synth_rollouts]
    iterations = max(1, trials // INSTRUCTIONS_A_BATCH)
    proposer = {"model": _name_of(job.optimizer_lm.spec), "provider": provider_of(job.optimizer_lm.spec)}
    name = f"{cell.benchmark.replace('/', '-')}_{cell.steps}step"
    mipro = {
        "mode": cell.synth_mode,
        "env_name": name,
        "bootstrap_train_seeds": seeds,
        "online_pool": list(range(train)),
        "val_seeds": val,
        "proposer": proposer
        | {
            "mode": "instruction_only",
            "temperature": job.optimizer_lm.kwargs["temperature"],
            "max_tokens": job.optimizer_lm.spec.optimizer_max_output_tokens,
            "generate_at_iterations": list(range(iterations)),
            "instructions_per_batch": INSTRUCTIONS_A_BATCH,
        },
        "num_iterations": iterations,
        "num_evaluations_per_iteration": INSTRUCTIONS_A_BATCH,
        "batch_size": len(val),
        "max_concurrent": job.threads,
        "max_demo_set_size": 0,
        "modules": [{"module_id": s.name, "max_instruction_slots": 1, "max_demo_slots": 0} for s in stages],
        "online_proposer_mode": "inline",
        "online_rollouts_per_candidate": cell.synth_rollouts or min(10, select),
        "online_proposer_min_rollouts": min(20, job.budget // 2),
    }
    limits = {"max_rollouts": job.budget, "max_trials": trials, "max_seconds": int(job.hosted.job_timeout)}
    return {
        "algorithm": "mipro",
        "config_body": {
            "prompt_learning": {
                "algorithm": "mipro",
                "task_app_url": url,
                "task_app_id": name.replace("_", "-"),
                "env_name": name,
                "initial_prompt": initial_prompt(name, stages),
                "policy": {
                    "model": _name_of(job.model),
                    "provider": provider_of(job.model),
                    "inference_mode": "synth_hosted",
                    "temperature": cell.temperature,
                    "max_completion_tokens": cell.max_output_tokens,
                    "policy_name": name,
                    "config": {},
                },
                "env_config": {"split": "train"},
                "termination_config": limits | ({"max_cost_usd": max_cost_usd} if max_cost_usd is not None else {}),
                "mipro": mipro,
            }
        },
        "overrides": {},
        "metadata": {"backend_base_url": f"{job.hosted.backend}/api"},
        "auto_start": True,
    }


def _follow(client: SynthClient, job: OptimizerContext, facts: Json) -> Json:
    """Look at an offline job until it has ended; its outcome. Raises SynthError when it failed or takes too long."""
    gateway, job_id = job.optimizer_lm.gateway, facts["job_id"]
    deadline, pause = time.monotonic() + job.hosted.job_timeout, FIRST_PAUSE
    while True:
        state = client.job(job_id)
        status, best = str(state.get("status") or "pending").lower(), _score_of(state)
        facts |= {"job_status": status, "best_score": best}
        job.show(f"{job_id} {status}", best)
        if status in ENDED_WELL:
            return _outcome(client, state, job_id)
        if status in ENDED_BADLY:
            raise SynthError(f"job {job_id} ended as {status}: {client.said(state.get('error'))}")
        if time.monotonic() > deadline:
            raise SynthError(
                f"job {job_id} has not ended within {job.hosted.job_timeout:g} s and was cancelled; "
                f"--job-timeout gives it longer"
            )
        gateway.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _drive(client: SynthClient, job: OptimizerContext, facts: Json, url: str, key: str) -> Json:
    """Online mode: we run the rollouts on our own app through the job's proxy and report their rewards."""
    system_id, proxy_url = _proxy_of(client, job, facts["job_id"])
    lost_in_a_row = 0
    with httpx.Client(timeout=job.hosted.timeout * job.cell.steps) as http:

        def rollout(number: int) -> str | None:
            job.optimizer_lm.gateway.check(job.model)
            name = f"trace_rollout_{number}_{uuid.uuid4().hex[:6]}"
            policy = {
                "model": _name_of(job.model), "temperature": job.cell.temperature,
                "max_completion_tokens": job.cell.max_output_tokens,
                "inference_url": f"{proxy_url.rstrip('/')}/{name}/chat/completions",
                "api_key": os.environ.get(KEY_NAME) or "local",
            }  # fmt: skip
            env = {"seed": number % len(job.train), "config": {"split": "train"}}
            body = {"trace_correlation_id": name, "env": env, "policy": {"config": policy}}
            response = http.post(f"{url}/rollout", json=body, headers={"X-API-Key": key})
            if response.status_code != 200:
                return f"{response.status_code} {client.said(response.text)}"
            said = response.json()
            reward = said["reward_info"]["outcome_reward"]
            candidate = {"candidate_id": said["metadata"]["mipro_candidate_id"]}
            candidate = {name: value for name, value in candidate.items() if value is not None}
            report = {"rollout_id": name, "status": "reward", "reward": reward} | candidate
            candidate |= {n: v for n, v in client.rollout_status(system_id, report).items() if n == "candidate_id"}
            client.rollout_status(system_id, {"rollout_id": name, "status": "done"} | candidate)
            return None

        with ThreadPoolExecutor(min(job.threads, MOST_ROLLOUTS_AT_A_TIME)) as pool:
            futures = [pool.submit(rollout, number) for number in range(job.budget)]
            try:
                for future in futures:
                    why = future.result()
                    lost_in_a_row = lost_in_a_row + 1 if why else 0
                    if lost_in_a_row == FAILURES_IN_A_ROW:
                        raise SynthError(f"{FAILURES_IN_A_ROW} rollouts in a row failed; the last: {why}")
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    state = client.system(system_id)
    with suppress(SynthError):  # it would only wait for more
        client.cancel(facts["job_id"], "all rollouts are made")
    prompt, score = _best_of_system(state)
    return {"job_status": "succeeded", "best_score": score, "best_prompt": prompt}


def _proxy_of(client: SynthClient, job: OptimizerContext, job_id: str) -> tuple[str, str]:
    """(system id, proxy address) of an online job, as soon as it has them."""
    deadline, pause = time.monotonic() + job.hosted.job_timeout, FIRST_PAUSE
    while True:
        state = client.job(job_id)
        known = state.get("metadata") or {}
        if known.get("mipro_system_id") and known.get("mipro_proxy_url"):
            return str(known["mipro_system_id"]), str(known["mipro_proxy_url"])
        if str(state.get("status")).lower() in ENDED_BADLY:
            raise SynthError(f"job {job_id} ended as {state['status']}: {client.said(state.get('error'))}")
        if time.monotonic() > deadline:
            raise SynthError(f"job {job_id} gave no proxy within {job.hosted.job_timeout:g} s and was cancelled")
        job.optimizer_lm.gateway.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _outcome(client: SynthClient, state: Json, job_id: str) -> Json:
    """The best prompt of a job that succeeded, from the first place that has one; None where no place has."""
    prompt, score = state.get("best_prompt") or _payload_of(state.get("best_candidate")), _score_of(state)
    if not prompt:
        with suppress(NotThere):
            results = client.results(job_id)
            prompt = results.get("best_prompt") or _payload_of(results.get("best_candidate"))
            score = _score_of(results) if score is None else score
    system_id = (state.get("metadata") or {}).get("mipro_system_id")
    if not prompt and system_id:
        with suppress(NotThere):
            prompt, its_score = _best_of_system(client.system(str(system_id)))
            score = its_score if score is None else score
    return {"job_status": "succeeded", "best_score": score, "best_prompt": prompt or None}


def _best_of_system(state: Json) -> tuple[Any, float | None]:
    """(best candidate's prompt or None, its score or None) of a system's state."""
    candidates = state.get("candidates")
    best = candidates.get(state.get("best_candidate_id")) if isinstance(candidates, dict) else None
    reward = best.get("avg_reward") if isinstance(best, dict) else None
    return _payload_of(best) or None, _score_of(state | {"best_train_reward": reward})


def _payload_of(candidate: Any) -> Any:
    """The part of a candidate that changes the prompt."""
    if not isinstance(candidate, dict):
        return None
    payloads, deltas = candidate.get("stage_payloads"), candidate.get("deltas")
    return {"stage_payloads": payloads} if payloads else {"deltas": deltas} if deltas else candidate.get("best_prompt")


def _score_of(state: Json) -> float | None:
    """The score that the backend itself reports, a fraction; None where it reports none."""
    found = next((state[name] for name in SCORES if isinstance(state.get(name), int | float)), None)
    return None if found is None else float(found)


@contextmanager
def _under_cap(job: OptimizerContext, stages: list[Stage]) -> Iterator[float | None]:
    """Hold the job's highest cost back from the cap while it runs, and settle what its rollouts cost at list prices.

    Gives the dollars that the job may spend; None without a cap. A job whose calls did not say what they used stays
    at its highest cost. Its proposals and Synth's own fee are in no price list: the cap does not hold them.
    """
    gateway, meter, model = job.optimizer_lm.gateway, job.optimizer_lm.meter, job.model
    text = sum(len((stage.system + stage.user).encode()) for stage in stages)
    rows = max(len(json.dumps(example.toDict(), default=str).encode()) for example in [*job.train, *job.select])
    highest = model.highest_cost(text + rows * len(stages), job.cell.max_output_tokens * len(stages))
    highest = None if highest is None else highest * job.budget
    if not gateway.cost_budget.reserve(highest or 0.0, lambda: gateway.check(model)):
        raise CellStopped(
            "budget", f"the hosted job may cost ${highest:.4f} and would pass --max-cost {gateway.cost_budget.cap:g}"
        )
    bill = gateway.cache.open_bill(meter.cell_id, model.id, "optimize", highest)
    spent = highest
    try:
        yield highest if gateway.cost_budget.cap is not None else None
    finally:
        costs = [call.list_cost_usd for call in meter.hosted_calls]
        spent = highest if None in costs else sum(costs)
        meter.hosted["rollouts_list_cost_usd"] = None if None in costs else spent
        gateway.cache.settle_bill(bill, spent)
        gateway.cost_budget.settle(highest or 0.0, spent or 0.0)


def _task(job: OptimizerContext) -> Task:
    rows = [example.toDict() for example in [*job.train, *job.select]]
    name = f"{job.cell.benchmark.replace('/', '-')}_{job.cell.steps}step"
    return Task(name, job.bench, job.core, rows, job.model, job.optimizer_lm.meter)


def _keep(job: OptimizerContext) -> None:
    meter = job.optimizer_lm.meter
    kept = {"cell_id": meter.cell_id, "facts": meter.hosted, "rollouts": meter.rollouts["optimize"]}
    write_json(job.files.hosted, kept | {"calls": [structs.asdict(call) for call in meter.hosted_calls]})


def _kept(job: OptimizerContext) -> Json | None:
    """The outcome of this cell's hosted job where it had ended before; none with --fresh."""
    if not job.files.hosted.exists() or job.files.hosted.stat().st_mtime < job.hosted.since:
        return None
    kept = read_json(job.files.hosted)
    return kept if kept.get("cell_id") == job.optimizer_lm.meter.cell_id else None


def _restore(kept: Json, job: OptimizerContext) -> None:
    """What a job that had ended before found and used, as if it had run now."""
    meter = job.optimizer_lm.meter
    meter.hosted |= kept["facts"]
    for call in kept["calls"]:
        meter.add_call(msgspec.convert(call, CallRecord))
    for _ in range(kept["rollouts"]):
        meter.add_rollout("optimize")


def _own_up(job: OptimizerContext) -> None:
    """Tokens of calls of which one did not say what it used are not known."""
    meter = job.optimizer_lm.meter
    for name in ("prompt_tokens", "completion_tokens"):
        if any(getattr(call, name) is None and call.error is None for call in meter.hosted_calls):
            setattr(meter.usage["optimize"], name, None)


def _name_of(model: Model) -> str:
    """The model as its provider knows it."""
    return model.route.partition("/")[2]
