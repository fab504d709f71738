"""A cell on a worker: its gateway and its progress reporter, which ask the coordinator, and where it runs."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from scaling.concurrency import Concurrency
from scaling.distributed.protocol import (
    Action,
    Address,
    AttemptEnded,
    AttemptRequest,
    Channel,
    ChannelClosed,
    CheckModel,
    Order,
    PackedError,
    Query,
    Reply,
    SendNow,
    Sent,
    ShowProgress,
    connected,
)
from scaling.distributed.tasks import WorkerTask
from scaling.llm import local_server
from scaling.llm.client import ModelClients
from scaling.llm.gateway import Call
from scaling.llm.meter import Meter
from scaling.llm.weights import file_of, files_in_memory
from scaling.models import Model
from scaling.run import dspy_optimizers
from scaling.run.progress import quiet
from scaling.run.runner import CellTask, run_cell
from scaling.run.source import remember_source
from scaling.types import Cell

# How the process of a single cell exits; any other code means that it died. FAILED: its error is on standard output.
ENDED, REVOKED, FAILED = 0, 42, 43
# So many processes are started to run a cell alone before it is given up.
STARTS_ALLOWED = 3


class Revoked(BaseException):
    """This attempt at a cell is over: a newer one is under way, or the command has ended.

    A BaseException, as optimizers swallow the others, and none that `run_cell` catches: no record is written.
    """


class WorkerDied(Exception):
    """The processes that ran a cell died so often that it is not tried again."""


def run_attempt(address: Address, key: bytes, request: AttemptRequest, deaths: int = 0) -> bool:
    """On a worker: run one cell as the coordinator says, its files written here; whether it came to its end.

    deaths: lone processes of this cell that have died here. One that dies before it reaches the coordinator is no
    loss that the coordinator could count.
    Raises WorkerDied for a cell that is not to be tried again, Unreachable, and OSError where files cannot be written.
    """
    with connected(address, key) as channel:
        try:
            channel.send(request)
            order: Order = channel.receive()
        except ChannelClosed:
            return False
        if order.action == Action.RUN:
            return _run(channel, order.task)
    if order.action == Action.SETTLED:
        return True
    if order.action == Action.GIVE_UP:
        lost = f", and {order.orphans} lost their worker" if order.orphans else ""
        raise WorkerDied(
            f"{order.losses} processes in a row died{lost} while they ran this cell; the last ran nothing else"
        )
    if order.action == Action.RUN_ALONE:
        if deaths >= STARTS_ALLOWED:
            raise WorkerDied(f"the process that was to run this cell alone died {deaths} times before it could begin")
        with _ONE_ALONE:
            exit_code = _run_in_subprocess(address, key, request.cell_id)
        if exit_code in (ENDED, REVOKED):
            return exit_code == ENDED
        return run_attempt(address, key, AttemptRequest(request.cell_id, lone_process_died=True), deaths + 1)
    return False


@contextmanager
def prepared(log: Path) -> Iterator[None]:
    """What a process needs before cells run in it: DSPy's optimizers loaded, and output in the log."""
    dspy_optimizers.prepare()
    with quiet(log):
        yield


def why_unfit(
    benches: list[bytes], keys: list[str], local: list[Model], mark: Path, address: Address, key: bytes
) -> str | None:
    """On a worker: why it cannot run cells; None if it can.

    benches: pickled benchmarks; keys: environment variables that must be set; local: models that it serves itself;
    mark: a file in the results folder.
    """
    if missing := [name for name in keys if not os.environ.get(name)]:
        return f"{', '.join(missing)} is not set there"
    if not mark.exists():
        return f"it does not see the results folder {mark.parent.parent}"
    try:
        ping(address, key)
        for bench in benches:
            needs = pickle.loads(bench).needs
            if needs is not None:
                needs()
        files_in_memory(local)
    except Exception as error:  # whatever a benchmark's code raises when it is read
        return f"{type(error).__name__}: {error}"
    return None


def ping(address: Address, key: bytes) -> None:
    """Raises Unreachable when the coordinator cannot be reached from here."""
    with connected(address, key):
        pass


# The cells of a worker share its connections to the models.
_CLIENTS = ModelClients()


