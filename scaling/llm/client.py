"""One HTTP client a model for a whole sweep, without what DSPy works out anew for each call and nobody reads.

`dspy.LM` chooses its engine, plans the request, looks up the model's capabilities and estimates a price at every
call: more than half of its time. Here all of that happens once a model. Requests and answers are DSPy's own, byte
for byte, which a test holds. Models that only LiteLLM can reach have no such client, and go through `dspy.LM`.
"""

from __future__ import annotations

import base64
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies

import dspy
from dspy._vendor.lm15.compat import OPENAI_CHAT_PRESET_BASE_URLS as DEFAULT_URLS
from dspy.clients import execution
from dspy.clients.backend_selection import select_backend
from dspy.clients.call_result import CallResult
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.clients.engines.lm15_engine import LM15Engine, timeouts_for
from dspy.clients.errors import error_boundary
from dspy.lm15 import RouterConfig, UnknownModelError, UnsupportedFeatureError
from dspy.utils import exceptions as lm_errors

from scaling.llm.errors import first_values
from scaling.llm.frames import Frames
from scaling.llm.network import is_loopback
from scaling.llm.prompt_cache import PromptCache
from scaling.llm.transport import ModelTransport
from scaling.models import Model

T = TypeVar("T")
# Where a provider's reply has its answer, in the APIs that DSPy speaks. A list of choices is never empty.
ANSWER_FIELDS = ("content", "output", "candidates")


class Reply(NamedTuple):
    """What came back: outputs as `dspy.LM` gives them, the provider's usage, and its headers about limits."""

    outputs: list[Any]
    usage: dict[str, Any]
    rate_limits: dict[str, str] = {}


