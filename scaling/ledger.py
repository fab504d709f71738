"""One seam for cells in other processes: each of their calls asks the ledger, and the ledger says when to send.

The ledger stands beside the seam, in the command's process. A call from elsewhere is a thread here that goes through
`Seam.answer` like any other; only to send does it turn to the worker. So cache, flights, places, reservations, bills
and halts are one for all workers, and a worker that is lost leaves nothing but a call that was cut: its place is given
back, its flight released, its bill stays at its highest cost.

A connection is one try of one cell. A newer try of the same cell closes the older one, wherever that is, frozen or cut
off: its calls are refused from then on (`Revoked`) and it writes nothing more.
"""

from __future__ import annotations

import itertools
import os
import pickle
import secrets
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cloudpickle

from scaling import local_server
from scaling.lm import Call, Meter, Seam
from scaling.models import Model
from scaling.progress import Board, quiet
from scaling.runner import Settings, Work, run_cell
from scaling.side_by_side import side_by_side
from scaling.store import CellFiles
from scaling.types import Cell

# So many losses of a cell, with no new answer between them, and its worker is not to blame. The last try is alone.
LOSSES_ALLOWED = 3
CONNECT_SECONDS = 20.0
RUN, RUN_ALONE, GIVE_UP, CLOSED = "run", "run alone", "give up", "closed"


class Revoked(BaseException):
    """This try of a cell is over: a newer one is under way, or the command has ended.

    A BaseException, as optimizers swallow the others, and none that `run_cell` catches: no record is written.
    """


class WorkerDied(Exception):
    """The processes that ran a cell died so often that it is not tried again."""


class Unreachable(Exception):
    """The ledger cannot be reached from a worker."""


class _Lost(Exception):
    """Whoever made a call is gone."""


