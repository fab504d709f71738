"""Cells in other processes: one ledger for all, lost and frozen workers, and the Dask engine at the command line."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import pytest

from scaling import elsewhere, ledger, wire
from scaling.cache import Cache
from scaling.lm import Meter, Seam, make_lm
from scaling.models import Model
from scaling.types import EXIT_OK, CellStopped
from tests.support.server import ScriptedServer
from tests.support.sweeps import outcome, run, start, write_study

pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")
cluster = pytest.importorskip("scaling.cluster")

# `make chaos` runs the kill test at full size: 12 cells, 10 kills, and compares 1, 2 and 4 workers.
FULL = "CHAOS" in os.environ
CHAIN, RUNS, KILLS, WORKERS = ([1, 2, 3], 2, 10, [1, 2, 4]) if FULL else ([1, 2], 1, 2, [2])
DASK = ["--engine", "dask"]
PRICED = {"input_usd_per_million": 3.0, "output_usd_per_million": 11.0, "max_output_tokens": 50}
CELLS = ("a", "b")


@pytest.fixture
def sweep_server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


class Board:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.said_something = threading.Event()

    def say(self, text: str) -> None:
        self.said.append(text)
        self.said_something.set()

    def phase(self, cell: Any, phase: str) -> None:
        pass


class Far:
    """A worker's end of a try, in this process: its LM calls go to the ledger over a real socket."""

    def __init__(self, book: ledger.Ledger, model: Model, cell_id: str = "a", alone: bool = False):
        end = socket.create_connection(book.address)
        self.line = wire.Line(end)
        wire.answer_challenge(self.line.pipe, book.key)
        wire.deliver_challenge(self.line.pipe, book.key)
        self.line.send((cell_id, alone))
        self.order, _ = self.line.receive()
        if self.order == wire.RUN:
            self.seam = elsewhere.FarSeam(self.line, None)
            self.seam.meter = self.meter = Meter(cell_id)
            self.lm = make_lm(model, self.seam, self.meter, 0, 0.7, phase="evaluate")

    def ask(self, question: str) -> str:
        return self.lm(messages=[{"role": "user", "content": question}])[0]

    def die(self) -> None:
        """As the kernel closes the sockets of a process that was killed."""
        self.line.close()


@contextmanager
def a_ledger(path: Path, max_cost: float | None = None, places: int | None = None) -> Iterator[ledger.Ledger]:
    """A ledger of two made-up cells whose workers are played by the test."""
    cache = Cache(path)
    work = [SimpleNamespace(cell=SimpleNamespace(cell_id=name, label=name)) for name in CELLS]
    book = ledger.Ledger(work, Seam(cache, max_cost, places), Board(), None, "127.0.0.1")
    book._parts = lambda cell_id: b""
    try:
        yield book
    finally:
        book.close()
        cache.close()


def a_model(server: ScriptedServer) -> Model:
    return Model(id="toy/x", route="openai/scripted", api_base=server.url, **PRICED)


def billed(server: ScriptedServer) -> float:
    """USD of all that the server has answered."""
    return server.prompt_tokens * 3e-6 + server.completion_tokens * 11e-6


