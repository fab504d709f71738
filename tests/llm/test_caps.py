"""A cap is never passed, and what may have been billed counts until it is known."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scaling.llm.cache import Cache
from scaling.llm.errors import CallFailed
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.testing import ScriptedServer
from scaling.types import EXIT_CAP, EXIT_OK, CellStopped
from tests.support.files import read
from tests.support.questions import a_model, ask
from tests.support.sweeps import outcome, run, write_study


def test_the_cap_stops_the_sweep_and_a_higher_one_goes_on(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1], ["gepa", "mipro"], 1)
    assert run(flags, tmp_path / "free")[0] == EXIT_OK
    asked = sweep_server.prompt_tokens * 3e-6 + sweep_server.completion_tokens * 11e-6
    before = (sweep_server.prompt_tokens, sweep_server.completion_tokens)
    code, said = run([*flags, "--max-cost", str(asked / 2)], tmp_path / "capped")
    assert code == EXIT_CAP, said
    used = [
        now - then
        for now, then in zip((sweep_server.prompt_tokens, sweep_server.completion_tokens), before, strict=True)
    ]
    assert used[0] * 3e-6 + used[1] * 11e-6 <= asked / 2
    assert "budget" in {read(path)["status"] for path in (tmp_path / "capped").rglob("results.json")}
    assert read(tmp_path / "capped" / "sweep.json")["spent_usd"] == pytest.approx(used[0] * 3e-6 + used[1] * 11e-6)
    assert run([*flags, "--max-cost", str(asked * 3)], tmp_path / "capped")[0] == EXIT_OK
    assert outcome(tmp_path / "capped") == outcome(tmp_path / "free")


@pytest.mark.parametrize("faulty", [False, True], ids=["well", "faulty"])
def test_50_random_caps_are_never_passed(sweep_server: ScriptedServer, tmp_path: Path, faulty: bool) -> None:
    """By the strictest reading: a request that was neither answered nor refused was billed in full."""
    rng = random.Random(11)
    model = a_model(sweep_server)
    lost: list[float] = []

    def fault(n: int, body: dict) -> tuple | None:
        what = rng.choices([None, ("status", 502), ("status", 504), ("cut",), ("status", 429)], [70, 10, 10, 5, 5])[0]
        if what is not None and what != ("status", 429):
            prompt = json.dumps([body["messages"], None]).encode()
            lost.append(model.highest_cost(len(prompt), 50))
        return what

    sweep_server.fault = fault if faulty else None
    for trial in range(50):
        cap = rng.uniform(0.0, 0.02)
        gateway = Gateway(Cache(tmp_path / f"{trial}.sqlite"), max_cost=cap, max_concurrency=16)
        gateway.sleep = lambda seconds: None
        lm = make_lm(model, gateway, Meter("c"), 0, 0.7, phase="evaluate")
        before = (sweep_server.prompt_tokens, sweep_server.completion_tokens)
        lost.clear()

        def call(i: int, lm=lm) -> bool:
            try:
                ask(lm, f"question {i} " + "x" * (37 * i % 400))
            except CellStopped as stopped:
                assert stopped.status == "budget"
                return False
            except CallFailed:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            answered = list(pool.map(call, range(40)))
        billed = (sweep_server.prompt_tokens - before[0]) * 3e-6 + (sweep_server.completion_tokens - before[1]) * 11e-6
        billed += sum(lost)
        assert billed <= cap
        assert gateway.cost_budget.spent == pytest.approx(billed)
        # Refused only where the rest of the cap does not hold one more call of the longest question.
        assert all(answered) or gateway.cost_budget.spent + model.highest_cost(500, 50) > cap


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429])
def test_a_refused_request_is_not_billed(sweep_server: ScriptedServer, tmp_path: Path, status: int) -> None:
    gateway = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0)
    gateway.sleep = lambda seconds: None
    sweep_server.fault = lambda n, body: ("status", status)
    with pytest.raises((CallFailed, CellStopped)):
        ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7, phase="evaluate"), "one")
    assert gateway.cost_budget.spent == 0


@pytest.mark.parametrize("status", [402, 408, 409, 500, 502, 503, 504, 529])
def test_a_status_that_may_have_been_billed_counts_in_full(
    sweep_server: ScriptedServer, tmp_path: Path, status: int
) -> None:
    gateway = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0)
    gateway.sleep = lambda seconds: None
    sweep_server.fault = lambda n, body: ("status", status)
    with pytest.raises((CallFailed, CellStopped)):
        ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7, phase="evaluate"), "one")
    each = a_model(sweep_server).highest_cost(len(json.dumps([sweep_server.requests[0]["messages"], None])), 50)
    assert gateway.cost_budget.spent == pytest.approx(each * len(sweep_server.requests))


def test_what_may_have_been_billed_counts_for_the_cap_until_it_is_known(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    model = a_model(sweep_server)
    refused, lost = (
        Gateway(Cache(tmp_path / "a.sqlite"), max_cost=1.0),
        Gateway(Cache(tmp_path / "b.sqlite"), max_cost=1.0),
    )
    sweep_server.fault = lambda n, body: ("status", 429, {"Retry-After": "0"}) if n < 2 else None
    ask(make_lm(model, refused, Meter("c"), 0, 0.7), "one")
    asked = len(sweep_server.requests)
    sweep_server.fault = lambda n, body: ("cut",) if n < asked + 2 else None
    lost.sleep = lambda seconds: None
    ask(make_lm(model, lost, Meter("c"), 0, 0.7), "one")
    highest = (lost.cost_budget.spent - refused.cost_budget.spent) / 2
    assert highest > 50 * 11e-6  # each cut request counts with its whole allowance of tokens
    lost.cache.close()
    assert Gateway(Cache(tmp_path / "b.sqlite")).cost_budget.spent == pytest.approx(lost.cost_budget.spent)


def test_a_server_that_was_never_reached_bills_nothing(tmp_path: Path) -> None:
    with ScriptedServer() as gone:
        model = a_model(gone)
    gateway = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0)
    gateway.sleep = lambda seconds: None
    with pytest.raises(CallFailed):
        ask(make_lm(model, gateway, Meter("c"), 0, 0.7, phase="evaluate"), "one")
    assert gateway.cost_budget.spent == 0


def test_a_server_that_writes_past_its_limit_cannot_run_under_a_cap(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    sweep_server.answer = lambda body: "word " * 400
    capped = make_lm(a_model(sweep_server), Gateway(Cache(tmp_path / "a.sqlite"), max_cost=1.0), Meter("c"), 0, 0.7)
    ask(capped, "one")  # paid for, and kept
    with pytest.raises(CellStopped, match="limit of tokens"):
        ask(capped, "two")
    free = make_lm(a_model(sweep_server), Gateway(Cache(tmp_path / "b.sqlite")), Meter("c"), 0, 0.7)
    assert ask(free, "one").startswith("word")


def test_what_was_spent_before_counts(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    model = a_model(sweep_server)
    first = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0)
    ask(make_lm(model, first, Meter("c"), 0, 0.7), "one")
    spent = first.cost_budget.spent
    assert spent > 0
    first.cache.close()
    second = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0)
    assert second.cost_budget.spent == pytest.approx(spent)
    meter = Meter("c")
    ask(make_lm(model, second, meter, 0, 0.7), "one")
    assert second.cost_budget.spent == pytest.approx(spent)
    used = meter.total()
    assert used.cache_hits == 1 and used.billed_cost_usd == 0 and used.list_cost_usd == pytest.approx(spent)
