"""LM calls of a rollout: each goes to the request's own `inference_url`, and is counted.

They do not go through the gateway, and cannot. The optimizer's server puts a candidate in the place of the baseline, so
the same request has another answer each time: a cache or a joined call would give one candidate's answer to another.
That server also retries, limits how many rollouts run at a time, and bills the calls; the cap holds the whole job's
highest cost instead (`optimizer`).
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import dspy
import httpx
import pydantic
from anyio import from_thread

from scaling.hosted.prompts import Json
from scaling.llm.errors import FREE_STATUSES
from scaling.llm.meter import Meter
from scaling.llm.network import is_loopback
from scaling.llm.transport import ANSWER_LIMIT
from scaling.llm.usage import UNKNOWN, TokenCounts, read_usage
from scaling.models import Model
from scaling.records.record import CallRecord
from scaling.types import digest

CALL_SECONDS = 120.0
MOST_TOKENS = 10**7  # of a prompt or an answer of a model whose context is not known


class UpstreamError(Exception):
    """The `inference_url` gave no answer; `status` is what the app then answers with.

    is_free: it refused the call, or was never reached, so that nothing can have been billed.
    """

    def __init__(self, status: int, message: str, is_free: bool = False):
        super().__init__(message)
        self.status, self.is_free = status, is_free


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


@dataclass(frozen=True)
class Rollout:
    """One rollout's calls: where they go, whether anybody still waits for it, and what they have used so far."""

    target: Target
    wanted: Callable[[], bool]
    used: Used = field(default_factory=Used)


_NO_ROLLOUT = Rollout(Target("", Model(id="", route=""), {}, {}), lambda: False)


def caller_left(is_free: bool = False) -> UpstreamError:
    """The error of a call whose rollout nobody waits for; is_free: it has not been sent."""
    return UpstreamError(499, "the caller of the rollout has hung up", is_free)


class Clients:
    """The HTTP clients of an app, on its event loop: each serves one call at a time.

    A client that serves 64 calls looks at all of their connections at each of them, which takes ten times as long.
    """

    def __init__(self) -> None:
        self._tls = ssl.create_default_context()
        self._free: dict[bool, list[httpx.AsyncClient]] = {True: [], False: []}  # by whether they avoid proxies

    @contextmanager
    def client(self, url: str) -> Iterator[httpx.AsyncClient]:
        """A client for one call of an address. Raises UpstreamError where the environment's proxy cannot be used."""
        direct = is_loopback(url)
        free = self._free[direct]
        http = free.pop() if free else self._new(direct)
        try:
            yield http
        finally:
            free.append(http)

    def _new(self, direct: bool) -> httpx.AsyncClient:
        headers = {"Accept-Encoding": "identity"}  # not compressed, so that what is read is as large as it says
        try:
            return httpx.AsyncClient(timeout=None, verify=self._tls, headers=headers, trust_env=not direct)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise UpstreamError(502, f"the proxy of the task app's environment cannot be used ({error})") from None

    async def close(self) -> None:
        for http in [*self._free[True], *self._free[False]]:
            await http.aclose()


