"""A benchmark as a web app: a hosted optimizer sends seeds, the app runs the program on these rows and scores it.

One FastAPI app for any benchmark and any program. Every LM call goes to the request's own `inference_url`, where the
optimizer puts its candidate in place of the baseline; a candidate that comes in `prompt_template` is honoured as well.
The app keeps nothing between requests, and has no test rows to serve.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import fastapi
import pydantic
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from scaling.hosted.guard import Guard
from scaling.hosted.inference import InferenceLM, UpstreamError
from scaling.hosted.prompts import Json
from scaling.hosted.rollout import RolloutRequest, Task, run_rollout, task_info

MOST_ROLLOUTS = 256  # at a time, each in a thread of its own
Seeds = Annotated[tuple[int, ...], fastapi.Query()]


def create_app(task: Task, keys: frozenset[str] | None) -> fastapi.FastAPI:
    """The app of one task. keys: any of them opens it; none (an empty set) opens nothing; None asks for no key."""
    app = fastapi.FastAPI(title=task.name, lifespan=_many_threads, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, keys=keys)
    app.add_exception_handler(UpstreamError, _upstream_failed)
    app.add_exception_handler(pydantic.ValidationError, _not_understood)
    app.include_router(_about(task, keys is not None))
    lm = InferenceLM(task.meter)

    @app.post("/rollout")
    async def rollout(request: fastapi.Request) -> JSONResponse:
        asked = RolloutRequest.model_validate_json(await request.body())
        return JSONResponse(await run_in_threadpool(run_rollout, task, lm, asked))

    return app


def _about(task: Task, needs_key: bool) -> fastapi.APIRouter:
    """Everything but rollouts: what the app is and what it serves."""
    routes = fastapi.APIRouter()
    service = task.name.replace("_", "-")

    @routes.api_route("/", methods=["GET", "HEAD"])
    def alive() -> Json:
        return {"status": "ok", "service": service}

    @routes.get("/health")
    def health() -> Json:
        return {"healthy": True, "auth": {"required": needs_key, "expected_prefix": ""}}

    @routes.get("/info")
    def info() -> Json:
        facts = task_info(task, None)
        return {"service": {"task": facts["task"], "version": task.bench.version}, "rubrics": None} | {
            name: facts[name] for name in ("dataset", "inference", "limits")
        }

    @routes.get("/task_info")
    def about_seeds(seed: Seeds = (), seeds: Seeds = ()) -> Any:
        asked = [*seed, *seeds]
        if not asked:
            facts = task_info(task, None)
            return {"taskset": facts["task"] | {"splits": ["train"], "sizes": {"train": len(task.rows)}}}
        infos = [task_info(task, number) for number in asked]
        return infos[0] if len(infos) == 1 else infos

    @routes.post("/done")
    def done() -> Json:
        return {"ok": True, "service": service}

    return routes


@asynccontextmanager
async def _many_threads(app: fastapi.FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = MOST_ROLLOUTS
    yield


def _upstream_failed(request: fastapi.Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, UpstreamError) else 502
    return JSONResponse({"detail": {"error": {"code": "upstream_failed", "message": str(error)}}}, status)


def _not_understood(request: fastapi.Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, and where; what stood there is not repeated, as it may be no JSON."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)  # type: ignore[attr-defined]
    return JSONResponse({"detail": wrong}, 422)
