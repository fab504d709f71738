"""LM calls of a rollout: each goes to the request's own `inference_url`, and is counted."""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import dspy
import httpx
import pydantic

from scaling.hosted.prompts import Json
from scaling.llm.gateway import Meter
from scaling.models import Model
from scaling.types import digest

CALL_SECONDS = 120.0


class UpstreamError(Exception):
    """The `inference_url` gave no answer; `status` is what the app then answers with."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Target:
    """Where and how the calls of one rollout are sent."""

    url: str
    model: Model
    headers: dict[str, str]
    sampling: Json


@dataclass
class Used:
    """What the calls of one rollout said of themselves; tokens None once a call did not say."""

    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    candidate_id: str | None = None


class Clients(threading.local):
    """An HTTP client for each thread: 64 of them would wait for the lock of a shared one's connections."""

    def __init__(self, tls: ssl.SSLContext):
        self.http = httpx.Client(timeout=CALL_SECONDS, verify=tls)


class InferenceLM(dspy.LM):
    """An LM at a request's `inference_url`: one request a call, no cache, no retry: the optimizer's server has both."""

    def __init__(self, meter: Meter | None):
        super().__init__("openai/task-app", cache=False, num_retries=0)
        self.clients = Clients(ssl.create_default_context())
        self.meter, self.role, self.phase = meter, "task", "optimize"
        self.target: Target | None = None
        self.used: Used | None = None

    @property
    def supports_response_schema(self) -> bool:
        return self.target.model.adapter == "json"

    @property
    def supported_params(self) -> set[str]:
        return {"response_format"} if self.supports_response_schema else set()

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> list[str]:
        body = {"model": self.target.model.route.partition("/")[2] or self.target.model.route, "messages": messages}
        body |= self.target.sampling
        form = kwargs.get("response_format")
        if isinstance(form, type) and issubclass(form, pydantic.BaseModel):
            schema = {"name": form.__name__, "schema": form.model_json_schema()}
            form = {"type": "json_schema", "json_schema": schema}
        if form:
            body["response_format"] = form
        if self.target.model.sends_seed:
            body["seed"] = int(digest([self.target.url, messages])[:7], 16)
        started = time.monotonic()
        try:
            answer, headers = self._post(body)
        except UpstreamError as error:
            self._note({}, time.monotonic() - started, str(error))
            raise
        self.used.candidate_id = headers.get("x-mipro-candidate-id") or self.used.candidate_id
        self._note(answer.get("usage") or {}, time.monotonic() - started, None)
        return [_content_of(answer)]

    def _post(self, body: Json) -> tuple[Json, Any]:
        try:
            response = self.clients.http.post(self.target.url, json=body, headers=self.target.headers)
        except httpx.HTTPError as error:
            raise UpstreamError(502, f"the inference_url cannot be reached ({type(error).__name__})") from None
        if response.status_code >= 400:
            raise UpstreamError(response.status_code, f"the inference_url answered {response.status_code}")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UpstreamError(502, "the inference_url answered no JSON object")
        return answer, response.headers

    def _note(self, usage: Json, seconds: float, error: str | None) -> None:
        """Count the call for the rollout, and in the meter of the cell where there is one."""
        tokens = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        known = None not in tokens.values()
        if error is None:
            self.used.calls += 1
            for name, count in tokens.items():
                total = getattr(self.used, name)
                setattr(self.used, name, None if None in (total, count) else total + count)
        if self.meter is not None:
            cost = self.target.model.cost(*tokens.values()) if known else None
            self.meter.add_call(
                {"phase": self.phase, "role": self.role}
                | tokens
                | {"list_cost_usd": cost if error is None else 0.0, "billed_cost_usd": None}
                | {"latency_seconds": seconds, "attempts": 1, "cache_hit": False, "error": error}
            )


def chat_url(url: str) -> str:
    """The chat-completions address of an inference_url: the path is completed, the query string stays behind it."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path.endswith("/v1") or "/v1/" in path else "/v1/chat/completions"
    return urlunsplit(parts._replace(path=path))


def _content_of(answer: Json) -> str:
    try:
        return answer["choices"][0]["message"].get("content") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UpstreamError(502, "the inference_url answered without a message") from None
