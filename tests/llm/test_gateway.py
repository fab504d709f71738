"""Every call through one gateway: faults, kills, caps and keys, against the scripted server."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.limits import ConcurrencyLimiter
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.testing import ScriptedServer
from scaling.types import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, CellStopped
from tests.support.faults import mixed_faults
from tests.support.files import read
from tests.support.questions import a_model, ask
from tests.support.sweeps import outcome, run, start, write_study

# `make chaos` runs the same tests at full size: 12 cells, 30 kills.
FULL = "CHAOS" in os.environ
CHAIN, RUNS, KILLS = ([1, 2, 3], 2, 30) if FULL else ([1, 2], 1, 2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, int]:
    """What the sweep of the fault and kill tests gives when nothing happens to it, and how many calls it makes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with ScriptedServer() as server:
        flags = write_study(folder, server.url, CHAIN, ["gepa", "mipro"], RUNS)
        assert run(flags, folder / "out")[0] == EXIT_OK
        return outcome(folder / "out"), server.calls


def test_faults_change_nothing_but_time(
    undisturbed: tuple, sweep_server: ScriptedServer, tmp_path: Path, no_backoff: None
) -> None:
    flags = write_study(tmp_path, sweep_server.url, CHAIN, ["gepa", "mipro"], RUNS) + ["--timeout", "1"]
    sweep_server.fault = mixed_faults(3)
    code, said = run(flags, tmp_path / "faulty")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "faulty") == undisturbed[0]


def test_a_killed_sweep_goes_on_and_pays_for_nothing_twice(
    undisturbed: tuple, sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    flags = write_study(tmp_path, sweep_server.url, CHAIN, ["gepa", "mipro"], RUNS) + ["--max-concurrency", "8"]
    expected, calls = undisturbed
    sweep_server.latency = 0.01
    rng = random.Random(5)
    for _ in range(KILLS):
        asked = len(sweep_server.requests)
        reached = threading.Event()
        target = asked + rng.randrange(1, calls // KILLS)
        sweep_server.fault = lambda n, body, target=target, reached=reached: reached.set() if n >= target else None
        process = start(flags, tmp_path / "killed")
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    sweep_server.fault = None
    code, said = run(flags, tmp_path / "killed")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "killed") == expected
    assert sweep_server.calls <= calls + KILLS * 8  # what was in flight is lost with its process


def test_ctrl_c_keeps_settled_cells_and_says_how_to_go_on(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1, 2], ["none", "gepa"], 1) + ["--max-concurrency", "2"]
    reached = threading.Event()
    sweep_server.latency = 0.01
    sweep_server.fault = lambda n, body: reached.set() if n >= 60 else None
    process = start(flags, tmp_path / "out")
    assert reached.wait(60)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "the same command to continue" in said and "Traceback" not in said
    assert run(flags, tmp_path / "out")[0] == EXIT_OK
    assert {read(path)["status"] for path in (tmp_path / "out").rglob("results.json")} == {"ok"}


def test_two_sweeps_do_not_share_a_folder(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1], ["none"], 1)
    held = Cache(tmp_path / "out" / ".cache" / "responses.sqlite")
    code, said = run(flags, tmp_path / "out")
    assert code == EXIT_USAGE and "another sweep is writing" in said and "Traceback" not in said
    assert not sweep_server.requests
    held.close()
    Cache(tmp_path / "out" / ".cache" / "responses.sqlite").close()  # the folder is free again


def test_a_question_that_comes_while_the_same_is_looked_up_is_no_second_request(
    sweep_server: ScriptedServer, gateway: Gateway
) -> None:
    model, meters = a_model(sweep_server), [Meter("c"), Meter("c")]
    look, looks, others = gateway.cache.get, [], []

    def slow_look(key: str) -> object:
        looks.append(key)
        if len(looks) == 1:
            others.append(threading.Thread(target=ask, args=(make_lm(model, gateway, meters[1], 0, 0.7), "one")))
            others[0].start()
        return look(key)

    gateway.cache.get = slow_look
    ask(make_lm(model, gateway, meters[0], 0, 0.7), "one")
    others[0].join(30)
    assert len(sweep_server.requests) == 1
    assert [meter.total().cache_hits for meter in meters] == [0, 1]


