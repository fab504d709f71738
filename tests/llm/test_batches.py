"""`--batch evaluate` against batch APIs on loopback: the same scores, half the price, and nothing paid for twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scaling import batch_offers
from scaling.llm import batch_http, batch_round
from scaling.models import find_model, load_registry
from scaling.testing import CLAUDE, GEMINI, GROQ, OPENAI, BatchServer, Maker, StrictBatchServer
from scaling.types import EXIT_CAP, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from tests.support import toy as toy_benchmark
from tests.support.batches import BATCH, bills, requests_left, write_batch_study
from tests.support.faults import mixed_faults
from tests.support.files import read
from tests.support.sweeps import lasting, outcome, run, start

# `make chaos` runs the kill, fault and cap tests at full size.
FULL = "CHAOS" in os.environ
STEPS, OPTIMIZERS, RUNS, KILLS = ([1, 2, 3], ["gepa", "mipro"], 2, 20) if FULL else ([1, 2], ["gepa"], 1, 2)
CAPS = 28 if FULL else 3


@pytest.fixture
def batch_server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        yield running


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are looked at without a pause, and nobody waits before a second try."""
    monkeypatch.setattr(batch_round, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(batch_round, "QUEUE_FULL_SECONDS", 0.0)
    monkeypatch.setattr(batch_http, "backoff_seconds", lambda state: 0.0)


def spent(output: Path) -> float:
    return sum(usd for _, usd, _ in bills(output))


def records(output: Path) -> list[dict]:
    return [read(path) for path in sorted(output.rglob("results.json"))]


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


@pytest.mark.parametrize("form", ["openai", "anthropic", "gemini"])
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


def undisturbed_and(server: BatchServer, folder: Path, steps: list[int]) -> tuple[list[str], dict]:
    """Flags of a small sweep, and what it gives live."""
    flags = write_batch_study(folder, server.url, steps, ["none"])
    assert run(flags, folder / "live")[0] == EXIT_OK
    return flags, outcome(folder / "live")


LINE_FAULTS = {
    "too many": ("status", 429), "a server's error": ("status", 500), "overloaded": ("status", 503),
    "garbage": ("garbage",),
}  # fmt: skip


@pytest.mark.parametrize("fault", LINE_FAULTS.values(), ids=LINE_FAULTS)
def test_what_a_batch_does_not_answer_is_in_the_next_one(
    batch_server: BatchServer, tmp_path: Path, fault: tuple
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    asked = len(batch_server.requests)
    batch_server.fault = lambda n, body: fault if n < asked + 5 else None
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "out") == expected
    assert "5 requests to toy/priced were not answered" in said
    sizes = [len(batch.lines) for batch in batch_server.batches.values()]
    assert len(sizes) == 3 and sizes[1] == 5
    highest = [usd for _, usd, _ in bills(tmp_path / "out") if usd > 200 * 5.5e-6]
    assert len(highest) == (5 if fault == ("garbage",) else 0)  # a bad answer may have been billed
    assert sum(usd == 0 for _, usd, _ in bills(tmp_path / "out")) == (0 if fault == ("garbage",) else 5)


def test_an_expired_batch_keeps_what_it_answered(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    batch_server.batch_fault = lambda n, lines: ("expires", 7) if n == 0 else ("lacks", 2) if n == 1 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected
    sizes = [len(batch.lines) for batch in batch_server.batches.values()]
    assert sizes == [sizes[0], sizes[0] - 7, 2]


def test_what_three_batches_do_not_answer_is_asked_live(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    live = batch_server.calls
    batch_server.batch_fault = lambda n, lines: ("expires", len(lines) - 2) if len(batch_server.batches) < 3 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected
    left = batch_server.calls - live - batch_server.batch_calls
    assert left >= 2
    assert spent(tmp_path / "out") > spent(tmp_path / "live") / 2


def test_a_refused_request_is_asked_live_which_knows_what_it_means(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, _ = undisturbed_and(batch_server, tmp_path, [1])
    too_long = ("status", 400, {}, "This model's maximum context length is 1000 tokens", "context_length_exceeded")
    marked = batch_server.requests[0]["messages"]
    batch_server.fault = lambda n, body: too_long if body["messages"] == marked else None
    assert run(flags, tmp_path / "faulty")[0] == EXIT_OK
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == outcome(tmp_path / "faulty")
    assert len(batch_server.batches) == 1
    (record,) = records(tmp_path / "out")
    assert record["error_rates"]["infrastructure"] == 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (("failed", "invalid_json_format", "line 3 is no JSON"), "failed (invalid_json_format: line 3 is no JSON)"),
        (("refused", 400), "refused (HTTP 400"),
        (("refused", 403), "refused (HTTP 403"),
    ],
)
def test_a_batch_that_fails_as_a_whole_stops_the_cells_and_asks_nothing_live(
    batch_server: BatchServer, tmp_path: Path, fault: tuple, says: str
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    calls = batch_server.calls
    batch_server.batch_fault = lambda n, lines: fault
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_FAILED, said
    assert all(says in record["error"]["message"] for record in records(tmp_path / "out"))
    assert "--retry-failed" in records(tmp_path / "out")[0]["error"]["message"]
    assert batch_server.calls == calls and spent(tmp_path / "out") == 0
    batch_server.batch_fault = None
    assert run([*flags, *BATCH, "--retry-failed"], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected


def test_a_batch_that_the_provider_has_no_room_for_is_sent_again(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    full = ("failed", "token_limit_exceeded", "Enqueued token limit reached")
    batch_server.batch_fault = lambda n, lines: full if n < 2 else None
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_OK and said.count("has no room for a batch now") == 2
    assert outcome(tmp_path / "out") == expected
    batch_server.batch_fault = lambda n, lines: full
    code, said = run([*flags, *BATCH], tmp_path / "full")
    assert code == EXIT_FAILED
    assert "Enqueued token limit reached" in records(tmp_path / "full")[0]["error"]["message"]


def test_a_batch_whose_id_is_lost_on_the_way_is_looked_for(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    batch_server.batch_fault = lambda n, lines: ("lost",) if n == 0 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected and len(batch_server.batches) == 1


def test_a_batch_that_is_gone_counts_at_its_highest_cost(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    batch_server.batch_fault = lambda n, lines: ("gone",) if "once" not in seen and not seen.add("once") else None
    seen: set[str] = set()
    code, said = run([*flags, *BATCH], tmp_path / "out")
    assert code == EXIT_OK and "is not known there any more" in said
    assert outcome(tmp_path / "out") == expected
    assert spent(tmp_path / "out") > spent(tmp_path / "live")


def test_a_batch_api_that_is_away_for_a_while_changes_nothing(
    batch_server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    reply = batch_server.reply
    monkeypatch.setattr(
        batch_server, "reply",
        lambda *request: (503, {"error": "away"}) if batch_server.batch_requests % 5 == 1 and bump(batch_server)
        else reply(*request),
    )  # fmt: skip
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected


def bump(server: BatchServer) -> bool:
    server.batch_requests += 1
    return True


def test_files_over_the_providers_limits_are_split(
    batch_server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1])
    offer = batch_offers.OFFERS["openai"]
    monkeypatch.setitem(batch_offers.OFFERS, "openai", replace(offer, most_requests=5))
    assert run([*flags, *BATCH], tmp_path / "few")[0] == EXIT_OK
    sizes = [len(batch.lines) for batch in batch_server.batches.values()]
    assert max(sizes) == 5 and sum(sizes) == batch_server.batch_calls
    monkeypatch.setitem(batch_offers.OFFERS, "openai", replace(offer, most_bytes=5000))
    assert run([*flags, *BATCH], tmp_path / "small")[0] == EXIT_OK
    assert max(map(len, batch_server.files.values())) > 5000  # of the first sweep
    small = list(batch_server.files.values())[len(sizes) :]
    assert len(small) > 1 and max(map(len, small)) <= 5000
    assert outcome(tmp_path / "few") == outcome(tmp_path / "small") == expected


def test_a_cap_that_holds_a_part_sends_that_part_first(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    enough = 0.8 * spent(tmp_path / "live")
    code, said = run([*flags, *BATCH, "--max-cost", str(enough)], tmp_path / "out")
    assert code == EXIT_OK, said
    assert "wait until the batches under way are billed" in said
    assert outcome(tmp_path / "out") == expected
    assert len(batch_server.batches) > 2 and spent(tmp_path / "out") <= enough


def test_a_cap_that_is_reached_between_rounds_stops_and_a_higher_one_goes_on(
    batch_server: BatchServer, tmp_path: Path
) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    cap = spent(tmp_path / "live") / 3
    code, said = run([*flags, *BATCH, "--max-cost", str(cap)], tmp_path / "out")
    assert code == EXIT_CAP, said
    assert 0 < spent(tmp_path / "out") <= cap
    assert run([*flags, *BATCH, "--max-cost", str(100 * cap)], tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == expected
    answered = batch_server.batch_calls
    assert run([*flags, *BATCH], tmp_path / "whole")[0] == EXIT_OK
    assert batch_server.batch_calls == 2 * answered  # nothing was paid for twice


def test_ctrl_c_leaves_the_batch_and_the_same_command_waits_for_it(batch_server: BatchServer, tmp_path: Path) -> None:
    flags = [*write_batch_study(tmp_path, batch_server.url, [1, 2], ["none"]), *BATCH]
    assert run(flags, tmp_path / "whole")[0] == EXIT_OK
    answered = batch_server.batch_calls
    looked = threading.Event()
    batch_server.looks = 10**9
    batch_server.on_request = lambda n, method, path: looked.set() if method == "GET" else None
    process = start(flags, tmp_path / "out")
    assert looked.wait(60)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "the same command to continue" in said and "Traceback" not in said
    batch_server.looks = 1
    shutil.copytree(tmp_path / "out", tmp_path / "live")
    assert "requests are in batches under way" in run(flags[: -len(BATCH)], tmp_path / "live")[1]
    code, said = run(flags, tmp_path / "out")
    assert code == EXIT_OK and "was sent before" in said
    assert batch_server.batch_calls == 2 * answered
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")


def test_a_sweep_that_is_finished_live_pays_for_the_rest_alone(batch_server: BatchServer, tmp_path: Path) -> None:
    flags, expected = undisturbed_and(batch_server, tmp_path, [1, 2])
    batch_server.batch_fault = lambda n, lines: ("failed", "x", "y") if n == 1 else None
    assert run([*flags, *BATCH], tmp_path / "out")[0] == EXIT_FAILED  # in the second round
    live = batch_server.calls
    answered = batch_server.batch_calls
    code, said = run([*flags, "--retry-failed"], tmp_path / "out")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "out") == expected
    assert 0 < batch_server.calls - live < answered  # the second round alone


def test_draws_of_a_row_are_in_the_first_round(batch_server: BatchServer, tmp_path: Path) -> None:
    flags = [*write_batch_study(tmp_path, batch_server.url, [1], ["none"]), "--draws", "3"]
    assert run(flags, tmp_path / "live")[0] == EXIT_OK
    calls = batch_server.calls
    assert run([*flags, *BATCH], tmp_path / "batch")[0] == EXIT_OK
    assert outcome(tmp_path / "batch") == outcome(tmp_path / "live")
    assert batch_server.batch_calls == batch_server.calls - calls == calls and len(batch_server.batches) == 1
