"""A stand-in for Synth's backend: jobs, events, interceptor and online proxy, as far as their interface is known.

Candidates are the baseline and a fixed list of instructions for the last stage; their scores come from true rollouts
through the task app, and the best one is returned, so that a planted better instruction must win. Nothing in it is
Synth's own search: it shows that the way there and back works. By hand, on the embedded model as task model and
proposer: `python -m scaling.testing.synth_backend --port 8000`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import anyio.to_thread
import fastapi
import httpx
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from nacl.public import PrivateKey, SealedBox

from scaling.arguments import one_line_errors
from scaling.hosted.server import serving
from scaling.llm import local_server
from scaling.llm.weights import embedded_file
from scaling.testing.synth_job import FAULTS, FORMS, Job, Json, matches
from scaling.types import EXIT_OK

PREFIXES = ("policy-optimization", "prompt-learning")
ASK_FOR_ONE = (
    "Write one better instruction for a language model that does this task: {task}. Answer with the instruction only."
)


class SynthBackend:
    """The backend while the `with` block runs; `url` is its address.

    model_url: an OpenAI-compatible server that the interceptor forwards to. proposals: instructions for the last
    stage, or a function from a job to them. key: the one that opens it, None for any. form: how the best prompt is
    given. fault: what befalls, one of FAULTS. usage: whether answers say their tokens.
    """

    def __init__(
        self,
        model_url: str,
        proposals: list[str] | Callable[[Job], list[str]] | None = None,
        key: str | None = None,
        form: str = "messages",
        fault: str | None = None,
        port: int = 0,
        usage: bool = True,
    ):
        self.model_url, self.proposals, self.key = model_url, proposals or [], key
        self.form, self.fault = form, fault
        self.usage, self._port = usage, port
        self.jobs: dict[str, Job] = {}
        self.requests: list[tuple[str, str, Json | None]] = []
        self.forwarded: list[Json] = []
        self.app_keys: dict[str, str] = {}
        self.unmatched = 0
        self.submitted, self.idle = threading.Event(), threading.Event()  # idle: all rollouts made, not ended
        self._sealed = PrivateKey.generate()
        self._token = uuid.uuid4().hex
        self._http = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None), trust_env=False)
        self._stopping, self._stack, self._lock = threading.Event(), ExitStack(), threading.Lock()

    def __enter__(self) -> SynthBackend:
        self.url = self._stack.enter_context(serving(self.app(), self._port))
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for job in self.jobs.values():
            job.cancelled.set()
        self._stack.close()
        self._http.close()

    def app(self) -> fastapi.FastAPI:
        @contextlib.asynccontextmanager
        async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
            anyio.to_thread.current_default_thread_limiter().total_tokens = 200
            yield

        app = fastapi.FastAPI(lifespan=lifespan)
        locked = [fastapi.Depends(self._opens)]
        for prefix in PREFIXES:
            if self.fault != "no_policy_optimization" or prefix != "policy-optimization":
                app.include_router(self._jobs_routes(), prefix=f"/api/{prefix}/online", dependencies=locked)
                app.include_router(self._systems_routes(), prefix=f"/api/{prefix}/online", dependencies=locked)
        if self.fault != "no_key_upload":
            app.include_router(self._keys_routes(), prefix="/api/v1", dependencies=locked)
        app.include_router(self._calls_routes(), prefix="/api")
        return app

    def _opens(self, request: fastapi.Request) -> None:
        """Either header will do; the first request of all is too many with the fault 429."""
        with self._lock:
            self.requests.append((request.method, request.url.path, None))
            first = len(self.requests) == 1
        if self.fault == "429" and first:
            raise fastapi.HTTPException(429, "slow down", {"Retry-After": "0"})
        given = (request.headers.get("x-api-key"), request.headers.get("authorization", "").removeprefix("Bearer "))
        if self.fault == "401" or (self.key is not None and self.key not in given):
            raise fastapi.HTTPException(401, "invalid key")

    def _keys_routes(self) -> fastapi.APIRouter:
        routes = fastapi.APIRouter()

        @routes.get("/me")
        def me() -> Json:
            return {"user_id": "somebody"}

        @routes.get("/crypto/public-key")
        def public_key() -> Json:
            public = base64.b64encode(bytes(self._sealed.public_key)).decode()
            return {"public_key": public, "alg": "libsodium.sealedbox.v1"}

        @routes.post("/env-keys")
        def env_keys(body: Json) -> Json:
            self.app_keys[body["name"]] = (
                SealedBox(self._sealed).decrypt(base64.b64decode(body["ciphertext_b64"])).decode()
            )
            return {"id": "1", "name": body["name"], "updated_at": time.time()}

        return routes

    def _jobs_routes(self) -> fastapi.APIRouter:
        routes = fastapi.APIRouter(prefix="/jobs")

        @routes.post("", status_code=201)
        def submit(body: Json) -> Json:
            job = Job(body)
            self.jobs[job.id] = job
            self.submitted.set()
            job.proposals = self.proposals(job) if callable(self.proposals) else self.proposals
            for name in ["baseline", *(f"cand_{i}" for i in range(len(job.proposals)))]:
                job.rewards[name] = []
            run = self._run_online if job.mipro["mode"] == "online" else self._run_offline
            threading.Thread(target=run, args=(job,), daemon=True).start()
            if self.fault in ("hanging_submit", "hangs_and_never_ends"):
                self._stopping.wait(30)
            return {"job_id": job.id, "status": job.status}

        @routes.get("")
        def listed(limit: int = 100) -> list[Json]:
            if self.fault == "no_list":
                raise fastapi.HTTPException(404)
            return [{"job_id": job.id, "status": job.status} for job in list(self.jobs.values())[::-1]][:limit]

        @routes.get("/{job_id}")
        def poll(job_id: str) -> Any:
            if self.fault == "hanging_poll":
                self._stopping.wait(30)
            if self.fault == "no_json":
                return PlainTextResponse("<html>a gateway's page</html>")
            return self._state(self._job(job_id))

        @routes.get("/{job_id}/results")
        def results(job_id: str) -> Json:
            job = self._job(job_id)
            if self.form != "results":
                raise fastapi.HTTPException(404)
            return {
                "best_prompt": job.best_prompt(self.form, self.fault),
                "best_score": job.score(job.best()),
                "history": [],
            }

        @routes.get("/{job_id}/events")
        def events(job_id: str, since_seq: int = 0) -> Json:
            return {"events": [event for event in self._job(job_id).events if event["seq"] > since_seq]}

        @routes.get("/{job_id}/events/stream")
        def stream(job_id: str) -> StreamingResponse:
            lines = [f"data: {event}\n\n" for event in self._job(job_id).events]
            return StreamingResponse(iter([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")

        @routes.post("/{job_id}/cancel")
        def cancel(job_id: str) -> Json:
            job = self._job(job_id)
            job.cancelled.set()
            job.status = "cancelled"
            return {"job_id": job_id, "status": "succeeded", "message": "cancelled", "attempt_id": None}

        return routes

    def _systems_routes(self) -> fastapi.APIRouter:
        routes = fastapi.APIRouter(prefix="/mipro/systems/{system_id}")

        @routes.get("/state")
        def state(system_id: str) -> Json:
            job = self._job(system_id.removeprefix("sys_"))
            best = job.best()
            candidates = {
                name: {
                    "candidate_id": name,
                    "avg_reward": job.score(name),
                    "stage_payloads": {
                        stage["name"]: {"instruction_lines": text.split("\n")}
                        for stage, text in zip(job.stages, job.texts(name), strict=True)
                    },
                }
                for name in job.rewards
            }
            return {"best_candidate_id": best, "version": 1, "candidates": candidates}

        @routes.post("/status")
        def status(system_id: str, body: Json) -> Json:
            job = self._job(system_id.removeprefix("sys_"))
            with job.lock:
                name = body.get("candidate_id") or job.chosen[body["rollout_id"]]
                if body["status"] == "reward":
                    job.rewards[name].append(float(body["reward"]))
            return {"candidate_id": name}

        return routes

    def _calls_routes(self) -> fastapi.APIRouter:
        """The interceptor (offline) and the proxy (online): the task app's own LM calls come here."""
        routes = fastapi.APIRouter()

        @routes.post("/interceptor/v1/{trial_id}/{correlation_id}/chat/completions")
        def intercept(trial_id: str, correlation_id: str, body: Json, request: fastapi.Request) -> JSONResponse:
            job_id, _, name = trial_id.partition("-")
            wanted = self.key if self.fault == "no_interceptor_key" else self._token
            if request.headers.get("x-api-key") != wanted:
                raise fastapi.HTTPException(401, "the interceptor's token is missing")
            return self._forward(self._job(job_id), name, body)

        @routes.post("/mipro/v1/{system_id}/{rollout_id}/chat/completions")
        def proxy(system_id: str, rollout_id: str, body: Json) -> JSONResponse:
            job = self._job(system_id.removeprefix("sys_"))
            with job.lock:
                names = list(job.rewards)
                each = job.mipro["online_rollouts_per_candidate"]
                name = job.chosen.setdefault(rollout_id, names[len(job.chosen) // each % len(names)])
            answer = self._forward(job, name, body)
            answer.headers["x-mipro-candidate-id"] = name
            return answer

        return routes

    def _forward(self, job: Job, name: str, body: Json) -> JSONResponse:
        """The same call with the candidate's text in the baseline's place; 400 where the messages are others."""
        if self.fault == "rollouts_fail":
            return JSONResponse({"error": {"message": "scripted"}}, status_code=500)
        system, user = body["messages"][0], body["messages"][-1]
        for stage, text in zip(job.stages, job.texts(name), strict=True):
            if system["content"] == stage["system"] and matches(stage["user"], user["content"]):
                content = stage["system"].replace(stage["instruction"], text)
                body = body | {"messages": [system | {"content": content}, *body["messages"][1:]]}
                break
        else:
            self.unmatched += 1
            raise fastapi.HTTPException(400, "the messages are not those of initial_prompt")
        self.forwarded.append(body)
        response = self._http.post(f"{self.model_url}/chat/completions", json=body)
        answer = response.json()
        if not self.usage:
            answer.pop("usage", None)
        return JSONResponse(answer, status_code=response.status_code)

    def _run_offline(self, job: Job) -> None:
        """Bootstrap seeds under the baseline, then each candidate on the val seeds, within the job's rollouts."""
        job.status = "running"
        job.add_event("job.started", max_rollouts=job.learning["termination_config"]["max_rollouts"])
        try:
            if self.fault == "repeats_keys":
                raise RuntimeError(f"the keys are {self.key} and {self.app_keys}")
            if self.fault == "job_fails":
                raise RuntimeError("the optimizer broke down")
            self._pass(job, "baseline", job.mipro["bootstrap_train_seeds"])
            for name in job.rewards:
                job.rewards[name] = self._pass(job, name, job.mipro["val_seeds"])
                job.add_event("candidate.evaluated", candidate_id=name, minibatch_score=job.score(name))
            self.idle.set()
            while self.fault in ("never_ends", "hangs_and_never_ends") and not job.cancelled.wait(1.0):
                pass
        except Exception as error:
            job.status, job.error = "cancelled" if job.cancelled.is_set() else "failed", str(error)
            job.add_event("job.failed", error=str(error))
            return
        if not job.cancelled.is_set():
            job.status = "succeeded"
            job.add_event("job.completed", best_score=job.score(job.best()))

    def _run_online(self, job: Job) -> None:
        job.status = "running"

    def _pass(self, job: Job, name: str, seeds: list[int]) -> list[float]:
        left = job.learning["termination_config"]["max_rollouts"] - job.rollouts
        seeds = seeds[: max(0, left)]
        job.rollouts += len(seeds)
        with ThreadPoolExecutor(max(1, min(job.mipro["max_concurrent"], 16))) as pool:
            return list(pool.map(lambda seed: self._rollout(job, name, seed), seeds))

    def _rollout(self, job: Job, name: str, seed: int) -> float:
        if job.cancelled.is_set():
            raise RuntimeError("cancelled")
        trace, policy = f"trace_{uuid.uuid4().hex[:8]}", job.learning["policy"]
        config = {n: policy[n] for n in ("model", "provider", "temperature", "max_completion_tokens")}
        config["inference_url"] = f"{self.url}/api/interceptor/v1/{job.id}-{name}/{trace}"
        if self.fault != "no_interceptor_key":
            config["api_key"] = self._token
        body = {"trace_correlation_id": trace, "policy": {"config": config}}
        body |= {"env": {"env_name": job.learning["env_name"], "seed": seed, "config": job.learning["env_config"]}}
        key = job.learning.get("task_app_api_key") or self.app_keys.get("ENVIRONMENT_API_KEY", "")
        try:
            response = self._http.post(f"{job.learning['task_app_url']}/rollout", json=body, headers={"X-API-Key": key})
        except httpx.HTTPError as error:
            raise RuntimeError(f"the task app cannot be reached ({type(error).__name__})") from None
        if response.status_code != 200:
            raise RuntimeError(f"a rollout failed with {response.status_code}: {response.text[:100]}")
        return float(response.json()["reward_info"]["outcome_reward"])

    def _state(self, job: Job) -> Json:
        best = job.best()
        state: Json = {
            "job_id": job.id,
            "status": job.status,
            "algorithm": "mipro",
            "error": job.error,
            "best_score": job.score(best),
            "best_prompt": None,
            "metadata": {"mipro_system_id": job.system_id},
            "job_metadata": {"request_metadata": job.metadata},
        }
        if job.mipro["mode"] == "online":
            state["metadata"]["mipro_proxy_url"] = f"{self.url}/api/mipro/v1/{job.system_id}"
        if job.status != "succeeded" or self.fault == "no_prompt":
            return state | ({"metadata": {}} if self.fault == "no_prompt" else {})
        if self.form == "best_candidate":
            payloads = {s["name"]: {"instruction_text": t} for s, t in zip(job.stages, job.texts(best), strict=True)}
            return state | {"best_candidate": {"candidate_id": best, "stage_payloads": payloads}}
        if self.form not in ("results", "state"):
            state["best_prompt"] = job.best_prompt(self.form, self.fault)
        return state

    def _job(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise fastapi.HTTPException(404, "no such job")
        return self.jobs[job_id]


def asked_of(model_url: str, count: int) -> Callable[[Job], list[str]]:
    """Proposals that the model itself writes."""

    def propose(job: Job) -> list[str]:
        question = {"role": "user", "content": ASK_FOR_ONE.format(task=job.stages[-1]["instruction"])}
        asked = [
            httpx.post(f"{model_url}/chat/completions", timeout=120, trust_env=False, json={
                "model": job.mipro["proposer"]["model"], "messages": [question], "temperature": 1.0,
                "max_tokens": job.mipro["proposer"]["max_tokens"], "seed": number,
            })
            for number in range(count)
        ]  # fmt: skip
        texts = [answer.json()["choices"][0]["message"]["content"].strip() for answer in asked]
        return [text for text in texts if text]

    return propose


@contextlib.contextmanager
def model_at(url: str | None) -> Iterator[str]:
    """The given server's address, or that of the embedded model, served while the block runs."""
    if url:
        yield url
    else:
        with local_server.serve(embedded_file()) as address:
            yield address


@one_line_errors
def main() -> int:
    parser = argparse.ArgumentParser(description="A stand-in for Synth's backend.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model-url", metavar="URL", help="default: the embedded model")
    parser.add_argument("--key", help="the SYNTH_API_KEY that it takes (default: any)")
    parser.add_argument("--proposals", nargs="+", metavar="TEXT", help="default: two that the model writes")
    parser.add_argument("--form", choices=FORMS, default="messages")
    parser.add_argument("--fault", choices=FAULTS)
    options = parser.parse_args()
    with model_at(options.model_url) as url:
        proposals = options.proposals or asked_of(url, 2)
        with SynthBackend(url, proposals, options.key, options.form, options.fault, options.port) as backend:
            print(f"a Synth backend for trying out, on {backend.url}; stop with Ctrl-C", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
