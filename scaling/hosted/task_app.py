"""A benchmark as a task app: a hosted optimizer sends seeds, the app runs the program on these rows and scores it.

One FastAPI app for any benchmark and any program. Every LM call goes to the request's own `inference_url`, where the
optimizer puts its candidate in place of the baseline; a candidate that comes in `prompt_template` is honoured as well.
The app keeps nothing between requests, and has no test rows to serve.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hmac
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import anyio.to_thread
import dspy
import fastapi
import pydantic
import uvicorn
from fastapi.responses import JSONResponse

from scaling.data import load_benchmark
from scaling.hosted.inference import InferenceLM, Target, UpstreamError, Used, chat_url
from scaling.hosted.prompts import Json, PromptError, read_prompt, stages_of, with_prompts
from scaling.llm.adapters import make_adapter
from scaling.llm.gateway import Meter
from scaling.models import Model, load_registry
from scaling.plan import fit_to_data, load_study
from scaling.run.pipelines import make_core
from scaling.run.scoring import as_example, safe_metric
from scaling.types import EXIT_OK, EXIT_USAGE, Benchmark, Cell, Row, UsageError

DEFAULT_PORT = 8015
KEY_NAMES = ("ENVIRONMENT_API_KEY", "DEV_ENVIRONMENT_API_KEY")
MOST_ROLLOUTS = 256  # at a time, each in a thread of its own
START_SECONDS = 30.0
KEEP_SECONDS = 120  # an idle connection: callers keep theirs longer than uvicorn's 5 s
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


class Env(pydantic.BaseModel):
    env_id: str | None = None
    env_name: str | None = None
    config: Json = {}
    seed: int | None = None


class Policy(pydantic.BaseModel):
    policy_id: str | None = None
    policy_name: str | None = None
    config: Json = {}
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
        seed = self.env.seed if self.env.seed is not None else self.env.config.get("seed")
        if not isinstance(seed, int):
            raise refusal(422, "missing_seed", "env.seed says which example to run; it is no number here")
        return seed


def create_app(task: Task, keys: frozenset[str] | None) -> fastapi.FastAPI:
    """The app of one task. keys: any of them opens it; none (an empty set) opens nothing; None asks for no key."""

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI):
        anyio.to_thread.current_default_thread_limiter().total_tokens = MOST_ROLLOUTS
        yield

    app = fastapi.FastAPI(title=task.name, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    lm = InferenceLM(task.meter)
    needs_key = [] if keys is None else [fastapi.Depends(_key_check(keys))]
    service = task.name.replace("_", "-")

    @app.exception_handler(UpstreamError)
    def upstream_failed(request: fastapi.Request, error: UpstreamError) -> JSONResponse:
        said = {"detail": {"error": {"code": "upstream_failed", "message": str(error)}}}
        return JSONResponse(said, status_code=error.status)

    @app.api_route("/", methods=["GET", "HEAD"])
    def alive() -> Json:
        return {"status": "ok", "service": service}

    @app.get("/health", dependencies=needs_key)
    def health() -> Json:
        return {"healthy": True, "auth": {"required": keys is not None, "expected_prefix": ""}}

    @app.get("/info", dependencies=needs_key)
    def info() -> Json:
        one = task_info(task, None)
        return {"service": {"task": one["task"], "version": task.bench.version}, "rubrics": None} | {
            name: one[name] for name in ("dataset", "inference", "limits")
        }

    @app.get("/task_info", dependencies=needs_key)
    def what(
        seed: Annotated[tuple[int, ...], fastapi.Query()] = (), seeds: Annotated[tuple[int, ...], fastapi.Query()] = ()
    ) -> Any:
        asked = [*seed, *seeds]
        if not asked:
            one = task_info(task, None)
            return {"taskset": one["task"] | {"splits": ["train"], "sizes": {"train": len(task.rows)}}}
        found = [task_info(task, number) for number in asked]
        return found[0] if len(found) == 1 else found

    @app.post("/rollout", dependencies=needs_key)
    def rollout(request: RolloutRequest) -> JSONResponse:
        return JSONResponse(run_rollout(task, lm, request))

    @app.post("/done", dependencies=needs_key)
    def done() -> Json:
        return {"ok": True, "service": service}

    return app


def run_rollout(task: Task, lm: InferenceLM, request: RolloutRequest) -> Json:
    """One run of the program on the row of the seed: an answer that cannot be parsed has reward 0, a call that was lost
    none (UpstreamError)."""
    if str(request.env.config.get("split", "train")) == "test":
        raise refusal(400, "split_not_served", "test rows are never served; leave env.config.split out, or say train")
    place = request.seed % len(task.rows)
    target = target_of(request.policy.config, task.model)
    adapter = make_adapter(target.model)
    core = task.core
    if template := request.policy.config.get("prompt_template"):
        try:
            core = with_prompts(core, read_prompt(template, stages_of(core, adapter)))
        except PromptError as error:
            raise refusal(422, "prompt_template", str(error)) from None
    example = as_example(task.rows[place], task.bench)
    used = Used()
    with dspy.context(lm=lm.copy(target=target, used=used), adapter=adapter):
        prediction = core(**example.inputs())
    reward = safe_metric(task.bench, example, prediction)
    details = {"failure": prediction.get("failure"), "seed": request.seed, "row": place}
    return rollout_response(request.trace_correlation_id, reward, used, details, target.url)


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


def target_of(config: Json, model: Model | None) -> Target:
    """Where a request's calls go; 422 without an inference_url, as no call may go anywhere else."""
    url = next((config[name] for name in ("inference_url", "api_base", "base_url") if config.get(name)), None)
    if not url:
        raise refusal(
            422, "missing_inference_url", "policy.config.inference_url says where the LM calls go; it is missing"
        )
    name = config.get("model")
    if model is None or (name and name not in (model.id, model.route.partition("/")[2], *model.aliases)):
        model = _model_of(name)
    tokens = config.get("max_completion_tokens") or config.get("max_tokens") or model.max_output_tokens
    limit = "max_completion_tokens" if config.get("max_completion_tokens") else "max_tokens"
    sampling = {limit: tokens} | {n: config[n] for n in ("temperature", "top_p") if config.get(n) is not None}
    key = config.get("api_key") or _synth_key_for(str(url))
    headers = {"X-API-Key": str(key), "Authorization": "Bearer none"} if key else {}
    return Target(chat_url(str(url)), model, headers, sampling)


