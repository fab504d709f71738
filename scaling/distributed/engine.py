"""The Dask engine: the cells of a sweep on worker processes, started here or of a cluster that is there.

The one module that knows Dask; without it everything but `--engine dask` works. Dask chooses the worker of a cell and
chooses again when that one is lost; all that is shared goes through the ledger (scaling/distributed/coordinator.py).
"""

from __future__ import annotations

import importlib.util
import logging
import math
import secrets
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed
from distributed.gc import disable_gc_diagnosis
from distributed.utils import get_ip

from scaling.distributed import coordinator as ledger
from scaling.distributed import worker as elsewhere
from scaling.llm.gateway import Gateway
from scaling.run.progress import ProgressReporter
from scaling.run.runner import MAX_CELLS_TOGETHER, CellTask, Settings, write_failure
from scaling.store import CACHE, LOG, aggregating, write_aggregate
from scaling.types import SweepInterrupted, UsageError

CONNECT_SECONDS = 10
LOCAL_SETTINGS = {
    # Deaths are counted by the ledger, which knows whose they are: Dask counts them for all cells of a worker.
    "distributed.scheduler.allowed-failures": 10**6,
    # A process that dies twice within it would not be started again.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    # It looks at all threads every 10 ms, and where there are hundreds CPython 3.11 can lock up over that.
    "distributed.worker.profile.enabled": False,
}
# A user's own settings win.
LOCAL_DEFAULTS = {"distributed": {"scheduler": {"worker-ttl": "60s"}}}


def run_cells(
    work: list[CellTask],
    gateway: Gateway,
    settings: Settings,
    reporter: ProgressReporter,
    results: Path,
    scheduler: str | None,
    workers: int,
) -> None:
    """Run cells on Dask workers: of the cluster at the address `scheduler`, else on `workers` processes here.

    As `runner.run_cells`: the longest chain first in `work`; Ctrl-C ends every cell at its next call. Raises
    UsageError, before any call, for what cannot travel or workers that cannot work; SweepInterrupted when the
    scheduler is gone.
    """
    benches = ledger.travelling(work)
    with ExitStack() as stack:
        client = stack.enter_context(connected(scheduler, workers, cells_together(work, gateway, workers)))
        host = get_ip(urlsplit(client.scheduler.address).hostname)  # where the workers find this process
        book = ledger.Coordinator(work, gateway, reporter, settings, host)
        stack.callback(book.close)
        check_workers(client, work, benches, book, results)
        plugin = Prepared((results / LOG).absolute(), ours=scheduler is None)
        client.register_plugin(plugin)
        if scheduler:
            stack.callback(_forget, client, plugin)
        reporter.say(dashboard(client))
        try:
            settle(client, work, book, reporter, results)
        except BaseException as error:
            why = "interrupted by Ctrl-C" if isinstance(error, KeyboardInterrupt) else str(error)
            gateway.stop("interrupted", why)
            book.close(patience=settings.timeout)
            raise


def settle(
    client: Client, work: list[CellTask], book: ledger.Coordinator, reporter: ProgressReporter, results: Path
) -> None:
    """Hand the cells to the workers and wait until each has a record; it was written where the cell ran."""

    def submit(rank: int) -> Any:
        cell_id = work[rank].cell.cell_id
        key = f"cell-{cell_id}-{secrets.token_hex(4)}"
        return client.submit(elsewhere.try_cell, book.address, book.key, cell_id, key=key, priority=-rank, pure=False)

    rebuild = aggregating(results)
    rank_of = {submit(rank): rank for rank in range(len(work))}
    ended = as_completed(rank_of)
    for future in ended:
        rank = rank_of.pop(future)
        if future.cancelled():
            logging.getLogger("distributed.client").disabled = True  # it would go on looking for it, aloud
            raise SweepInterrupted("the Dask scheduler is gone")
        error = future.exception()
        if isinstance(error, KilledWorker) or (error is None and not future.result()):
            again = submit(rank)
            rank_of[again] = rank
            ended.add(again)
        elif isinstance(error, OSError):
            raise error  # a full disk ends the sweep
        elif error is not None:
            record = write_failure(work[rank], error)
            reporter.end(work[rank].cell, record["status"], record["error"]["message"])
        rebuild()
    write_aggregate(results)


