"""One rollout of a task app: a program on the row of a seed, its LM calls sent where the request says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import dspy
import httpx
import pydantic

from scaling.hosted.guard import refusal
from scaling.hosted.inference import InferenceLM, Rollout, Target, Used, chat_url
from scaling.hosted.prompts import Json, PromptError, read_prompt, stages_of, with_prompts
from scaling.hosted.settings import KEY_NAME, URL_NAME
from scaling.llm.adapters import make_adapter
from scaling.llm.meter import Meter
from scaling.models import Model, known_model, load_registry
from scaling.run.scoring import as_example, safe_metric
from scaling.schema import is_address
from scaling.types import Benchmark, Row

KNOWN_MODELS = load_registry()


@dataclass(frozen=True)
class Task:
    """What an app serves: a program, and the rows that it runs on, the row of a seed at that place."""

    name: str
    bench: Benchmark
    core: dspy.Module
    rows: list[Row]
    model: Model | None = None  # of the calls, where it is known beforehand
    meter: Meter | None = None  # of the cell that they are for

    @property
    def stages(self) -> list[str]:
        return [name for name, _ in self.core.named_predictors()]


class EnvConfig(pydantic.BaseModel):
    seed: int | None = None
    split: Any = "train"


class Env(pydantic.BaseModel):
    env_id: str | None = None
    env_name: str | None = None
    config: EnvConfig = EnvConfig()
    seed: int | None = None


Share = Annotated[float, pydantic.Field(allow_inf_nan=False)]
Limit = Annotated[int, pydantic.Field(ge=0)]
HeaderText = Annotated[str, pydantic.Field(pattern=r"^[\x20-\x7e]*$")]


class PolicyConfig(pydantic.BaseModel):
    """How the calls are made. The address and the limit have older names as well."""

    model: str | None = None
    inference_url: str | None = None
    api_base: str | None = None
    base_url: str | None = None
    api_key: HeaderText | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    max_completion_tokens: Limit | None = None
    max_tokens: Limit | None = None
    prompt_template: Any = None

    @property
    def url(self) -> str:
        """The address of the calls; 422 without one, as no call may go anywhere else."""
        given = self.inference_url or self.api_base or self.base_url
        if not given:
            raise refusal(
                422, "missing_inference_url", "policy.config.inference_url says where the LM calls go; it is missing"
            )
        try:
            url = str(httpx.URL(chat_url(given)))
        except (httpx.InvalidURL, ValueError):
            url = ""
        if not is_address(url):
            raise refusal(422, "bad_inference_url", "policy.config.inference_url is not an address")
        return url

    def sampling(self, model: Model) -> Json:
        limit = "max_completion_tokens" if self.max_completion_tokens else "max_tokens"
        tokens = self.max_completion_tokens or self.max_tokens or model.output_limit
        given = {"temperature": self.temperature, "top_p": self.top_p}
        return {limit: tokens} | {name: value for name, value in given.items() if value is not None}


class Policy(pydantic.BaseModel):
    policy_id: str | None = None
    policy_name: str | None = None
    config: PolicyConfig = PolicyConfig()
    output_mode: Literal["tool_calls", "text", "structured"] = "tool_calls"


class RolloutRequest(pydantic.BaseModel):
    """What is read of a rollout request; everything else is ignored. Older backends call the id `run_id`."""

    trace_correlation_id: Annotated[
        str, pydantic.Field(validation_alias=pydantic.AliasChoices("trace_correlation_id", "run_id"))
    ]
    env: Env
    policy: Policy

    @property
    def seed(self) -> int:
        seed = self.env.seed if self.env.seed is not None else self.env.config.seed
        if seed is None:
            raise refusal(422, "missing_seed", "env.seed says which example to run; it is not a number here")
        return seed


def run_rollout(task: Task, lm: InferenceLM, request: RolloutRequest, wanted: Callable[[], bool]) -> Json:
    """One run of the program on the row of the seed, in a thread of the app.

    An answer that cannot be parsed has reward 0, a call that was lost none (UpstreamError). wanted: whether somebody
    still waits; no call is sent otherwise.
    """
    if str(request.env.config.split) == "test":
        raise refusal(400, "split_not_served", "test rows are never served; leave env.config.split out, or say train")
    place = request.seed % len(task.rows)
    target = target_of(request.policy.config, task.model)
    adapter = make_adapter(target.model)
    core = task.core
    if template := request.policy.config.prompt_template:
        try:
            core = with_prompts(core, read_prompt(template, stages_of(core, adapter)))
        except PromptError as error:
            raise refusal(422, "prompt_template", str(error)) from None
    example = as_example(task.rows[place], task.bench)
    rollout = Rollout(target, wanted)
    with dspy.context(lm=lm.copy(rollout=rollout), adapter=adapter):
        prediction = core(**example.inputs())
    reward = safe_metric(task.bench, example, prediction)
    details = {"failure": prediction.get("failure"), "seed": request.seed, "row": place}
    return rollout_response(request.trace_correlation_id, reward, rollout.used, details, target.url)


def rollout_response(trace: str, reward: float, used: Used, details: Json, url: str) -> Json:
    """The reward in both places where backends look for it, and what the calls used."""
    return {
        "trace_correlation_id": trace,
        "run_id": trace,
        "reward_info": {
            "outcome_reward": reward,
            "outcome_objectives": {"reward": reward},
            "event_rewards": [],
            "details": details,
        },
        "metrics": {
            "outcome_reward": reward,
            "outcome_score": reward,
            "mean_return": reward,
            "episode_returns": [reward],
            "num_episodes": 1,
            "num_steps": used.calls,
            "events_score": None,
            "details": details,
        },
        "trace": None,
        "branches": {},
        "aborted": False,
        "inference_url": url,
        "success_status": "success",
        "status_detail": None,
        "metadata": {
            "mipro_candidate_id": used.candidate_id,
            "usage": {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens},
        },
    }


def target_of(config: PolicyConfig, model: Model | None) -> Target:
    """Where and how a request's calls go. model: of the task, where that is known."""
    url = config.url
    if model is None or (config.model and config.model not in _names_of(model)):
        model = _model_of(config.model)
    key = config.api_key or _synth_key_for(url)
    headers = {"X-API-Key": key, "Authorization": "Bearer none"} if key else {}
    return Target(url, model, headers, config.sampling(model))