def task_info(task: Task, seed: int | None) -> Json:
    """What the app says of itself, and of one seed."""
    bench, stages = task.bench, task.stages
    dataset = {
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


def refusal(status: int, code: str, message: str) -> fastapi.HTTPException:
    """An error in the form that backends read."""
    return fastapi.HTTPException(status, {"error": {"code": code, "message": message}})


def keys_of_environment() -> frozenset[str]:
    """The keys that open a task app here: ENVIRONMENT_API_KEY, its older names, and its aliases."""
    names = [*KEY_NAMES, *(name.lower() for name in KEY_NAMES)]
    own = next((os.environ[name] for name in names if os.environ.get(name)), "")
    aliases = os.environ.get("ENVIRONMENT_API_KEY_ALIASES", "").split(",")
    return frozenset(key.strip() for key in [own, *aliases] if key.strip())


@contextmanager
def serving(app: fastapi.FastAPI, port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve an app in a thread while the block runs; gives its address. port 0: any free one. Raises UsageError."""
    listener = listen(host, port)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=KEEP_SECONDS))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"  # whoever connects before it is up waits in the queue
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; UsageError, in one line, for a port that is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        raise UsageError(f"port {port} on {host} {reason}. Stop what uses it, or type --port {port + 1}.") from None
    return listener


def main(name: str, config: dict[str, Any], steps: int, argv: list[str] | None = None) -> int:
    """The command line of a named task app: a benchmark's entry and a number of steps; returns the exit code."""
    options = parse(argv)
    try:
        keys = keys_of_environment()
        if options.insecure_loopback and options.host not in ("127.0.0.1", "localhost", "::1"):
            raise UsageError(f"--insecure-loopback with --host {options.host}: without a key only loopback is served.")
        if not keys and not options.insecure_loopback:
            raise UsageError(
                "ENVIRONMENT_API_KEY is not set. Type: export ENVIRONMENT_API_KEY=..., or --insecure-loopback."
            )
        task = load_task(name, config, steps, options)
        app = create_app(task, None if options.insecure_loopback else keys)
        listener = listen(options.host, options.port)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    locked = "no key is asked" if options.insecure_loopback else "with ENVIRONMENT_API_KEY"
    print(f"{task.name} on http://{options.host}:{options.port}, {locked}: {len(task.rows)} rows, none of them test")
    print(f"stages: {', '.join(task.stages)}; stop with Ctrl-C", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=KEEP_SECONDS)
        uvicorn.Server(settings).run(sockets=[listener])
    return EXIT_OK


def load_task(name: str, config: dict[str, Any], steps: int, options: argparse.Namespace) -> Task:
    """The task that the runner's cell with these sizes and this run has: its program, and its train and select rows."""
    study = load_study("mipro-comparison")
    sizes = {
        n: getattr(options, n) for n in ("train_size", "val_size", "test_size", "rollout_budget") if getattr(options, n)
    }
    study = replace(study, **sizes)
    cell = Cell(
        benchmark=name, pipeline="chain", steps=steps, optimizer="synth_mipro", model="", optimizer_model="",
        run=options.run, seed=study.seed, train_size=study.train_size, val_size=study.val_size,
        test_size=study.test_size, rollout_budget=study.rollout_budget, data=options.data, labels=options.labels,
    )  # fmt: skip
    bench = load_benchmark(name, config, options.data, options.labels)
    cell, deal = fit_to_data(cell, bench, set(sizes))
    return Task(f"{name}_{steps}step", bench, make_core(cell, bench), deal.train + deal.select)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """A task app's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"default: {DEFAULT_PORT}")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    parser.add_argument("--insecure-loopback", action="store_true", help="ask for no key (loopback only)")
    parser.add_argument("--data", default="hub", metavar="hub|sample|DIR", help="as in run_scaling_experiment.py")
    parser.add_argument("--labels", type=int, metavar="N", help="only the first N classes")
    parser.add_argument("--run", type=int, default=0, metavar="N", help="whose deal of the rows (0)")
    for flag in ("--train-size", "--val-size", "--test-size", "--rollout-budget"):
        parser.add_argument(flag, type=int, metavar="N", help="default: that of --study mipro-comparison")
    return parser.parse_args(argv)


def _key_check(keys: frozenset[str]):
    """A dependency that lets a request pass if any of the three headers holds one of the keys."""

    async def check(request: fastapi.Request) -> None:
        if not keys:
            raise refusal(
                503, "missing_environment_api_key", "this task app has no key: ENVIRONMENT_API_KEY is not set"
            )
        said = [request.headers.get("x-api-key", ""), *request.headers.get("x-api-keys", "").split(",")]
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        said += [token] if scheme.lower() == "bearer" else []
        given = [one.strip().encode() for one in said if one.strip()]
        if not any(hmac.compare_digest(one, key.encode()) for one in given for key in keys):
            raise refusal(400, "unauthorised", "the key is missing or wrong (X-API-Key, X-API-Keys or Bearer)")

    return check


def _synth_key_for(url: str) -> str | None:
    """The user's Synth key, for Synth's own interceptor only: a request may name any other address."""
    host, backend = urlsplit(url).hostname or "", urlsplit(os.environ.get("SYNTH_BACKEND_URL", "")).hostname
    is_synths = host == backend or (url.startswith("https://") and host.endswith(".usesynth.ai"))
    return os.environ.get("SYNTH_API_KEY") if is_synths else None


def _model_of(name: Any) -> Model:
    """The registry's entry of a model as a backend names it, without its provider; a plain one for others."""
    for model in KNOWN_MODELS.values():
        if name in (model.id, model.route, model.route.partition("/")[2], *model.aliases):
            return model
    return Model(id=str(name or "unknown"), route=f"openai/{name or 'unknown'}")
