"""Calls that fail, are refused or must wait: what becomes of the cell and its scores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.testing import Body, ScriptedServer, last_user_message
from tests.support.files import lines
from tests.support.small import records_in, sweep
from tests.support.toy import truth


def test_a_busy_server_is_asked_again(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, no_backoff: None
) -> None:
    server.fault = lambda n, body: ("status", 429, {"Retry-After": "0"}) if n % 3 == 0 else None
    record = experiment()

    assert record["status"] == "ok"
    assert record["error_rates"]["infrastructure"] == 0.0
    assert record["usage"]["evaluate"]["calls"] == server.calls == 35
    attempts = sum(call["attempts"] for call in lines(tmp_path / "cell/calls.jsonl"))
    assert attempts == len(server.requests) > 35


def refuse_some(share: int) -> Callable[[int, Body], Any]:
    """Refuses, for good, every request about one message in `share`."""
    refused = set(list(truth())[::share])

    def fault(n: int, body: Body) -> Any:
        return ("status", 400) if any(message in last_user_message(body) for message in refused) else None

    return fault


def test_too_many_failed_calls_make_a_cell_invalid_without_a_score(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    server.fault = refuse_some(4)
    record = experiment(test_size=40)

    failed = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["error"] == "infrastructure"]
    failed = [line for line in failed if line["program"] == "final"]
    assert len(failed) > 1
    assert all(line["score"] is None for line in failed)
    assert record["status"] == "invalid"
    assert record["final_score"] is None
    assert record["error_rates"]["infrastructure"] == len(failed) / 40
    assert record["error_rates"]["parse"] == 0.0


def test_a_failed_call_is_missing_from_the_score_and_no_zero(
    toy: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    server.fault, server.skill = refuse_some(4), lambda body: 1.0
    command = sweep(server, tmp_path / "out", "--benchmarks", "toy", "--test-size", "40", "--max-error-rate", "0.5")

    assert script.main(command) == 0
    record = records_in(tmp_path / "out")["toy"]
    assert record["status"] == "ok"
    assert record["n"] == 40 * (1 - record["error_rates"]["infrastructure"]) < 40
    assert record["final_score"] == 1.0


@pytest.mark.parametrize(("status", "billed"), [(400, 0.0), (500, None)], ids=["refused", "maybe billed"])
def test_what_a_failed_call_was_billed_is_null_where_nobody_knows(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, no_backoff: None, status: int, billed: float | None
) -> None:
    models = tmp_path / "models.toml"
    models.write_text(
        f'[models."toy/priced"]\nroute = "openai/scripted"\napi_base = "{server.url}"\n'
        "input_usd_per_million = 3.0\noutput_usd_per_million = 11.0\n"
    )
    lost = list(truth())[0::40]
    server.fault = lambda n, body: (
        ("status", status) if any(message in last_user_message(body) for message in lost) else None
    )
    record = experiment(test_size=40, model="toy/priced", models_file=models, api_base=None)
    calls = lines(tmp_path / "cell/calls.jsonl")
    failed = [call for call in calls if call["error"]]
    assert failed and {call["billed_cost_usd"] for call in failed} == {billed}
    usage = record["usage"]["evaluate"]
    assert usage["failed_calls"] == len(failed)
    assert (usage["billed_cost_usd"] is None) == (billed is None)
    assert usage["list_cost_usd"] > 0


def test_a_wrong_key_ends_the_model_at_once(experiment: Callable, server: ScriptedServer) -> None:
    server.fault = lambda n, body: ("status", 401)
    record = experiment(max_concurrency=1)

    assert record["status"] == "error"
    assert "openai/scripted" in record["error"]["message"]
    assert len(server.requests) == 1


def test_calls_of_all_cells_go_out_together_up_to_the_limit(
    toy: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    first_three = threading.Barrier(3, timeout=20)

    def hold(n: int, body: Body) -> None:
        if n < 3:
            first_three.wait()  # none of them is answered before all three are there

    server.fault, server.latency = hold, 0.005
    command = sweep(server, tmp_path / "out", "--benchmarks", "toy", "--steps", "1", "2", "--max-concurrency", "3")

    assert script.main(command) == 0
    assert server.max_in_flight == 3
