"""`--batch evaluate` against batch APIs on loopback: the same scores, half the price, and nothing paid for twice."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scaling.models import find_model, load_registry
from scaling.testing import CLAUDE, GEMINI, GROQ, OPENAI, BatchServer, Maker, StrictBatchServer
from scaling.types import EXIT_CAP, EXIT_OK
from tests.support import toy as toy_benchmark
from tests.support.batches import BATCH, bills, records, requests_left, spent, write_batch_study
from tests.support.chaos import only_in_chaos
from tests.support.faults import mixed_faults
from tests.support.sweeps import lasting, outcome, run, start

pytestmark = pytest.mark.usefixtures("at_once")

# `make chaos` runs the kill, fault and cap tests at full size.
FULL = "CHAOS" in os.environ
STEPS, OPTIMIZERS, RUNS, KILLS = ([1, 2, 3], ["gepa", "mipro"], 2, 20) if FULL else ([1, 2], ["gepa"], 1, 2)
CAPS = 28 if FULL else 3


def test_scores_are_those_of_the_live_sweep_at_half_the_price(batch_server: BatchServer, tmp_path: Path) -> None:
    flags = write_batch_study(tmp_path, batch_server.url, [1, 2], ["none", "gepa"])
    assert run(flags, tmp_path / "live")[0] == EXIT_OK
    assert not batch_server.batches
    code, said = run([*flags, *BATCH], tmp_path / "batch")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "batch") == outcome(tmp_path / "live")

    assert len(batch_server.batches) == 2  # a round for each step, with the calls of all cells
    half, full = records(tmp_path / "batch"), records(tmp_path / "live")
    for record, live in zip(half, full, strict=True):
        optimize, evaluate = record["usage"]["optimize"], record["usage"]["evaluate"]
        assert optimize == live["usage"]["optimize"]
        assert evaluate["list_cost_usd"] == pytest.approx(live["usage"]["evaluate"]["list_cost_usd"])
        assert evaluate["calls"] == live["usage"]["evaluate"]["calls"]
    billed, live_billed = (
        sum(usage["billed_cost_usd"] for record in some for usage in record["usage"].values()) for some in (half, full)
    )
    optimized = sum(record["usage"]["optimize"]["billed_cost_usd"] for record in full)
    assert billed == pytest.approx(optimized + (live_billed - optimized) / 2)
    assert spent(tmp_path / "batch") == pytest.approx(billed)
    assert {state for *_, state in bills(tmp_path / "batch")} == {"settled"} and not requests_left(tmp_path / "batch")


def test_the_same_command_replays_batch_answers_and_a_live_one_does_too(
    batch_server: BatchServer, tmp_path: Path
) -> None:
    flags = write_batch_study(tmp_path, batch_server.url, [1, 2], ["none"])
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    expected, calls = outcome(tmp_path / "out"), batch_server.calls
    for path in (tmp_path / "out").rglob("results.json"):
        path.unlink()
    assert run(flags, tmp_path / "out")[0] == EXIT_OK
    assert batch_server.calls == calls and outcome(tmp_path / "out") == expected


def test_draws_of_a_vote_take_one_round(batch_server: BatchServer, tmp_path: Path) -> None:
    flags = [*write_batch_study(tmp_path, batch_server.url, [3], ["none"]), "--pipelines", "vote", "self_correct"]
    assert run(flags, tmp_path / "live")[0] == EXIT_OK
    calls = batch_server.calls
    assert run([*flags, *BATCH], tmp_path / "batch")[0] == EXIT_OK
    assert outcome(tmp_path / "batch") == outcome(tmp_path / "live")
    assert batch_server.batch_calls == batch_server.calls - calls == calls  # no call was live
    assert len(batch_server.batches) == 3  # self-correction's; all three draws are in the first


MAKERS = [
    ("openai/gpt-5.4", "openai", OPENAI), ("groq/openai/gpt-oss-20b", "openai", GROQ),
    ("anthropic/claude-haiku-5-5", "anthropic", CLAUDE), ("gemini/gemini-3.8-flash", "gemini", GEMINI),
]  # fmt: skip


@pytest.mark.parametrize(("model", "form", "maker"), MAKERS, ids=[form + " " + model for model, form, _ in MAKERS])
def test_every_maker_answers_in_batches_what_it_answers_live(
    command: Callable, tmp_path: Path, model: str, form: str, maker: Maker
) -> None:
    with StrictBatchServer(form, maker=maker, skill=lambda body: 0.6, truth=toy_benchmark.truth()) as server:
        flags = command(models=model, api_base=server.url, steps="2", output_dir=None)
        assert run(flags, tmp_path / "live")[0] == EXIT_OK
        sent = sorted(raw for _, raw in server.raw_requests)
        live = server.calls
        code, said = run([*flags, *BATCH], tmp_path / "batch")
        assert code == EXIT_OK, said
        assert server.batch_calls == server.calls - live == live
        natives = [body["native"] for body in server.requests]
    assert sorted(map(str, natives[:live])) == sorted(map(str, natives[live:]))  # the bodies are those of live calls
    assert len(sent) == live
    for record, other in zip(records(tmp_path / "batch"), records(tmp_path / "live"), strict=True):
        assert record["final_score"] == other["final_score"] and record["error"] is None
        used, live_used = (one["usage"]["evaluate"] for one in (record, other))
        assert lasting(used) == lasting(live_used)
        has_batch_price = find_model(model, load_registry()).batch_price is not None
        share = 0.5 if has_batch_price else 1.0
        assert used["billed_cost_usd"] == pytest.approx(share * live_used["billed_cost_usd"], rel=1e-3)


@only_in_chaos
def test_killed_sweeps_find_their_batches_and_pay_for_nothing_twice(batch_server: BatchServer, tmp_path: Path) -> None:
    batch_server.looks = 3
    flags = [*write_batch_study(tmp_path, batch_server.url, STEPS, OPTIMIZERS, RUNS), *BATCH, "--max-concurrency", "8"]
    asked = count_requests(batch_server)
    assert run(flags, tmp_path / "undisturbed")[0] == EXIT_OK
    expected, in_batches, all_requests = outcome(tmp_path / "undisturbed"), batch_server.batch_calls, asked.count
    live = batch_server.calls - in_batches

    rng = random.Random(7)
    for _ in range(KILLS):
        reached = asked.event_after(rng.randrange(1, max(2, all_requests // KILLS)))
        process = start(flags, tmp_path / "killed")
        while not reached.wait(0.05) and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, said = run(flags, tmp_path / "killed")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "killed") == expected
    assert batch_server.batch_calls == 2 * in_batches
    assert batch_server.calls - batch_server.batch_calls <= 2 * live + KILLS * 8
    assert not requests_left(tmp_path / "killed")


def test_faults_change_nothing_but_time_and_money(batch_server: BatchServer, tmp_path: Path, no_backoff: None) -> None:
    flags = [*write_batch_study(tmp_path, batch_server.url, STEPS, OPTIMIZERS, RUNS), "--timeout", "1"]
    assert run(flags, tmp_path / "undisturbed")[0] == EXIT_OK
    batch_server.fault = mixed_faults(3)
    kinds = [("expires", 5), ("lost",), ("lacks", 3), ("failed", "token_limit_exceeded", "full"), None]
    batch_server.batch_fault = lambda n, lines: kinds[n % 5] if n < 5 else None
    code, said = run([*flags, *BATCH], tmp_path / "faulty")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "faulty") == outcome(tmp_path / "undisturbed")


@only_in_chaos
def test_random_caps_are_never_passed(batch_server: BatchServer, tmp_path: Path) -> None:
    """A request that was answered, even by garbage, is billed; one that was not answered is free."""
    rng = random.Random(11)
    flags = [*write_batch_study(tmp_path, batch_server.url, [1, 2], ["none"]), *BATCH]
    batch_server.fault = lambda n, body: ("status", 500) if rng.random() < 0.1 else None
    assert run(flags, tmp_path / "free")[0] == EXIT_OK
    whole = spent(tmp_path / "free")
    for trial in range(CAPS):
        before = (batch_server.prompt_tokens, batch_server.completion_tokens)
        cap = whole * rng.uniform(0.02, 1.2)
        code, said = run([*flags, "--max-cost", str(cap)], tmp_path / f"capped{trial}")
        assert code in (EXIT_OK, EXIT_CAP), said
        asked, answered = batch_server.prompt_tokens - before[0], batch_server.completion_tokens - before[1]
        billed = asked * 1.5e-6 + answered * 5.5e-6
        assert billed <= cap and billed <= spent(tmp_path / f"capped{trial}") + 1e-9 <= cap + 2e-9


class Requests:
    """Counts the requests to a server, of both kinds, and tells when some more have come."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._target, self._event = 0, threading.Event()

    def add(self, *_: object) -> None:
        with self._lock:
            self.count += 1
            if self.count >= self._target:
                self._event.set()

    def event_after(self, more: int) -> threading.Event:
        with self._lock:
            self._target, self._event = self.count + more, threading.Event()
            return self._event


