"""The batch APIs of OpenAI (and Groq), Anthropic and Google, as their documents describe them.

LiteLLM's batch functions would write the requests anew. Here a batch holds the bodies of the live requests as they
are, so that an answer is the same by either way, and one name finds a batch again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from scaling.llm.batch_http import BatchHttp, BatchUnreachable, Json

NAME = "call_scaling_batch"  # of the field in a batch's metadata
# Google's codes of errors (google.rpc.Code) that are not a server's: cancelled, bad requests, and too many.
GOOGLE_STATUSES = {1: None, 3: 400, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 16: 401}
ANTHROPIC_STATUSES = {
    "invalid_request_error": 400, "authentication_error": 401, "permission_error": 403, "not_found_error": 404,
    "request_too_large": 413, "rate_limit_error": 429,
}  # fmt: skip
QUEUE_FULL = ("token_limit_exceeded", "rate_limit_exceeded")  # OpenAI's codes of a batch that may be taken later
CLOCKS_DIFFER_SECONDS = 600.0


@dataclass(frozen=True)
class BatchState:
    """How far a batch is. failed: why it ended without any result; queue_full: and that this may pass. gone: the
    provider does not know it.
    """

    ended: bool
    failed: str | None = None
    queue_full: bool = False
    gone: bool = False


@dataclass(frozen=True)
class BatchResult:
    """What became of one request. status: as of a live call; None where it was never answered (expired, cancelled)."""

    name: str
    status: int | None
    body: bytes


class BatchApi(Protocol):
    """A batch API. Raises BatchRefused and BatchUnreachable."""

    def line(self, name: str, body: bytes) -> bytes:
        """One request as it stands in a batch. body: of the live request."""

    def create(self, batch: str, lines: Sequence[bytes]) -> str:
        """Send a batch under our name for it; gives the provider's id."""

    def find(self, batch: str, since: float, count: int) -> str | None:
        """The id of a batch of ours whose id never came, sent after `since` with so many requests."""

    def look(self, batch_id: str) -> BatchState:
        """How far it is."""

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        """What became of its requests, once it has ended; those that were never begun may be missing."""


class OpenAIBatches:
    """A file of requests, and a batch that names it; results in one file, failures in another. Also Groq's."""

    def __init__(self, http: BatchHttp, url: str):
        end = next(end for end in ("/chat/completions", "/responses") if url.endswith(end))
        self._http, self._root, self._path = http, url.removesuffix(end), f"/v1{end}"

    def line(self, name: str, body: bytes) -> bytes:
        start = {"custom_id": name, "method": "POST", "url": self._path}
        return json.dumps(start)[:-1].encode() + b', "body": ' + _one_line(body) + b"}"

    def create(self, batch: str, lines: Sequence[bytes]) -> str:
        file = (f"{batch}.jsonl", b"\n".join(lines) + b"\n", "application/jsonl")
        uploaded = self._http.post(f"{self._root}/files", files={"file": file}, data={"purpose": "batch"})
        made = self._http.post(
            f"{self._root}/batches",
            json={
                "input_file_id": _id_of(uploaded), "endpoint": self._path, "completion_window": "24h",
                "metadata": {NAME: batch},
            },
        )  # fmt: skip
        return _id_of(made)

    def find(self, batch: str, since: float, count: int) -> str | None:
        after = ""
        while True:
            page = self._http.get(f"{self._root}/batches?limit=100{after}")
            listed = page.get("data") or []
            for made in listed:
                if (made.get("metadata") or {}).get(NAME) == batch:
                    return _id_of(made)
            too_old = listed and listed[-1].get("created_at", 0) < since - CLOCKS_DIFFER_SECONDS
            if not listed or too_old or not page.get("has_more"):
                return None
            after = f"&after={listed[-1]['id']}"

    def look(self, batch_id: str) -> BatchState:
        batch = self._http.get(f"{self._root}/batches/{batch_id}")
        if batch.get("status") != "failed":
            return BatchState(batch.get("status") in ("completed", "expired", "cancelled"))
        errors = (batch.get("errors") or {}).get("data") or [{}]
        code, message = (str(errors[0].get(name) or "") for name in ("code", "message"))
        return BatchState(True, f"{code}: {message}".strip(": ") or "no reason given", code in QUEUE_FULL)

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        batch = self._http.get(f"{self._root}/batches/{batch_id}")
        for kind in ("output_file_id", "error_file_id"):
            if batch.get(kind):
                for line in self._http.lines(f"{self._root}/files/{batch[kind]}/content"):
                    yield _openai_result(_object(line))


def _openai_result(item: Json) -> BatchResult:
    response = item.get("response") or {}
    if response.get("status_code"):
        return BatchResult(str(item.get("custom_id")), int(response["status_code"]), _bytes(response.get("body")))
    return BatchResult(str(item.get("custom_id")), None, _bytes(item.get("error")))


