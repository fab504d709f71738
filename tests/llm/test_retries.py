"""When a failed call is tried again, and what is said of one that is refused for good."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from dspy.utils import exceptions as lm_errors

from scaling.llm.cache import Cache
from scaling.llm.errors import LONGEST_PAUSE_SECONDS, advice, pause_seconds
from scaling.llm.gateway import CallFailed, Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.testing import ScriptedServer
from scaling.types import EXIT_FAILED, CellStopped
from tests.support.chaos import only_in_chaos
from tests.support.files import read
from tests.support.questions import a_model, ask
from tests.support.sweeps import run, write_study

MUST_WAIT = ["0", "0.0", "-5", "-1e9", formatdate(1e9, usegmt=True), "soon", "", "nan", None]


@pytest.mark.parametrize("retry_after", MUST_WAIT)
def test_no_retry_after_makes_us_ask_faster_than_we_would(
    sweep_server: ScriptedServer, gateway: Gateway, retry_after: str | None
) -> None:
    waits: list[float] = []
    gateway.sleep = waits.append
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    sweep_server.fault = lambda n, body: ("status", 503, headers)
    with pytest.raises(CallFailed):
        ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7, phase="evaluate"), "a question")
    assert len(waits) == 7 and all(0.25 <= wait <= 30 for wait in waits)
    assert 30 <= sum(waits) <= 62


@pytest.mark.parametrize("asked", [1e9, float("inf"), 10**30])
def test_no_retry_after_holds_a_sweep_for_longer_than_a_bound(asked: float) -> None:
    assert pause_seconds(lm_errors.LMRateLimitError("busy", retry_after=asked)) == LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize("asked", [None, -3.0, float("nan"), "7", 0])
def test_nonsense_is_no_pause(asked: object) -> None:
    assert pause_seconds(lm_errors.LMRateLimitError("busy", retry_after=asked)) == 0.0


def test_only_a_failure_that_may_pass_pauses_the_provider() -> None:
    assert pause_seconds(lm_errors.LMRateLimitError("busy", retry_after=9.5)) == 9.5
    assert pause_seconds(lm_errors.LMInvalidRequestError("wrong", status=400, retry_after=9.5)) == 0.0


REASON = "the temperature is not taken by this model"
LASTING = {
    400: "may not take a setting",
    413: "larger than the server",
    422: "may not take a setting",
    451: "use another model or provider",
}


@pytest.mark.parametrize(("status", "advice"), LASTING.items())
def test_a_lasting_refusal_tells_its_reason_and_what_to_do(
    sweep_server: ScriptedServer, tmp_path: Path, status: int, advice: str
) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1], ["none"], 1)
    secret = "sk-planted0123456789"
    sweep_server.fault = lambda n, body: ("status", status, {}, f"{REASON} \x1b[31m(key {secret})")
    code, said = run(flags, tmp_path / "out")
    assert code == EXIT_FAILED
    (record,) = [read(path) for path in (tmp_path / "out").rglob("results.json")]
    assert record["status"] == "invalid" and record["final_score"] is None
    for text in (record["error"]["message"], " ".join(said.split())):
        assert REASON in text and advice in text and f"HTTP {status}" in text
        assert secret not in text and "\x1b" not in text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_once_and_its_target_named(
    sweep_server: ScriptedServer, gateway: Gateway, status: int
) -> None:
    target = "https://user:hidden-password@elsewhere.example/v1"
    sweep_server.fault = lambda n, body: ("status", status, {"Location": target})
    lm = make_lm(a_model(sweep_server, key_env="TOY_KEY"), gateway, Meter("c"), 0, 0.7, phase="evaluate")
    for _ in range(2):
        with pytest.raises(CellStopped, match=f"HTTP {status}.*elsewhere.example.*--api-base") as stopped:
            ask(lm, "a question")
        assert "hidden-password" not in str(stopped.value) and "TOY_KEY" not in str(stopped.value)
    assert len(sweep_server.requests) == 1


def test_a_redirect_with_a_json_body_is_no_empty_answer(sweep_server: ScriptedServer, gateway: Gateway) -> None:
    sweep_server.fault = lambda n, body: ("status", 302, {"Location": sweep_server.url})
    with pytest.raises(CellStopped):
        ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7), "a question")
    assert gateway.cost_budget.spent > 0  # whoever answered may have asked the model before


def test_a_refusal_while_optimizing_tells_its_reason(experiment: Callable, server: ScriptedServer) -> None:
    server.fault = lambda n, body: ("status", 422, {}, REASON)
    record = experiment(optimizer="gepa")
    assert record["status"] == "error"
    assert REASON in record["error"]["message"] and LASTING[422] in record["error"]["message"]


def test_a_page_of_html_is_told_in_one_line(sweep_server: ScriptedServer, gateway: Gateway) -> None:
    sweep_server.complete = lambda body: None
    sweep_server.fault = lambda n, body: ("status", 400, {}, "<html>\n<h1>Blocked</h1>\nby the firewall\n</html>")
    with pytest.raises(CallFailed, match="Blocked.*by the firewall") as failed:
        ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7, phase="evaluate"), "a question")
    assert "\n" not in str(failed.value)


def test_an_error_without_a_status_has_no_advice() -> None:
    assert advice(SimpleNamespace(status=None)) == "" == advice(ValueError("x"))


BUCKET = {"rate": 10.0, "burst": 20.0}


@only_in_chaos
def test_the_gateway_learns_a_limit_that_nobody_knows(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    """On a simulated clock, on which a call takes 10 ms and waiting what is waited for."""
    now, level, at = [0.0], [BUCKET["burst"]], [0.0]
    taken: list[float] = []

    def bucket(n: int, body: dict) -> tuple | None:
        now[0] += 0.01
        level[0] = min(BUCKET["burst"], level[0] + BUCKET["rate"] * (now[0] - at[0]))
        at[0] = now[0]
        if level[0] < 1:
            return ("status", 429, {})
        level[0] -= 1
        taken.append(now[0])
        return None

    def sleep(seconds: float) -> None:
        now[0] += seconds

    sweep_server.fault = bucket
    gateway = Gateway(Cache(tmp_path / "learnt.sqlite"), max_concurrency="auto", clock=lambda: now[0])
    gateway.sleep = sleep
    lm = make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7, phase="evaluate")
    for i in range(1500):
        ask(lm, f"question {i}")
    after = [moment for moment in taken if moment >= 60.0]
    assert len(after) >= 0.9 * BUCKET["rate"] * (now[0] - 60.0)
    assert len(sweep_server.requests) - len(taken) < 0.01 * len(sweep_server.requests)


def test_a_number_of_places_is_kept_to_and_nothing_is_learnt(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    now, waits = [0.0], []
    gateway = Gateway(Cache(tmp_path / "fixed.sqlite"), max_concurrency=4, clock=lambda: now[0])
    gateway.sleep = waits.append
    for i in range(20):
        ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7, phase="evaluate"), f"question {i}")
    assert not waits
