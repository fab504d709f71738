"""The scripted servers with a batch API: OpenAI's and Groq's form, Anthropic's, and Google's.

A batch is answered when it is made, so a request that is in two batches is counted twice. Its results can be had once
somebody has looked at it often enough.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from scaling.testing.server import Body, Fault, ScriptedServer
from scaling.testing.strict import StrictServer

Form = Literal["openai", "anthropic", "gemini"]
Line = tuple[str, Body]  # the name of a request, and its body
Reply = tuple[int, Any]  # a status, and what is sent as JSON, or bytes as they are
ANTHROPIC_ERRORS = {400: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error"}
GOOGLE_CODES = {400: 3, 404: 5, 429: 8, 500: 13, 503: 14}


@dataclass
class ScriptedBatch:
    """A batch that was sent. results: (name, status, body) of each request; status None: never answered."""

    id: str
    name: str
    lines: list[Line]
    at: float
    results: list[tuple[str, int | None, Any]] = field(default_factory=list)
    looks: int = 0
    failed: tuple[str, str] | None = None  # code and message
    expired: bool = False


class Batches(ScriptedServer):
    """A scripted server with a batch API, while the `with` block runs.

    looks: how often a batch is looked at before it has ended. seconds: it does not end before either.
    batch_fault(n, lines): what befalls batch n (from 0): None, ("failed", code, message), ("expires", k) after k
    requests, ("refused", status), ("lost",) its answer, ("lacks", k) its first k results, or ("gone",) afterwards.
    `fault` and `refusal` are those of each request in it, of which ("cut",) and ("hang", seconds) make no sense.
    on_request(n, method, path): is told of each request to the batch API before it is answered.
    """

    form: Form = "openai"

    def __init__(
        self,
        looks: int = 1,
        seconds: float = 0.0,
        batch_fault: Callable[[int, list[Line]], tuple[Any, ...] | None] | None = None,
        on_request: Callable[[int, str, str], object] = lambda n, method, path: None,
        **options: Any,
    ):
        super().__init__(**options)
        self.looks, self.seconds, self.batch_fault, self.on_request = looks, seconds, batch_fault, on_request
        self.batches: dict[str, ScriptedBatch] = {}
        self.files: dict[str, bytes] = {}
        self.batch_calls = 0  # requests that were answered in batches
        self.batch_requests = 0  # to the batch API

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return _handler_of(self, super().handler())

    def reply(self, method: str, path: str, body: bytes) -> Reply | None:
        """The answer to a request to the batch API; None for one that is lost."""
        with self._lock:
            number, self.batch_requests = self.batch_requests, self.batch_requests + 1
        self.on_request(number, method, path)
        path, _, query = path.partition("?")
        return ROUTES[self.form](self, method, path, query, body)

    def make(self, name: str, lines: list[Line]) -> Reply | ScriptedBatch | None:
        """A new batch, with the answers to its requests; or what befell it."""
        with self._lock:
            number = len(self.batches)
            batch = ScriptedBatch(f"batch_{number}", name, lines, time.time())
            fault = self.batch_fault(number, lines) if self.batch_fault else None
            kind, *details = fault or ("none",)
            if kind == "refused":
                return details[0], {"error": {"message": f"scripted {details[0]}"}}
            self.batches[batch.id] = batch
        if kind == "failed":
            batch.failed = (details[0], details[1])
            return batch
        answered = details[0] if kind == "expires" else len(lines)
        batch.expired = kind == "expires"
        batch.results = [(line_name, *self._line(body)) for line_name, body in lines[:answered]]
        batch.results += [(line_name, None, None) for line_name, _ in lines[answered:]]
        if kind == "lacks":
            batch.results = batch.results[details[0] :]
        if kind == "gone":
            del self.batches[batch.id]
        return None if kind == "lost" else batch

    def _line(self, native: Body) -> tuple[int, Any]:
        body = self.read(native)
        number = self.arrived(body)
        self.left()
        kind, *details = (self.fault(number, body) if self.fault else None) or self.refusal(body) or ("none",)
        if kind == "status":
            return details[0], {"message": (details[2:3] or [f"scripted {details[0]}"])[0], "type": "scripted"}
        with self._lock:
            self.batch_calls += 1
        return 200, "garbage" if kind == "garbage" else self.complete(body)

    def has_ended(self, batch: ScriptedBatch, look: bool = True) -> bool:
        batch.looks += look
        return batch.looks > self.looks and time.time() >= batch.at + self.seconds

    def listed(self) -> list[ScriptedBatch]:
        """All batches, the newest first."""
        return list(self.batches.values())[::-1]


class BatchServer(Batches):
    """OpenAI's form, of models that do not reason."""


