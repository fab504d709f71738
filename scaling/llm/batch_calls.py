"""Calls that are asked in a batch: written down in place of being sent, and answered as if they had been sent.

The request is the one that the live call would send, byte for byte, and its answer is read by the same code.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dspy._vendor.lm15.transports import TransportRequest, TransportResponse
from msgspec.structs import replace

from scaling.llm.client import ModelClients, T
from scaling.llm.gateway import Call, CellGateway, Gateway
from scaling.llm.transport import ModelTransport
from scaling.llm.usage import without_bad_usage
from scaling.models import Model
from scaling.records.record import Answer

_NOT_PAID: Any = object()


class AwaitsBatch(BaseException):
    """The answer to a call comes with a batch. Not an Exception, which a program may swallow."""


class AskedLive(BaseException):
    """No batch can answer a call: it is asked when its row is scored."""


class _Recorded(BaseException):
    def __init__(self, request: TransportRequest):
        super().__init__("not sent")
        self.request = request


@dataclass(frozen=True)
class BatchCall:
    """A call at batch prices, and the live request that it would be. model: with its live prices."""

    call: Call
    model: Model
    url: str
    headers: list[tuple[str, str]]
    body: bytes


class RecordingClients(ModelClients):
    """Clients of models that send nothing: a request is written down, or has its answer already."""

    def __init__(self) -> None:
        self._answers = threading.local()
        super().__init__(functools.partial(_RecordingTransport, self._answers))

    @contextmanager
    def answering(self, body: bytes) -> Iterator[None]:
        """The answer to whatever this thread asks while the block runs."""
        self._answers.body = body
        try:
            yield
        finally:
            del self._answers.body

    def within(self, seconds: float, send: Callable[[], T]) -> T:
        """What LiteLLM alone can send."""
        raise AskedLive


class _RecordingTransport(ModelTransport):
    def __init__(self, answers: threading.local, seconds: float, authorization: str | None, **settings: Any):
        super().__init__(seconds, authorization, **settings)
        self._answers = answers

    def stream(self, request: TransportRequest) -> TransportResponse:
        body = getattr(self._answers, "body", None)
        if body is None:
            raise _Recorded(self.authorized(request))
        return TransportResponse(
            status=200, reason="OK", headers=[("Content-Type", "application/json")], http_version="HTTP/1.1",
            chunks=iter([without_bad_usage(body)]), release=lambda body_consumed: None,
        )  # fmt: skip


class BatchCollector:
    """The gateway of a program that is run to see what it asks: answers from the cache, all other calls written down.

    model: with its live prices. asked_live: keys of calls that no batch can answer. Calls raise AwaitsBatch or
    AskedLive.
    """

    def __init__(self, gateway: Gateway, clients: RecordingClients, model: Model, asked_live: set[str]):
        self.max_concurrency, self.clients = gateway.max_concurrency, clients
        self._gateway, self._model, self._asked_live = gateway, model, asked_live
        self.calls: dict[str, BatchCall] = {}

    def check(self, model: Model) -> None:
        self._gateway.check(model)

    def answer(self, call: Call) -> Answer:
        self.check(call.model)
        if (stored := self._gateway.stored(call.key)) is not None:
            return stored
        if call.key in self._asked_live:
            raise AskedLive
        if call.key not in self.calls:
            try:
                call.send()
            except _Recorded as written:
                request = written.request
                self.calls[call.key] = BatchCall(call, self._model, request.url, request.headers, request.body)
        raise AwaitsBatch


class BilledGateway:
    """The gateway of a cell whose answers came in batches: the first to ask for one of them is who paid for it.

    billed: key of each such answer -> what it cost in USD, None where nobody knows; entries are taken out.
    """

    def __init__(self, gateway: CellGateway, billed: dict[str, float | None]):
        self.max_concurrency, self.clients = gateway.max_concurrency, gateway.clients
        self._gateway, self._billed = gateway, billed

    def check(self, model: Model) -> None:
        self._gateway.check(model)

    def answer(self, call: Call) -> Answer:
        answer = self._gateway.answer(call)
        paid = self._billed.pop(call.key, _NOT_PAID) if answer.cache_hit else _NOT_PAID
        return answer if paid is _NOT_PAID else replace(answer, cache_hit=False, billed_cost_usd=paid)