class RemoteGateway:
    """The gateway of a cell on a worker: what a program asks of it goes to the coordinator."""

    def __init__(self, channel: Channel, max_concurrency: Concurrency):
        self.max_concurrency, self.clients = max_concurrency, _CLIENTS
        self.meter: Meter | None = None
        self._channel, self._numbers = channel, itertools.count()
        self._messages: dict[int, SimpleQueue[Reply | SendNow]] = {}
        self._ending: BaseException | None = None  # what every query raises from then on
        threading.Thread(target=self._listen, daemon=True).start()

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteGateway:
        return self

    def check(self, model: Model) -> None:
        """As `Gateway.check`."""
        self.ask(CheckModel(model))

    def answer(self, call: Call) -> Any:
        """As `Gateway.answer`: the coordinator answers, or says when to send, as often as it takes."""
        return self.ask(replace(call, send=_on_the_worker, wanted=_on_the_worker), call.send)

    def ask(self, content: Call | CheckModel | ShowProgress, send: Callable[[], Any] | None = None) -> Any:
        """The coordinator's answer to one query.

        Raises what the coordinator raises, and Revoked when this attempt is over.
        """
        number = next(self._numbers)
        messages = self._messages[number] = SimpleQueue()
        try:
            self._tell(Query(number, self.meter.progress() if self.meter else None, content))
            while True:
                if self._ending is not None:
                    raise self._ending
                match messages.get():
                    case Reply(_, PackedError() as error):
                        raise error.unpack()
                    case Reply(_, value):
                        return value
                    case SendNow() if send is not None:
                        self._tell(Sent(number, _outcome(send)))
        finally:
            del self._messages[number]

    def _tell(self, message: Query | Sent) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            raise self._ending or Revoked() from None

    def _listen(self) -> None:
        ending: BaseException = Revoked()
        try:
            while True:
                message = self._channel.receive()
                if (messages := self._messages.get(message.number)) is not None:  # else nobody waits any more
                    messages.put(message)
        except ChannelClosed:
            pass
        except Exception as error:  # a mistake of ours is no revoked attempt
            ending = error
        self._ending = ending
        self._channel.close()
        for number, messages in list(self._messages.items()):
            messages.put(Reply(number, PackedError.of(ending)))


class RemoteReporter:
    """The progress reporter of a cell on a worker. Each method waits for the coordinator, so a revoked attempt shows
    nothing."""

    def __init__(self, gateway: RemoteGateway):
        self._gateway = gateway

    def start(self, cell: Cell, meter: Meter) -> None:
        self._gateway.meter = meter
        self._gateway.ask(ShowProgress("start"))

    def phase(self, cell: Cell, phase: str) -> None:
        self._gateway.ask(ShowProgress("phase", (phase,)))

    def best(self, cell: Cell, score: float | None) -> None:
        self._gateway.ask(ShowProgress("best", (score,)))

    def end(self, cell: Cell, status: str, text: str) -> None:
        self._gateway.ask(ShowProgress("end", (status, text)))


def _run(channel: Channel, pickled: bytes) -> bool:
    """One cell in this process. Without a record, and False, when the coordinator has revoked the attempt."""
    try:
        work: WorkerTask = pickle.loads(pickled)
        remember_source(work.task.bench.signature, work.signature_source)
        gateway = RemoteGateway(channel, work.max_concurrency)
        run_cell(_with_local_models(work.task), gateway, work.settings, RemoteReporter(gateway), work.rank)
        return True
    except Revoked:
        return False
    finally:
        with suppress(ChannelClosed):
            channel.send(AttemptEnded())


def _with_local_models(task: CellTask) -> CellTask:
    """The task with a local model at the server of this host."""

    def served(model: Model) -> Model:
        return replace(model, api_base=local_server.shared(file_of(model))) if model.is_local else model

    return replace(task, model=served(task.model), optimizer_model=served(task.optimizer_model))


def _run_in_subprocess(address: Address, key: bytes, cell_id: str) -> int:
    """The exit code of a process that runs one cell: what kills it takes nothing else along. Raises its error."""
    code = "from scaling.distributed import worker; worker.main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((address, key, cell_id)), env=environment, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if process.returncode == FAILED:
        raise pickle.loads(process.stdout).unpack()
    return process.returncode


def main() -> None:
    """The process of one cell: what to run comes by the standard input, so that the key is in no list of processes."""
    address, key, cell_id = pickle.load(sys.stdin.buffer)
    result = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no result
    try:
        dspy_optimizers.prepare()
        ended = run_attempt(address, key, AttemptRequest(cell_id, alone=True))
    except Exception as error:
        with result:
            pickle.dump(PackedError.of(error), result)
        sys.exit(FAILED)
    sys.exit(ENDED if ended else REVOKED)


def _outcome(send: Callable[[], Any]) -> Any:
    """The provider's answer, or its error as plain data."""
    try:
        return send()
    except Exception as error:
        return PackedError.of(error)


def _on_the_worker() -> Any:
    """Stands for the functions of a call that stay on the worker."""
    raise AssertionError("this function of a call is for the worker only")


_ONE_ALONE = threading.Lock()
