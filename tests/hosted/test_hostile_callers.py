"""Callers and providers that send a task app nonsense get a clear refusal, and never a 500 or all of its memory."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from scaling.data import load_benchmark, make_splits
from scaling.hosted.app import create_app
from scaling.hosted.prompts import PromptError, read_prompt, stages_of
from scaling.hosted.rollout import Task
from scaling.hosted.server import serving
from scaling.llm.adapters import make_adapter
from scaling.models import Model
from scaling.run.pipelines import MultiStepClassifier
from scaling.testing import ScriptedServer
from tests.support import toy

FULL = "CHAOS" in os.environ
KEY = {"X-API-Key": "app-key"}
AS_JSON = {"Content-Type": "application/json"}
MODEL = Model(id="openai/scripted", route="openai/scripted")
BENCH = load_benchmark("toy", toy.config(), "sample")
CORE = MultiStepClassifier(BENCH.signature, 3, BENCH.roles)
ROWS = make_splits(BENCH, train=10, val=12, select=5, test=20, run=0).train


def new_app() -> Any:
    return create_app(Task("toy_3step", BENCH, CORE, ROWS, MODEL), frozenset(["app-key"]))


@pytest.fixture
def url() -> Iterator[str]:
    with serving(new_app()) as address:
        yield address


@pytest.fixture(scope="module")
def caller() -> Iterator[TestClient]:
    """Calls the app in this process; an exception that would be a 500 is raised here."""
    with TestClient(new_app(), headers=KEY) as client:
        yield client


def request(url: str = "http://127.0.0.1:1", **config: Any) -> dict[str, Any]:
    config = {"model": "scripted", "inference_url": url} | config
    return {"trace_correlation_id": "trace_1", "env": {"seed": 0}, "policy": {"config": config}}


def speak(url: str, head: str, body: bytes = b"") -> bytes:
    """The first bytes that a server answers to a request as it is typed here."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as line:
        line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        with suppress(OSError):  # the server has heard enough
            line.sendall(body)
        return line.recv(65536)


def test_the_key_is_looked_at_before_the_body_is_read(url: str) -> None:
    """60 MB are announced and never sent: the refusal does not wait for them."""
    head = "POST /rollout HTTP/1.1\nHost: app\nContent-Type: application/json\nContent-Length: 60000000"
    assert b" 400 " in speak(url, head) and b"unauthorised" in speak(url, head)


@pytest.mark.parametrize("path", ["/rollout", "/done", "/nowhere", "/health"])
def test_a_body_above_1_mb_is_refused_unread(url: str, path: str) -> None:
    announced = f"POST {path} HTTP/1.1\nHost: app\nX-API-Key: app-key\nContent-Length: 60000000"
    assert b" 413 " in speak(url, announced)


def test_a_body_without_a_length_is_cut_at_1_mb(url: str) -> None:
    head = "POST /rollout HTTP/1.1\nHost: app\nX-API-Key: app-key\nTransfer-Encoding: chunked"
    chunk = b"100000\r\n" + b"[" * 0x100000 + b"\r\n"
    assert b" 413 " in speak(url, head, chunk + chunk)