class Line:
    """Python objects over a socket, written by many threads. EOFError or OSError once either end has closed it."""

    def __init__(self, end: socket.socket):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket, self.pipe = end, Connection(os.dup(end.fileno()))
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        with self._lock:
            self.pipe.send(message)

    def receive(self) -> Any:
        return self.pipe.recv()

    def close(self) -> None:
        """Also ends a `receive` that waits in another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Ledger:
    """Answers the cells of a sweep that run elsewhere. `address` and `key` are what a worker needs to find it."""

    def __init__(self, work: list[Work], seam: Seam, board: Board, settings: Settings, host: str):
        self.seam, self.board, self._settings = seam, board, settings
        self._work = {item.cell.cell_id: (rank, item) for rank, item in enumerate(work)}
        self._losses: Counter[str] = Counter()
        self._tries: dict[str, _Try] = {}
        self._changed = threading.Condition()
        self._open = True
        self._door = socket.create_server((host, 0), backlog=128)
        self.address, self.key = (host, self._door.getsockname()[1]), secrets.token_bytes(32)
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self, patience: float = 0.0) -> None:
        """Start no try any more, wait up to `patience` seconds for those under way, and cut what is left."""
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._tries, timeout=patience)
            for one in list(self._tries.values()):
                one.line.close()
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                line = Line(self._door.accept()[0])
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: Line) -> None:
        with suppress(EOFError, OSError, AuthenticationError):
            deliver_challenge(line.pipe, self.key)
            answer_challenge(line.pipe, self.key)
            cell_id, alone = line.receive()
            one = self._begin(cell_id, alone, line)
            if one is not None:
                self._end(one, lost=not one.follow())
        line.close()

    def _begin(self, cell_id: str, alone: bool, line: Line) -> _Try | None:
        """Tell a worker what to do with a cell; the try, if it is to run now."""
        rank, item = self._work[cell_id]
        with self._changed:
            if cell_id in self._tries:
                self._end(self._tries[cell_id], lost=True)
            order = self._order(self._losses[cell_id], alone)
            if order != RUN:
                line.send((order, None))
                return None
            one = self._tries[cell_id] = _Try(self, item.cell, line)
        parts = (light(item), self._settings, rank, self.seam.max_concurrency)
        line.send((order, cloudpickle.dumps(parts)))
        return one

    def _order(self, losses: int, alone: bool) -> str:
        if not self._open:
            return CLOSED
        if losses >= LOSSES_ALLOWED:
            return GIVE_UP
        return RUN if alone or losses < LOSSES_ALLOWED - 1 else RUN_ALONE

    def _end(self, one: _Try, lost: bool) -> None:
        with self._changed:
            if one.over.is_set():
                return
            one.end()
            if self._tries.get(one.cell.cell_id) is one:
                del self._tries[one.cell.cell_id]
            if lost and self._open:
                # A cell that kills its workers comes no further; one that was there by chance does.
                self._losses[one.cell.cell_id] = 1 if one.bought else self._losses[one.cell.cell_id] + 1
            self._changed.notify_all()
        if lost and self._open:
            self.board.phase(one.cell, "worker lost")
            self.board.say(f"{'lost':11s} {one.cell.label}  its worker is gone; it runs again from the answers it has")


class _Try:
    """One try of a cell elsewhere: its calls under way here, each waiting for its turn or for the worker to send."""

    def __init__(self, ledger: Ledger, cell: Cell, line: Line):
        self.cell, self.line, self.over, self.bought = cell, line, threading.Event(), 0
        self._seam, self._board = ledger.seam, ledger.board
        self._meter = Meter(cell.cell_id)
        self._sent: dict[int, SimpleQueue] = {}
        self._asked = {"call": self._call, "check": self._check, "board": self._show}

    def follow(self) -> bool:
        """Serve the worker until its cell has ended (True) or the worker is gone (False)."""
        with suppress(EOFError, OSError):
            while True:
                number, kind, value = self.line.receive()
                if kind == "end":
                    return True
                if kind == "sent":
                    self._sent[number].put(value)
                else:
                    threading.Thread(target=self._reply, args=(number, kind, value), daemon=True).start()
        return False

    def end(self) -> None:
        self.over.set()
        self.line.close()
        for sent in list(self._sent.values()):
            sent.put(_Lost())

    def _reply(self, number: int, kind: str, value: Any) -> None:
        try:
            reply = ("answer", self._asked[kind](number, value))
        except BaseException as error:  # whatever it is, the worker raises it
            reply = ("error", packed(error))
        with suppress(OSError):
            self.line.send((number, *reply))

    def _call(self, number: int, value: tuple[dict[str, int], dict[str, Any]]) -> dict[str, Any]:
        rollouts, request = value
        self._meter.rollouts.update(rollouts)
        answer = self._seam.answer(Call(**request, send=lambda: self._send(number), wanted=self._wanted))
        self.bought += not answer["cache_hit"]
        return answer

    def _send(self, number: int) -> dict[str, Any]:
        """Let the worker send; its answer, or its error."""
        sent = self._sent[number] = SimpleQueue()
        self._wanted()
        try:
            self.line.send((number, "send", None))
        except OSError:
            raise _Lost() from None
        outcome = sent.get()
        if isinstance(outcome, list):
            raise unpacked(outcome)
        if isinstance(outcome, _Lost):
            raise outcome
        return outcome

    def _wanted(self) -> None:
        if self.over.is_set():
            raise _Lost()

    def _check(self, number: int, model: Model) -> None:
        self._seam.check(model)

    def _show(self, number: int, value: tuple[str, tuple]) -> None:
        method, args = value
        getattr(self._board, method)(self.cell, *((self._meter,) if method == "start" else args))


class FarSeam:
    """The seam of a cell that runs elsewhere: what a program asks of it goes to the ledger."""

    def __init__(self, line: Line, max_concurrency: int | None):
        self.max_concurrency = max_concurrency
        self.meter: Meter | None = None
        self._line, self._numbers = line, itertools.count()
        self._replies: dict[int, SimpleQueue] = {}
        self._over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def __deepcopy__(self, memo: dict) -> FarSeam:
        return self

    def check(self, model: Model) -> None:
        """As `Seam.check`."""
        self.ask("check", model)

    def answer(self, call: Call) -> dict[str, Any]:
        """As `Seam.answer`: the ledger answers, or says when to send, as often as it takes."""
        request = {name: value for name, value in vars(call).items() if name not in ("send", "wanted")}
        return self.ask("call", (dict(self.meter.rollouts), request), call.send)

    def ask(self, kind: str, value: Any, send: Callable[[], Any] | None = None) -> Any:
        """The ledger's answer to one question; raises what the ledger raises, and Revoked when this try is over."""
        number = next(self._numbers)
        replies = self._replies[number] = SimpleQueue()
        self.tell(number, kind, value)
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
        with suppress(EOFError, OSError):
            while True:
                number, kind, value = self._line.receive()
                self._replies[number].put((kind, value))
        self._over = True
        for replies in list(self._replies.values()):
            replies.put(("error", packed(Revoked())))


class FarBoard:
    """The board as a cell elsewhere has it. Each method waits for the ledger, so a revoked try shows nothing."""

    def __init__(self, seam: FarSeam):
        self._seam = seam

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
        self._seam.ask("board", (method, args))


