"""Cells in other processes: the Dask engine at the command line, with workers that are killed and frozen."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.distributed.coordinator import Coordinator
from scaling.testing import ScriptedServer
from scaling.types import EXIT_CAP, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from tests.support.chaos import only_in_chaos
from tests.support.coordinators import billed
from tests.support.files import read, tree
from tests.support.sweeps import ROOT, lasting, outcome, run, start, write_study

Client = pytest.importorskip("distributed").Client
psutil = pytest.importorskip("psutil")
engine = pytest.importorskip("scaling.distributed.engine")

# `make chaos` runs the kill test at full size: 12 cells, 30 kills, and compares 1, 2 and 4 workers.
FULL = "CHAOS" in os.environ
CHAIN, RUNS, KILLS, WORKERS = ([1, 2, 3], 2, 30, [1, 2, 4]) if FULL else ([1, 2], 1, 2, [2])
DASK = ["--engine", "dask"]


@dataclass(frozen=True)
class Local:
    """A sweep to compare with: its records, the calls it made, and what they cost in USD."""

    outcome: dict[str, Any]
    calls: int
    usd: float


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


@only_in_chaos
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
    assert "the same command to continue" in said and "Traceback" not in said
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


def test_a_benchmark_that_cannot_be_sent_is_told_before_anything_is_asked(
    toy: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lock = threading.Lock()
    toy(metric=lambda gold, pred, trace=None: float(lock.locked()))
    assert script.main([*SMALL, *DASK, "--api-base", server.url, "--output-dir", str(tmp_path)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "'toy' cannot be sent to workers" in said and "lock" in said and said.count("\n") == 1
    assert not server.requests


def test_a_mistake_of_the_coordinator_ends_the_sweep_loudly(
    toy: Callable, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Coordinator, cell_id: str) -> bytes:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(Coordinator, "pickled_task", fail)
    with pytest.raises(KeyError, match="a mistake of ours"):
        script.main([*SMALL, *DASK, "--workers", "1", "--api-base", server.url, "--output-dir", str(tmp_path)])
    assert not list(tmp_path.rglob("results.json")) and not server.requests


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
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 0.5)
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