SURROGATE = '"\\ud800"'
NONSENSE = {
    "no JSON": b"{",
    "not UTF-8": b'{"trace_correlation_id": "\xff"}',
    "nested deeply": b"[" * 200_000,
    "a number of 5,000 digits": b'{"trace_correlation_id": "t", "env": {"seed": ' + b"9" * 5000 + b"}}",
    "half a character as id": json.dumps(request()).replace('"trace_1"', SURROGATE).encode(),
    "half a character in a prompt": json.dumps(request(prompt_template="X")).replace('"X"', SURROGATE).encode(),
    "NaN as id": json.dumps(request() | {"trace_correlation_id": float("nan")}).encode(),
    "NaN as temperature": json.dumps(request(temperature=float("nan"))).encode(),
    "an address without an end": json.dumps(request("http://[::1")).encode(),
    "an address with a port that is none": json.dumps(request("http://127.0.0.1:99999999")).encode(),
    "an address with a line break": json.dumps(request("http://127.0.0.1\n/x")).encode(),
    "an address that is a list": json.dumps(request(["http://127.0.0.1"])).encode(),
    "a key with a line break": json.dumps(request(api_key="a\nb")).encode(),
    "a key outside ASCII": json.dumps(request(api_key="ключ")).encode(),
    "a number as prompt": json.dumps(request(prompt_template={"pipeline_modules": 7})).encode(),
    "a list as role": json.dumps(
        request(prompt_template={"messages": [{"role": ["system"], "content": "A."}]})
    ).encode(),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_a_refusal_and_no_500(caller: TestClient, name: str) -> None:
    answer = caller.post("/rollout", content=NONSENSE[name], headers=AS_JSON)
    assert answer.status_code in (400, 422, 502), answer.text
    assert "outcome_reward" not in answer.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "messages", "sections", "pipeline_modules", "prompt_metadata", "metadata", "stage_payloads", "deltas",
    "transformation", "text_replacements", "classifier", "name", "role", "content", "pattern", "order",
    "instruction_text", "instruction_lines", "few_shots", "input", "output", "old_text", "new_text", "apply_to_role",
    "apply_to_order",
]  # fmt: skip
WORDS = st.sampled_from(["system", "user", "classifier", "analyzer", "reasoner"])
PROMPTS = st.recursive(
    WORDS | JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
PLACES = [
    ("trace_correlation_id",), ("env",), ("env", "seed"), ("env", "config"), ("policy",), ("policy", "config"),
    ("policy", "output_mode"),
    *(("policy", "config", name) for name in ("model", "inference_url", "temperature", "max_tokens", "top_p",
                                              "max_completion_tokens", "api_key", "prompt_template")),
]  # fmt: skip


@settings(max_examples=2000 if FULL else 150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=JSON | PROMPTS)
def test_any_value_in_any_place_is_no_500(caller: TestClient, place: tuple[str, ...], value: Any) -> None:
    """502: nobody answers at the address, which is all that a request without a mistake can find here."""
    body = request()
    part = body
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    answer = caller.post("/rollout", content=json.dumps(body).encode(), headers=AS_JSON)
    assert answer.status_code in (400, 422, 502), (place, value, answer.text)


@settings(max_examples=3000 if FULL else 200)
@given(PROMPTS)
def test_a_prompt_is_read_or_refused(prompt: Any) -> None:
    stages = stages_of(CORE, make_adapter(MODEL))
    try:
        for stage_prompt in read_prompt(prompt, stages).values():
            stage_prompt.instruction.encode()
    except PromptError as error:
        assert "\n" not in str(error)


# Whoever answers the app's own calls


def hear(line: socket.socket) -> None:
    """Take in a whole request: what is left unread when a connection is closed can take the answer along."""
    heard, length = b"", 0
    while b"\r\n\r\n" not in heard or len(heard.partition(b"\r\n\r\n")[2]) < length:
        if not (part := line.recv(65536)):
            return
        heard += part
        if said := re.search(rb"content-length: (\d+)\r\n", heard.lower()):
            length = int(said.group(1))


@contextmanager
def answering(head: str, parts: Callable[[], Iterator[bytes]]) -> Iterator[tuple[str, list[int]]]:
    """A server that gives each call the same answer; its address, and how many bytes of it each call took."""
    taken: list[int] = []

    def answer(line: socket.socket) -> None:
        hear(line)
        taken.append(0)
        with line:
            try:
                line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
                for part in parts():
                    line.sendall(part)
                    taken[-1] += len(part)
            except OSError:
                pass  # the app has heard enough

    def listen() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(line,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken
        listener.shutdown(socket.SHUT_RDWR)


def endless() -> Iterator[bytes]:
    """100 MB: enough to be told apart, and no more than a failing test can hold."""
    for _ in range(1600):
        yield b"[" * 65536


OK = "HTTP/1.1 200 OK\nContent-Type: application/json"


@pytest.mark.parametrize("head", [OK, OK.replace("200", "500"), f"{OK}\nContent-Encoding: gzip"])
def test_an_answer_without_an_end_is_cut(caller: TestClient, head: str) -> None:
    with answering(head, endless) as (url, taken):
        answer = caller.post("/rollout", json=request(url))
    assert answer.status_code in (500, 502) and "outcome_reward" not in answer.text
    assert answer.json()["detail"]["error"]["code"] == "upstream_failed"
    assert sum(taken) < 20_000_000


MESSAGE = {"choices": [{"message": {"content": "A."}}]}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"choices": [{"message": {"content": 7}}]}), json.dumps({"choices": [{"message": "A."}]}),
        json.dumps({"choices": {"0": 1}}), json.dumps([MESSAGE]), "[" * 100_000, '{"choices": [', "", "\\ud800",
        '{"choices": [{"message": {"content": "\\ud800"}}]}',
    ],
    ids=lambda content: content[:40] or "nothing",
)  # fmt: skip
def test_an_answer_that_is_none_is_a_502(caller: TestClient, content: str) -> None:
    with answering(OK, lambda: iter([content.encode()])) as (url, _):
        answer = caller.post("/rollout", json=request(url))
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (502, "upstream_failed")


@pytest.mark.parametrize("status", ["999 What", "302 Found\nLocation: http://127.0.0.1:1/", "101 Switching", "204 No"])
def test_a_status_that_no_model_server_gives_is_a_502(caller: TestClient, status: str) -> None:
    with answering(f"HTTP/1.1 {status}\nContent-Length: 0", lambda: iter([])) as (url, _):
        answer = caller.post("/rollout", json=request(url))
    assert answer.status_code == 502


@pytest.mark.parametrize(
    "usage", [7, [1], {"prompt_tokens": "many", "completion_tokens": None}, {"prompt_tokens": -1}, "none"], ids=str
)
def test_tokens_that_are_no_numbers_are_unknown(caller: TestClient, server: ScriptedServer, usage: Any) -> None:
    content = json.dumps(MESSAGE | {"usage": usage})
    with answering(OK, lambda: iter([content.encode()])) as (url, _):
        answer = caller.post("/rollout", json=request(url))
    assert answer.status_code == 200
    assert answer.json()["metadata"]["usage"] == {"prompt_tokens": None, "completion_tokens": None}
