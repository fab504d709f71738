"""One HTTP client a model for a whole sweep, without what DSPy works out anew for each call and nobody reads.

`dspy.LM` chooses its engine, plans the request, looks up the model's capabilities and estimates a price at every
call: more than half of its time. Here all of that happens once a model. Requests and answers are DSPy's own, byte
for byte, which a test holds. Models that only LiteLLM can reach have no such client, and go through `dspy.LM`.
"""

from __future__ import annotations

import base64
import threading
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies

import dspy
from dspy._vendor.lm15.transports import StdlibTransport, TransportRequest, TransportResponse
from dspy.clients import execution
from dspy.clients.backend_selection import select_backend
from dspy.clients.call_result import CallResult, usage_dict
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.clients.engines.lm15_engine import LM15Engine, timeouts_for
from dspy.clients.errors import error_boundary
from dspy.lm15 import RouterConfig, UnsupportedFeatureError

from scaling.models import Model


@dataclass(frozen=True)
class ModelClient:
    """What one model's calls share: the engine with its connections, and what the model can do."""

    engine: LM15Engine
    provider: str  # DSPy's name for the provider's API
    compat: Any  # how the provider spells OpenAI's fields
    capabilities: Capabilities

    def send(
        self, lm: dspy.LM, prompt: Any, messages: Any, kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]] | None:
        """(outputs as `dspy.LM` gives them, the provider's usage) of one request; None where only LiteLLM can send it.

        Raises DSPy's LMError for whatever goes wrong on the way, as `dspy.LM` does.
        """
        with error_boundary(lm.model):
            call = execution.prepare(lm, prompt, messages, kwargs)
            if call.n != 1:
                return None
            try:
                request = execution._canonical(call, compat=self.compat)
            except (UnsupportedFeatureError, TypeError, ValueError):
                return None
        with error_boundary(lm.model, provider=self.provider, unexpected=True):
            try:
                response = self.engine.complete(request)
            except UnsupportedFeatureError:
                if self._refuses(request):
                    return None  # nothing was sent
                raise
            result = CallResult.native(
                response, model_type=lm.model_type, logprobs=bool(call.legacy.get("logprobs")), provider=self.provider
            )
            return result.outputs, usage_dict(response, self.provider)

    def _refuses(self, request: Any) -> bool:
        try:
            self.engine.plan(request)
        except UnsupportedFeatureError:
            return True
        return False


class ModelClients:
    """The clients of a sweep by model, each made at its first call. Thread-safe."""

    def __init__(self) -> None:
        self._clients: dict[tuple[Any, ...], ModelClient | None] = {}
        self._lock = threading.Lock()

    def get(self, lm: dspy.LM, model: Model, timeout: float, connections: int) -> ModelClient | None:
        """The client of an LM's model; None where DSPy's native engine cannot reach it."""
        key = (model.route, model.api_base, lm.kwargs.get("api_key"), timeout)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = _make_client(lm, model, timeout, connections)
            return self._clients[key]


def _make_client(lm: dspy.LM, model: Model, timeout: float, connections: int) -> ModelClient | None:
    selection = select_backend(lm)
    if not selection.native or selection.resolution.declared:
        return None
    provider = selection.resolution.provider
    key = selection.clients.get("api_key")
    url, authorization = split_credentials(model.api_base)
    config = RouterConfig(
        api_keys={provider: key} if key else None,
        base_urls={provider: url} if url else None,
        transport=_transport(timeout, connections, authorization),
    )
    engine = LM15Engine(config, model_type=lm.model_type)
    return ModelClient(engine, provider, selection.resolution.compat, capabilities(lm))


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


def _transport(timeout: float, connections: int, authorization: str | None) -> StdlibTransport:
    """The connections of a client; an `authorization` replaces the header that the model's key would give."""
    limits = timeouts_for(timeout)
    return _Transport(
        authorization,
        connect_timeout=limits.connect,
        read_timeout=limits.read,
        write_timeout=limits.write,
        pool_timeout=limits.pool,
        max_connections=connections,
        trust_env=bool(getproxies()),  # else the environment would be searched for proxies at each request
    )


class _Transport(StdlibTransport):
    """DSPy's HTTP connections, with basic authentication where a URL asks for it."""

    def __init__(self, authorization: str | None, **settings: Any):
        super().__init__(**settings)
        self._authorization = authorization

    def stream(self, request: TransportRequest) -> TransportResponse:
        if self._authorization:
            others = [(name, value) for name, value in request.headers if name.lower() != "authorization"]
            request = replace(request, headers=[*others, ("Authorization", self._authorization)])
        return super().stream(request)