def task_info(task: Task, seed: int | None) -> Json:
    """What the app says of itself, and of one seed."""
    bench, stages = task.bench, task.stages
    dataset: Json = {
        "id": bench.name, "name": bench.name, "version": bench.version, "splits": ["train"], "default_split": "train",
        "description": f"{len(task.rows)} rows for optimizing; test rows are not served",
    }  # fmt: skip
    if seed is not None:
        dataset |= {"split": "train", "index": seed % len(task.rows)}
    return {
        "task": {
            "id": task.name, "name": task.name, "version": bench.version,
            "description": bench.signature.instructions,
        },
        "environment": task.name,
        "dataset": dataset,
        "inference": {"model": task.model and task.model.id, "inference_url": None},
        "limits": {"max_turns": len(stages)},
        "task_metadata": {"modules": stages, "inputs": bench.inputs, "outputs": bench.outputs},
    }  # fmt: skip


def _synth_key_for(url: str) -> str | None:
    """The user's Synth key, for Synth's own interceptor only: a request may name any other address."""
    host, backend = urlsplit(url).hostname or "", urlsplit(os.environ.get(URL_NAME, "")).hostname
    is_synths = host == backend or (url.startswith("https://") and host.endswith(".usesynth.ai"))
    return os.environ.get(KEY_NAME) if is_synths else None


def _model_of(name: str | None) -> Model:
    """The model that a backend names, with or without its provider; a plain one where nobody knows it."""
    for model in KNOWN_MODELS.values():
        if name == model.route or name in _names_of(model):
            return model
    plain = Model(id=name or "unknown", route=f"openai/{name or 'unknown'}")
    return known_model(name or "", KNOWN_MODELS) or plain


def _names_of(model: Model) -> tuple[str, ...]:
    return (model.id, model.route.partition("/")[2], *model.aliases)