class StrictBatchServer(Batches, StrictServer):
    """A maker's form; form: of its batch API."""

    def __init__(self, form: Form, **options: Any):
        super().__init__(**options)
        self.form = form


def _openai(server: Batches, method: str, path: str, query: str, body: bytes) -> Reply | None:
    rest = path.removeprefix("/v1")
    if (method, rest) == ("POST", "/files"):
        file = f"file_{len(server.files)}"
        server.files[file] = _uploaded(body)
        return 200, {"id": file, "object": "file"}
    if (method, rest) == ("POST", "/batches"):
        asked = json.loads(body)
        items = [json.loads(line) for line in server.files[asked["input_file_id"]].splitlines()]
        if len({item["custom_id"] for item in items}) < len(items) or any(i["url"] != asked["endpoint"] for i in items):
            return 400, {"error": {"message": "a custom_id is there twice, or an endpoint differs"}}
        made = server.make(asked["metadata"]["call_scaling_batch"], [(i["custom_id"], i["body"]) for i in items])
        return (200, _openai_batch(server, made)) if isinstance(made, ScriptedBatch) else made
    if rest == "/batches":
        return 200, _page(server, query, "after", lambda batch: _openai_batch(server, batch, look=False))
    if found := re.fullmatch(r"/batches/(\w+)", rest):
        batch = server.batches.get(found[1])
        return (404, {"error": {"message": "no such batch"}}) if batch is None else (200, _openai_batch(server, batch))
    if found := re.fullmatch(r"/files/(\w+)-(results|errors)/content", rest):
        wanted = [r for r in server.batches[found[1]].results if (r[1] == 200) == (found[2] == "results")]
        return 200, b"".join(json.dumps(_openai_result(*result)).encode() + b"\n" for result in wanted)
    return 404, {"error": {"message": f"there is no {path}"}}


def _openai_batch(server: Batches, batch: ScriptedBatch, look: bool = True) -> Any:
    ended = server.has_ended(batch, look)
    status = "failed" if batch.failed else "expired" if batch.expired else "completed"
    made: dict[str, Any] = {
        "id": batch.id, "object": "batch", "status": status if ended else "in_progress", "created_at": int(batch.at),
        "metadata": {"call_scaling_batch": batch.name}, "request_counts": {"total": len(batch.lines)},
    }  # fmt: skip
    if ended and batch.failed:
        made["errors"] = {"data": [{"code": batch.failed[0], "message": batch.failed[1]}]}
    elif ended:
        made |= {"output_file_id": f"{batch.id}-results", "error_file_id": f"{batch.id}-errors"}
    return made


def _openai_result(name: str, status: int | None, body: Any) -> Any:
    if status is None:
        return {"custom_id": name, "response": None, "error": {"code": "batch_expired", "message": "not in time"}}
    return {"custom_id": name, "response": {"status_code": status, "body": body}, "error": None}


def _anthropic(server: Batches, method: str, path: str, query: str, body: bytes) -> Reply | None:
    rest = path.removeprefix("/v1/messages/batches")
    if method == "POST":
        made = server.make("", [(item["custom_id"], item["params"]) for item in json.loads(body)["requests"]])
        return (200, _anthropic_batch(server, made)) if isinstance(made, ScriptedBatch) else made
    if not rest:
        return 200, _page(server, query, "after_id", lambda batch: _anthropic_batch(server, batch, look=False))
    batch = server.batches.get(rest.split("/")[1])
    if batch is None:
        return 404, {"error": {"message": "no such batch"}}
    if rest.endswith("/results"):
        return 200, b"".join(json.dumps(_anthropic_result(*result)).encode() + b"\n" for result in batch.results)
    return 200, _anthropic_batch(server, batch)


def _anthropic_batch(server: Batches, batch: ScriptedBatch, look: bool = True) -> Any:
    return {
        "id": batch.id, "type": "message_batch", "request_counts": {"succeeded": len(batch.lines), "errored": 0},
        "processing_status": "ended" if server.has_ended(batch, look) else "in_progress",
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(batch.at)),
    }  # fmt: skip