class AnthropicBatches:
    """All requests in one; its batches have no name of ours, so that one is found by the names of its requests."""

    def __init__(self, http: BatchHttp, url: str):
        self._http, self._url = http, f"{url}/batches"

    def line(self, name: str, body: bytes) -> bytes:
        return json.dumps({"custom_id": name})[:-1].encode() + b', "params": ' + body + b"}"

    def create(self, batch: str, lines: Sequence[bytes]) -> str:
        return _id_of(_post_lines(self._http, self._url, b'{"requests": [', lines, b"]}"))

    def find(self, batch: str, since: float, count: int) -> str | None:
        """Its requests are told only once it has ended, so a batch that may be ours is waited for."""
        after = ""
        while True:
            page = self._http.get(f"{self._url}?limit=100{after}")
            listed = page.get("data") or []
            young = [made for made in listed if _seconds(made.get("created_at")) >= since - CLOCKS_DIFFER_SECONDS]
            for made in young:
                if sum((made.get("request_counts") or {}).values()) == count and self._is_ours(_id_of(made), batch):
                    return _id_of(made)
            if len(young) < len(listed) or not page.get("has_more"):
                return None
            after = f"&after_id={listed[-1]['id']}"

    def look(self, batch_id: str) -> BatchState:
        return BatchState(self._http.get(f"{self._url}/{batch_id}").get("processing_status") == "ended")

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        for line in self._http.lines(f"{self._url}/{batch_id}/results"):
            yield _anthropic_result(_object(line))

    def _is_ours(self, batch_id: str, batch: str) -> bool:
        pause = 1.0
        while not self.look(batch_id).ended:
            self._http.sleep(pause)
            pause = min(1.5 * pause, 60.0)
        first = next(self.results(batch_id), None)
        return first is not None and first.name.startswith(f"{batch}-")


def _anthropic_result(item: Json) -> BatchResult:
    result, name = item.get("result") or {}, str(item.get("custom_id"))
    if result.get("type") == "succeeded":
        return BatchResult(name, 200, _bytes(result.get("message")))
    if result.get("type") != "errored":
        return BatchResult(name, None, b"")
    error = result.get("error") or {}
    error = error.get("error") or error
    return BatchResult(name, ANTHROPIC_STATUSES.get(str(error.get("type")), 500), _bytes(error))


class GeminiBatches:
    """All requests in one, and all results in the state of the batch once it has ended."""

    def __init__(self, http: BatchHttp, url: str):
        self._http = http
        self._url = url.replace(":generateContent", ":batchGenerateContent")
        self._root = url.partition("/models/")[0]

    def line(self, name: str, body: bytes) -> bytes:
        return b'{"request": ' + body + b', "metadata": ' + json.dumps({"key": name}).encode() + b"}"

    def create(self, batch: str, lines: Sequence[bytes]) -> str:
        start = json.dumps({"displayName": batch})[:-1].encode()
        start = b'{"batch": ' + start + b', "inputConfig": {"requests": {"requests": ['
        return _id_of(_post_lines(self._http, self._url, start, lines, b"]}}}}"), "name")

    def find(self, batch: str, since: float, count: int) -> str | None:
        page = ""
        while True:
            answer = self._http.get(f"{self._root}/batches?pageSize=100{page}")
            for made in answer.get("operations") or []:
                if (made.get("metadata") or {}).get("displayName") == batch:
                    return _id_of(made, "name")
            if not answer.get("nextPageToken"):
                return None
            page = f"&pageToken={answer['nextPageToken']}"

    def look(self, batch_id: str) -> BatchState:
        made = self._http.get(f"{self._root}/{batch_id}")
        state = str((made.get("metadata") or {}).get("state") or "").rpartition("_STATE_")[2]
        if state == "FAILED" or (made.get("error") and state not in ("EXPIRED", "CANCELLED")):
            error = made.get("error") or {}
            return BatchState(True, str(error.get("message") or "no reason given"), error.get("code") == 8)
        return BatchState(bool(made.get("done")) or state in ("SUCCEEDED", "EXPIRED", "CANCELLED"))

    def results(self, batch_id: str) -> Iterator[BatchResult]:
        made = self._http.get(f"{self._root}/{batch_id}")
        found: Any = made.get("response") or {}
        while isinstance(found, dict):  # they are nested in a field of the same name
            found = found.get("inlinedResponses") or []
        for item in found:
            yield _gemini_result(item)


def _gemini_result(item: Json) -> BatchResult:
    name = str((item.get("metadata") or {}).get("key"))
    if item.get("response"):
        return BatchResult(name, 200, _bytes(item["response"]))
    error = item.get("error") or {}
    return BatchResult(name, GOOGLE_STATUSES.get(error.get("code") or 0, 500), _bytes(error))


APIS: dict[str, Callable[[BatchHttp, str], BatchApi]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
    "gemini": GeminiBatches,
}


def _post_lines(http: BatchHttp, url: str, start: bytes, lines: Sequence[bytes], end: bytes) -> Json:
    return http.post(url, content=start + b",".join(lines) + end, headers={"Content-Type": "application/json"})


def _one_line(body: bytes) -> bytes:
    """A JSON text without line feeds, which cannot stand inside its strings."""
    return body.replace(b"\r", b" ").replace(b"\n", b" ")


def _bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def _object(line: bytes) -> Json:
    """The JSON object of a line; an empty one, which belongs to no request, where the line is damaged."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return item if isinstance(item, dict) else {}


def _id_of(answer: Json, name: str = "id") -> str:
    if not answer.get(name):
        raise BatchUnreachable(f"its answer has no {name}")
    return str(answer[name])


def _seconds(text: Any) -> float:
    """Seconds since 1970 of a time in ISO 8601; of now for anything else."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return datetime.now().timestamp()