def count_requests(server: BatchServer) -> Requests:
    asked = Requests()
    server.on_request = asked.add
    server.fault = asked.add
    return asked


@pytest.mark.parametrize(
    "form", ["openai", *(pytest.param(name, marks=only_in_chaos) for name in ("anthropic", "gemini"))]
)
def test_a_kill_between_the_sending_and_the_id_sends_no_second_batch(
    command: Callable, tmp_path: Path, form: str
) -> None:
    model, maker = {f: (m, k) for m, f, k in MAKERS}[form]
    arrived, killed = threading.Event(), threading.Event()

    def hold(n: int, method: str, path: str) -> None:
        if method == "POST" and not path.endswith("/files") and not killed.is_set():
            arrived.set()
            killed.wait(60)

    with StrictBatchServer(form, maker=maker, skill=lambda body: 0.6, truth=toy_benchmark.truth()) as server:
        server.on_request = hold
        argv = command(models=model, api_base=server.url, output_dir=None) + BATCH
        (tmp_path / "run.py").write_text(SCRIPT)
        process = start_script(tmp_path, argv)
        assert arrived.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed.set()  # the batch is made now, and nobody hears its id
        code, said = run(argv, tmp_path / "out")
        assert code == EXIT_OK, said
        assert len(server.batches) == 1 and "was sent before" in said
        assert server.batch_calls == len(next(iter(server.batches.values())).lines)
    assert not requests_left(tmp_path / "out")


# The toy benchmark is the tests' own, so a process of its own has to be told of it.
SCRIPT = """
import sys
import run_scaling_experiment as script
from tests.support import toy
script.BENCHMARK_CONFIG["toy"] = toy.config()
sys.exit(script.main(sys.argv[1:]))
"""


def start_script(folder: Path, argv: list[str]):
    import subprocess
    import sys

    root = Path(__file__).parent.parent.parent
    return subprocess.Popen(
        [sys.executable, str(folder / "run.py"), *argv, "--output-dir", str(folder / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