def _anthropic_result(name: str, status: int | None, body: Any) -> Any:
    if status is None:
        return {"custom_id": name, "result": {"type": "expired"}}
    if status == 200:
        return {"custom_id": name, "result": {"type": "succeeded", "message": body}}
    error = {"type": ANTHROPIC_ERRORS.get(status, "api_error"), "message": body["message"]}
    return {"custom_id": name, "result": {"type": "errored", "error": {"type": "error", "error": error}}}


def _gemini(server: Batches, method: str, path: str, query: str, body: bytes) -> Reply | None:
    if method == "POST":
        asked = json.loads(body)["batch"]
        items = asked["inputConfig"]["requests"]["requests"]
        made = server.make(asked["displayName"], [(item["metadata"]["key"], item["request"]) for item in items])
        return (200, _gemini_batch(server, made)) if isinstance(made, ScriptedBatch) else made
    name = path.rpartition("/")[2]
    if name == "batches":
        return 200, {"operations": [_gemini_batch(server, batch, look=False) for batch in server.listed()]}
    batch = server.batches.get(name)
    return (404, {"error": {"message": "no such batch"}}) if batch is None else (200, _gemini_batch(server, batch))


def _gemini_batch(server: Batches, batch: ScriptedBatch, look: bool = True) -> Any:
    ended = server.has_ended(batch, look)
    state = "FAILED" if batch.failed else "EXPIRED" if batch.expired else "SUCCEEDED"
    metadata = {"displayName": batch.name, "state": f"BATCH_STATE_{state if ended else 'RUNNING'}"}
    made: dict[str, Any] = {"name": f"batches/{batch.id}", "metadata": metadata, "done": ended}
    if ended and batch.failed:
        made["error"] = {"code": 8 if batch.failed[0] == "token_limit_exceeded" else 3, "message": batch.failed[1]}
    elif ended:
        results = [_gemini_result(*result) for result in batch.results]
        made["response"] = {"inlinedResponses": {"inlinedResponses": results}}
    return made


def _gemini_result(name: str, status: int | None, body: Any) -> Any:
    item: dict[str, Any] = {"metadata": {"key": name}}
    if status == 200:
        return item | {"response": body}
    code = 1 if status is None else GOOGLE_CODES.get(status, 13)
    return item | {"error": {"code": code, "message": "" if status is None else body["message"]}}


def _page(server: Batches, query: str, after: str, show: Callable[[ScriptedBatch], Any]) -> Any:
    """Two batches of the list, from the one after a given one."""
    batches = server.listed()
    if found := re.search(rf"\b{after}=(\w+)", query):
        ids = [batch.id for batch in batches]
        batches = batches[ids.index(found[1]) + 1 :]
    return {"data": [show(batch) for batch in batches[:2]], "has_more": len(batches) > 2}


ROUTES = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini}
PATHS = re.compile(r"/(files|batches)\b|:batchGenerateContent$")


def _uploaded(form: bytes) -> bytes:
    """The file of a multipart form: its part that says how it is called."""
    boundary = form[: form.index(b"\r\n")]
    part = next(part for part in form.split(boundary) if b"filename=" in part)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def _handler_of(server: Batches, base: type[BaseHTTPRequestHandler]) -> type[BaseHTTPRequestHandler]:
    class Handler(base):  # type: ignore[valid-type, misc]
        def do_GET(self) -> None:
            self._reply("GET", b"")

        def do_POST(self) -> None:
            if PATHS.search(self.path):
                self._reply("POST", self.rfile.read(int(self.headers["Content-Length"])))
            else:
                super().do_POST()

        def _reply(self, method: str, body: bytes) -> None:
            server.raw_requests.append((dict(self.headers), body))
            answer = server.reply(method, self.path, body)
            try:
                if answer is None:
                    self.close_connection = True
                else:
                    status, content = answer
                    self._send(status, content if isinstance(content, bytes) else json.dumps(content), {})
            except ConnectionError:
                self.close_connection = True  # the client was killed

    return Handler


__all__ = ["BatchServer", "Batches", "Fault", "ScriptedBatch", "StrictBatchServer"]
