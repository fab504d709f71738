"""Cells in other processes: one ledger for all, lost and frozen workers, and the Dask engine at the command line."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import pytest

import run_scaling_experiment as script
from scaling.distributed import coordinator as ledger
from scaling.distributed import protocol as wire
from scaling.distributed import worker as elsewhere
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway, Meter, make_lm
from scaling.models import Model
from scaling.types import EXIT_CAP, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, CellStopped
from tests.support.files import read, tree
from tests.support.server import ScriptedServer
from tests.support.sweeps import ROOT, lasting, outcome, run, start, write_study

Client = pytest.importorskip("distributed").Client
psutil = pytest.importorskip("psutil")
cluster = pytest.importorskip("scaling.distributed.engine")

# `make chaos` runs the kill test at full size: 12 cells, 10 kills, and compares 1, 2 and 4 workers.
FULL = "CHAOS" in os.environ
CHAIN, RUNS, KILLS, WORKERS = ([1, 2, 3], 2, 10, [1, 2, 4]) if FULL else ([1, 2], 1, 2, [2])
DASK = ["--engine", "dask"]
PRICED = {"input_usd_per_million": 3.0, "output_usd_per_million": 11.0, "max_output_tokens": 50}
CELLS = ("a", "b")


@dataclass(frozen=True)
class Local:
    """A sweep to compare with: its records, the calls it made, and what they cost in USD."""

    outcome: dict[str, Any]
    calls: int
    usd: float


@pytest.fixture
def sweep_server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


class ProgressReporter:
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

    def __init__(self, book: ledger.Coordinator, model: Model, cell_id: str = "a", alone: bool = False):
        end = socket.create_connection(book.address)
        self.line = wire.Line(end)
        wire.answer_challenge(self.line.pipe, book.key)
        wire.deliver_challenge(self.line.pipe, book.key)
        self.line.send((cell_id, alone))
        self.order, _ = self.line.receive()
        if self.order == wire.RUN:
            self.gateway = elsewhere.RemoteGateway(self.line, None)
            self.gateway.meter = self.meter = Meter(cell_id)
            self.lm = make_lm(model, self.gateway, self.meter, 0, 0.7, phase="evaluate")

    def ask(self, question: str) -> str:
        return self.lm(messages=[{"role": "user", "content": question}])[0]

    def die(self) -> None:
        """As the kernel closes the sockets of a process that was killed."""
        self.line.close()


@contextmanager
def a_ledger(path: Path, max_cost: float | None = None, places: int | None = None) -> Iterator[ledger.Coordinator]:
    """A ledger of two made-up cells whose workers are played by the test."""
    cache = Cache(path)
    work = [SimpleNamespace(cell=SimpleNamespace(cell_id=name, label=name)) for name in CELLS]
    book = ledger.Coordinator(work, Gateway(cache, max_cost, places), ProgressReporter(), None, "127.0.0.1")
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
        reserved = book.gateway.cost_budget.reserved
        assert reserved > 0
        first.die()
        assert second.ask("two")  # the one place is free again
        go_on.set()
        thread.join(30)
        assert not thread.is_alive()
        usage = second.meter.total()
        assert book.gateway.cost_budget.reserved == 0
        assert book.gateway.cost_budget.spent == pytest.approx(reserved + usage.billed_cost_usd)
        assert book.gateway.cache.spent_usd() == pytest.approx(book.gateway.cost_budget.spent)
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
            elsewhere.RemoteReporter(old.gateway).phase(None, "record")
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
            assert (
                billed(sweep_server) - before
                <= book.gateway.cache.spent_usd() + book.gateway.cost_budget.reserved + 1e-9
            )


def test_a_cell_that_kills_its_workers_runs_alone_and_then_no_more(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    def lose(far: Far) -> None:
        book.reporter.said_something.clear()
        far.die()
        assert book.reporter.said_something.wait(30)

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


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    """The study without Dask and without disturbance: what it must come to, and what it asked for."""
    folder = tmp_path_factory.mktemp("local")
    with ScriptedServer() as server:
        assert run(write_study(folder, server.url, CHAIN, ["gepa", "mipro"], RUNS), folder / "out")[0] == EXIT_OK
        return Local(outcome(folder / "out"), server.calls, billed(server))


@pytest.fixture
def flags(sweep_server: ScriptedServer, tmp_path: Path) -> list[str]:
    """The study's flags, on this test's server."""
    return write_study(tmp_path, sweep_server.url, CHAIN, ["gepa", "mipro"], RUNS)


def test_workers_are_killed_and_the_records_are_the_same(
    local: Local, flags: list[str], sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    killer = Killer(sweep_server, KILLS, every=local.calls // (KILLS + 1))
    for cap in (1.2 * local.usd, None):  # bills of the killed stay at their highest, so the cap comes early
        command = [*flags, *DASK, "--workers", str(max(WORKERS)), "--max-concurrency", "8"]
        command += ["--max-cost", f"{cap}"] if cap else []
        process = start(command, tmp_path / "out")
        killer.watch(process.pid)
        said, _ = process.communicate(timeout=600)
        assert process.returncode in ((EXIT_OK, EXIT_CAP) if cap else (EXIT_OK,)), said
        assert cap is None or billed(sweep_server) <= cap
    assert killer.kills == KILLS
    assert outcome(tmp_path / "out") == local.outcome
    assert sweep_server.calls <= local.calls + KILLS * 8  # what was in flight is lost with its worker


class Killer:
    """Kills a random worker of a command each time the server has heard about so many requests more."""

    def __init__(self, server: ScriptedServer, kills: int, every: int):
        self.kills, self._most, self._server, self._every = 0, kills, server, every
        self._rng, self._lock, self._next = random.Random(5), threading.Lock(), every // 2

    def watch(self, pid: int) -> None:
        """From now on the victims are the workers of the command with this id."""
        self._pid, self._server.latency, self._server.fault = pid, 0.01, self._strike

    def _strike(self, n: int, body: dict) -> None:
        with self._lock:
            victims = workers_of(self._pid) if n >= self._next and self.kills < self._most else []
            if victims:
                self._next = n + self._rng.randrange(self._every // 2, self._every)
                self.kills += 1
                os.kill(self._rng.choice(victims), signal.SIGKILL)


def workers_of(pid: int) -> list[int]:
    """Process ids of the Dask workers that a command started."""
    children = psutil.Process(pid).children()
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]


long = pytest.mark.skipif(not FULL, reason="workers take seconds to start: make chaos")


@long
@pytest.mark.parametrize("workers", WORKERS)
def test_any_number_of_workers_gives_the_same_records(
    local: Local, flags: list[str], sweep_server: ScriptedServer, tmp_path: Path, workers: int
) -> None:
    code, said = run([*flags, *DASK, "--workers", str(workers)], tmp_path / "out")
    assert code == EXIT_OK, said
    assert outcome(tmp_path / "out") == local.outcome
    assert len(sweep_server.requests) == local.calls


SCRIPT = """
import os, signal, sys
import dspy
from run_scaling_experiment import BENCHMARK_CONFIG, main


