"""A cell in another process: its gateway and its reporter, which ask the coordinator, and where it runs."""

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

from scaling.distributed.protocol import GIVE_UP, RUN, RUN_ALONE, Line, connected, packed, unpacked
from scaling.llm import local_server
from scaling.llm.gateway import Call, Meter
from scaling.models import Model
from scaling.run import dspy_optimizers
from scaling.run.progress import quiet
from scaling.run.runner import CellTask, run_cell
from scaling.run.source import remember_source
from scaling.types import Cell

# How the process of a cell exits; any other code means that it died.
ENDED, REVOKED = 0, 42


class Revoked(BaseException):
    """This try of a cell is over: a newer one is under way, or the command has ended.

    A BaseException, as optimizers swallow the others, and none that `run_cell` catches: no record is written.
    """


class WorkerDied(Exception):
    """The processes that ran a cell died so often that it is not tried again."""


def try_cell(address: tuple[str, int], key: bytes, cell_id: str, alone: bool = False) -> bool:
    """In a worker: run one cell as the ledger says, its files written here; whether it came to its end.

    Raises WorkerDied for a cell that is not to be tried again, Unreachable, and OSError where files cannot be written.
    """
    with connected(address, key) as line:
        line.send((cell_id, alone))
        order, value = line.receive()
        if order == RUN:
            return _run(line, value)
    if order == GIVE_UP:
        raise WorkerDied(f"{value} processes in a row died while they ran this cell; the last ran nothing else")
    if order == RUN_ALONE:
        with _ONE_ALONE:
            ended = _in_a_process_of_its_own(address, key, cell_id)
        return ended == ENDED if ended in (ENDED, REVOKED) else try_cell(address, key, cell_id)
    return False


@contextmanager
def prepared(log: Path) -> Iterator[None]:
    """What a process needs before cells run in it: DSPy's optimizers loaded, and output in the log."""
    dspy_optimizers.prepare()
    with quiet(log):
        yield


def unfit(
    benches: list[bytes], keys: list[str], embedded: bool, mark: Path, address: tuple[str, int], key: bytes
) -> str | None:
    """In a worker: why it cannot run cells; None if it can."""
    if missing := [name for name in keys if not os.environ.get(name)]:
        return f"{', '.join(missing)} is not set there"
    if not mark.exists():
        return f"it does not see the results folder {mark.parent.parent}"
    try:
        ping(address, key)
        for bench in benches:
            pickle.loads(bench).config.get("needs", lambda: None)()
        if embedded:
            local_server.weights_path()
    except Exception as error:  # whatever a benchmark's code raises when it is read
        return f"{type(error).__name__}: {error}"
    return None


def ping(address: tuple[str, int], key: bytes) -> None:
    """Raises Unreachable when the ledger cannot be reached from here."""
    with connected(address, key):
        pass


class RemoteGateway:
    """The gateway of a cell that runs elsewhere: what a program asks of it goes to the ledger."""

    def __init__(self, line: Line, max_concurrency: int | None):
        self.max_concurrency = max_concurrency
        self.meter: Meter | None = None
        self._line, self._numbers = line, itertools.count()
        self._replies: dict[int, SimpleQueue] = {}
        self._over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def __deepcopy__(self, memo: dict) -> RemoteGateway:
        return self

    def check(self, model: Model) -> None:
        """As `Gateway.check`."""
        self.ask("check", model)

    def answer(self, call: Call) -> dict[str, Any]:
        """As `Gateway.answer`: the ledger answers, or says when to send, as often as it takes."""
        request = {name: value for name, value in vars(call).items() if name not in ("send", "wanted")}
        return self.ask("call", request, call.send)

    def ask(self, kind: str, value: Any, send: Callable[[], Any] | None = None) -> Any:
        """The ledger's answer to one question; raises what the ledger raises, and Revoked when this try is over."""
        number = next(self._numbers)
        replies = self._replies[number] = SimpleQueue()
        self.tell(number, kind, (dict(self.meter.rollouts) if self.meter else {}, value))
        try:
            while True:
                if self._over:
                    raise Revoked()
                kind, value = replies.get()
                if kind == "error":
                    raise unpacked(value)
                if kind == "answer":
                    return value
                self.tell(number, "sent", _tried(send))
        finally:
            del self._replies[number]

    def tell(self, *message: Any) -> None:
        try:
            self._line.send(message)
        except OSError:
            raise Revoked() from None

    def _listen(self) -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    number, kind, value = self._line.receive()
                    self._replies[number].put((kind, value))
        finally:
            self._over = True
            for replies in list(self._replies.values()):
                replies.put(("error", packed(Revoked())))


class RemoteReporter:
    """The reporter as a cell elsewhere has it. Each method waits for the ledger, so a revoked try shows nothing."""

    def __init__(self, gateway: RemoteGateway):
        self._seam = gateway

    def start(self, cell: Cell, meter: Meter) -> None:
        self._seam.meter = meter
        self._show("start")

    def phase(self, cell: Cell, phase: str) -> None:
        self._show("phase", phase)

    def best(self, cell: Cell, score: float | None) -> None:
        self._show("best", score)

    def end(self, cell: Cell, status: str, text: str) -> None:
        self._show("end", status, text)

    def _show(self, method: str, *args: Any) -> None:
        self._seam.ask("reporter", (method, args))


def _run(line: Line, parts: bytes) -> bool:
    """One cell in this process. Without a record, and False, when the ledger has revoked the try."""
    try:
        item, source, settings, rank, max_concurrency = pickle.loads(parts)
        remember_source(item.bench.signature, source)  # MIPROv2 shows it to its proposer
        gateway = RemoteGateway(line, max_concurrency)
        run_cell(_at_home(item), gateway, settings, RemoteReporter(gateway), rank)
        return True
    except Revoked:
        return False
    finally:
        with suppress(OSError):
            line.send((None, "end", None))


def _at_home(item: CellTask) -> CellTask:
    """The work with an embedded model at the server of this host."""
    models = (item.model, item.optimizer_model)
    if not any(model.embedded for model in models):
        return item
    address = local_server.shared()
    here = [replace(model, api_base=address) if model.embedded else model for model in models]
    return replace(item, model=here[0], optimizer_model=here[1])


def _in_a_process_of_its_own(address: tuple[str, int], key: bytes, cell_id: str) -> int:
    """ENDED, REVOKED, or anything else where the process died: what kills it takes nothing else along."""
    code = "from scaling import elsewhere; elsewhere.main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((address, key, cell_id)), env=environment, check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ).returncode  # fmt: skip


def main() -> None:
    """The process of one cell: what to run comes by the standard input, so that the key is in no list of processes."""
    address, key, cell_id = pickle.load(sys.stdin.buffer)
    dspy_optimizers.prepare()
    ended = try_cell(address, key, cell_id, alone=True)
    sys.exit(ENDED if ended else REVOKED)


def _tried(send: Callable[[], dict[str, Any]]) -> Any:
    """The provider's answer, or its error as plain data."""
    try:
        return send()
    except Exception as error:
        return packed(error)


_ONE_ALONE = threading.Lock()