@contextmanager
def connected(scheduler: str | None, workers: int, cells: int) -> Iterator[Client]:
    """A client of the cluster while the block runs; where there is none, of `workers` processes for so many cells."""
    with ExitStack() as stack:
        if scheduler is None:
            dask.config.update_defaults(LOCAL_DEFAULTS)
            stack.enter_context(dask.config.set(LOCAL_SETTINGS))
            stack.enter_context(_script_not_run_again())
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # the dashboard's usual port is taken: it says where it is
            threads = math.ceil(cells / workers)
            scheduler = stack.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=threads, processes=True, memory_limit=None)
            )
        try:
            client = stack.enter_context(Client(scheduler, timeout=CONNECT_SECONDS))
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--scheduler {scheduler}: no scheduler with workers answers there ({type(error).__name__}). "
                f"Type the address that `dask scheduler` prints, tcp://HOST:8786, and start workers with `dask worker`."
            ) from None
        yield client


def check_workers(
    client: Client, work: list[CellTask], benches: list[bytes], book: ledger.Coordinator, results: Path
) -> None:
    """Raise UsageError when a worker that is there could not run the cells."""
    models = {model.id: model for item in work for model in (item.model, item.optimizer_model)}
    keys = sorted({model.key_env for model in models.values() if model.key_env and model.has_key})
    embedded = any(model.embedded for model in models.values())
    mark = (results / CACHE).absolute().with_name(f"seen-{secrets.token_hex(8)}")
    mark.touch()
    try:
        said = client.run(elsewhere.unfit, benches, keys, embedded, mark, book.address, book.key, on_error="return")
    finally:
        mark.unlink()
    for worker, reason in said.items():
        if reason is not None:
            raise UsageError(f"the worker {worker} cannot run these cells: {reason}. Mend that, or stop that worker.")


class Prepared(WorkerPlugin):
    """Readies each worker process, also those that come later."""

    def __init__(self, log: Path, ours: bool):
        self.name, self.log, self.ours = f"call-scaling-{secrets.token_hex(4)}", log, ours

    def setup(self, worker: Any) -> None:
        if self.ours:  # Ctrl-C reaches the whole group of processes: cells end by the ledger
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        disable_gc_diagnosis(force=True)  # code of Python's run by the collector is what locks a profiled worker up
        self.stack = ExitStack()
        self.stack.enter_context(elsewhere.prepared(self.log))

    def teardown(self, worker: Any) -> None:
        self.stack.close()


def cells_together(work: list[CellTask], gateway: Gateway, workers: int) -> int:
    """As many cells as there are places at a provider, and in a worker no more than locally."""
    places = max(item.model.places(gateway.max_concurrency) for item in work)
    return max(workers, min(len(work), places, MAX_CELLS_TOGETHER * workers))


def dashboard(client: Client) -> str:
    """Where to watch the workers."""
    pages = "" if importlib.util.find_spec("bokeh") else " (for its pages: pip install bokeh)"
    return f"Dask's dashboard: {client.dashboard_link}{pages}"


def _forget(client: Client, plugin: Prepared) -> None:
    if client.status == "running":  # else the scheduler is gone
        client.unregister_worker_plugin(plugin.name)


@contextmanager
def _script_not_run_again() -> Iterator[None]:
    """Worker processes would import the user's script, and so run it: what it defines travels by value instead."""
    script = vars(sys.modules["__main__"])
    kept = {name: script[name] for name in ("__spec__", "__file__") if name in script}
    script["__spec__"] = None
    script.pop("__file__", None)
    try:
        yield
    finally:
        script.update(kept)
