"""HTTP to a provider's batch API: JSON in and out, and files of results that are read line by line.

Files of results are larger than any answer, so the bounded connections of live calls do not fit here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.request import getproxies

import httpx
import tenacity

from scaling.llm.errors import backoff_seconds
from scaling.llm.network import is_loopback
from scaling.redact import redact

MAX_ATTEMPTS = 8
LONGEST_LINE = 64 * 2**20  # bytes of one result
# Of a live request: what the connection sets itself, and what a batch's own body says.
OUR_OWN = ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding")

T = TypeVar("T")
Json = dict[str, Any]


class BatchRefused(Exception):
    """The batch API refused a request: nothing was taken in, and the same request would be refused again."""

    def __init__(self, status: int, reason: str):
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status


class BatchUnreachable(Exception):
    """The batch API did not answer, or not now. A request that was to start something may have been taken in."""


class BatchHttp:
    """The calls of one model's batch API, with the headers of its live calls. sleep: ends when the sweep is stopped."""

    def __init__(self, url: str, headers: list[tuple[str, str]], timeout: float, sleep: Callable[[float], None]):
        kept = [(name, value) for name, value in headers if name.lower() not in OUR_OWN]
        through_proxy = bool(getproxies()) and not is_loopback(url)
        self.sleep = sleep
        self._http = httpx.Client(headers=kept, timeout=timeout, trust_env=through_proxy)

    def get(self, url: str) -> Json:
        """The JSON object at a URL; asked for again where that may help."""
        return self.patiently(lambda: self._json("GET", url))

    def post(self, url: str, **content: Any) -> Json:
        """The answer to a request that starts something: sent once, as a second one may be a second bill."""
        return self._json("POST", url, **content)

    def lines(self, url: str) -> Iterator[bytes]:
        """The lines of a file. Raises BatchUnreachable in the midst of it, too."""
        try:
            with self._http.stream("GET", url) as response:
                if response.status_code >= 300:
                    response.read()
                _check(response)
                yield from _split(response.iter_bytes())
        except httpx.HTTPError as error:
            raise BatchUnreachable(f"{type(error).__name__}: {error}") from None

    def patiently(self, call: Callable[[], T]) -> T:
        """What a call gives that may be made again where the batch API cannot be reached."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS), wait=backoff_seconds, sleep=self.sleep, reraise=True,
            retry=tenacity.retry_if_exception_type(BatchUnreachable),
        )  # fmt: skip
        return retrying(call)

    def close(self) -> None:
        self._http.close()

    def _json(self, method: str, url: str, **content: Any) -> Json:
        try:
            response = self._http.request(method, url, **content)
        except httpx.HTTPError as error:
            raise BatchUnreachable(f"{type(error).__name__}: {error}") from None
        _check(response)
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise BatchUnreachable("it answered no JSON object")
        return answer


def _check(response: httpx.Response) -> None:
    """Raise for an answer that is none: BatchRefused where the same request cannot succeed."""
    status = response.status_code
    if status < 300:
        return
    reason = " ".join(redact(response.text).split())[:300]
    if status in (408, 409, 429) or status >= 500:
        raise BatchUnreachable(f"HTTP {status}: {reason}")
    raise BatchRefused(status, reason)


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines that end with a line feed: other separators may stand inside a text."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
        if len(rest) > LONGEST_LINE:
            raise BatchUnreachable(f"a line of its results is longer than {LONGEST_LINE // 2**20} MiB")
    if rest.strip():
        yield rest
