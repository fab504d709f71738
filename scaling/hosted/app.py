"""A benchmark as a web app: a hosted optimizer sends seeds, the app runs the program on these rows and scores it.

One FastAPI app for any benchmark and any program. Every LM call goes to the request's own `inference_url`, where the
optimizer puts its candidate in place of the baseline; a candidate that comes in `prompt_template` is honoured as well.
The app keeps nothing between requests, and has no test rows to serve. A program runs in a thread; its calls, and
everything else that the app answers, are the event loop's, so that no rollout that hangs holds up another request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import fastapi
import pydantic
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from scaling.hosted.guard import Guard
from scaling.hosted.inference import InferenceLM, UpstreamError, caller_left
from scaling.hosted.prompts import Json
from scaling.hosted.rollout import RolloutRequest, Task, run_rollout, task_info

MOST_ROLLOUTS = 256  # at a time, each in a thread of its own
Seeds = Annotated[tuple[int, ...], fastapi.Query()]


def create_app(task: Task, keys: frozenset[str] | None) -> fastapi.FastAPI:
    """The app of one task. keys: any of them opens it; none (an empty set) opens nothing; None asks for no key."""
    lm = InferenceLM(task.meter)

    @asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = MOST_ROLLOUTS
        yield
        await lm.clients.close()

    app = fastapi.FastAPI(title=task.name, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, keys=keys)
    app.add_exception_handler(UpstreamError, _upstream_failed)
    app.add_exception_handler(pydantic.ValidationError, _not_understood)
    app.include_router(_about(task, keys is not None))

    @app.post("/rollout")
    async def rollout(request: fastapi.Request) -> JSONResponse:
        asked = RolloutRequest.model_validate_json(await request.body())
        with anyio.CancelScope() as scope:
            watch = asyncio.create_task(_cancel_at_hangup(request, scope))
            try:
                done = await run_in_threadpool(run_rollout, task, lm, asked, lambda: not scope.cancel_called)
                return JSONResponse(done)
            finally:
                watch.cancel()
        raise caller_left()  # before a thread was free for it

    return app


async def _cancel_at_hangup(request: fastapi.Request, scope: anyio.CancelScope) -> None:
    """Cancel a rollout whose caller hangs up: it waits for a thread no longer, and its calls are cut off."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _about(task: Task, needs_key: bool) -> fastapi.APIRouter:
    """Everything but rollouts: what the app is and what it serves."""
    routes = fastapi.APIRouter()
    service = task.name.replace("_", "-")

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def alive() -> Json:
        return {"status": "ok", "service": service}

    @routes.get("/health")
    async def health() -> Json:
        return {"healthy": True, "auth": {"required": needs_key, "expected_prefix": ""}}

    @routes.get("/info")
    async def info() -> Json:
        facts = task_info(task, None)
        return {"service": {"task": facts["task"], "version": task.bench.version}, "rubrics": None} | {
            name: facts[name] for name in ("dataset", "inference", "limits")
        }

    @routes.get("/task_info")
    async def about_seeds(seed: Seeds = (), seeds: Seeds = ()) -> Any:
        asked = [*seed, *seeds]
        if not asked:
            facts = task_info(task, None)
            return {"taskset": facts["task"] | {"splits": ["train"], "sizes": {"train": len(task.rows)}}}
        infos = [task_info(task, number) for number in asked]
        return infos[0] if len(infos) == 1 else infos

    @routes.post("/done")
    async def done() -> Json:
        return {"ok": True, "service": service}

    return routes


def _upstream_failed(request: fastapi.Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, UpstreamError) else 502
    return JSONResponse({"detail": {"error": {"code": "upstream_failed", "message": str(error)}}}, status)


def _not_understood(request: fastapi.Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, and where; what stood there is not repeated, as it may be no JSON."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)  # type: ignore[attr-defined]
    return JSONResponse({"detail": wrong}, 422)
