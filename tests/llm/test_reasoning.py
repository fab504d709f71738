"""Models that reason, against servers that refuse what their makers refuse: each kind settles a cell."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm, prompt_bytes
from scaling.llm.meter import Meter
from scaling.models import find_model, load_registry, with_effort
from scaling.testing import BUDGET_CLAUDE, CLAUDE, GEMINI, GROQ, OPENAI, Maker, StrictServer
from tests.conftest import SMALL
from tests.support import toy as toy_benchmark
from tests.support.files import lines

REGISTRY = load_registry()
# Name -> the API that it is spoken to in. Each is sent by the client that it has for the real address.
KINDS = {
    "openai/gpt-5.4": OPENAI,
    "openai/gpt-5.5": OPENAI,
    "openai/gpt-6-luna": OPENAI,
    "openai/o3": OPENAI,
    "groq/openai/gpt-oss-20b": GROQ,
    "anthropic/claude-haiku-5-5": CLAUDE,
    "anthropic/claude-opus-5-5": CLAUDE,
    "anthropic/claude-haiku-4-5": BUDGET_CLAUDE,
    "gemini/gemini-3.8-flash": GEMINI,
}
USER = [{"role": "user", "content": "Say yes."}]
CHAT, MESSAGES, GENERATE = "/chat/completions", "/messages", "/models/gemini-3.8-flash:generateContent"


@pytest.fixture
def settle(toy: Callable, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs a small cell of a model by its name on a maker's server and gives its record."""

    def run(server: StrictServer, model: str, **changes: Any) -> dict[str, Any]:
        keywords = SMALL | {"model": model, "output_dir": tmp_path / "cell", "api_base": server.url} | changes
        return asyncio.run(script.run_single_experiment(**keywords))

    return run


def strict(maker: Maker) -> StrictServer:
    return StrictServer(maker, skill=lambda body: 0.6, truth=toy_benchmark.truth())


@pytest.mark.parametrize("optimizer", ["none", "gepa", "mipro"])
@pytest.mark.parametrize("model", KINDS)
def test_a_model_that_reasons_settles_a_cell_and_its_reasoning_is_counted_and_priced(
    settle: Callable, tmp_path: Path, model: str, optimizer: str
) -> None:
    effort = "low" if KINDS[model] is BUDGET_CLAUDE else None  # it thinks when it is asked to
    with strict(KINDS[model]) as server:
        record = settle(server, model, optimizer=optimizer, reasoning_effort=effort)
    assert record["status"] == "ok", record["error"]
    assert record["error_rates"] == {"infrastructure": 0.0, "parse": 0.0}
    sent = [call for call in lines(tmp_path / "cell/calls.jsonl") if not call["cache_hit"]]
    assert len(sent) == server.calls == len(server.requests)
    assert sum(call["reasoning_tokens"] for call in sent) == server.reasoning_tokens
    assert sum(call["completion_tokens"] for call in sent) == server.completion_tokens
    every = lines(tmp_path / "cell/calls.jsonl")
    for phase, usage in record["usage"].items():
        told = [call["reasoning_tokens"] for call in every if call["phase"] == phase]
        assert usage["reasoning_tokens"] == (sum(told) if told else None)
    price = find_model(model, REGISTRY, "http://x")
    billed = sum(usage["billed_cost_usd"] for usage in record["usage"].values())
    expected = price.cost(server.prompt_tokens, server.completion_tokens, 0, server.reasoning_tokens)
    assert billed == pytest.approx(expected) and expected > 0
    assert record["model"]["price_source"].startswith("litellm ")
    if server.reasoning_tokens:
        line = lines(tmp_path / "cell/predictions.jsonl")[0]
        assert 0 < line["reasoning_tokens"] < line["completion_tokens"]


