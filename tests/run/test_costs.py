"""Tokens, prices and bills of a cell are what the server counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.testing import ScriptedServer
from tests.support.files import lines
from tests.support.small import records_in, sweep

PRICES = (3.0, 11.0)


@pytest.fixture
def priced(server: ScriptedServer, tmp_path: Path) -> dict[str, Any]:
    """Keywords of an experiment on a model with prices of its own."""
    models = tmp_path / "models.toml"
    models.write_text(
        f'[models."toy/priced"]\nroute = "openai/scripted"\napi_base = "{server.url}"\nmax_output_tokens = 100\n'
        f"input_usd_per_million = {PRICES[0]}\noutput_usd_per_million = {PRICES[1]}\n"
    )
    return {"model": "toy/priced", "models_file": models, "api_base": None}


def price(prompt_tokens: int, completion_tokens: int) -> float:
    return (prompt_tokens * PRICES[0] + completion_tokens * PRICES[1]) / 1e6


@pytest.mark.parametrize("optimizer", ["none", "gepa", "mipro", "bootstrap"])
def test_usage_is_what_the_server_counted(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str
) -> None:
    record = experiment(optimizer=optimizer, num_steps=2)

    calls = lines(tmp_path / "cell/calls.jsonl")
    for phase, usage in record["usage"].items():
        of_phase = [call for call in calls if call["phase"] == phase]
        assert usage["calls"] == len(of_phase)
        assert usage["cache_hits"] == sum(call["cache_hit"] for call in of_phase)
        assert usage["prompt_tokens"] == sum(call["prompt_tokens"] for call in of_phase)
        assert usage["completion_tokens"] == sum(call["completion_tokens"] for call in of_phase)
    sent = [call for call in calls if not call["cache_hit"]]
    assert len(sent) == server.calls == len(server.requests)
    assert sum(call["prompt_tokens"] for call in sent) == server.prompt_tokens
    assert sum(call["completion_tokens"] for call in sent) == server.completion_tokens


def test_a_cost_is_tokens_times_price_and_is_billed_once(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, priced: dict[str, Any]
) -> None:
    record = experiment(optimizer="gepa", **priced)
    (tmp_path / "cell/results.json").unlink()
    again = experiment(optimizer="gepa", **priced)

    for usage in (*record["usage"].values(), *again["usage"].values()):
        cost = price(usage["prompt_tokens"], usage["completion_tokens"])
        assert usage["list_cost_usd"] == pytest.approx(cost)
    billed = [sum(usage["billed_cost_usd"] for usage in one["usage"].values()) for one in (record, again)]
    assert billed[0] == pytest.approx(price(server.prompt_tokens, server.completion_tokens))
    assert billed[1] == 0.0


def test_a_cost_that_is_not_known_is_null(experiment: Callable) -> None:
    usage = experiment(test_size=3)["usage"]["evaluate"]

    assert usage["list_cost_usd"] is None
    assert usage["billed_cost_usd"] is None


def test_the_cap_stops_before_it_is_passed_and_a_higher_one_goes_on(
    toy: Callable, server: ScriptedServer, tmp_path: Path, priced: dict[str, Any]
) -> None:
    flags = ["--models", "toy/priced", "--models-file", str(priced["models_file"]), "--benchmarks", "toy"]
    command = [flag for flag in sweep(server, tmp_path / "out", *flags) if flag not in ("--api-base", server.url)]

    assert script.main([*command, "--max-cost", "0.01"]) == 3
    spent = price(server.prompt_tokens, server.completion_tokens)
    first = server.calls
    assert 0 < first < 35
    assert spent <= 0.01
    assert records_in(tmp_path / "out")["toy"]["status"] == "budget"
    assert records_in(tmp_path / "out")["toy"]["final_score"] is None

    assert script.main([*command, "--max-cost", "1"]) == 0
    assert server.calls == 35  # 20 test rows and 15 check rows
    assert records_in(tmp_path / "out")["toy"]["status"] == "ok"
