"""One gateway for cells in other processes: each of their calls asks the coordinator, which says when to send.

The coordinator stands beside the gateway, in the command's process. A call of a worker is a thread here that goes
through `Gateway.answer` like any other; only to send does it turn to the worker. So cache, single flight, concurrency,
reservations, bills and halts are one for all workers. A worker that is lost leaves nothing but a call that was cut: its
slot is given back, its flight released, and its bill stays at its highest cost.

A connection is one attempt at one cell. A newer attempt at the same cell closes the older one, wherever that is, frozen
or cut off: its calls are refused from then on (`Revoked`) and it writes nothing more.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from scaling.distributed.protocol import (
    Action,
    AttemptEnded,
    AttemptRequest,
    Channel,
    ChannelClosed,
    CheckModel,
    KeyRefused,
    Order,
    PackedError,
    Query,
    Reply,
    SendNow,
    Sent,
    ShowProgress,
    SweepKey,
)
from scaling.distributed.tasks import pickle_task
from scaling.llm.gateway import Call, Gateway
from scaling.llm.meter import Meter
from scaling.run.progress import ProgressReporter
from scaling.run.runner import CellTask, Settings
from scaling.types import Cell

# So many losses of a cell in a row, with no new answer between them. The last attempt runs alone in its process.
LOSSES_ALLOWED = 3
# So many lone processes of a cell in a row whose worker Dask has given up. They may live, or their host has crashed.
ORPHANS_ALLOWED = 10
# Connections that have not shown the key yet: the oldest is closed when there are more.
STRANGERS_ALLOWED = 32
# How long the listener waits when the process has no file descriptor left.
PAUSE_SECONDS = 0.05


class _Lost(Exception):
    """The worker that made a call is gone."""


class Coordinator:
    """Answers the cells of a sweep that run on workers. `address` and `key` are what a worker needs to find it.

    `failure` is the first mistake of the coordinator's own; the cell that met it has no record.
    """

    def __init__(
        self, tasks: Sequence[CellTask], gateway: Gateway, reporter: ProgressReporter, settings: Settings, host: str
    ):
        self.gateway, self.reporter, self._settings = gateway, reporter, settings
        self.failure: BaseException | None = None
        self._tasks = {task.cell.cell_id: (rank, task) for rank, task in enumerate(tasks)}
        self._losses: Counter[str] = Counter()
        self._orphans: Counter[str] = Counter()
        self._attempts: dict[str, _Attempt] = {}
        self._settled: set[str] = set()
        self._changed = threading.Condition()
        self._open, self._closed = True, threading.Event()
        self._strangers = _Strangers()
        self._listener = socket.create_server((host, 0), backlog=128)
        self.address, self.key = (host, self._listener.getsockname()[1]), SweepKey(secrets.token_bytes(32))
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self, patience: float = 0.0) -> None:
        """Start no attempt any more, wait up to `patience` seconds for those under way, and cut what is left."""
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._attempts, timeout=patience)
            for attempt in list(self._attempts.values()):
                attempt.channel.close()
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def pickled_task(self, cell_id: str) -> bytes:
        """What a worker needs to run a cell."""
        rank, task = self._tasks[cell_id]
        return pickle_task(task, self._settings, rank, self.gateway.max_concurrency)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                channel = Channel(self._listener.accept()[0])
            except OSError:  # closed, or no file descriptor is left
                self._strangers.close_oldest()
                self._closed.wait(PAUSE_SECONDS)
            else:
                self._strangers.add(channel)
                threading.Thread(target=self._serve, args=(channel,), daemon=True).start()

    def _serve(self, channel: Channel) -> None:
        """One connection: who it is, which cell it wants, what it is to do; then the cell's calls until it ends."""
        attempt = None
        try:
            channel.authenticate(self.key, is_coordinator=True)
            self._strangers.remove(channel)
            attempt = self._begin(channel, channel.receive())
            if attempt is not None:
                attempt.follow()
        except (ChannelClosed, KeyRefused):
            pass  # the worker is gone, or it was none
        except Exception as error:  # a mistake of ours is no lost worker
            self.failure = self.failure or error
        finally:
            self._strangers.remove(channel)
            channel.close()
            if attempt is not None:
                self._end(attempt)

    def _begin(self, channel: Channel, request: AttemptRequest) -> _Attempt | None:
        """Tell a worker what to do with a cell. Gives the attempt where it is to run; an older one is over then."""
        cell_id = request.cell_id
        with self._changed:
            if (older := self._attempts.get(cell_id)) is not None:
                # A lone process outlives the worker that started it, and only that worker is lost then.
                self._end(older, is_alive=older.alone and not request.lone_process_died)
            losses, orphans = self._losses[cell_id], self._orphans[cell_id]
            action = self._action(losses, orphans, request)
            if action == Action.RUN:
                attempt = self._attempts[cell_id] = _Attempt(self, self._tasks[cell_id][1].cell, channel, request.alone)
        if action != Action.RUN:
            channel.send(Order(action, losses=losses, orphans=orphans))
            return None
        try:
            channel.send(Order(action, self.pickled_task(cell_id)))
        except BaseException:
            self._end(attempt)
            raise
        return attempt

    def settle(self, attempt: _Attempt) -> None:
        """Note that a cell has its record: whoever asks for it from now on, late or again, writes nothing."""
        with self._changed:
            if not attempt.is_over.is_set():
                self._settled.add(attempt.cell.cell_id)

    def _action(self, losses: int, orphans: int, request: AttemptRequest) -> Action:
        if request.cell_id in self._settled:
            return Action.SETTLED
        if not self._open:
            return Action.CLOSED
        if losses >= LOSSES_ALLOWED or orphans >= ORPHANS_ALLOWED:
            return Action.GIVE_UP
        return Action.RUN if request.alone or losses < LOSSES_ALLOWED - 1 else Action.RUN_ALONE

    def _end(self, attempt: _Attempt, is_alive: bool = False) -> None:
        """End an attempt. is_alive: as far as is known its process has not died, so that this is no loss."""
        cell = attempt.cell
        with self._changed:
            if attempt.is_over.is_set():
                return
            attempt.end()
            lost = not attempt.has_finished and self._open and self.failure is None
            if self._attempts.get(cell.cell_id) is attempt:
                del self._attempts[cell.cell_id]
            if lost:
                # A cell that kills its workers comes no further; one that was there by chance does.
                if attempt.new_answers:
                    self._losses[cell.cell_id] = self._orphans[cell.cell_id] = 0
                (self._orphans if is_alive else self._losses)[cell.cell_id] += 1
            self._changed.notify_all()
        if lost:
            self.reporter.phase(cell, "worker lost")
            self.reporter.say(f"{'lost':11s} {cell.label}  its worker is gone; it runs again from the answers it has")