@dataclass(frozen=True)
class ModelClient:
    """What one model's calls share: the engine with its connections, and what the model can do."""

    engine: LM15Engine
    transport: ModelTransport
    provider: str  # DSPy's name for the provider's API
    compat: Any  # how the provider spells OpenAI's fields
    capabilities: Capabilities
    prompt_cache: PromptCache | None  # None: the provider caches by itself, or not at all
    _reached: dict[str, tuple[Any, str]] = field(default_factory=dict)  # model -> DSPy's client, and the name there
    _frames: Frames = field(default_factory=Frames)

    def send(self, lm: dspy.LM, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> Reply | None:
        """The reply to one request; None where only LiteLLM can send it.

        Raises DSPy's LMError for whatever goes wrong on the way, as `dspy.LM` does.
        """
        with self._marking(messages) as marks:
            return self._send(lm, prompt, messages, kwargs | marks)

    def _marking(self, messages: Any) -> AbstractContextManager[dict[str, Any]]:
        """What marks the beginning of a prompt for the provider's cache; nothing where it caches by itself."""
        return nullcontext({}) if self.prompt_cache is None else self.prompt_cache.marking(messages)

    def _send(self, lm: dspy.LM, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> Reply | None:
        frame = self._frames.find(lm, messages, kwargs)
        if frame is not None:
            with error_boundary(lm.model, provider=self.provider, unexpected=True):
                return self._reply(lm, self._frames.complete(frame, messages), frame.logprobs)
        with error_boundary(lm.model):
            call = execution.prepare(lm, prompt, messages, kwargs)
            try:
                request = execution._canonical(call, compat=self.compat)
            except (UnsupportedFeatureError, TypeError, ValueError):
                return None
        with error_boundary(lm.model, provider=self.provider, unexpected=True):
            try:
                response = self._complete(request)
            except UnsupportedFeatureError:
                if self._refuses(request):
                    return None  # nothing was sent
                raise
            self._frames.keep(lm, messages, kwargs, *self._target(request))
            return self._reply(lm, response, bool(call.legacy.get("logprobs")))

    def _reply(self, lm: dspy.LM, response: Any, logprobs: bool) -> Reply:
        result = CallResult.native(response, model_type=lm.model_type, logprobs=logprobs, provider=self.provider)
        _check_answer(result.outputs, response)
        return Reply(result.outputs, result.usage, first_values(self.transport.rate_limits))

    def _complete(self, request: Any) -> Any:
        """As the engine does it, which works out at each call where the model is reached."""
        provider, routed = self._target(request)
        return provider.complete(routed)

    def _target(self, request: Any) -> tuple[Any, Any]:
        """DSPy's client of the model, and the request with the model's name there."""
        if request.model not in self._reached:
            provider, routed = self.engine._target(request)
            self._reached[request.model] = provider, routed.model
        provider, name = self._reached[request.model]
        return provider, replace(request, model=name)

    def _refuses(self, request: Any) -> bool:
        try:
            self.engine.plan(request)
        except UnsupportedFeatureError:
            return True
        return False


def _check_answer(outputs: list[Any], response: Any) -> None:
    """Raise LMProviderError for a reply that is JSON and no answer: it would be taken for an empty one."""
    reply = response.provider_data
    if any(outputs) or not isinstance(reply, dict) or reply.get("choices"):
        return
    if not any(name in reply for name in ANSWER_FIELDS):
        raise lm_errors.LMProviderError(f"the reply holds no answer: {str(reply)[:200]}", status=200)


class ModelClients:
    """The clients of a sweep by model, each made at its first call. Thread-safe. transport: makes their connections."""

    def __init__(self, transport: Callable[..., ModelTransport] = ModelTransport) -> None:
        self._transport = transport
        self._clients: dict[tuple[Any, ...], ModelClient | None] = {}
        self._by_others: set[Future[Any]] = set()  # requests that LiteLLM has under way
        self._lock = threading.Lock()

    def get(self, lm: dspy.LM, model: Model, timeout: float, connections: int) -> ModelClient | None:
        """The client of an LM's model; None where DSPy's native engine cannot reach it."""
        key = (model.route, model.api_base, lm.kwargs.get("api_key"), timeout)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = _make_client(lm, model, timeout, connections, self._transport)
            return self._clients[key]

    def within(self, seconds: float, send: Callable[[], T]) -> T:
        """What `send` gives, for requests that others make and that keep no deadline.

        Raises LMTimeoutError when it takes longer, and LMTransportError when it is cut. Its thread is then left alone.
        """
        outcome: Future[T] = Future()
        context = contextvars.copy_context()

        def run() -> None:
            with suppress(InvalidStateError):  # it was cut
                try:
                    outcome.set_result(context.run(send))
                except BaseException as error:
                    outcome.set_exception(error)

        with self._lock:
            self._by_others.add(outcome)
        try:
            threading.Thread(target=run, daemon=True).start()
            return outcome.result(seconds)
        except TimeoutError:
            if outcome.done():
                raise
            raise lm_errors.LMTimeoutError(f"no whole answer within {seconds:g} seconds (--timeout)") from None
        finally:
            with self._lock:
                self._by_others.discard(outcome)

    def cut(self) -> None:
        """End every request that is under way: whoever waits for one gets an error at once."""
        with self._lock:
            clients, others = list(self._clients.values()), list(self._by_others)
        for client in clients:
            if client is not None:
                client.transport.cut()
        for outcome in others:
            with suppress(InvalidStateError):
                outcome.set_exception(lm_errors.LMTransportError("the sweep has ended"))


def _make_client(
    lm: dspy.LM, model: Model, timeout: float, connections: int, transport: Callable[..., ModelTransport]
) -> ModelClient | None:
    lm = _with_own_address(lm, model)
    selection = select_backend(lm)
    if not selection.native or selection.resolution.declared:
        return None
    provider = selection.resolution.provider
    key = selection.clients.get("api_key")
    url, authorization = split_credentials(model.api_base)
    settings = _connection_settings(url or DEFAULT_URLS.get(provider, ""), timeout, connections)
    connection = transport(timeout, authorization, **settings)
    config = RouterConfig(
        api_keys={provider: key} if key else None, base_urls={provider: url} if url else None, transport=connection
    )
    engine = LM15Engine(config, model_type=lm.model_type)
    compat = selection.resolution.compat
    # Of the APIs that DSPy speaks, Anthropic's caches what is marked. What is only written down is not marked.
    prompt_cache = PromptCache() if provider == "anthropic" and transport is ModelTransport else None
    return ModelClient(engine, connection, provider, compat, capabilities(lm), prompt_cache)


def _with_own_address(lm: dspy.LM, model: Model) -> dspy.LM:
    """The LM for DSPy's native engine where that can reach its address.

    DSPy leaves models to LiteLLM for which the environment names an address. Here it is the model's own already.
    """
    if model.api_base and not select_backend(lm).native:
        with suppress(UnknownModelError, UnsupportedFeatureError):
            native = lm.copy(engine="lm15")
            select_backend(native)
            return native
    return lm


def split_credentials(url: str | None) -> tuple[str | None, str | None]:
    """A URL without its `user:password@`, and the Authorization header that says the same; None where there is none.

    As in RFC 7617: the two are decoded from their percent form, joined by a colon, and sent in base64.
    """
    if url is None or "@" not in urlsplit(url).netloc:
        return url, None
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), f"Basic {token}"


def _connection_settings(url: str, timeout: float, connections: int) -> dict[str, Any]:
    """Of a client's connections to `url`."""
    limits = timeouts_for(timeout)
    return {
        "connect_timeout": limits.connect,
        "pool_timeout": limits.pool,
        "max_connections": connections,
        # Loopback has no proxy. Without one, the environment would be searched for proxies at each request.
        "trust_env": bool(getproxies()) and not is_loopback(url),
    }
