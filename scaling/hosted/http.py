"""httpx over connections that are bounded: a deadline for a whole request, and a size for its answer."""

from __future__ import annotations

import httpx
from dspy._vendor.lm15.transports import (
    ConnectError,
    ConnectTimeout,
    ProtocolError,
    ReadTimeout,
    TransportError,
    TransportRequest,
)

from scaling.llm.transport import BoundedTransport

# The first that fits; what else goes wrong is an httpx.ReadError.
ERRORS: tuple[tuple[type[TransportError], type[httpx.TransportError]], ...] = (
    (ConnectTimeout, httpx.ConnectTimeout),
    (ConnectError, httpx.ConnectError),
    (ReadTimeout, httpx.ReadTimeout),
    (ProtocolError, httpx.RemoteProtocolError),
)
# Of a body that is here and decompressed already, and of what the connections ask for by themselves.
ANSWERED_ALREADY = ("content-encoding", "content-length", "transfer-encoding")
OUR_OWN = ("accept-encoding", "connection")


class BoundedHttp(httpx.BaseTransport):
    """The connections of an `httpx.Client`. seconds: what a request has in all; trust_env: proxies are looked up."""

    def __init__(self, seconds: float, trust_env: bool = True):
        self._connections = BoundedTransport(seconds, trust_env=trust_env)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        headers = [(name, value) for name, value in sent if name.lower() not in OUR_OWN]
        url = str(request.url.copy_with(userinfo=b""))  # httpx has made a header of it
        try:
            response = self._connections.stream(TransportRequest(request.method, url, headers, request.read()))
        except TransportError as error:
            kind = next((theirs for ours, theirs in ERRORS if isinstance(error, ours)), httpx.ReadError)
            raise kind(str(error), request=request) from error
        except (ValueError, OverflowError) as error:
            raise httpx.UnsupportedProtocol(str(error), request=request) from error
        kept = [(name, value) for name, value in response.headers if name.lower() not in ANSWERED_ALREADY]
        return httpx.Response(response.status, headers=kept, content=response.read(), request=request)

    def close(self) -> None:
        self._connections.close()
