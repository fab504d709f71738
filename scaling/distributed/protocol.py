"""How a cell in another process and the ledger talk: Python objects over a socket, both ends with the sweep's key."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

CONNECT_SECONDS = 20.0
# What the ledger tells a worker to do with a cell.
RUN, RUN_ALONE, GIVE_UP, CLOSED = "run", "run alone", "give up", "closed"


class Unreachable(Exception):
    """The ledger cannot be reached from a worker."""


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