@pytest.mark.parametrize(
    "model",
    [
        "together_ai/meta-llama/Llama-3.2-1B-Instruct",
        "together_ai/openai/gpt-oss-120b",
        "fireworks_ai/accounts/fireworks/models/llama-v3p1-8b-instruct",
        "novita/meta-llama/llama-3.2-1b-instruct",
        "deepinfra/openai/gpt-oss-20b",
    ],
)
def test_hosts_of_the_studies_that_only_litellm_reaches_settle_a_cell(settle: Callable, model: str) -> None:
    effort = "low" if model == "together_ai/openai/gpt-oss-120b" else None
    with strict(GROQ) as server:
        record = settle(server, model, reasoning_effort=effort)
        assert {body.get("reasoning_effort") for body in server.requests} == {effort}
    assert record["status"] == "ok", record["error"]
    assert sum(usage["reasoning_tokens"] or 0 for usage in record["usage"].values()) == server.reasoning_tokens > 0


def test_gpt_5_4_does_not_reason_unless_it_is_asked_to(settle: Callable, tmp_path: Path) -> None:
    with strict(OPENAI) as server:
        settle(server, "openai/gpt-5.4", reasoning_effort="high", output_dir=tmp_path / "high")
        assert {body["reasoning_effort"] for body in server.requests} == {"high"}
    with strict(OPENAI) as server:
        settle(server, "openai/gpt-5.4", output_dir=tmp_path / "plain")
        assert not [body for body in server.requests if "reasoning_effort" in body]


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("openai/gpt-6-luna", ("reasoning_effort",)),
        ("groq/openai/gpt-oss-20b", ("reasoning_effort",)),
        ("anthropic/claude-haiku-5-5", ("native", "output_config", "effort")),
        ("gemini/gemini-3.8-flash", ("native", "generationConfig", "thinkingConfig", "thinkingLevel")),
    ],
)
def test_the_effort_is_sent_and_makes_another_cell(
    settle: Callable, tmp_path: Path, model: str, place: tuple[str, ...]
) -> None:
    records = {}
    for effort in (None, "low", "high"):
        with strict(KINDS[model]) as server:
            records[effort] = settle(server, model, reasoning_effort=effort, output_dir=tmp_path / str(effort))
            sent = server.requests[0]
            for name in place:
                sent = sent.get(name, {})
            assert sent == (effort or {})
        assert records[effort]["cell"]["reasoning_effort"] == effort
    assert len({record["cell_id"] for record in records.values()}) == 3
    tokens = [records[effort]["usage"]["evaluate"]["reasoning_tokens"] for effort in ("low", "high")]
    assert tokens[0] < tokens[1]


def test_a_temperature_that_cannot_be_set_is_the_providers_and_the_cell_says_so(
    settle: Callable, capsys: pytest.CaptureFixture
) -> None:
    with strict(GEMINI) as server:
        record = settle(server, "gemini/gemini-3.8-flash", temperature=0.3)
        assert not [body for body in server.requests if "temperature" in body["native"]["generationConfig"]]
    assert record["cell"]["temperature"] == 1.0
    said = capsys.readouterr().out
    assert "no temperature can be set, so each uses its own (1): gemini/gemini-3.8-flash" in said
    assert "of the tokens are reasoning" in said


@pytest.mark.parametrize(
    ("model", "effort", "says"),
    [
        ("openai/gpt-6-luna", "max", "possible: none, low, medium, high, xhigh"),
        ("groq/openai/gpt-oss-20b", "none", "possible: low, medium, high"),
        ("openai/gpt-4o-mini", "low", "none of the models can reason"),
        ("deepinfra/openai/gpt-oss-20b", "low", "takes none"),
        ("openai/gpt-6-luna", "much", "--reasoning-effort much is not possible"),
    ],
)
def test_an_effort_that_a_model_does_not_take_is_refused(
    command: Callable, refused: Callable, model: str, effort: str, says: str
) -> None:
    assert says in refused(command(models=model, reasoning_effort=effort))


