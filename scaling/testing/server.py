"""A scripted OpenAI-compatible chat-completions server on loopback, without a model.

Unless a test brings its own script, an answer is a pure function of the request, so the same experiment gives
the same numbers however its calls are ordered. It has the form that the request asks for: a JSON schema, a
JSON object, or DSPy's `[[ ## field ## ]]` sections.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Body = dict[str, Any]
Fault = tuple[Any, ...] | None

CHAT_FIELD = re.compile(r"`\[\[ ## (\w+) ## \]\]`(?: \(must be formatted as a valid Python (.*?)\))?(?=, )")
JSON_FIELD = re.compile(r"`(\w+)`(?: \(must be formatted as a valid Python (.*?)\))?(?=[,.])")


class ScriptedServer:
    """The server while the `with` block runs.

    answer: the whole answer as a function of the request body, in place of the default one.
    skill: probability, from the body, that a classification is right; `truth` maps the text of an item to its
    label, and the item is looked up in the last user message.
    fault(n, body): what befalls received request n (from 0): None, ("status", 429, {"Retry-After": "0"}) with a
    message and a code where wanted, ("hang", seconds) before the answer, ("cut",) the connection,
    ("garbage",) in place of JSON, or ("raw", bytes) in place of a body.
    """

    def __init__(
        self,
        answer: Callable[[Body], str] | None = None,
        fault: Callable[[int, Body], Fault] | None = None,
        skill: Callable[[Body], float] | None = None,
        truth: dict[str, str] | None = None,
        latency: float = 0.0,
    ):
        self.answer, self.fault, self.skill, self.truth, self.latency = answer, fault, skill, truth or {}, latency
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.usage_details: dict[str, Any] = {}  # what a provider adds to `usage`: cached and reasoning tokens
        self.in_flight = self.max_in_flight = 0
        self._received: list[Body] = []
        self.raw_requests: list[tuple[dict[str, str], bytes]] = []  # headers and body as they came
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._http = _Http(("127.0.0.1", 0), self.handler())
        # The default poll of 0.5 s would be waited for at every shutdown.
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def requests(self) -> list[Body]:
        """The bodies received so far, in order."""
        with self._lock:
            return list(self._received)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """What answers a request; a subclass that has more than chat completions gives its own."""
        return _handler_of(self)

    def wait(self, seconds: float) -> None:
        """Hold a request back, but no longer than the server lives."""
        if seconds:
            self._closing.wait(seconds)

    def arrived(self, body: Body) -> int:
        with self._lock:
            self._received.append(body)
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            return len(self._received) - 1

    def left(self) -> None:
        with self._lock:
            self.in_flight -= 1

    def read(self, body: Body) -> Body:
        """A request as a chat completion; another API's is put into that form by a subclass."""
        return body

    def refusal(self, body: Body) -> Fault:
        """What befalls a request that the model does not take; None for one that it takes."""
        return None

    def complete(self, body: Body) -> dict[str, Any]:
        """The response to a request that is answered well."""
        text = self.answer(body) if self.answer else self.default_answer(body)
        prompt_tokens = sum(len(str(m["content"]).encode()) for m in body["messages"]) // 4
        completion_tokens = max(1, len(text.encode()) // 4)
        with self._lock:
            self.calls += 1
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
        return {
            "id": f"scripted-{fingerprint(body):x}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                **self.usage_details,
            },
        }

    def default_answer(self, body: Body) -> str:
        form = body.get("response_format") or {}
        if form.get("type") == "json_schema":
            schema = form["json_schema"]["schema"]
            return json.dumps(self._from_schema(schema, schema.get("$defs", {}), "answer", body))
        fields = chat_fields(body)
        if fields:
            sections = [f"[[ ## {name} ## ]]\n{self._value(name, options, body)}" for name, options in fields.items()]
            return "\n\n".join([*sections, "[[ ## completed ## ]]"])
        return json.dumps({name: self._value(name, options, body) for name, options in json_fields(body).items()})

    def _value(self, name: str, options: list[str], body: Body) -> str:
        if options:
            return self._choice(name, options, body)
        mark = f"{fingerprint([body, name]):012x}"
        if "instruction" in name:
            # No colon: MIPROv2 strips what looks like a prefix.
            return f"Rule {mark} of the house is to read the whole text and to keep to the form of the answer."
        return f"{name} {mark}"

    def _choice(self, name: str, options: list[str], body: Body) -> str:
        right = next((label for text, label in self.truth.items() if text in last_user_message(body)), None)
        if self.skill is None or right not in options:
            return options[fingerprint([body, name]) % len(options)]
        if fraction(body) < self.skill(body):
            return right
        wrong = [option for option in options if option != right]
        return wrong[fingerprint([body, name]) % len(wrong)] if wrong else right

    def _from_schema(self, schema: dict[str, Any], defs: dict[str, Any], name: str, body: Body) -> Any:
        if "$ref" in schema:
            schema = defs[schema["$ref"].rsplit("/", 1)[1]]
        kind = schema.get("type")
        if "enum" in schema or "const" in schema:
            return self._choice(name, schema.get("enum") or [schema["const"]], body)
        if kind == "object":
            wanted = schema.get("required") or list(schema.get("properties", {}))
            return {key: self._from_schema(schema["properties"][key], defs, key, body) for key in wanted}
        if kind == "array":
            return [self._from_schema(schema.get("items", {"type": "string"}), defs, name, body)]
        if kind in ("integer", "number"):
            return fingerprint([body, name]) % 10
        if kind == "boolean":
            return bool(fingerprint([body, name]) % 2)
        return self._value(name, [], body)