class _Strangers:
    """The connections that have not shown the key yet: a few, however many knock."""

    def __init__(self) -> None:
        self._channels: list[Channel] = []
        self._lock = threading.Lock()

    def add(self, channel: Channel) -> None:
        with self._lock:
            self._channels.append(channel)
        if len(self._channels) > STRANGERS_ALLOWED:
            self.close_oldest()

    def close_oldest(self) -> None:
        with self._lock:
            oldest = self._channels.pop(0) if self._channels else None
        if oldest is not None:
            oldest.close()

    def remove(self, channel: Channel) -> None:
        with self._lock:
            if channel in self._channels:
                self._channels.remove(channel)


class _Attempt:
    """One attempt at a cell: its calls under way here, each waiting for its turn or for the worker to send."""

    def __init__(self, coordinator: Coordinator, cell: Cell, channel: Channel, alone: bool):
        self.cell, self.channel, self.alone = cell, channel, alone
        self.is_over, self.has_finished, self.new_answers = threading.Event(), False, 0
        self._coordinator, self._gateway, self._reporter = coordinator, coordinator.gateway, coordinator.reporter
        self._meter = Meter(cell.cell_id)
        self._outcomes: dict[int, SimpleQueue[Any]] = {}

    def follow(self) -> None:
        """Serve the worker until its cell has ended. Raises ChannelClosed when it is gone before."""
        while not self.has_finished:
            match self.channel.receive():
                case AttemptEnded():
                    self.has_finished = True
                case Sent(number, outcome):
                    if (outcomes := self._outcomes.get(number)) is not None:  # else the attempt is over
                        outcomes.put(outcome)
                case Query() as query:
                    if query.progress is not None:
                        self._meter.follow(query.progress)
                    threading.Thread(target=self._reply, args=(query,), daemon=True).start()
                case message:
                    raise TypeError(f"a worker sent {message!r}, which is not a message of the protocol")

    def end(self) -> None:
        self.is_over.set()
        self.channel.close()
        for outcomes in list(self._outcomes.values()):
            outcomes.put(_Lost())

    def _reply(self, query: Query) -> None:
        try:
            value = self._answer(query)
        except BaseException as error:  # whatever it is, the worker raises it
            value = PackedError.of(error)
        with suppress(ChannelClosed):
            self.channel.send(Reply(query.number, value))

    def _answer(self, query: Query) -> Any:
        match query.content:
            case Call() as call:
                return self._call(query.number, call)
            case CheckModel(model):
                return self._gateway.check(model)
            case ShowProgress("start", _):
                return self._reporter.start(self.cell, self._meter)
            case ShowProgress("end", arguments):  # the worker waits for the reply, and has written the record
                self._coordinator.settle(self)
                return self._reporter.end(self.cell, *arguments)
            case ShowProgress(method, arguments):
                return getattr(self._reporter, method)(self.cell, *arguments)

    def _call(self, number: int, call: Call) -> Any:
        self._outcomes[number] = SimpleQueue()
        try:
            answer = self._gateway.answer(replace(call, send=lambda: self._send(number), wanted=self._wanted))
        finally:
            del self._outcomes[number]
        self.new_answers += not answer.cache_hit
        return answer

    def _send(self, number: int) -> Any:
        """Let the worker send; its answer, or its error."""
        self._wanted()
        try:
            self.channel.send(SendNow(number))
        except ChannelClosed:
            raise _Lost() from None
        outcome = self._outcomes[number].get()
        if isinstance(outcome, PackedError):
            raise outcome.unpack()
        if isinstance(outcome, _Lost):
            raise outcome
        return outcome

    def _wanted(self) -> None:
        if self.is_over.is_set():
            raise _Lost()
