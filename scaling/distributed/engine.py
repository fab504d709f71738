"""The Dask engine: the cells of a sweep on worker processes, started here or of a cluster that is there.

The one module that knows Dask; without it everything but `--engine dask` works. Dask chooses the worker of a cell and
chooses again when that one is lost; all that is shared goes through the coordinator. A scheduler started here takes
only whoever has the certificate that is made for the sweep, all it opens is on loopback, and what it writes is in a
folder that only this user can enter.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import secrets
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed
from distributed.gc import disable_gc_diagnosis
from distributed.security import Security
from distributed.utils import get_ip

from scaling.concurrency import most_at_a_time
from scaling.distributed import worker
from scaling.distributed.coordinator import Coordinator
from scaling.distributed.protocol import AttemptRequest
from scaling.distributed.tasks import pickle_benchmarks
from scaling.distributed.worker import prepared
from scaling.llm.gateway import Gateway
from scaling.records.store import CACHE, LOG, aggregating, write_aggregate
from scaling.run.progress import ProgressReporter
from scaling.run.runner import MAX_CELLS_TOGETHER, CellTask, Settings, write_failure
from scaling.types import SweepInterrupted, UsageError

CONNECT_SECONDS = 10
PATIENCE_SECONDS = 2.0  # for calls under way at Ctrl-C: Dask then needs up to five to end its processes
DASHBOARD = "127.0.0.1:8787"
CLIENT_LOGGER = logging.getLogger("distributed.client")
LOCAL_SETTINGS = {
    # Deaths are counted by the coordinator, which knows whose they are: Dask counts them for all cells of a worker.
    "distributed.scheduler.allowed-failures": 10**6,
    # A process that dies twice within it would not be started again.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    # It looks at all threads every 10 ms, and where there are hundreds CPython 3.11 can lock up over that.
    "distributed.worker.profile.enabled": False,
}
# A user's own settings win.
LOCAL_DEFAULTS = {"distributed": {"scheduler": {"worker-ttl": "60s"}}}


def run_cells(
    tasks: list[CellTask],
    gateway: Gateway,
    settings: Settings,
    reporter: ProgressReporter,
    results: Path,
    scheduler: str | None,
    workers: int,
) -> None:
    """Run cells on Dask workers: of the cluster at the address `scheduler`, else on `workers` processes here.

    As `runner.run_cells`: the longest chain first in `tasks`; Ctrl-C ends every cell at its next call. Raises
    UsageError, before any call, for what cannot be sent or workers that cannot work; SweepInterrupted when the
    scheduler is gone.
    """
    benches = pickle_benchmarks(tasks)
    with ExitStack() as stack:
        client = stack.enter_context(connected(scheduler, workers, cells_together(tasks, gateway, workers)))
        address = client.scheduler_info(n_workers=0)["address"]
        host = get_ip(urlsplit(address).hostname)  # where the workers find this process
        coordinator = Coordinator(tasks, gateway, reporter, settings, host)
        stack.callback(coordinator.close)
        check_workers(client, tasks, benches, coordinator, results)
        plugin = WorkerSetup((results / LOG).absolute(), is_ours=scheduler is None)
        client.register_plugin(plugin)
        if scheduler:
            stack.callback(_forget, client, plugin)
        reporter.say(dashboard(client))
        try:
            settle(client, tasks, coordinator, reporter, results)
        except BaseException as error:
            why = "interrupted by Ctrl-C" if isinstance(error, KeyboardInterrupt) else str(error)
            gateway.stop("interrupted", why)
            coordinator.close(patience=PATIENCE_SECONDS)
            raise


def settle(
    client: Client, tasks: list[CellTask], coordinator: Coordinator, reporter: ProgressReporter, results: Path
) -> None:
    """Hand the cells to the workers and wait until each has a record; it was written where the cell ran."""

    def submit(rank: int) -> Any:
        cell_id = tasks[rank].cell.cell_id
        name = f"cell-{cell_id}-{secrets.token_hex(4)}"
        place = (coordinator.address, coordinator.key)
        return client.submit(worker.run_attempt, *place, AttemptRequest(cell_id), key=name, priority=-rank, pure=False)

    rebuild = aggregating(results)
    rank_of = {submit(rank): rank for rank in range(len(tasks))}
    ended = as_completed(rank_of)
    for future in ended:
        rank = rank_of.pop(future)
        if future.cancelled():
            CLIENT_LOGGER.disabled = True  # the client would go on looking for the scheduler, and log that
            raise SweepInterrupted("the Dask scheduler is gone")
        if coordinator.failure is not None:
            raise coordinator.failure
        error = future.exception()
        if isinstance(error, KilledWorker) or (error is None and not future.result()):
            again = submit(rank)
            rank_of[again] = rank
            ended.add(again)
        elif isinstance(error, OSError):
            raise error  # a full disk ends the sweep
        elif error is not None:
            record = write_failure(tasks[rank], error)
            reporter.end(tasks[rank].cell, record.status, str(error))
        rebuild()
    write_aggregate(results)


@contextmanager
def connected(scheduler: str | None, workers: int, cells: int) -> Iterator[Client]:
    """A client of the cluster while the block runs; where there is none, of `workers` processes for so many cells."""
    with ExitStack() as stack:
        stack.callback(setattr, CLIENT_LOGGER, "disabled", CLIENT_LOGGER.disabled)
        cluster = scheduler or stack.enter_context(_local_cluster(workers, cells))
        try:
            client = stack.enter_context(Client(cluster, timeout=CONNECT_SECONDS))
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(
                f"--scheduler {scheduler}: no scheduler with workers answers there ({type(error).__name__}). "
                f"Type the address that `dask scheduler` prints, tcp://HOST:8786, and start workers with `dask worker`."
            ) from None
        yield client


@contextmanager
def _local_cluster(workers: int, cells: int) -> Iterator[LocalCluster]:
    """Worker processes of our own while the block runs. Nobody without the certificate made here is let in."""
    try:
        security = Security.temporary()
    except ImportError:
        raise UsageError("--engine dask needs the package cryptography. Type: pip install cryptography") from None
    dask.config.update_defaults(LOCAL_DEFAULTS)
    with (
        _private_folder() as folder,
        dask.config.set(LOCAL_SETTINGS | {"temporary-directory": folder}),
        _main_module_hidden(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the dashboard's usual port is taken: it says where it is
        with LocalCluster(
            n_workers=workers, threads_per_worker=math.ceil(cells / workers), processes=True, memory_limit=None,
            security=security, dashboard_address=DASHBOARD,
        ) as cluster:  # fmt: skip
            yield cluster


@contextmanager
def _private_folder() -> Iterator[str]:
    """Where Dask keeps its scratch files while the block runs.

    Its usual place has the same name for all users of the machine, and whoever made it first owns it. Dask imports
    modules from there, so its owner could run code as us.
    """
    with tempfile.TemporaryDirectory(prefix="call-scaling-", ignore_cleanup_errors=True) as folder:
        try:
            yield folder
        finally:
            sys.path[:] = [entry for entry in sys.path if not entry.startswith(folder)]


def check_workers(
    client: Client, tasks: list[CellTask], benches: list[bytes], coordinator: Coordinator, results: Path
) -> None:
    """Raise UsageError when a worker that is there could not run the cells."""
    models = {model.id: model for task in tasks for model in (task.model, task.optimizer_model)}
    keys = sorted({model.key_env for model in models.values() if model.key_env and model.has_key})
    local = [model for model in models.values() if model.is_local]
    mark = (results / CACHE).absolute().with_name(f"seen-{secrets.token_hex(8)}")
    mark.touch()
    place = (coordinator.address, coordinator.key)
    try:
        reasons = client.run(worker.why_unfit, benches, keys, local, mark, *place, on_error="return")
    finally:
        mark.unlink()
    for address, reason in reasons.items():
        if reason is not None:
            raise UsageError(f"the worker {address} cannot run these cells: {reason}. Fix that, or stop that worker.")


class WorkerSetup(WorkerPlugin):
    """Readies each worker process, also those that come later."""

    def __init__(self, log: Path, is_ours: bool):
        self.name, self.log, self.is_ours = f"call-scaling-{secrets.token_hex(4)}", log, is_ours

    def setup(self, worker: Any) -> None:
        if self.is_ours:  # Ctrl-C reaches the whole group of processes: cells end by the coordinator
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        disable_gc_diagnosis(force=True)  # code of Python's run by the collector is what locks a profiled worker up
        self.stack = ExitStack()
        self.stack.enter_context(prepared(self.log))

    def teardown(self, worker: Any) -> None:
        self.stack.close()


def cells_together(tasks: list[CellTask], gateway: Gateway, workers: int) -> int:
    """As many cells as a provider takes calls at a time, and in a worker no more than locally."""
    concurrency = max(most_at_a_time(task.model, gateway.max_concurrency) for task in tasks)
    return max(workers, min(len(tasks), concurrency, MAX_CELLS_TOGETHER * workers))


def dashboard(client: Client) -> str:
    """Where to watch the workers."""
    pages = "" if importlib.util.find_spec("bokeh") else " (for its pages: pip install bokeh)"
    return f"Dask's dashboard: {client.dashboard_link}{pages}"


def _forget(client: Client, plugin: WorkerSetup) -> None:
    if client.status == "running":  # else the scheduler is gone
        client.unregister_worker_plugin(plugin.name)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Worker processes would import the user's script, and so run it: what it defines is sent by value instead."""
    script = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: script[name] for name in ("__spec__", "__file__") if name in script}
    script["__spec__"] = None
    script.pop("__file__", None)
    try:
        yield
    finally:
        script.update(kept)