class InferenceLM(dspy.LM):
    """An LM at a request's `inference_url`: one request a call, no cache, no retry: the optimizer's server has both.

    `lm.copy(rollout=...)` gives the LM of one rollout.
    """

    def __init__(self, meter: Meter | None):
        super().__init__("openai/task-app", cache=False, num_retries=0)
        self.clients = Clients()
        self.meter, self.role, self.phase = meter, "task", "optimize"
        self.rollout: Rollout = _NO_ROLLOUT

    @property
    def supports_response_schema(self) -> bool:
        return self.rollout.target.model.adapter == "json"

    @property
    def supported_params(self) -> set[str]:
        return {"response_format"} if self.supports_response_schema else set()

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> list[str]:
        started = time.monotonic()
        try:
            answer, headers = self._post(self._body(messages, kwargs.get("response_format")))
            content = _content_of(answer)
        except UpstreamError as error:
            self._note(UNKNOWN, time.monotonic() - started, error)
            raise
        used = self.rollout.used
        used.candidate_id = headers.get("x-mipro-candidate-id") or used.candidate_id
        self._note(self._counts(answer, content), time.monotonic() - started, None)
        return [content]

    def _body(self, messages: Any, form: Any) -> Json:
        target = self.rollout.target
        body = {"model": target.model.route.partition("/")[2] or target.model.route, "messages": messages}
        body |= target.sampling
        if isinstance(form, type) and issubclass(form, pydantic.BaseModel):
            schema = {"name": form.__name__, "schema": form.model_json_schema()}
            form = {"type": "json_schema", "json_schema": schema}
        if form:
            body["response_format"] = form
        if target.model.sends_seed:
            body["seed"] = int(digest([target.url, messages])[:7], 16)
        return body

    def _post(self, body: Json) -> tuple[Json, httpx.Headers]:
        """The answer and its headers. The event loop sends, so that a call ends when its rollout is cancelled."""
        try:
            content, headers = from_thread.run(self._send, body)
        except CancelledError:
            raise caller_left() from None
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise UpstreamError(502, "the inference_url answered no JSON object")
        return answer, headers

    async def _send(self, body: Json) -> tuple[bytes, httpx.Headers]:
        target = self.rollout.target
        if not self.rollout.wanted():
            raise caller_left(is_free=True)
        try:
            with self.clients.client(target.url) as http, anyio.fail_after(CALL_SECONDS):
                async with http.stream("POST", target.url, json=body, headers=target.headers) as response:
                    if not 200 <= response.status_code < 300:
                        status = response.status_code if 400 <= response.status_code < 600 else 502
                        is_free = response.status_code in FREE_STATUSES
                        raise UpstreamError(status, f"the inference_url answered {response.status_code}", is_free)
                    return await _read(response), response.headers
        except TimeoutError:
            raise UpstreamError(502, f"the inference_url did not answer within {CALL_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            is_free = isinstance(error, httpx.ConnectError | httpx.UnsupportedProtocol)
            raise UpstreamError(502, f"the inference_url cannot be reached ({type(error).__name__})", is_free) from None

    def _counts(self, answer: Json, content: str) -> TokenCounts:
        usage = answer.get("usage")
        most = self.rollout.target.model.context_length or MOST_TOKENS
        return read_usage(usage if isinstance(usage, dict) else {}, most, bool(content))

    def _note(self, counts: TokenCounts, seconds: float, error: UpstreamError | None) -> None:
        """Count the call for the rollout, and in the meter of the cell where there is one."""
        rollout = self.rollout
        if error is None:
            rollout.used.calls += 1
            rollout.used.prompt_tokens = _sum(rollout.used.prompt_tokens, counts.prompt)
            rollout.used.completion_tokens = _sum(rollout.used.completion_tokens, counts.completion)
        if self.meter is not None:
            cost = 0.0 if error is not None and error.is_free else None
            if counts.prompt is not None and counts.completion is not None:
                cost = rollout.target.model.cost(
                    counts.prompt, counts.completion, counts.cached or 0, counts.reasoning or 0, counts.written or 0
                )
            call = CallRecord(
                phase=self.phase,
                role=self.role,
                prompt_tokens=counts.prompt,
                completion_tokens=counts.completion,
                cached_tokens=counts.cached,
                cache_write_tokens=counts.written,
                reasoning_tokens=counts.reasoning,
                list_cost_usd=cost,
                latency_seconds=seconds,
                attempts=1,
                error=None if error is None else str(error),
            )
            self.meter.add_call(call)


def chat_url(url: str) -> str:
    """The chat-completions address of an inference_url: the path is completed, the query string stays behind it.

    Raises ValueError for what is not an address.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path.endswith("/v1") or "/v1/" in path else "/v1/chat/completions"
    return urlunsplit(parts._replace(path=path))


async def _read(response: httpx.Response) -> bytes:
    """An answer's content, up to ANSWER_LIMIT bytes."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UpstreamError(502, "the inference_url answered compressed, which it was not asked for")
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > ANSWER_LIMIT:
            raise UpstreamError(502, f"the inference_url answered more than {ANSWER_LIMIT} bytes")
    return bytes(content)


def _content_of(answer: Json) -> str:
    """The text of the answer's message; "" where it is null. Raises UpstreamError where it is none."""
    try:
        content = answer["choices"][0]["message"].get("content")
        text = "" if content is None else content
        text.encode()  # half a character has no place in a file or an answer
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeError):
        raise UpstreamError(502, "the inference_url answered without a message") from None
    if not isinstance(text, str):
        raise UpstreamError(502, "the inference_url answered without a message")
    return text


def _sum(total: int | None, count: int | None) -> int | None:
    return None if total is None or count is None else total + count