def last_user_message(body: Body) -> str:
    """The text of the item that is asked about: demos come in earlier messages."""
    return next((message_text(m) for m in reversed(body["messages"]) if m["role"] == "user"), "")


def message_text(message: dict[str, Any]) -> str:
    """A message's content, also where it is a list of parts."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def whole_prompt(body: Body) -> str:
    """All messages of a request in one text."""
    return "\n".join(message_text(message) for message in body["messages"])


def chat_fields(body: Body) -> dict[str, list[str]]:
    """Output fields that DSPy's ChatAdapter asks for -> the options of each, [] for free text."""
    _, found, wanted = last_user_message(body).rpartition("Respond with the corresponding output fields, ")
    return _options(CHAT_FIELD, wanted) if found else {}


def json_fields(body: Body) -> dict[str, list[str]]:
    """The same for DSPy's JSONAdapter."""
    _, found, wanted = last_user_message(body).rpartition("JSON object in the following order of fields: ")
    return _options(JSON_FIELD, wanted) if found else {}


def fingerprint(value: Any) -> int:
    """A number that depends on what shapes an answer (of a body: messages, temperature, seed) and on nothing else."""

    def shape(part: Any) -> Any:
        if isinstance(part, dict) and "messages" in part:
            return [part["messages"], part.get("temperature"), part.get("seed")]
        return part

    value = [shape(part) for part in value] if isinstance(value, list) else shape(value)
    return int(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12], 16)


def fraction(body: Body) -> float:
    """A number from 0 to 1 drawn by the request."""
    return fingerprint([body, "luck"]) / 16**12


def _options(field: re.Pattern[str], wanted: str) -> dict[str, list[str]]:
    options = {}
    for name, kind in field.findall(wanted):
        if name != "completed":
            labels = kind.removeprefix("Literal")
            options[name] = list(ast.literal_eval(labels)) if labels != kind else []
    return options


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # the default of 5 drops connections when many threads call at once


def _handler_of(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer on a kept connection waits 40 ms

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            server.raw_requests.append((dict(self.headers), raw))
            body = server.read(json.loads(raw))
            number = server.arrived(body)
            try:
                server.wait(server.latency)
                answer = self._answer(body, server.fault(number, body) if server.fault else None)
            finally:
                server.left()  # before the answer goes out: the client may ask again as soon as it has it
            try:
                if answer is None:
                    self.close_connection = True
                else:
                    self._send(*answer)
            except ConnectionError:
                self.close_connection = True  # the client gave up, as after a time-out

        def _answer(self, body: Body, fault: Fault) -> tuple[int, str | bytes, dict[str, str]] | None:
            kind, *details = fault or server.refusal(body) or ("none",)
            if kind == "cut":
                return None
            if kind == "status":
                defaults: list[Any] = [{}, f"scripted {details[0]}", None]
                status, headers, message, code = [*details, *defaults[len(details) - 1 :]]
                return status, json.dumps({"error": {"message": message, "type": "scripted", "code": code}}), headers
            if kind == "garbage":
                return 200, "<html>no JSON here</html>", {}
            if kind == "raw":
                return 200, details[0], {}
            if kind == "hang":
                server.wait(details[0])
            return 200, json.dumps(server.complete(body)), {}

        def _send(self, status: int, content: str | bytes, headers: dict[str, str]) -> None:
            payload = content if isinstance(content, bytes) else content.encode()
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Say nothing: the requests are kept."""

    return Handler
