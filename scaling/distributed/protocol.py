"""How a worker and the coordinator talk: messages over a socket, once both ends have shown the sweep's key."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

import tenacity

from scaling.llm.gateway import Call
from scaling.llm.meter import Progress
from scaling.models import Model

CONNECT_SECONDS = 20.0

Address = tuple[str, int]


class SweepKey(bytes):
    """What opens the coordinator. Dask logs the arguments of what fails, and shows its logs: it is in none of them."""

    def __repr__(self) -> str:
        return "<key of the sweep>"

    __str__ = __repr__


class Action(StrEnum):
    """What the coordinator tells a worker to do with a cell."""

    RUN = "run"
    RUN_ALONE = "run alone"
    GIVE_UP = "give up"
    CLOSED = "closed"
    SETTLED = "settled"


@dataclass(frozen=True)
class AttemptRequest:
    """The first message of a worker: which cell it wants to run.

    alone: in a process that runs nothing else. lone_process_died: such a process of this worker has just died.
    """

    cell_id: str
    alone: bool = False
    lone_process_died: bool = False


@dataclass(frozen=True)
class Order:
    """The answer to it.

    task: a pickled `tasks.WorkerTask` where the cell is to run. losses: processes that died with it. orphans: those
    that lost their worker and may have died.
    """

    action: Action
    task: bytes = b""
    losses: int = 0
    orphans: int = 0


@dataclass(frozen=True)
class CheckModel:
    """Asks whether a model may still be called."""

    model: Model


@dataclass(frozen=True)
class ShowProgress:
    """A method of the progress reporter, with what it takes beside the cell."""

    method: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Query:
    """A worker asks something, and says how far its cell is. None: the cell has not started."""

    number: int
    progress: Progress | None
    content: Call | CheckModel | ShowProgress


@dataclass(frozen=True)
class Sent:
    """A worker has sent the call of this query: the provider's answer, or its error."""

    number: int
    outcome: Any


@dataclass(frozen=True)
class AttemptEnded:
    """The last message of a worker: the cell has ended here."""


@dataclass(frozen=True)
class SendNow:
    """The coordinator lets the worker send the call of this query."""

    number: int


@dataclass(frozen=True)
class Reply:
    """The answer to a query, or the error that the worker is to raise."""

    number: int
    value: Any


class Unreachable(Exception):
    """A worker cannot reach the coordinator."""


class ChannelClosed(Exception):
    """Either end has closed the channel, or the network has."""


class KeyRefused(Exception):
    """The other end has another key."""


class Channel:
    """Python objects over a socket, written by many threads. Every method but `close` may raise ChannelClosed."""

    def __init__(self, end: socket.socket):
        self._socket, self._lock = end, threading.Lock()
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._connection = Connection(os.dup(end.fileno()))
        except OSError:
            end.close()
            raise

    def authenticate(self, key: bytes, is_coordinator: bool) -> None:
        """Compare keys with the other end, within CONNECT_SECONDS for all of it. Raises KeyRefused."""
        steps = (deliver_challenge, answer_challenge)
        too_late = threading.Timer(CONNECT_SECONDS, self.close)
        too_late.daemon = True
        too_late.start()
        try:
            for step in steps if is_coordinator else reversed(steps):
                step(self._connection, key)
        except AuthenticationError as error:
            raise KeyRefused(str(error)) from None
        except (EOFError, OSError) as error:
            raise ChannelClosed(f"it hung up, {type(error).__name__}") from None
        finally:
            too_late.cancel()

    def send(self, message: Any) -> None:
        content = pickle.dumps(message)
        try:
            with self._lock:
                self._connection.send_bytes(content)
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def receive(self) -> Any:
        try:
            content = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise ChannelClosed(str(error)) from None
        return pickle.loads(content)

    def close(self) -> None:
        """Also ends a `receive` that waits in another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def connected(address: Address, key: bytes) -> Iterator[Channel]:
    """A channel to the coordinator while the block runs. Raises Unreachable."""
    try:
        channel = _connect(address, key)
    except (ChannelClosed, KeyRefused, OSError) as error:
        raise Unreachable(f"the command at {address[0]}:{address[1]} cannot be reached ({error})") from None
    try:
        yield channel
    finally:
        channel.close()


# The coordinator hangs up on the oldest of too many connections whose keys are not compared yet: try again.
@tenacity.retry(
    retry=tenacity.retry_if_exception_type(ChannelClosed), wait=tenacity.wait_random(0, 0.5),
    stop=lambda tries: tenacity.stop_after_delay(CONNECT_SECONDS)(tries), reraise=True,
)  # fmt: skip
def _connect(address: Address, key: bytes) -> Channel:
    end = socket.create_connection(address, timeout=CONNECT_SECONDS)
    end.settimeout(None)
    channel = Channel(end)
    try:
        channel.authenticate(key, is_coordinator=False)
    except BaseException:
        channel.close()
        raise
    return channel


@dataclass(frozen=True)
class PackedError:
    """An error and its causes as plain data, as not every one of them pickles by itself."""

    chain: tuple[tuple[type[BaseException], tuple[Any, ...], dict[str, Any]], ...]

    @classmethod
    def of(cls, error: BaseException) -> PackedError:
        chain = []
        link: BaseException | None = error
        while link is not None:
            state = {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(link).items()}
            part = (type(link), link.args, state)
            try:
                pickle.loads(pickle.dumps(part))
            except Exception:  # whatever the error's class does when it is pickled
                part = (RuntimeError, (f"{type(link).__name__}: {link}",), {})
            chain.append(part)
            link = link.__cause__ or link.__context__
        return cls(tuple(chain))

    def unpack(self) -> BaseException:
        """The error again, with its causes."""
        errors = []
        for kind, arguments, state in self.chain:
            errors.append(kind.__new__(kind, *arguments))
            errors[-1].__dict__.update(state)
        for error, cause in zip(errors, errors[1:], strict=False):
            error.__cause__ = cause
        return errors[0]
