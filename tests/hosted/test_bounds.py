"""The calls of hosted jobs are bounded and billed as all others: a deadline, a size, and what may have been billed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

import run_scaling_experiment as script
from scaling.hosted import client as synth_client
from scaling.hosted.client import LONGEST_PAUSE, SynthClient, SynthError, pause
from scaling.hosted.http import BoundedHttp
from scaling.hosted.inference import InferenceLM, Rollout, Target, UpstreamError
from scaling.llm.meter import Meter
from scaling.testing import ScriptedServer
from scaling.types import HostedSettings
from tests.support import raw_server
from tests.support.files import read
from tests.support.hosted import record_in
from tests.support.questions import a_model
from tests.support.raw_server import ANSWER, RawServer, whole
from tests.support.sweeps import MODELS

BOMB = whole(gzip.compress(b" " * 2**27), "Content-Encoding: gzip")


@pytest.mark.parametrize("reply", [raw_server.slow_head, raw_server.slow_body, raw_server.silent])
def test_a_request_has_one_deadline_however_its_bytes_come(reply: Callable) -> None:
    with (
        RawServer(reply) as server,
        httpx.Client(transport=BoundedHttp(0.3)) as http,
        pytest.raises(httpx.ReadTimeout, match="no whole answer within 0.3 seconds"),
    ):
        http.post(server.url, json={})


@pytest.mark.parametrize("reply", [raw_server.endless, BOMB])
def test_an_answer_has_a_largest_size(reply: Callable) -> None:
    with (
        RawServer(reply) as server,
        httpx.Client(transport=BoundedHttp(60)) as http,
        pytest.raises(httpx.RemoteProtocolError, match="larger than 8 MiB"),
    ):
        http.post(server.url, json={})


def test_an_answer_is_what_was_sent(server: ScriptedServer) -> None:
    with (
        RawServer(whole(gzip.compress(ANSWER), "Content-Encoding: gzip", "X-Two: a", "X-Two: b")) as raw,
        httpx.Client(transport=BoundedHttp(60), headers={"X-Key": "key"}) as http,
    ):
        answer = http.post(raw.url, json={})
        assert (answer.status_code, answer.content) == (200, ANSWER) and answer.headers.get_list("x-two") == ["a", "b"]
        address = server.url.replace("//", "//user:word@") + "/chat/completions?x=1"
        http.post(address, json={"model": "m", "messages": []})
    headers, body = server.raw_requests[0]
    assert (headers["X-Key"], headers["Authorization"]) == ("key", "Basic dXNlcjp3b3Jk")
    assert json.loads(body) == {"model": "m", "messages": []}


@pytest.mark.parametrize("reply", [raw_server.slow_head, BOMB])
def test_a_backend_that_does_not_end_its_answer_is_an_error(monkeypatch: pytest.MonkeyPatch, reply: Callable) -> None:
    monkeypatch.setattr(synth_client, "MAX_ATTEMPTS", 2)
    with RawServer(reply) as server:
        hosted = HostedSettings(server.url.removesuffix("/v1"), timeout=0.3)
        with SynthClient(hosted, sleep=lambda seconds: None) as client, pytest.raises(SynthError, match="reached"):
            client.job("7")
        assert server.requests == 2


RETRY_AFTER = {"0": 0, "-5": 0, "nan": 0, "soon": 0, formatdate(1e9, usegmt=True): 0, "7": 7, "1e9": LONGEST_PAUSE}


@pytest.mark.parametrize(("header", "least"), RETRY_AFTER.items())
def test_a_backends_retry_after_only_makes_the_pause_longer(
    monkeypatch: pytest.MonkeyPatch, header: str, least: float
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    response = httpx.Response(429, headers={"Retry-After": header}, request=httpx.Request("GET", "http://x"))
    error = httpx.HTTPStatusError("busy", request=response.request, response=response)
    state = SimpleNamespace(attempt_number=3, outcome=SimpleNamespace(exception=lambda: error))
    assert pause(state) == max(0.8, least)


def counted(server: ScriptedServer) -> tuple[Meter, InferenceLM]:
    """An LM of a rollout at the server, and the meter that counts its calls."""
    meter = Meter("c")
    lm = InferenceLM(meter)
    lm.rollout = Rollout(Target(f"{server.url}/chat/completions", a_model(server), {}, {}), lambda: True)
    return meter, lm


def ask(lm: InferenceLM) -> list[str]:
    """One question, from a thread of an event loop as in the task app."""
    question = [{"role": "user", "content": "one"}]
    return anyio.run(partial(anyio.to_thread.run_sync, lambda: lm(messages=question)))


def cost_of(meter: Meter) -> float | None:
    return meter.usage["optimize"].list_cost_usd


@pytest.mark.parametrize("fault", [("status", 504), ("status", 524), ("status", 408), ("cut",), ("garbage",)], ids=str)
def test_a_lost_call_that_may_have_been_billed_is_not_free(server: ScriptedServer, fault: tuple) -> None:
    server.fault = lambda n, body: fault
    meter, lm = counted(server)
    with pytest.raises(UpstreamError):
        ask(lm)
    assert cost_of(meter) is None


@pytest.mark.parametrize("status", [400, 401, 404, 429])
def test_a_refused_call_is_free(server: ScriptedServer, status: int) -> None:
    server.fault = lambda n, body: ("status", status)
    meter, lm = counted(server)
    with pytest.raises(UpstreamError):
        ask(lm)
    assert cost_of(meter) == 0.0


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens_details": {"cached_tokens": 10**8}}, {"completion_tokens": 0}, {"prompt_tokens": 10**15},
        {"completion_tokens": -1}, {"prompt_tokens": "7"},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_counts_of_a_rollout_are_unknown(server: ScriptedServer, usage: dict[str, Any]) -> None:
    server.usage_details = usage
    meter, lm = counted(server)
    assert ask(lm)
    assert cost_of(meter) is None


def test_a_job_with_a_lost_call_stays_at_its_highest_cost(
    command: Callable, backend: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    backend()
    (tmp_path / "mine.toml").write_text(MODELS.format(url=server.url))
    server.fault = lambda n, body: ("status", 504) if n == 7 else None
    script.main(command(models_file="mine.toml", models="toy/priced", api_base=None, max_cost="5"))
    record = record_in(tmp_path / "out")
    evaluated = record["usage"]["evaluate"]["billed_cost_usd"]
    assert record["hosted"]["rollouts_list_cost_usd"] is None
    spent = read(tmp_path / "out" / "sweep.json")["spent_usd"]
    assert spent == pytest.approx(record["hosted"]["max_cost_usd"] + evaluated)
