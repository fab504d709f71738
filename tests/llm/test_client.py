"""The shared clients of models: requests and answers are those of `dspy.LM`, and URLs may carry credentials."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.clients import execution

import run_scaling_experiment as script
from scaling.llm.adapters import make_adapter
from scaling.llm.cache import Cache
from scaling.llm.client import split_credentials
from scaling.llm.fast_adapter import make_fast_adapter
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.run.pipelines import MultiStepClassifier
from scaling.testing import ScriptedServer
from scaling.types import CellStopped

PRICED = {"input_usd_per_million": 3.0, "output_usd_per_million": 11.0}


class Sort(dspy.Signature):
    """Sort the text."""

    text: str = dspy.InputField()
    reason: str = dspy.OutputField()
    label: Literal["good", "bad"] = dspy.OutputField()


class Answer(pydantic.BaseModel):
    label: Literal["good", "bad"]
    reason: str | None = None


@pytest.fixture
def server():
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(Cache(tmp_path / "cache.sqlite"))


QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Wie geht's? 你好 \u2028 “q”"}]
KEYWORDS = {
    "plain": {},
    "settings": {"temperature": 0.25, "top_p": 0.5, "stop": ["x"], "seed": 7, "presence_penalty": 0.5},
    "rollout": {"rollout_id": 3, "max_tokens": 17},
    "schema": {"response_format": Answer},
    "json object": {"response_format": {"type": "json_object"}},
}


@pytest.mark.parametrize("route", ["openai/scripted", "groq/scripted", "deepseek/scripted", "openrouter/meta/scripted"])
@pytest.mark.parametrize("keywords", KEYWORDS.values(), ids=KEYWORDS)
def test_requests_and_answers_are_those_of_dspy_byte_for_byte(
    server: ScriptedServer, gateway: Gateway, route: str, keywords: dict[str, Any]
) -> None:
    ours = make_lm(Model("toy/x", route, api_base=server.url, **PRICED), gateway, Meter("c"), 0, 0.7)
    assert ours.client is not None, "the test would compare DSPy with itself"
    theirs = dspy.LM(
        route, temperature=0.7, max_tokens=1024, api_base=server.url, api_key="none", timeout=120.0, cache=False
    )
    answers = [lm(messages=QUESTION, **keywords) for lm in (theirs, ours)]
    assert answers[0] == answers[1]
    (headers, body), (our_headers, our_body) = server.raw_requests
    assert our_body == body
    assert our_headers == headers


ODD_TEXTS = ["again", " \t spaces \n", "Ünïcode 你好 \u2028 \U0001f600", '"quotes" \\ {braces}', "x" * 5000]


@pytest.mark.parametrize("route", ["openai/scripted", "groq/scripted", "deepseek/scripted", "openrouter/meta/scripted"])
@pytest.mark.parametrize("keywords", KEYWORDS.values(), ids=KEYWORDS)
def test_later_requests_are_those_of_dspy_as_well(
    server: ScriptedServer, gateway: Gateway, route: str, keywords: dict[str, Any]
) -> None:
    ours = make_lm(Model("toy/x", route, api_base=server.url, **PRICED), gateway, Meter("c"), 0, 0.7)
    settings = {"max_tokens": 1024, "api_base": server.url, "api_key": "none", "timeout": 120.0, "cache": False}
    theirs = dspy.LM(route, temperature=0.7, **settings)
    rows = [[QUESTION[0], {"role": "user", "content": text}] for text in ODD_TEXTS]
    conversations = [[*QUESTION, {"role": "assistant", "content": text}, QUESTION[1]] for text in ODD_TEXTS]
    for messages in [QUESTION, *rows, *conversations]:
        server.raw_requests.clear()
        answers = [lm(messages=messages, **keywords) for lm in (theirs, ours)]
        assert answers[0] == answers[1]
        (headers, body), (our_headers, our_body) = server.raw_requests
        assert our_body == body and our_headers == headers


def test_a_later_request_is_made_of_an_earlier_one(
    server: ScriptedServer, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = make_lm(Model("toy/x", "openai/scripted", api_base=server.url, **PRICED), gateway, Meter("c"), 0, 0.7)
    lm(messages=QUESTION)
    monkeypatch.setattr(execution, "prepare", None)  # DSPy's reading of messages
    assert lm(messages=[QUESTION[0], {"role": "user", "content": "another"}])
    server.fault = lambda n, body: ("status", 400, {}, "refused")
    with pytest.raises(CellStopped, match="refused"):
        lm(messages=[QUESTION[0], {"role": "user", "content": "a third"}])


@pytest.mark.parametrize("content", ["", "  ", "\ud800"])
def test_a_text_that_no_provider_takes_is_refused_as_by_dspy(
    server: ScriptedServer, gateway: Gateway, content: str
) -> None:
    ours = make_lm(Model("toy/x", "openai/scripted", api_base=server.url, **PRICED), gateway, Meter("c"), 0, 0.7)
    theirs = dspy.LM("openai/scripted", api_base=server.url, api_key="none", cache=False, max_tokens=1024)
    outcomes = []
    for lm in (theirs, ours):
        lm(messages=QUESTION)
        try:
            outcomes.append(lm(messages=[QUESTION[0], {"role": "user", "content": content}]))
        except Exception as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_programs_send_what_they_send_through_dspy(server: ScriptedServer, gateway: Gateway, adapter: str) -> None:
    model = Model("toy/x", "openai/scripted", api_base=server.url, adapter=adapter, **PRICED)
    ours = make_lm(model, gateway, Meter("c"), 0, 0.7)
    theirs = ours.copy(draw=1)
    gateway.clients.get = lambda lm, *_: client if lm is ours else None  # as for a model that only LiteLLM reaches
    client = type(gateway.clients)().get(ours, model, 120.0, 8)
    for lm in (theirs, ours):
        with dspy.context(lm=lm, adapter=make_adapter(model)):
            dspy.Predict(Sort)(text="some text")
    (_, body), (_, our_body) = server.raw_requests
    assert our_body == body
    assert [lm.supports_response_schema for lm in (ours, theirs)] == [adapter == "json"] * 2
    assert ours.supported_params == theirs.supported_params
    usage = ours.meter.total()
    assert (usage.prompt_tokens, usage.completion_tokens) == (server.prompt_tokens, server.completion_tokens)


class Everything(dspy.Signature):
    """Fields of all kinds."""

    text: str = dspy.InputField()
    lines: list[str] = dspy.InputField()
    count: int = dspy.InputField(desc="how many")
    label: Literal["good", "bad"] = dspy.OutputField()
    parts: dict[str, float] = dspy.OutputField()


def test_the_adapters_write_what_dspys_own_write() -> None:
    rows = [
        {"text": f" ü\n{i} ", "lines": ["a", "b"][:i], "count": i, "label": "bad", "parts": {"x": 0.5}} for i in (0, 2)
    ]
    model = Model("toy/x", "openai/scripted")
    for signature, demos in ((Everything, rows), (Sort, [{"text": "t", "reason": " r\n", "label": "bad"}])):
        ours = make_adapter(model).format(signature, demos, demos[0])
        assert ours == dspy.ChatAdapter().format(signature, demos, demos[0])


@pytest.mark.parametrize(
    ("url", "plain", "decoded"),
    [
        ("http://user:pa%40ss@127.0.0.1:80/v1", "http://127.0.0.1:80/v1", "user:pa@ss"),
        ("https://us@er:p:w@host/v1?x=1", "https://host/v1?x=1", "us@er:p:w"),
        ("https://token@host", "https://host", "token:"),
    ],
)
def test_credentials_leave_the_url_for_a_header(url: str, plain: str, decoded: str) -> None:
    without, header = split_credentials(url)
    assert without == plain
    assert base64.b64decode((header or "").removeprefix("Basic ")).decode() == decoded


def test_a_url_without_credentials_stays() -> None:
    assert split_credentials("http://host/@v1") == ("http://host/@v1", None)


def test_an_api_base_with_a_password_connects(server: ScriptedServer, gateway: Gateway) -> None:
    address = server.url.replace("http://", "http://user:pa%40ss@")
    lm = make_lm(Model("toy/x", "openai/scripted", api_base=address, **PRICED), gateway, Meter("c"), 0, 0.7)
    lm(messages=QUESTION)
    headers, _ = server.raw_requests[0]
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:pa@ss").decode()


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("name", script.BENCHMARK_CONFIG)
def test_the_adapters_of_calls_write_what_those_of_the_plan_write(name: str, adapter: str) -> None:
    model = Model("toy/x", "openai/scripted", adapter=adapter)
    plain, fast = make_adapter(model), make_fast_adapter(model)
    assert type(fast).__name__ == type(plain).__name__  # it stands in the texts of errors
    for predictor in MultiStepClassifier(script.BENCHMARK_CONFIG[name]["signature"], 3).predictors():
        signature = predictor.signature
        for changed in (signature, signature.with_instructions("Other words.\n\n  Indented."), signature):
            for row in range(3):
                inputs = {field: f" {field}\n{row} " for field in changed.input_fields}
                demos = [dspy.Example(**inputs, **dict.fromkeys(changed.output_fields, f"out {i}")) for i in range(row)]
                assert fast.format(changed, demos, inputs) == plain.format(changed, demos, inputs)
                assert fast.format(changed, [inputs], inputs) == plain.format(changed, [inputs], inputs)


def test_what_is_no_text_is_written_as_ever_and_changed_demos_anew() -> None:
    plain, fast = (make(Model("toy/x", "openai/scripted")) for make in (make_adapter, make_fast_adapter))
    row: dict[str, Any] = {"text": "t", "lines": ["a"], "count": 1, "label": "bad", "parts": {"x": 0.5}}
    demos = [dict(row)]
    for changes in ({}, {"lines": ["b", "c"]}, {"text": None}, {"label": "good"}):
        demos[0].update(changes)
        for inputs in (row, {"text": "t"}, {}):
            assert fast.format(Everything, demos, inputs) == plain.format(Everything, demos, inputs)


def test_the_schema_of_an_answer_is_that_of_the_plan(server: ScriptedServer, gateway: Gateway) -> None:
    model = Model("toy/x", "openai/scripted", api_base=server.url, adapter="json", **PRICED)
    for draw, make in enumerate((make_adapter, make_fast_adapter, make_fast_adapter)):
        with dspy.context(lm=make_lm(model, gateway, Meter("c"), 0, 0.7).copy(draw=draw), adapter=make(model)):
            dspy.Predict(Sort)(text="some text")
    bodies = [body for _, body in server.raw_requests]
    assert len(bodies) == 3 and len(set(bodies)) == 1
