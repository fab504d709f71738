"""The providers' prompt caches: stable beginnings first, marks where they are needed, tokens counted and priced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

import run_scaling_experiment as script
from scaling.llm.adapters import make_adapter
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.llm.prompt_cache import KEPT_SECONDS, USES_BEFORE, PromptCache, stable_messages
from scaling.models import Model, find_model, load_registry
from scaling.run.pipelines import MultiStepClassifier
from scaling.testing import BUDGET_CLAUDE, GEMINI, StrictServer
from scaling.testing.strict import marked_beginning
from tests.support.questions import ask

LONG = "Read the text with care. " * 400
PROMPT = [{"role": "system", "content": LONG}, {"role": "user", "content": "row"}]


def claude(server: StrictServer) -> Model:
    return replace(find_model("claude-haiku-4-5", load_registry()), api_base=server.url)


def question(row: int, instruction: str = LONG) -> list[dict[str, Any]]:
    return [{"role": "system", "content": instruction}, {"role": "user", "content": f"row {row}"}]


def marked(server: StrictServer) -> list[bool]:
    """Of each request, whether it marked something."""
    return [bool(marked_beginning(body["native"])) for body in server.requests]


def test_a_beginning_that_comes_back_is_written_once_and_then_read(tmp_path: Path) -> None:
    with StrictServer(BUDGET_CLAUDE) as server:
        model = claude(server)
        gateway = Gateway(Cache(tmp_path / "cache.sqlite"), max_cost=10.0)
        lm = make_lm(model, gateway, Meter("c"), 0, 0.7, phase="evaluate")
        for row in range(12):
            lm(messages=question(row))
        assert marked(server) == [False] * USES_BEFORE + [True] * (12 - USES_BEFORE)
        lm(messages=question(0))
        assert len(server.requests) == 12  # a mark is no part of what a request asks
    beginning, reads = len(LONG) // 4, 12 - USES_BEFORE - 1
    expected = model.cost(server.prompt_tokens, server.completion_tokens, beginning * reads, 0, beginning)
    assert gateway.cost_budget.spent == pytest.approx(expected)
    assert expected < model.cost(server.prompt_tokens, server.completion_tokens)


def test_what_was_read_and_written_stands_in_the_calls(tmp_path: Path) -> None:
    calls: list[Any] = []
    with StrictServer(BUDGET_CLAUDE) as server:
        lm = make_lm(claude(server), Gateway(Cache(tmp_path / "c.sqlite")), Meter("c"), 0, 0.7).copy(record=calls)
        for row in range(USES_BEFORE + 2):
            lm(messages=question(row))
    tokens = len(LONG) // 4
    assert [(call.cached_tokens, call.cache_write_tokens) for call in calls[-3:]] == [(0, 0), (0, tokens), (tokens, 0)]


def test_answers_do_not_depend_on_marks(tmp_path: Path) -> None:
    with StrictServer(BUDGET_CLAUDE) as server:
        caches = [Cache(tmp_path / name) for name in ("a.sqlite", "b.sqlite")]
        first, second = (make_lm(claude(server), Gateway(cache), Meter("c"), 0, 0.7) for cache in caches)
        forward = [first(messages=question(row)) for row in range(8)]
        backward = [second(messages=question(row)) for row in reversed(range(8))]
    assert forward == backward[::-1]


def test_short_prompts_are_sent_as_ever(tmp_path: Path) -> None:
    with StrictServer(BUDGET_CLAUDE) as server:
        lm = make_lm(claude(server), Gateway(Cache(tmp_path / "c.sqlite")), Meter("c"), 0, 0.7)
        for row in range(8):
            lm(messages=question(row, "Be brief."))
        assert not any(marked(server))
        assert all(isinstance(body["native"]["system"], str) for body in server.requests)


def test_while_one_call_writes_those_beside_it_are_sent_plain() -> None:
    cache = PromptCache()
    for _ in range(USES_BEFORE):
        with cache.marking(PROMPT) as settings:
            assert settings == {}
    with cache.marking(PROMPT) as writer, cache.marking(PROMPT) as beside:
        assert writer and not beside
    with cache.marking(PROMPT) as reader:
        assert reader


def test_a_call_that_fails_has_written_nothing_and_the_next_one_writes() -> None:
    cache = PromptCache()
    for _ in range(USES_BEFORE):
        with cache.marking(PROMPT):
            pass
    with pytest.raises(OSError), cache.marking(PROMPT):
        raise OSError
    with cache.marking(PROMPT) as writer, cache.marking(PROMPT) as beside:
        assert writer and not beside


def test_a_beginning_that_was_not_used_for_long_is_written_anew() -> None:
    now = [0.0]
    cache = PromptCache(clock=lambda: now[0])
    for _ in range(USES_BEFORE + 1):
        with cache.marking(PROMPT):
            pass
    now[0] += KEPT_SECONDS - 1
    with cache.marking(PROMPT) as first, cache.marking(PROMPT) as second:
        assert first and second
    now[0] += KEPT_SECONDS + 1
    with cache.marking(PROMPT) as writer, cache.marking(PROMPT) as beside:
        assert writer and not beside


def test_demos_are_inside_the_mark(tmp_path: Path) -> None:
    demo = [{"role": "user", "content": "a demo " * 900}, {"role": "assistant", "content": "its answer"}]
    with StrictServer(BUDGET_CLAUDE) as server:
        lm = make_lm(claude(server), Gateway(Cache(tmp_path / "c.sqlite")), Meter("c"), 0, 0.7)
        for row in range(USES_BEFORE + 1):
            lm(messages=[PROMPT[0], *demo, {"role": "user", "content": f"row {row}"}])
        assert marked_beginning(server.requests[-1]["native"]).endswith("its answer")


def test_the_cap_holds_back_what_writing_may_cost() -> None:
    model = find_model("claude-haiku-4-5", load_registry())
    assert model.cache_write_usd_per_million > model.input_usd_per_million > model.cached_input_usd_per_million
    assert model.highest_cost(1000, 10) == pytest.approx(model.cost(1000, 10, 0, 0, 1000))


def test_cached_tokens_of_gemini_are_counted_and_priced(tmp_path: Path) -> None:
    with StrictServer(GEMINI) as server:
        complete = server.complete

        def with_cached(body: dict[str, Any]) -> dict[str, Any]:
            response = complete(body)
            response["usageMetadata"]["cachedContentTokenCount"] = 2
            return response

        server.complete = with_cached
        model = replace(find_model("gemini/gemini-3.8-flash", load_registry()), api_base=server.url)
        calls: list[Any] = []
        ask(make_lm(model, Gateway(Cache(tmp_path / "c.sqlite")), Meter("c"), 0, 0.7).copy(record=calls), "a question")
    (call,) = calls
    assert call.cached_tokens == 2
    cost = model.cost(call.prompt_tokens, call.completion_tokens, 2, call.reasoning_tokens)
    assert call.list_cost_usd == pytest.approx(cost) and cost < model.cost(
        call.prompt_tokens, call.completion_tokens, 0, call.reasoning_tokens
    )


@pytest.mark.parametrize("longer", [True, False])
def test_the_plan_says_what_it_expects_of_prompt_caching(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, longer: bool
) -> None:
    if longer:
        config = script.BENCHMARK_CONFIG["banking77"]
        changed = config | {"signature": config["signature"].with_instructions(LONG)}
        monkeypatch.setitem(script.BENCHMARK_CONFIG, "banking77", changed)
    flags = ["--benchmarks", "banking77", "--steps", "1", "--optimizers", "none", "--runs", "1", "--data", "sample"]
    models = ["--models", "claude-haiku-4-5", "--labels", "4", "--output-dir", str(tmp_path)]
    assert script.main([*flags, *models, "--dry-run"]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "prompt caching of" in line]
    assert ("none is expected" in note) is not longer
    assert ("$" in note) is longer


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("name", script.BENCHMARK_CONFIG)
def test_only_the_last_message_of_a_prompt_changes_with_the_row(name: str, adapter: str) -> None:
    signature = script.BENCHMARK_CONFIG[name]["signature"]
    formats = make_adapter(Model("toy/x", "openai/scripted", adapter=adapter))
    for predictor in MultiStepClassifier(signature, 3).predictors():
        rows = [{field: f"{field} {row}" for field in predictor.signature.fields} for row in range(3)]
        prompts = [formats.format(predictor.signature, [dspy.Example(**rows[0])], row) for row in rows[1:]]
        assert stable_messages(prompts[0]) == stable_messages(prompts[1])
        assert prompts[0][-1] != prompts[1][-1] and len(prompts[0]) == 4