def test_in_a_study_of_several_models_those_that_cannot_reason_keep_their_cells(
    command: Callable, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    both = command(models="openai/gpt-4o-mini groq/openai/gpt-oss-20b", reasoning_effort="low", output_dir="out")
    assert script.main([*both, "--dry-run"]) == 0
    assert "2 cells to run on 2 models" in capsys.readouterr().out


def test_a_model_that_nobody_knows_reasons_when_it_is_asked_to(settle: Callable) -> None:
    with strict(GROQ) as server:
        record = settle(server, "openai/my-thinker", reasoning_effort="low")
        assert {body["reasoning_effort"] for body in server.requests} == {"low"}
    assert record["cell"]["max_output_tokens"] == 16384


def test_an_answer_that_the_limit_leaves_no_room_for_is_a_failure_and_no_score(
    settle: Callable, tmp_path: Path
) -> None:
    (tmp_path / "models.toml").write_text('[models."groq/openai/gpt-oss-20b"]\nmax_output_tokens = 100\n')
    with strict(GROQ) as server:
        flags = {"models_file": tmp_path / "models.toml", "output_dir": tmp_path / "cut"}
        record = settle(server, "groq/openai/gpt-oss-20b", **flags)
    assert (record["status"], record["final_score"]) == ("ok", 0.0)
    assert record["error_rates"] == {"infrastructure": 0.0, "parse": 1.0}


def test_an_answer_that_is_refused_for_its_length_is_a_failure_too(settle: Callable) -> None:
    with StrictServer(OPENAI, thinks=16384) as server:
        record = settle(server, "openai/gpt-6-luna")
    assert (record["status"], record["final_score"]) == ("ok", 0.0)
    assert record["failure_kinds"]["final"] == {"too_long": 20}


REFUSED = [
    (OPENAI, CHAT, {"messages": USER, "max_completion_tokens": 20000, "temperature": 0.7}, "temperature"),
    (OPENAI, CHAT, {"messages": USER, "max_tokens": 20000}, "max_tokens"),
    (OPENAI, CHAT, {"messages": USER, "max_completion_tokens": 100}, "limit was reached"),
    (OPENAI, CHAT, {"messages": USER, "max_completion_tokens": 20000, "reasoning_effort": "max"}, "effort"),
    (GROQ, CHAT, {"messages": USER, "max_tokens": 20000, "reasoning_effort": "none"}, "effort"),
    (CLAUDE, MESSAGES, {"messages": USER, "model": "c", "max_tokens": 9000, "temperature": 0.7}, "sampling"),
    (CLAUDE, MESSAGES, {"messages": USER, "model": "c", "max_tokens": 9000,
                        "thinking": {"type": "enabled", "budget_tokens": 2000}}, "adaptive"),
    (BUDGET_CLAUDE, MESSAGES, {"messages": USER, "model": "c", "max_tokens": 9000, "temperature": 0.7,
                               "thinking": {"type": "enabled", "budget_tokens": 2000}}, "temperature"),
    (BUDGET_CLAUDE, MESSAGES, {"messages": USER, "model": "c", "max_tokens": 1500,
                               "thinking": {"type": "enabled", "budget_tokens": 2000}}, "greater than"),
    (GEMINI, GENERATE, {"contents": [{"role": "user", "parts": [{"text": "hi"}]}],
                        "generationConfig": {"temperature": 0.7}}, "Sampling"),
]  # fmt: skip


@pytest.mark.parametrize(("maker", "path", "body", "says"), REFUSED, ids=range(len(REFUSED)))
def test_the_strict_server_refuses_what_the_maker_refuses(
    maker: Maker, path: str, body: dict[str, Any], says: str
) -> None:
    with strict(maker) as server:
        request = urllib.request.Request(server.url + path, json.dumps({"model": "m"} | body).encode())
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code == 400 and says in error.value.read().decode()
        assert server.calls == 0


def test_the_cap_holds_back_the_thinking_budget_of_a_claude(tmp_path: Path) -> None:
    model = with_effort(find_model("claude-haiku-4-5", REGISTRY, "http://127.0.0.1:9/v1"), "high")
    with strict(BUDGET_CLAUDE) as server:
        cache = Cache(tmp_path / "cache.sqlite")
        lm = make_lm(replace(model, api_base=server.url), Gateway(cache, max_cost=1.0), Meter("c"), 0, 0.7)
        lm(messages=USER)
        (sent,) = server.requests
    held = model.highest_cost(prompt_bytes({"messages": USER}), lm._most_answered({"max_tokens": model.output_limit}))
    limit = sent["native"]["max_tokens"]
    assert limit > model.output_limit
    assert held >= model.cost(0, limit)