def try_cell(address: tuple[str, int], key: bytes, cell_id: str, alone: bool = False) -> None:
    """In a worker: run one cell as the ledger says; its files are written here.

    Raises WorkerDied for a cell that is not to be tried again, Unreachable, and OSError where files cannot be written.
    """
    with connected(address, key) as line:
        line.send((cell_id, alone))
        order, parts = line.receive()
        if order == RUN:
            _run(line, parts)
    if order == GIVE_UP:
        raise WorkerDied(
            f"{LOSSES_ALLOWED} processes in a row died while they ran this cell; the last ran nothing else"
        )
    if order == RUN_ALONE:
        with _ONE_ALONE:
            failed = _in_a_process_of_its_own(address, key, cell_id)
        if failed:
            try_cell(address, key, cell_id)


def ping(address: tuple[str, int], key: bytes) -> None:
    """Raises Unreachable when the ledger cannot be reached from here."""
    with connected(address, key):
        pass


@contextmanager
def connected(address: tuple[str, int], key: bytes) -> Iterator[Line]:
    """A line to the ledger while the block runs. Raises Unreachable."""
    try:
        end = socket.create_connection(address, timeout=CONNECT_SECONDS)
        end.settimeout(None)
        line = Line(end)
        answer_challenge(line.pipe, key)
        deliver_challenge(line.pipe, key)
    except (EOFError, OSError, AuthenticationError) as error:
        raise Unreachable(f"the command at {address[0]}:{address[1]} cannot be reached ({error})") from None
    try:
        yield line
    finally:
        line.close()


@contextmanager
def prepared(log: Path) -> Iterator[None]:
    """What a process needs before cells run in it: optimizers' output in the log, and evaluations side by side."""
    with quiet(log), side_by_side():
        yield


def light(item: Work) -> Work:
    """The work without what only the plan needs, so that little travels: the pool of rows and its loader."""
    config = {name: value for name, value in item.bench.config.items() if name != "loader"}
    files = CellFiles(item.files.folder.absolute())
    return replace(item, bench=replace(item.bench, train=[], test=None, config=config), files=files)


def packed(error: BaseException | None) -> list[tuple[type, tuple, dict[str, Any]]]:
    """An error and its causes as plain data: not every one of them pickles by itself."""
    chain = []
    while error is not None:
        part = (type(error), error.args, vars(error))
        try:
            pickle.loads(pickle.dumps(part))
        except Exception:
            part = (RuntimeError, (f"{type(error).__name__}: {error}",), {})
        chain.append(part)
        error = error.__cause__ or error.__context__
    return chain


def unpacked(chain: list[tuple[type, tuple, dict[str, Any]]]) -> BaseException:
    """The error again, with its causes."""
    cause = None
    for kind, args, state in reversed(chain):
        error = kind.__new__(kind, *args)
        error.__dict__.update(state)
        error.__cause__, cause = cause, error
    return cause


def _run(line: Line, parts: bytes) -> None:
    """One cell in this process. Ends without a record when the ledger has revoked the try."""
    with suppress(Revoked):
        try:
            item, settings, rank, max_concurrency = pickle.loads(parts)
            seam = FarSeam(line, max_concurrency)
            run_cell(_at_home(item), seam, settings, FarBoard(seam), rank)
        finally:
            with suppress(OSError):
                line.send((None, "end", None))


def _at_home(item: Work) -> Work:
    """The work with an embedded model at the server of this host."""
    models = (item.model, item.optimizer_model)
    if not any(model.embedded for model in models):
        return item
    address = local_server.shared()
    here = [replace(model, api_base=address) if model.embedded else model for model in models]
    return replace(item, model=here[0], optimizer_model=here[1])


def _in_a_process_of_its_own(address: tuple[str, int], key: bytes, cell_id: str) -> bool:
    """Whether a cell's process failed: what kills it takes nothing else along."""
    code = "from scaling import ledger; ledger.main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((address, key, cell_id)), env=environment, check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return ran.returncode != 0


def main() -> None:
    """The process of one cell: what to run comes by the standard input, so that the key is in no list of processes."""
    address, key, cell_id = pickle.load(sys.stdin.buffer)
    with side_by_side():
        try_cell(address, key, cell_id, alone=True)


def _tried(send: Callable[[], dict[str, Any]]) -> Any:
    """The provider's answer, or its error as plain data."""
    try:
        return send()
    except Exception as error:
        return packed(error)


_ONE_ALONE = threading.Lock()