class Parity(dspy.Signature):
    '''Say whether the number is odd or even.'''

    number: int = dspy.InputField()
    parity: str = dspy.OutputField()


def right(gold, pred, trace=None):
    return float(sum(str(pred.parity).encode()) % 2 == gold.number % 2)


def deadly(gold, pred, trace=None):
    if gold.number % 7 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


for name, metric in (("parity", right), ("deadly", deadly)):
    BENCHMARK_CONFIG[name] = {
        "signature": Parity,
        "loader": lambda: [{"number": n, "parity": "odd" if n % 2 else "even"} for n in range(40)],
        "metric": metric,
        "train_seeds": range(10),
        "val_seeds": range(10, 40),
    }
sys.exit(main(sys.argv[1:]))
"""


def test_a_scripts_own_benchmarks_travel_and_one_that_kills_its_workers_fails_alone(
    sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(SCRIPT)

    def own(*flags: str) -> tuple[int, str]:
        command = [
            sys.executable, "own.py", "--models", "openai/scripted", "--api-base", sweep_server.url, "--data", "sample",
            "--steps", "1", "--runs", "1", "--rollout-budget", "50", *flags,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        return done.returncode, done.stdout + done.stderr

    assert own("--benchmarks", "parity", "--optimizers", "mipro", "--output-dir", "local")[0] == EXIT_OK
    sweep_server.latency = 0.02
    dask = [*DASK, "--workers", "1", "--output-dir", "dask"]
    code, said = own("--benchmarks", "parity", *(["deadly"] if FULL else []), "--optimizers", "mipro", *dask)
    assert code == (EXIT_FAILED if FULL else EXIT_OK), said
    records = {path.parts[-6]: read(path) for path in (tmp_path / "dask").rglob("results.json")}
    if FULL:
        assert records["deadly"]["error"]["kind"] == "WorkerDied" and records["deadly"]["final_score"] is None
    assert lasting(records["parity"]) == lasting(read(next((tmp_path / "local").rglob("results.json"))))


@long
def test_ctrl_c_ends_the_cells_and_the_workers(
    local: Local, flags: list[str], sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    reached = threading.Event()
    sweep_server.latency = 0.01
    sweep_server.fault = lambda n, body: reached.set() if n >= local.calls // 3 else None
    command = [sys.executable, str(ROOT / "run_scaling_experiment.py"), *flags, *DASK, "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--output-dir", str(tmp_path / "out")], cwd=tmp_path, process_group=0,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert reached.wait(60)
    workers = [psutil.Process(pid) for pid in workers_of(process.pid)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    said, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "the same command goes on" in said and "Traceback" not in said
    assert workers and not psutil.wait_procs(workers, timeout=10)[1]
    statuses = {read(path)["status"] for path in (tmp_path / "out").rglob("results.json")}
    assert "interrupted" in statuses and statuses <= {"ok", "interrupted"}
    assert run(flags, tmp_path / "out")[0] == EXIT_OK
    assert outcome(tmp_path / "out") == local.outcome


@long
def test_a_frozen_worker_and_a_scheduler_that_is_gone(
    local: Local, flags: list[str], sweep_server: ScriptedServer, tmp_path: Path
) -> None:
    sweep_server.latency = 0.02
    with a_cluster(tmp_path) as (address, scheduler, frozen):
        command = [*flags, *DASK, "--scheduler", address]
        is_frozen = threading.Event()

        def freeze(n: int, body: dict) -> None:
            if n >= local.calls // 3 and not is_frozen.is_set():
                frozen.send_signal(signal.SIGSTOP)
                is_frozen.set()

        sweep_server.fault = freeze
        process = start(command, tmp_path / "frozen")
        assert is_frozen.wait(60)
        with Client(address) as client:  # as the scheduler does by itself when it has not heard of a worker for long
            client.run_on_scheduler(forget_worker, name="frozen")
        said, _ = process.communicate(timeout=120)
        assert process.returncode == EXIT_OK and "its worker is gone" in said
        assert outcome(tmp_path / "frozen") == local.outcome
        before = cell_files(tmp_path / "frozen")
        frozen.send_signal(signal.SIGCONT)
        frozen.wait(60)
        assert cell_files(tmp_path / "frozen") == before

        asked = len(sweep_server.requests)
        sweep_server.fault = lambda n, body: scheduler.kill() if n == asked + local.calls // 3 else None
        code, said = run(command, tmp_path / "gone")
    assert code == EXIT_INTERRUPTED and "the Dask scheduler is gone" in said and "Traceback" not in said, said
    sweep_server.fault = None
    assert run(flags, tmp_path / "gone")[0] == EXIT_OK
    assert outcome(tmp_path / "gone") == local.outcome


@contextmanager
def a_cluster(folder: Path) -> Iterator[tuple[str, subprocess.Popen, subprocess.Popen]]:
    """A scheduler and two workers as somebody starts them by hand: its address, itself, and the worker `frozen`."""
    # Dask itself gives a cell up with its first worker: what a cluster's settings say is not ours to choose.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    where = ["--scheduler-file", str(folder / "scheduler.json")]

    def begin(kind: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *where, "--no-dashboard", *options]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with ExitStack() as stack:
        processes = [begin("scheduler", "--host", "127.0.0.1", "--port", "0")]
        for name in ("frozen", "other"):
            options = ("--name", name, "--nthreads", "4", "--no-nanny", "--preload", "scaling.distributed.worker")
            processes.append(begin("worker", *options))
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        with Client(scheduler_file=where[1], timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address, processes[0], processes[1]


async def forget_worker(name: str, dask_scheduler: Any) -> None:
    await dask_scheduler.remove_worker(dask_scheduler.aliases[name], stimulus_id="test")


def cell_files(results: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(results).items() if "run0" in name}


SMALL = [
    "--benchmarks", "toy", "--models", "openai/scripted", "--steps", "1", "--optimizers", "none", "--data", "sample",
    "--runs", "1",
]  # fmt: skip


def test_a_benchmark_that_cannot_travel_is_told_before_anything_is_asked(
    toy: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lock = threading.Lock()
    toy(metric=lambda gold, pred, trace=None: float(lock.locked()))
    assert script.main([*SMALL, *DASK, "--api-base", server.url, "--output-dir", str(tmp_path)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "'toy' cannot be sent to workers" in said and "lock" in said and said.count("\n") == 1
    assert not server.requests


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--workers", "2"], "Type --engine dask"),
        (["--scheduler", "tcp://127.0.0.1:8786"], "Type --engine dask"),
        ([*DASK, "--workers", "2", "--scheduler", "tcp://127.0.0.1:8786"], "one of them"),
        ([*DASK, "--workers", "0"], "--workers 0 is not possible"),
        ([*DASK, "--scheduler", "tcp://127.0.0.1:9"], "no scheduler with workers answers"),
        ([*DASK, "--scheduler", "nonsense"], "no scheduler with workers answers"),
    ],
)
def test_what_cannot_be_is_one_line(
    toy: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch, flags: list[str], why: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    assert script.main([*SMALL, *flags, "--api-base", server.url, "--output-dir", str(tmp_path)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1 and not server.requests


@pytest.mark.parametrize("missing", ["distributed", "scaling.distributed.engine"])
def test_without_dask_or_without_its_module_only_that_engine_is_missing(
    toy: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch, missing: str,
) -> None:  # fmt: skip
    monkeypatch.delitem(sys.modules, "scaling.distributed.engine")
    monkeypatch.delattr("scaling.distributed.engine")
    monkeypatch.setitem(sys.modules, missing, None)
    command = [*SMALL, "--api-base", server.url, "--output-dir", str(tmp_path)]
    assert script.main([*command, *DASK]) == EXIT_USAGE
    assert "pip install 'dask[distributed]'" in capsys.readouterr().err
    assert script.main(command) == EXIT_OK


def test_a_worker_without_a_key_or_the_folder_cannot_run_cells(tmp_path: Path) -> None:
    with a_ledger(tmp_path / "c.sqlite") as book:
        said = [
            elsewhere.unfit([], keys, False, mark, book.address, key)
            for keys, mark, key in (
                (["NO_SUCH_KEY"], tmp_path, book.key),
                ([], tmp_path / "elsewhere" / "mark", book.key),
                ([], tmp_path, b"another sweep's"),
                ([], tmp_path, book.key),
            )
        ]
    assert "NO_SUCH_KEY is not set" in said[0] and "results folder" in said[1] and "Unreachable" in said[2]
    assert said[3] is None
