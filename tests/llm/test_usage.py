"""What a provider says that a call used: possible counts are billed as they are, all others at the highest cost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.llm.usage import UNKNOWN, TokenCounts, read_usage, without_bad_usage
from scaling.testing import ScriptedServer
from tests.support.questions import a_model, ask

IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "cached above the prompt": {"prompt_tokens_details": {"cached_tokens": 125_000_000}},
    "cached just above": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}},
    "all zeros": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "an answer of no tokens": {"completion_tokens": 0},
    "negative": {"prompt_tokens": -1000},
    "negative answer": {"completion_tokens": -5},
    "negative cached": {"prompt_tokens_details": {"cached_tokens": -1}},
    "absurdly large prompt": {"prompt_tokens": 10**15},
    "absurdly large answer": {"completion_tokens": 10**9},
    "beyond every number": {"completion_tokens": 10**400},
    "large total": {"total_tokens": 10**9},
    "thinking above the answer": {"completion_tokens_details": {"reasoning_tokens": 4000}},
    "strings": {"prompt_tokens": "12", "completion_tokens": "3"},
    "words": {"completion_tokens": "many"},
    "fractions": {"completion_tokens": 1.5},
    "true": {"prompt_tokens": True},
    "a list of details": {"prompt_tokens_details": [1]},
    "null": {"prompt_tokens": None, "completion_tokens": None},
}


@pytest.mark.parametrize("usage", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_usage_is_billed_at_the_highest_and_the_answer_is_kept(
    sweep_server: ScriptedServer, gateway: Gateway, usage: dict[str, Any]
) -> None:
    sweep_server.usage_details = usage
    model, meter = a_model(sweep_server, cached_input_usd_per_million=1.0), Meter("c")
    lm = make_lm(model, gateway, meter, 0, 0.7)
    assert ask(lm, "a question")
    assert len(sweep_server.requests) == 1
    prompt_bytes = len(json.dumps([sweep_server.requests[0]["messages"], None]))
    assert gateway.cost_budget.spent == gateway.cache.spent_usd() == model.highest_cost(prompt_bytes, 50)
    used = meter.total()
    assert used.list_cost_usd is None and used.calls == 1


@pytest.mark.parametrize("usage", [None, "", [], "12", 7], ids=str)
def test_a_usage_that_is_no_object_costs_no_answer(sweep_server: ScriptedServer, gateway: Gateway, usage: Any) -> None:
    complete = sweep_server.complete
    sweep_server.complete = lambda body: complete(body) | {"usage": usage}
    assert ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7), "a question")
    assert len(sweep_server.requests) == 1 and gateway.cost_budget.spent > 50 * 11e-6


def test_a_possible_usage_is_billed_as_it_is(sweep_server: ScriptedServer, gateway: Gateway) -> None:
    sweep_server.usage_details = {
        "prompt_tokens": 10.0, "completion_tokens": 6, "total_tokens": 16, "cost": "0.1", "queue_time": 0.5,
        "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 6},
    }  # fmt: skip
    ask(make_lm(a_model(sweep_server, cached_input_usd_per_million=1.0), gateway, Meter("c"), 0, 0.7), "a question")
    assert gateway.cost_budget.spent == pytest.approx(10 * 1e-6 + 6 * 11e-6)


def test_thinking_that_is_in_the_total_only_is_billed(sweep_server: ScriptedServer, gateway: Gateway) -> None:
    sweep_server.usage_details = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 42}
    ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7), "a question")
    assert gateway.cost_budget.spent == pytest.approx(10 * 3e-6 + 32 * 11e-6)


def test_an_empty_answer_may_have_no_tokens() -> None:
    said = {"prompt_tokens": 3, "completion_tokens": 0}
    assert read_usage(said, most_tokens=50, has_answer=False) == TokenCounts(3, 0)
    assert read_usage(said, most_tokens=50, has_answer=True) == UNKNOWN
    assert read_usage(said | {"prompt_tokens": 0}, most_tokens=50, has_answer=False) == UNKNOWN


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")


@given(st.fixed_dictionaries({}, optional={name: ANYTHING | st.integers(0, 60) for name in NAMES}))
def test_whatever_is_said_counts_are_possible_or_unknown(usage: dict[str, Any]) -> None:
    counts = read_usage(usage, most_tokens=50, has_answer=True)
    assert counts == UNKNOWN or (0 <= counts.prompt <= 50 and 1 <= counts.completion <= 50)
    assert (counts.cached or 0) <= (counts.prompt or 0) and (counts.reasoning or 0) <= (counts.completion or 0)
    body = json.dumps({"answer": "é", "usage": usage}).encode()
    kept = without_bad_usage(body)
    assert kept == body or json.loads(kept) == {"answer": "é"}


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b"[" * 100_000, b"<html>", b"event: x\n\n"])
def test_what_is_no_json_object_is_left_to_whoever_reads_it(body: bytes) -> None:
    assert without_bad_usage(body) == body


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"detail": "busy"}, {"error": "no model"}], ids=str)
def test_json_that_is_no_answer_is_a_lost_call_and_no_empty_answer(
    sweep_server: ScriptedServer, gateway: Gateway, reply: dict[str, Any], no_backoff: None
) -> None:
    complete = sweep_server.complete
    sweep_server.complete = lambda body: reply if len(sweep_server.requests) == 1 else complete(body)
    assert ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7), "a question")
    assert len(sweep_server.requests) == 2


def test_a_model_may_answer_nothing(sweep_server: ScriptedServer, gateway: Gateway) -> None:
    sweep_server.answer = lambda body: ""
    assert ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7), "a question") in ("", None)
    assert len(sweep_server.requests) == 1
