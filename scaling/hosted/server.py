"""A web app served on a socket of this machine, in a thread or to the end of the process."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fastapi
import uvicorn

from scaling.types import UsageError

START_SECONDS = 30.0
KEEP_SECONDS = 120  # an idle connection: callers keep theirs longer than uvicorn's 5 s
GRACE_SECONDS = 5  # for answers that are under way when the server is stopped


@contextmanager
def serving(app: fastapi.FastAPI, port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve an app in a thread while the block runs; gives its address. port 0: any free one. Raises UsageError."""
    listener = listen(host, port)
    server = uvicorn.Server(_settings_of(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"  # whoever connects before it is up waits in the queue
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; UsageError, in one line, for a port that is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        raise UsageError(f"port {port} on {host} {reason}. Stop what uses it, or type --port {port + 1}.") from None
    return listener


def serve_until_stopped(app: fastapi.FastAPI, listener: socket.socket) -> None:
    """Serve an app in this thread until Ctrl-C; warnings go to standard error."""
    with suppress(KeyboardInterrupt):
        uvicorn.Server(_settings_of(app, log_level="warning")).run(sockets=[listener])


def _settings_of(app: fastapi.FastAPI, **logging: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app, access_log=False, timeout_keep_alive=KEEP_SECONDS, timeout_graceful_shutdown=GRACE_SECONDS, **logging
    )
