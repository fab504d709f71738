"""A hosted job that is running: looking at it until it has ended, and in online mode making its rollouts."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from scaling.hosted.client import SynthClient, SynthError
from scaling.hosted.job import name_of
from scaling.hosted.outcome import ENDED_BADLY, ENDED_WELL, Outcome, best_of_system, outcome_of, score_of, status_of
from scaling.hosted.prompts import Json
from scaling.hosted.settings import KEY_NAME
from scaling.records.record import HostedJob
from scaling.run.context import OptimizerContext
from scaling.types import HostedSettings

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two looks at a job
MOST_ROLLOUTS_AT_A_TIME = 8  # of online mode, where candidates are born between rollouts
FAILURES_IN_A_ROW = 5


@dataclass(frozen=True)
class RunningJob:
    """A job that was taken. facts: what its cell's record says of it; app_url and app_key: of our task app."""

    job_id: str
    client: SynthClient
    context: OptimizerContext
    settings: HostedSettings
    facts: HostedJob
    app_url: str
    app_key: str


def follow(job: RunningJob) -> Outcome:
    """Look at an offline job until it has ended. Raises SynthError when it failed or takes too long."""
    for state in _states(job):
        if status_of(state) in ENDED_WELL:
            return outcome_of(job.client, state, job.job_id)
    raise SynthError(
        f"job {job.job_id} has not ended within {job.settings.job_timeout:g} s and was cancelled; "
        f"--job-timeout gives it longer"
    )


def drive(job: RunningJob) -> Outcome:
    """Online mode: we run the rollouts on our own app through the job's proxy and report their rewards."""
    system_id, proxy_url = _proxy_of(job)
    lost_in_a_row = 0
    with (
        httpx.Client(timeout=job.settings.timeout * job.context.cell.steps, trust_env=False) as http,  # on loopback
        ThreadPoolExecutor(min(job.context.threads, MOST_ROLLOUTS_AT_A_TIME)) as pool,
    ):
        numbers = range(job.context.budget)
        futures = [pool.submit(_rollout, job, http, system_id, proxy_url, number) for number in numbers]
        try:
            for future in futures:
                reason = future.result()
                lost_in_a_row = lost_in_a_row + 1 if reason else 0
                if lost_in_a_row == FAILURES_IN_A_ROW:
                    raise SynthError(f"{FAILURES_IN_A_ROW} rollouts in a row failed; the last: {reason}")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    state = job.client.system(system_id)
    with suppress(SynthError):  # it would only wait for more
        job.client.cancel(job.job_id, "all rollouts are made")
    return Outcome(*best_of_system(state))


def _rollout(job: RunningJob, http: httpx.Client, system_id: str, proxy_url: str, number: int) -> str | None:
    """One rollout on our app, its reward reported; why there is none, or None."""
    context = job.context
    context.optimizer_lm.gateway.check(context.model)
    name = f"trace_rollout_{number}_{uuid.uuid4().hex[:6]}"
    response = http.post(
        f"{job.app_url}/rollout", json=_request(context, name, proxy_url, number), headers={"X-API-Key": job.app_key}
    )
    if response.status_code != 200:
        return f"{response.status_code} {job.client.one_line(response.text)}"
    answer = response.json()
    candidate = {"candidate_id": answer["metadata"]["mipro_candidate_id"]}
    report = {"rollout_id": name, "status": "reward", "reward": answer["reward_info"]["outcome_reward"]}
    reply = job.client.rollout_status(system_id, report | _known(candidate))
    candidate |= _known({"candidate_id": reply.get("candidate_id")})
    job.client.rollout_status(system_id, {"rollout_id": name, "status": "done"} | _known(candidate))
    return None


def _request(context: OptimizerContext, name: str, proxy_url: str, number: int) -> Json:
    config = {
        "model": name_of(context.model),
        "temperature": context.cell.temperature,
        "max_completion_tokens": context.cell.max_output_tokens,
        "inference_url": f"{proxy_url.rstrip('/')}/{name}/chat/completions",
        "api_key": os.environ.get(KEY_NAME) or "local",
    }
    env = {"seed": number % len(context.train), "config": {"split": "train"}}
    return {"trace_correlation_id": name, "env": env, "policy": {"config": config}}


def _known(values: Json) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _proxy_of(job: RunningJob) -> tuple[str, str]:
    """(system id, proxy address) of an online job, as soon as it has them."""
    for state in _states(job):
        metadata: Any = state.get("metadata") or {}
        if metadata.get("mipro_system_id") and metadata.get("mipro_proxy_url"):
            return str(metadata["mipro_system_id"]), str(metadata["mipro_proxy_url"])
    raise SynthError(f"job {job.job_id} gave no proxy within {job.settings.job_timeout:g} s and was cancelled")


def _states(job: RunningJob) -> Iterator[Json]:
    """The job's states until its time is over, each noted and shown. Raises SynthError when it ended badly."""
    deadline, pause = time.monotonic() + job.settings.job_timeout, FIRST_PAUSE
    while True:
        state = job.client.job(job.job_id)
        job.facts.job_status, job.facts.best_score = status_of(state), score_of(state)
        job.context.show(f"{job.job_id} {job.facts.job_status}", job.facts.best_score)
        if job.facts.job_status in ENDED_BADLY:
            reason = job.client.one_line(state.get("error"))
            raise SynthError(f"job {job.job_id} ended as {job.facts.job_status}: {reason}")
        yield state
        if time.monotonic() > deadline:
            return
        job.client.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)