def test_a_full_disk_stops_the_cells_and_scores_nothing(
    experiment: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Cache.__init__

    def full(self: Cache, *args, **kwargs) -> None:
        opened(self, *args, **kwargs)
        self._db.execute("PRAGMA max_page_count = 8")

    with monkeypatch.context() as patched:
        patched.setattr(Cache, "__init__", full)
        record = experiment(optimizer="gepa")
    assert (record["status"], record["final_score"]) == ("interrupted", None)
    assert "full" in record["error"]["message"]
    assert experiment(optimizer="gepa")["status"] == "ok"


def test_a_retry_after_holds_every_call_to_the_provider() -> None:
    limiter = ConcurrencyLimiter(4)
    limiter.pause(30.0)
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        raise CellStopped("interrupted", "waited long enough")

    for _ in range(8):  # and whoever gives up while waiting leaves the slot to others
        with pytest.raises(CellStopped), limiter.slot(0, lambda: None, sleep):
            pytest.fail("a call started in the pause")
    assert len(asked) == 8 and all(25 < seconds <= 30 for seconds in asked)


def test_a_slot_goes_to_the_longest_chain_first() -> None:
    limiter, went, all_wait = ConcurrencyLimiter(1), [], threading.Event()

    def call(rank: int) -> None:
        with limiter.slot(rank, lambda: None, lambda seconds: None):
            went.append(rank)

    with ThreadPoolExecutor(4) as pool:
        with limiter.slot(0, lambda: None, lambda seconds: None):
            waiting = [pool.submit(call, rank) for rank in (3, 1, 2)]
            while limiter.waiting < 3:
                all_wait.wait(0.001)
        for one in waiting:
            one.result()
    assert went == [1, 2, 3]


def test_identical_requests_in_flight_are_sent_once(sweep_server: ScriptedServer, gateway: Gateway) -> None:
    sweep_server.latency = 0.2
    lm = make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(lm, "the same"), range(8)))
    assert len(set(answers)) == 1 and len(sweep_server.requests) == 1


def test_answers_that_an_earlier_version_kept_are_read(tmp_path: Path) -> None:
    before = {"outputs": ["yes"], "prompt_tokens": 3, "completion_tokens": 1, "list_cost_usd": 2e-5,
              "latency_seconds": 0.5}  # fmt: skip
    cache = Cache(tmp_path / "c.sqlite")
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        db.execute("INSERT INTO responses VALUES ('k', 1.0, ?)", (zlib.compress(json.dumps(before).encode()),))
    answer = cache.get("k")
    assert {name: getattr(answer, name) for name in before} == before
    assert (answer.cached_tokens, answer.attempts, answer.cache_hit) == (None, None, False)


def test_runs_draws_and_rollout_ids_share_no_answer(sweep_server: ScriptedServer, gateway: Gateway) -> None:
    model = a_model(sweep_server)
    for run_number in (0, 1):
        lm = make_lm(model, gateway, Meter("c"), run_number, 0.7)
        for variant in (lm, lm.copy(draw=1), lm.copy(rollout_id=1), lm.copy(temperature=1.0)):
            ask(variant, "the same")
            ask(variant, "the same")
    assert len(sweep_server.requests) == 8


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_is_told_once_and_stops_the_models_cells(
    sweep_server: ScriptedServer, gateway: Gateway, status: int
) -> None:
    sweep_server.fault = lambda n, body: ("status", status)
    lm = make_lm(a_model(sweep_server, key_env="TOY_KEY"), gateway, Meter("c"), 0, 0.7, phase="evaluate")
    for _ in range(3):
        with pytest.raises(CellStopped, match="TOY_KEY"):
            ask(lm, "anything")
    assert len(sweep_server.requests) == 1


def test_a_call_is_tried_at_least_six_times(sweep_server: ScriptedServer, gateway: Gateway, no_backoff: None) -> None:
    sweep_server.fault = lambda n, body: ("status", 429, {"Retry-After": "0"}) if n < 6 else None
    meter = Meter("c")
    ask(make_lm(a_model(sweep_server), gateway, meter, 0, 0.7), "anything")
    assert len(sweep_server.requests) == 7
    assert meter.total().calls == 1


def test_a_provider_that_is_down_stops_the_sweep(
    sweep_server: ScriptedServer, tmp_path: Path, no_backoff: None
) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1, 2], ["none", "gepa"], 1)
    sweep_server.fault = lambda n, body: ("status", 503, {"Retry-After": "0"})
    code, said = run(flags, tmp_path / "out")
    assert code == EXIT_FAILED, said
    assert "is down" in said
    assert len(sweep_server.requests) < 1500
    assert all(read(path)["final_score"] is None for path in (tmp_path / "out").rglob("results.json"))
    sweep_server.fault = None
    assert run([*flags, "--retry-failed"], tmp_path / "out")[0] == EXIT_OK


def test_no_key_and_no_prompt_is_written_but_into_cache_and_predictions(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    flags = write_study(tmp_path, sweep_server.url, [1], ["mipro"], 1)
    models = tmp_path / "models.toml"
    models.write_text(models.read_text() + 'key_env = "TOY_KEY"\n')
    code, said = run(flags, tmp_path / "out", TOY_KEY="sk-planted-secret")
    assert code == EXIT_OK, said
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(b"sk-planted-secret" not in path.read_bytes() for path in files)
    assert "sk-planted-secret" not in said
    cache = next(path for path in files if path.name == "responses.sqlite")
    assert cache.stat().st_mode & 0o077 == 0
    for calls in (path for path in files if path.name == "calls.jsonl"):
        for line in calls.read_text().splitlines():
            assert set(json.loads(line)) == {
                "phase", "role", "prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens",
                "reasoning_tokens", "list_cost_usd", "billed_cost_usd", "latency_seconds", "attempts", "cache_hit",
                "error",
            }  # fmt: skip
