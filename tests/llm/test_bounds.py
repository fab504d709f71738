"""What bounds one call, whatever a server does: a deadline, a size, and the end of the sweep."""

from __future__ import annotations

import gzip
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from dspy.utils import exceptions as lm_errors

from scaling.llm import gateway as gateway_module
from scaling.llm.client import ModelClients
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.models import Model
from scaling.testing import ScriptedServer
from scaling.types import EXIT_INTERRUPTED, CellStopped
from tests.support import raw_server
from tests.support.questions import PRICED, a_model, ask
from tests.support.raw_server import ANSWER, RawServer, whole
from tests.support.sweeps import ROOT, start, write_study

TIMEOUT = 0.4


def lm_at(url: str, gateway: Gateway, timeout: float = TIMEOUT):
    model = Model("toy/x", "openai/raw", api_base=url, **PRICED)
    return make_lm(model, gateway, Meter("c"), 0, 0.7, phase="evaluate", timeout=timeout)


def failure_of(lm) -> BaseException:
    """The error of one attempt."""
    with pytest.raises(lm_errors.LMError) as raised:
        lm.client.send(lm, None, [{"role": "user", "content": "a question"}], {})
    return raised.value


@pytest.mark.parametrize("reply", [raw_server.slow_body, raw_server.slow_head, raw_server.silent])
def test_a_call_has_one_deadline_however_its_bytes_come(gateway: Gateway, reply: Callable) -> None:
    with RawServer(reply) as server:
        error = failure_of(lm_at(server.url, gateway))
    assert isinstance(error, lm_errors.LMTransportError) and "no whole answer within 0.4 seconds" in str(error)


def test_a_server_that_takes_no_connection_is_given_up_and_not_billed(gateway: Gateway) -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):  # they fill its queue
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        lm = lm_at(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", gateway, timeout=0.1)
        gateway.sleep = lambda seconds: None
        with pytest.raises(gateway_module.CallFailed, match="timed out connecting"):
            ask(lm, "a question")
    assert gateway.cost_budget.spent == 0


def test_an_answer_that_comes_in_time_is_taken(gateway: Gateway) -> None:
    with RawServer(whole(ANSWER)) as server:
        assert ask(lm_at(server.url, gateway), "a question") == "yes"
    with RawServer(whole(gzip.compress(ANSWER), "Content-Encoding: gzip")) as server:
        assert ask(lm_at(server.url, gateway), "another") == "yes"


def test_the_longest_timeout_that_can_be_given_works(gateway: Gateway) -> None:
    with RawServer(whole(ANSWER)) as server:
        assert ask(lm_at(server.url, gateway, timeout=1e7), "a question") == "yes"


BOMB = gzip.compress(b" " * 2**27)
HUGE = {
    "endless": (raw_server.endless, "larger than 8 MiB"),
    "gzip": (whole(BOMB, "Content-Encoding: gzip"), "larger than 8 MiB"),
    "gzip twice": (whole(gzip.compress(BOMB), "Content-Encoding: gzip, gzip"), "more than once"),
    "two headers": (whole(gzip.compress(BOMB), *["Content-Encoding: gzip"] * 2), "more than once"),
    "refused at length": (whole(b" " * 2**24, status="400 Bad Request"), "larger than 8 MiB"),
}


@pytest.mark.parametrize(("reply", "reason"), HUGE.values(), ids=HUGE)
def test_an_answer_has_a_largest_size_also_after_decompression(gateway: Gateway, reply: Callable, reason: str) -> None:
    with RawServer(reply) as server:
        lm = lm_at(server.url, gateway, timeout=60)
        for _ in range(3):  # and no connection is lost to it
            assert reason in str(failure_of(lm))
        assert lm.client.transport.pool_stats()["in_use"] == 0
        server.reply = whole(ANSWER)
        with ThreadPoolExecutor(32) as pool:
            assert set(pool.map(lambda i: ask(lm, f"question {i}"), range(64))) == {"yes"}


def test_what_is_under_way_ends_with_an_interrupted_sweep(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "GRACE_SECONDS", 0.0)
    with RawServer(raw_server.silent) as server, ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, lm_at(server.url, gateway, timeout=60), "a question")
        assert server.arrived.wait(20)
        gateway.stop("interrupted", "interrupted by Ctrl-C")
        with pytest.raises(CellStopped, match="Ctrl-C"):
            call.result()
    assert gateway.cost_budget.spent > 0  # nobody knows what it cost


def test_an_answer_that_lands_after_ctrl_c_is_kept(gateway: Gateway, sweep_server: ScriptedServer) -> None:
    arrived, released = threading.Event(), threading.Event()

    def hold(n: int, body: dict) -> None:
        arrived.set()
        released.wait(20)

    sweep_server.fault = hold
    lm = make_lm(a_model(sweep_server), gateway, Meter("c"), 0, 0.7)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, lm, "a question")
        assert arrived.wait(20)
        gateway.stop("interrupted", "interrupted by Ctrl-C")
        released.set()
        assert call.result()


def test_a_cap_that_is_reached_cuts_no_call(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(ModelClients, "cut", lambda self: pytest.fail("calls are cut that will be paid for"))
    gateway.stop("budget", "the cap is reached")
    gateway.stop("error", "one model is gone", scope="toy/x")


def test_requests_of_others_have_the_same_deadline_and_end() -> None:
    clients, never = ModelClients(), threading.Event()
    assert clients.within(20, lambda: "answer") == "answer"
    with pytest.raises(ZeroDivisionError):
        clients.within(20, lambda: 1 / 0)
    with pytest.raises(lm_errors.LMTimeoutError, match="no whole answer within 0.01 seconds"):
        clients.within(0.01, lambda: never.wait(20))
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        never.wait(20)

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(clients.within, 20, hang)
        assert begun.wait(20)
        clients.cut()
        with pytest.raises(lm_errors.LMTransportError):
            call.result()
    never.set()


def test_a_second_ctrl_c_ends_a_command_at_once(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    arrived = threading.Event()
    sweep_server.fault = lambda n, body: arrived.set() or ("hang", 300.0)
    process = start(write_study(tmp_path, sweep_server.url, [1], ["none"], 1), tmp_path / "out")
    assert arrived.wait(60)
    for _ in range(40):  # two seconds, of the five that calls have after the first
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            break
    said, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert "interrupted" in said and "Traceback" not in said


@pytest.mark.skipif("CHAOS" not in os.environ, reason="takes as long as calls may after Ctrl-C")
def test_the_first_ctrl_c_ends_a_sweep_whose_calls_hang(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    arrived = threading.Event()
    sweep_server.fault = lambda n, body: arrived.set() or ("hang", 300.0)
    process = start(write_study(tmp_path, sweep_server.url, [1, 2], ["none", "gepa"], 1), tmp_path / "out")
    assert arrived.wait(60)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "the same command to continue" in said and "Traceback" not in said


@pytest.mark.parametrize("script", ["run_scaling_experiment", "analyze_results", "package_results"])
def test_ctrl_c_while_a_command_loads_is_one_line(script: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / f"{script}.py"), "--help"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:  # each module as it has been imported
        if re.search(r"\| +pydantic\.version$", line):
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=60)
    words = [line for line in said.splitlines() if not line.startswith("import time:")]
    assert process.returncode == EXIT_INTERRUPTED, words
    assert words[-1].startswith("interrupted") and "Traceback" not in said
