"""One gateway for cells in other processes: each of their calls asks the ledger, and the ledger says when to send.

The ledger stands beside the gateway, in the command's process. A call from elsewhere is a thread here that goes through
`Gateway.answer` like any other; only to send does it turn to the worker. So cache, flights, places, reservations, bills
and halts are one for all workers, and a worker that is lost leaves nothing but a call that was cut: its place is given
back, its flight released, its bill stays at its highest cost.

A connection is one try of one cell. A newer try of the same cell closes the older one, wherever that is, frozen or cut
off: its calls are refused from then on (`Revoked`) and it writes nothing more.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import answer_challenge, deliver_challenge
from queue import SimpleQueue
from typing import Any

import cloudpickle

from scaling.distributed.protocol import CLOSED, GIVE_UP, RUN, RUN_ALONE, Line, packed, unpacked
from scaling.llm.gateway import Call, Gateway, Meter
from scaling.models import Model
from scaling.run.progress import ProgressReporter
from scaling.run.runner import CellTask, Settings
from scaling.run.source import source_or_none
from scaling.store import CellFiles
from scaling.types import Cell, UsageError

# So many losses of a cell in a row, with no new answer between them. The last try runs alone in its process.
LOSSES_ALLOWED = 3


class _Lost(Exception):
    """Whoever made a call is gone."""


class Coordinator:
    """Answers the cells of a sweep that run elsewhere. `address` and `key` are what a worker needs to find it."""

    def __init__(
        self, work: list[CellTask], gateway: Gateway, reporter: ProgressReporter, settings: Settings, host: str
    ):
        self.gateway, self.reporter, self._settings = gateway, reporter, settings
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
        """One connection: who it is, which cell it wants, what it is to do; then the cell's calls until it ends."""
        one = None
        try:
            with suppress(EOFError, OSError, KeyError, AuthenticationError):
                deliver_challenge(line.pipe, self.key)
                answer_challenge(line.pipe, self.key)
                cell_id, alone = line.receive()
                order, one = self._begin(cell_id, alone, line)
                line.send((order, self._parts(cell_id) if one else LOSSES_ALLOWED))
                if one is not None:
                    one.follow()
        finally:
            line.close()
            if one is not None:
                self._end(one)

    def _begin(self, cell_id: str, alone: bool, line: Line) -> tuple[str, _Try | None]:
        """What a worker is to do with a cell, and the try where it is to run; an older try is over then."""
        with self._changed:
            if cell_id in self._tries:
                self._end(self._tries[cell_id])
            order = self._order(self._losses[cell_id], alone)
            if order != RUN:
                return order, None
            one = self._tries[cell_id] = _Try(self, self._work[cell_id][1].cell, line)
            return order, one

    def _parts(self, cell_id: str) -> bytes:
        rank, item = self._work[cell_id]
        source = source_or_none(item.bench.signature)
        return cloudpickle.dumps((light(item), source, self._settings, rank, self.gateway.max_concurrency))

    def _order(self, losses: int, alone: bool) -> str:
        if not self._open:
            return CLOSED
        if losses >= LOSSES_ALLOWED:
            return GIVE_UP
        return RUN if alone or losses < LOSSES_ALLOWED - 1 else RUN_ALONE

    def _end(self, one: _Try) -> None:
        with self._changed:
            if one.over.is_set():
                return
            one.end()
            lost = not one.finished and self._open
            if self._tries.get(one.cell.cell_id) is one:
                del self._tries[one.cell.cell_id]
            if lost:
                # A cell that kills its workers comes no further; one that was there by chance does.
                self._losses[one.cell.cell_id] = 1 if one.bought else self._losses[one.cell.cell_id] + 1
            self._changed.notify_all()
        if lost:
            self.reporter.phase(one.cell, "worker lost")
            self.reporter.say(
                f"{'lost':11s} {one.cell.label}  its worker is gone; it runs again from the answers it has"
            )


class _Try:
    """One try of a cell elsewhere: its calls under way here, each waiting for its turn or for the worker to send."""

    def __init__(self, ledger: Coordinator, cell: Cell, line: Line):
        self.cell, self.line = cell, line
        self.over, self.finished, self.bought = threading.Event(), False, 0
        self._seam, self._board = ledger.gateway, ledger.reporter
        self._meter = Meter(cell.cell_id)
        self._sent: dict[int, SimpleQueue] = {}
        self._asked = {"call": self._call, "check": self._check, "reporter": self._show}

    def follow(self) -> None:
        """Serve the worker until its cell has ended; EOFError or OSError when it is gone before."""
        while not self.finished:
            number, kind, value = self.line.receive()
            if kind == "end":
                self.finished = True
            elif kind == "sent":
                self._sent[number].put(value)
            else:
                self._meter.rollouts.update(value[0])
                threading.Thread(target=self._reply, args=(number, kind, value[1]), daemon=True).start()

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

    def _call(self, number: int, request: dict[str, Any]) -> dict[str, Any]:
        self._sent[number] = SimpleQueue()
        try:
            answer = self._seam.answer(Call(**request, send=lambda: self._send(number), wanted=self._wanted))
        finally:
            del self._sent[number]
        self.bought += not answer["cache_hit"]
        return answer

    def _send(self, number: int) -> dict[str, Any]:
        """Let the worker send; its answer, or its error."""
        self._wanted()
        try:
            self.line.send((number, "send", None))
        except OSError:
            raise _Lost() from None
        outcome = self._sent[number].get()
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


def light(item: CellTask) -> CellTask:
    """The work without what only the plan needs, so that little travels: the pool of rows and its loader."""
    config = {name: value for name, value in item.bench.config.items() if name != "loader"}
    files = CellFiles(item.files.folder.absolute())
    return replace(item, bench=replace(item.bench, train=[], test=None, config=config), files=files)


def travelling(work: list[CellTask]) -> list[bytes]:
    """Each benchmark of the cells as it travels; UsageError for one that cannot."""
    benches = {item.cell.benchmark: light(item).bench for item in work}
    found = []
    for name, bench in benches.items():
        source_or_none(bench.signature)  # read while the user's script can be found
        try:
            found.append(cloudpickle.dumps(bench))
        except Exception as error:  # pickling runs the user's own code
            raise UsageError(
                f"the benchmark '{name}' cannot be sent to workers ({type(error).__name__}: {error}). "
                f"Open files, locks and connections inside its functions, or type --engine local."
            ) from None
    return found
