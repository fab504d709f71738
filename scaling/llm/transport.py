"""HTTP connections to models with three bounds: one deadline for a request, a size for its answer, the sweep's end.

DSPy's own transport bounds each read. A server that sends a byte now and then would hold a call for ever, and one that
sends without end would fill the memory.
"""

from __future__ import annotations

import math
import socket
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from dspy._vendor.lm15.rate_limits import capture_rate_limits
from dspy._vendor.lm15.transports import (
    ProtocolError,
    ReadError,
    ReadTimeout,
    StdlibTransport,
    TransportRequest,
    TransportResponse,
)
from dspy.utils import exceptions as lm_errors

from scaling.llm.usage import without_bad_usage

ANSWER_LIMIT = 8 * 2**20  # bytes of an answer: as it comes, and decompressed
# Read at a time. Deflate makes at most 1032 times as much of it, so that one step stays near ANSWER_LIMIT.
READ_BYTES = 8192
LONGEST_SECONDS = 1e6  # that the system can wait


class RequestBounds(threading.local):
    """Of the request that a thread is making: when it must have ended, and how many bytes have come."""

    seconds = 0.0
    deadline = math.inf
    received = 0
    rate_limits: Mapping[str, Sequence[str]] = MappingProxyType({})  # what its answer's headers say of limits

    def begin(self, seconds: float) -> None:
        """A new request, which has so many seconds."""
        self.seconds, self.deadline, self.received = seconds, time.monotonic() + min(seconds, LONGEST_SECONDS), 0

    def seconds_left(self) -> float:
        """Raises ReadTimeout when none are."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise self.timeout()
        return left

    def timeout(self) -> ReadTimeout:
        """The error of a request that takes too long."""
        return ReadTimeout(f"no whole answer within {self.seconds:g} seconds (--timeout)")

    def count(self, data: bytes) -> bytes:
        """The bytes that have come. Raises ProtocolError when they are too many."""
        self.received += len(data)
        if self.received > ANSWER_LIMIT:
            raise too_large()
        return data


class BoundedSocket:
    """A connected socket that keeps to the bounds of the request it serves. What DSPy's connections use of a socket."""

    def __init__(self, connected: socket.socket, bounds: RequestBounds):
        self._socket, self._bounds = connected, bounds

    def fileno(self) -> int:
        return self._socket.fileno()

    def settimeout(self, seconds: float) -> None:
        """Nothing: only the deadline counts."""

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(self._bounds.seconds_left())
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError:
                raise self._bounds.timeout() from None

    def recv(self, size: int) -> bytes:
        self._socket.settimeout(self._bounds.seconds_left())
        try:
            return self._bounds.count(self._socket.recv(min(size, READ_BYTES)))
        except TimeoutError:
            raise self._bounds.timeout() from None

    def cut(self) -> None:
        """End what another thread is waiting for on this socket."""
        with suppress(OSError):  # it is closed already
            # A TLS socket's own method would first change what that thread uses.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class BoundedTransport(StdlibTransport):
    """DSPy's connections, bounded. `seconds`: what a request has, from its connection to its answer's last byte."""

    def __init__(self, seconds: float, **settings: Any):
        super().__init__(**settings)
        self._seconds = seconds
        self._bounds = RequestBounds()
        self._sockets: weakref.WeakSet[BoundedSocket] = weakref.WeakSet()
        self._is_cut = False
        self._sockets_lock = threading.Lock()

    def cut(self) -> None:
        """End every request that is under way or comes later."""
        with self._sockets_lock:
            self._is_cut = True
            sockets = list(self._sockets)
        for connected in sockets:
            connected.cut()

    def stream(self, request: TransportRequest) -> TransportResponse:
        """The response, with its whole body here already."""
        self._bounds.begin(self._seconds)
        # Its place among the connections is free again when its chunks are closed.
        with super().stream(request) as response, closing(response._chunks):
            body = read_bounded(response)
        return with_body(response, body)

    def _read_head(self, *args: Any, **settings: Any) -> Any:
        head = super()._read_head(*args, **settings)
        codings = ",".join(head.headers_all("content-encoding")).split(",")
        if len([coding for coding in codings if coding.strip()]) > 1:
            raise ProtocolError("the answer is compressed more than once")
        return head

    def _open(self, *args: Any, connect_timeout: float, **settings: Any) -> Any:
        within = min(connect_timeout, self._bounds.seconds_left())
        connection = super()._open(*args, connect_timeout=within, **settings)
        connection.sock = BoundedSocket(connection.sock, self._bounds)
        with self._sockets_lock:
            self._sockets.add(connection.sock)
            is_cut = self._is_cut
        if is_cut:
            connection.close()
            raise ReadError("the sweep has ended")
        return connection


class ModelTransport(BoundedTransport):
    """The connections of one model. authorization: replaces the header that the model's key would give."""

    def __init__(self, seconds: float, authorization: str | None, **settings: Any):
        super().__init__(seconds, **settings)
        self._authorization = authorization

    @property
    def rate_limits(self) -> Mapping[str, Sequence[str]]:
        """What the headers of this thread's last answer say of the provider's limits."""
        return self._bounds.rate_limits

    def stream(self, request: TransportRequest) -> TransportResponse:
        """As its parent's; a usage that holds no counts is left out. Raises LMProviderError for a redirect."""
        response = super().stream(self.authorized(request))
        self._bounds.rate_limits = capture_rate_limits(response.headers)
        if 300 <= response.status < 400:
            where = f" to {response.header('location')}" if response.header("location") else ""
            raise lm_errors.LMProviderError(f"it sends calls on{where}", status=response.status)
        return with_body(response, without_bad_usage(response.read()))

    def authorized(self, request: TransportRequest) -> TransportRequest:
        """The request as it is sent: with this model's own authorization, where it has one."""
        if not self._authorization:
            return request
        others = [(name, value) for name, value in request.headers if name.lower() != "authorization"]
        return replace(request, headers=[*others, ("Authorization", self._authorization)])


def with_body(response: TransportResponse, body: bytes) -> TransportResponse:
    """The response with this body, which is read without its connection."""
    return TransportResponse(
        status=response.status,
        reason=response.reason,
        headers=response.headers,
        http_version=response.http_version,
        chunks=iter([body]),
        release=lambda body_consumed: None,
    )


def read_bounded(chunks: Iterable[bytes]) -> bytes:
    """All of a body. Raises ProtocolError where it is larger than ANSWER_LIMIT."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > ANSWER_LIMIT:
            raise too_large()
    return bytes(body)


def too_large() -> ProtocolError:
    """The error of an answer that does not end."""
    return ProtocolError(f"the answer is larger than {ANSWER_LIMIT // 2**20} MiB")
