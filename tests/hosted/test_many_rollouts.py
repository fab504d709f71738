"""Many rollouts at once: what hangs holds up nothing else, and what nobody waits for any more ends."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import run_scaling_experiment as script
from scaling.data import load_benchmark, make_splits
from scaling.hosted import app as apps
from scaling.hosted.rollout import Task
from scaling.hosted.server import serving
from scaling.models import Model
from scaling.run.pipelines import MultiStepClassifier
from scaling.testing import ScriptedServer
from tests.support import toy
from tests.support.raw_server import Listener

FULL = "CHAOS" in os.environ
ROLLOUTS, THREADS = (300, apps.MOST_ROLLOUTS) if FULL else (12, 8)
AT_ONCE = 500 if FULL else 50
KEY = {"X-API-Key": "app-key"}
MODEL = Model(id="openai/scripted", route="openai/scripted")
BENCH = load_benchmark("toy", toy.config(), "sample")
ROWS = make_splits(BENCH, train=10, val=12, select=5, test=20, run=0).train


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A task app that runs THREADS rollouts at a time."""
    monkeypatch.setattr(apps, "MOST_ROLLOUTS", THREADS)
    core = MultiStepClassifier(BENCH.signature, 3, BENCH.roles)
    with serving(apps.create_app(Task("toy_3step", BENCH, core, ROWS, MODEL), frozenset(["app-key"]))) as address:
        yield address


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of all connections are in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class SilentServer(Listener):
    """Takes requests and never answers. asked, left: one for each request, and for each that was given up."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.left = threading.Semaphore(0), threading.Semaphore(0)

    def hear(self, connection: socket.socket) -> None:
        connection.recv(65536)
        self.asked.release()
        while connection.recv(65536):
            pass
        self.left.release()


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    with SilentServer() as running:
        yield running


def request(url: str, seed: int = 0) -> dict[str, Any]:
    config = {"model": "scripted", "inference_url": url}
    return {"trace_correlation_id": "trace_1", "env": {"seed": seed}, "policy": {"config": config}}


def ask(app: str, upstream: str) -> socket.socket:
    """A caller that has sent a request for a rollout and waits."""
    where, body = urlsplit(app), json.dumps(request(upstream)).encode()
    line = socket.create_connection((where.hostname, where.port), timeout=30)
    head = f"POST /rollout HTTP/1.1\r\nHost: app\r\nX-API-Key: app-key\r\nContent-Length: {len(body)}\r\n\r\n"
    line.sendall(head.encode() + body)
    return line


def test_rollouts_that_hang_hold_up_nothing_and_end_when_their_callers_leave(
    url: str, silent: SilentServer, server: ScriptedServer, many_files: None
) -> None:
    with ExitStack() as callers:
        for _ in range(THREADS):
            callers.enter_context(ask(url, silent.address))
        for _ in range(THREADS):
            assert silent.asked.acquire(timeout=60)
        for _ in range(ROLLOUTS - THREADS):  # no thread is free for these
            callers.enter_context(ask(url, silent.address))
        for path in ("/health", "/info", "/task_info?seed=1", "/"):
            assert httpx.get(url + path, headers=KEY, timeout=10).status_code == 200
    for _ in range(THREADS):
        assert silent.left.acquire(timeout=60)
    answer = httpx.post(f"{url}/rollout", json=request(server.url), headers=KEY, timeout=60)
    assert answer.status_code == 200  # a thread is free again


def test_a_rollout_whose_caller_has_left_makes_no_further_call(url: str, server: ScriptedServer) -> None:
    """Its first call is answered when the caller has gone: the program's second one is not sent."""
    callers: list[socket.socket] = []
    waits, gone = threading.Event(), threading.Event()

    def hang_up(n: int, body: dict[str, Any]) -> None:
        if n == 0:
            assert waits.wait(30)
            callers[0].close()
            for _ in range(3):  # the app has heard of the hang-up before it has answered these
                httpx.get(f"{url}/health", headers=KEY)
            gone.set()

    server.fault = hang_up
    callers.append(ask(url, server.url))
    waits.set()
    assert gone.wait(30)
    answer = httpx.post(f"{url}/rollout", json=request(server.url, 1), headers=KEY, timeout=60)
    assert answer.status_code == 200
    assert len(server.requests) == 1 + 3


def test_many_rollouts_at_once_are_all_answered(url: str, server: ScriptedServer, many_files: None) -> None:
    async def all_at_once() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(headers=KEY, timeout=300, limits=limits) as http:
            asked = [http.post(f"{url}/rollout", json=request(server.url, seed)) for seed in range(AT_ONCE)]
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(all_at_once()) == [200] * AT_ONCE
    assert len(server.requests) == 3 * AT_ONCE


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "::no address::"])
def test_rollouts_on_loopback_need_no_proxy(
    url: str, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    with httpx.Client(headers=KEY, trust_env=False) as http:
        assert http.post(f"{url}/rollout", json=request(server.url), timeout=60).status_code == 200
        elsewhere = http.post(f"{url}/rollout", json=request("http://model.example"), timeout=60)
    assert elsewhere.status_code == 502 and "outcome_reward" not in elsewhere.text


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_a_hosted_job_on_loopback_needs_no_proxy(
    command: Callable[..., list[str]], backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mode: str,
    proxy: str,
) -> None:  # fmt: skip
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    backend()
    assert script.main(command(mode=mode)) == 0
