"""A cap is never passed, and what may have been billed counts until it is known."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
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

# `make chaos` raises the cap 28 times.
CAPS = 28 if "CHAOS" in os.environ else 2


class StrictBooks:
    """What a provider bills from now on at worst: answers by their tokens, lost requests at their highest cost."""

    def __init__(self, server: ScriptedServer, lose: Callable[[int], bool], status: int | None = None):
        self._server, self._before = server, (server.prompt_tokens, server.completion_tokens)
        self.lost, self._lost_usd = 0, 0.0
        self._lose, self._fault = lose, ("cut",) if status is None else ("status", status)
        server.fault = self._answer

    def _answer(self, n: int, body: dict) -> tuple | None:
        if not self._lose(n):
            return None
        prompt = json.dumps([body["messages"], body.get("response_format")]).encode()
        self._lost_usd += len(prompt) * 3e-6 + (body.get("max_tokens") or body["max_completion_tokens"]) * 11e-6
        self.lost += 1
        return self._fault

    def billed(self) -> float:
        asked, answered = (
            now - then
            for now, then in zip(
                (self._server.prompt_tokens, self._server.completion_tokens), self._before, strict=True
            )
        )
        return self._lost_usd + asked * 3e-6 + answered * 11e-6


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


@pytest.mark.parametrize("status", [402, 408, 409, 425, 499, 500, 502, 503, 504, 520, 522, 524, 529])
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


@pytest.mark.parametrize(
    ("message", "code"), [("The response was filtered.", "content_filter"), ("our content management policy", None)]
)
def test_a_prompt_that_a_filter_read_may_have_been_billed(
    sweep_server: ScriptedServer, tmp_path: Path, message: str, code: str | None
) -> None:
    gateway = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0)
    sweep_server.fault = lambda n, body: ("status", 400, {}, message, code)
    with pytest.raises(CallFailed):
        ask(make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7, phase="evaluate"), "one")
    assert gateway.cost_budget.spent > 50 * 11e-6


def test_n_answers_are_n_calls_that_share_nothing(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    gateway, meter = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0), Meter("c")
    lm = make_lm(a_model(sweep_server, sends_seed=True), gateway, meter, 0, 0.7)
    question = [{"role": "user", "content": "one"}]
    answers = lm(messages=question, n=8)
    assert len(sweep_server.requests) == len({body["seed"] for body in sweep_server.requests}) == len(answers) == 8
    assert all("n" not in body or body["n"] == 1 for body in sweep_server.requests)
    billed = sweep_server.prompt_tokens * 3e-6 + sweep_server.completion_tokens * 11e-6
    assert gateway.cost_budget.spent == pytest.approx(billed)
    assert lm.copy(n=8)(messages=question) == answers and len(sweep_server.requests) == 8
    used = meter.total()
    assert (used.calls, used.cache_hits, used.billed_cost_usd) == (2, 1, pytest.approx(billed))
    assert used.prompt_tokens == 2 * sweep_server.prompt_tokens


def test_n_answers_never_pass_the_cap(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    """By the strictest reading: a request that was neither answered nor refused was billed in full."""
    for hundredths in range(1, 12):
        books = StrictBooks(sweep_server, lose=lambda n: n % 3 == 2)
        gateway = Gateway(Cache(tmp_path / f"{hundredths}.sqlite"), max_cost=hundredths * 0.0008)
        gateway.sleep = lambda seconds: None
        lm = make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7)
        with contextlib.suppress(CellStopped, CallFailed):
            lm(messages=[{"role": "user", "content": "x" * 30}], n=8)
        assert books.billed() <= hundredths * 0.0008
        assert gateway.cost_budget.spent == pytest.approx(books.billed())


@pytest.mark.parametrize("status", [408, 504, 524])
def test_rising_caps_are_never_passed_behind_a_gateway_that_gives_up(
    sweep_server: ScriptedServer, tmp_path: Path, no_backoff: None, status: int
) -> None:
    """The gateway's upstream answers, and bills, after the gateway has given up; the sweep goes on at a higher cap."""
    flags = write_study(tmp_path, sweep_server.url, [1], ["none", "gepa"], 1)
    books = StrictBooks(sweep_server, lose=lambda n: n % 7 == 3, status=status)
    cap = 0.0
    for _ in range(CAPS):
        cap += 0.6 / CAPS
        code, said = run([*flags, "--max-cost", str(cap)], tmp_path / "out")
        assert code in (EXIT_OK, EXIT_CAP), said
        assert books.billed() <= cap
        assert read(tmp_path / "out" / "sweep.json")["spent_usd"] == pytest.approx(books.billed())
    assert books.lost > 0


@pytest.mark.parametrize("n", [0, -1, 1.5, "3"])
def test_n_is_a_number_of_answers(sweep_server: ScriptedServer, tmp_path: Path, n: object) -> None:
    lm = make_lm(a_model(sweep_server), Gateway(Cache(tmp_path / "c.sqlite")), Meter("c"), 0, 0.7)
    with pytest.raises(ValueError, match="number of answers"):
        lm(messages=[{"role": "user", "content": "one"}], n=n)
    assert not sweep_server.requests


@pytest.mark.parametrize(
    "settings",
    [{"max_completion_tokens": 5000}, {"tools": [{"type": "function", "function": {"name": "x" * 9000}}]}],
    ids=["two limits", "tools"],
)
def test_all_that_a_request_can_cost_is_reserved(sweep_server: ScriptedServer, tmp_path: Path, settings: dict) -> None:
    lm = make_lm(a_model(sweep_server), Gateway(Cache(tmp_path / "c.sqlite"), max_cost=0.01), Meter("c"), 0, 0.7)
    with pytest.raises(CellStopped, match="would pass --max-cost"):
        lm(messages=[{"role": "user", "content": "one"}], **settings)
    assert not sweep_server.requests


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


def test_a_bill_below_0_of_an_earlier_version_lowers_nothing(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    first = Gateway(Cache(tmp_path / "c.sqlite"), max_cost=1.0)
    ask(make_lm(a_model(sweep_server), first, Meter("c"), 0, 0.7), "one")
    first.cache.settle_bill(first.cache.open_bill("c", "toy/x", "optimize", 0.1), -374_997.0)
    first.cache.open_bill("c", "toy/x", "optimize", None)  # of a model without a price
    first.cache.close()
    spent = first.cost_budget.spent
    assert spent > 0 and Cache(tmp_path / "c.sqlite").spent_usd() == pytest.approx(spent)