def test_a_worker_that_is_lost_leaves_its_place_and_a_bill_at_its_highest(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    asked, go_on = threading.Event(), threading.Event()
    sweep_server.fault = lambda n, body: asked.set() or go_on.wait(30) and None if n == 0 else None
    with a_ledger(tmp_path / "c.sqlite", max_cost=1.0, places=1) as book:
        first, second = Far(book, a_model(sweep_server)), Far(book, a_model(sweep_server), "b")
        thread = threading.Thread(target=lambda: pytest.raises(elsewhere.Revoked, first.ask, "one"))
        thread.start()
        assert asked.wait(30)
        reserved = book.seam.purse.reserved
        assert reserved > 0
        first.die()
        assert second.ask("two")  # the one place is free again
        go_on.set()
        thread.join(30)
        assert not thread.is_alive()
        usage = second.meter.total()
        assert book.seam.purse.reserved == 0
        assert book.seam.purse.spent == pytest.approx(reserved + usage.billed_cost_usd)
        assert book.seam.cache.spent_usd() == pytest.approx(book.seam.purse.spent)
        assert Far(book, a_model(sweep_server)).ask("one")  # its flight was released
    assert len(sweep_server.requests) == 3


def test_a_newer_try_of_a_cell_ends_the_older_one(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    with a_ledger(tmp_path / "c.sqlite") as book:
        old = Far(book, a_model(sweep_server))
        old.ask("one")
        new = Far(book, a_model(sweep_server))
        with pytest.raises(elsewhere.Revoked):
            old.ask("two")
        with pytest.raises(elsewhere.Revoked):
            elsewhere.FarBoard(old.seam).phase(None, "record")
        assert new.ask("one") and new.meter.total().cache_hits == 1
    assert len(sweep_server.requests) == 1


def test_identical_requests_of_two_workers_are_sent_once(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()
    sweep_server.fault = lambda n, body: asked.set() or go_on.wait(30) and None
    answers: list[str] = []
    with a_ledger(tmp_path / "c.sqlite") as book:
        first, second = Far(book, a_model(sweep_server)), Far(book, a_model(sweep_server), "b")
        threads = [threading.Thread(target=lambda far=far: answers.append(far.ask("same"))) for far in (first, second)]
        threads[0].start()
        assert asked.wait(30)
        threads[1].start()
        go_on.set()
        for thread in threads:
            thread.join(30)
    assert len(answers) == 2 and len(set(answers)) == 1 and len(sweep_server.requests) == 1


def test_caps_hold_over_workers_that_are_lost(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    rng = random.Random(7)
    for trial in range(10):
        before, cap = billed(sweep_server), rng.uniform(0.002, 0.02)
        sweep_server.latency = 0.002
        with a_ledger(tmp_path / f"{trial}.sqlite", max_cost=cap, places=8) as book:
            dooms = {name: rng.sample(range(20), 3) for name in CELLS}

            def work(cell_id: str, book=book, dooms=dooms) -> None:
                far = Far(book, a_model(sweep_server), cell_id)
                for i in range(20):
                    if i in dooms[cell_id]:
                        threading.Timer(0.001, far.die).start()
                    try:
                        far.ask(f"{cell_id} question {i} {'x' * 97 * (i % 4)}")
                    except elsewhere.Revoked:
                        far = Far(book, a_model(sweep_server), cell_id)
                        if far.order != wire.RUN:
                            return
                    except CellStopped as stopped:
                        assert stopped.status == "budget"
                        return

            threads = [threading.Thread(target=work, args=(name,)) for name in CELLS]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads)
            assert billed(sweep_server) - before <= cap
            assert billed(sweep_server) - before <= book.seam.cache.spent_usd() + book.seam.purse.reserved + 1e-9


def test_a_cell_that_kills_its_workers_runs_alone_and_then_no_more(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    def lose(far: Far) -> None:
        book.board.said_something.clear()
        far.die()
        assert book.board.said_something.wait(30)

    with a_ledger(tmp_path / "c.sqlite") as book:
        lose(Far(book, a_model(sweep_server)))
        came_further = Far(book, a_model(sweep_server))
        came_further.ask("one")
        lose(came_further)  # whatever took this worker, the cell was not stuck
        lose(Far(book, a_model(sweep_server)))
        assert Far(book, a_model(sweep_server)).order == wire.RUN_ALONE
        lose(Far(book, a_model(sweep_server), alone=True))
        assert Far(book, a_model(sweep_server)).order == wire.GIVE_UP
        assert Far(book, a_model(sweep_server), "b").order == wire.RUN


def test_nobody_without_the_key_is_heard(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    with a_ledger(tmp_path / "c.sqlite") as book:
        with pytest.raises(wire.Unreachable), wire.connected(book.address, b"guessed"):
            pass
        elsewhere.ping(book.address, book.key)


def test_an_error_travels_with_its_causes() -> None:
    class Local(Exception):
        """Of a class that does not pickle."""

    refused = dspy.utils.exceptions.LMTransportError("no answer", model="m", status=429, retry_after=2.0)
    refused.__cause__ = ConnectionRefusedError(111, "refused")
    error = wire.unpacked(wire.packed(refused))
    assert (type(error), str(error), error.status, error.retry_after) == (type(refused), "[m] no answer", 429, 2.0)
    assert isinstance(error.__cause__, ConnectionRefusedError) and error.__cause__.errno == 111
    stopped = wire.unpacked(wire.packed(CellStopped("budget", "enough")))
    assert (stopped.status, str(stopped)) == ("budget", "enough")
    too_long = dspy.utils.exceptions.ContextWindowExceededError(message="long", model="m")
    assert isinstance(wire.unpacked(wire.packed(too_long)), dspy.utils.exceptions.ContextWindowExceededError)
    assert "Local: unknown" in str(wire.unpacked(wire.packed(Local("unknown"))))


def test_workers_are_killed_and_the_records_are_the_same(sweep_server: ScriptedServer, tmp_path: Path) -> None:
    flags = write_study(tmp_path, sweep_server.url, CHAIN, ["gepa", "mipro"], RUNS)
    assert run(flags, tmp_path / "local")[0] == EXIT_OK
    undisturbed, before, cap = sweep_server.calls, billed(sweep_server), 1.2 * billed(sweep_server)
    killer = Killer(sweep_server, random.Random(5), every=undisturbed // (KILLS + 1))
    with start([*flags, *DASK, "--workers", str(max(WORKERS)), "--max-cost", f"{cap}"], tmp_path / "killed") as process:
        killer.watch(process.pid)
        said, _ = process.communicate(timeout=600)
    sweep_server.fault = None
    assert killer.kills, said
    assert billed(sweep_server) - before <= cap
    for _ in range(KILLS):  # the cap counts what may have been billed, so it may have come early
        code, said = run([*flags, *DASK, "--workers", "2"], tmp_path / "killed")
        if code == EXIT_OK:
            break
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "local")
    assert sweep_server.calls <= 2 * undisturbed + killer.kills * sweep_server.max_in_flight


class Killer:
    """Kills a random worker of a command each time the server has heard about so many requests more."""

    def __init__(self, server: ScriptedServer, rng: random.Random, every: int):
        self.kills, self._server, self._rng, self._every = 0, server, rng, every

    def watch(self, pid: int) -> None:
        """The victims are the workers of the command with this id."""
        self._pid, self._next = pid, len(self._server.requests) + self._rng.randrange(1, self._every)
        self._server.latency, self._lock = 0.01, threading.Lock()
        self._server.fault = self._strike

    def _strike(self, n: int, body: dict) -> None:
        with self._lock:
            if n < self._next or self.kills >= KILLS:
                return
            self._next = n + self._rng.randrange(self._every // 2, self._every)
            self.kills += 1
            os.kill(self._rng.choice(workers_of(self._pid)), signal.SIGKILL)


def workers_of(pid: int) -> list[int]:
    """Process ids of the Dask workers that a command started."""
    children = psutil.Process(pid).children()
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]


@pytest.mark.skipif(not FULL, reason="the kill test compares two workers already")
@pytest.mark.parametrize("workers", WORKERS)
def test_any_number_of_workers_gives_the_same_records(
    sweep_server: ScriptedServer, tmp_path: Path, workers: int
) -> None:
    flags = write_study(tmp_path, sweep_server.url, CHAIN, ["none", "gepa", "mipro"], RUNS)
    assert run(flags, tmp_path / "local")[0] == EXIT_OK
    undisturbed = len(sweep_server.requests)
    code, said = run([*flags, *DASK, "--workers", str(workers)], tmp_path / "dask")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "dask") == outcome(tmp_path / "local")
    assert len(sweep_server.requests) == 2 * undisturbed
