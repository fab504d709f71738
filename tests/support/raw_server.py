"""A server on loopback that answers with whatever bytes, at whatever pace, for tests of how calls are bounded."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

# At most so many steps: a client without bounds then gets its answer, and the test sees that it waited.
MOST_STEPS = 100
PACE_SECONDS = 0.05
ANSWER = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 0, "model": "raw",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()  # fmt: skip


class Listener:
    """Listens on loopback while the `with` block runs. hear: does with each connection what the server is for."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def hear(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client hung up
            self.hear(connection)


class RawServer(Listener):
    """reply: sends an answer by `send`, and may `pause` between its parts."""

    def __init__(self, reply: Callable[[RawServer, Callable[[bytes], object]], object]):
        super().__init__()
        self.reply, self.requests = reply, 0
        self.arrived, self.closing = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def pause(self, seconds: float = PACE_SECONDS) -> None:
        self.closing.wait(seconds)

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        super().__exit__()

    def hear(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        while len(body) < length:
            body += connection.recv(65536)
        self.requests += 1
        self.arrived.set()
        self.reply(self, connection.sendall)


def head(length: int, *headers: str, status: str = "200 OK") -> bytes:
    """The head of an answer of so many bytes."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def whole(body: bytes, *headers: str, status: str = "200 OK") -> Callable[[RawServer, Callable], object]:
    """Answers at once."""
    return lambda server, send: send(head(len(body), *headers, status=status) + body)


def slow_body(server: RawServer, send: Callable[[bytes], object]) -> None:
    """A byte of the body now and then, in front of an answer that is well."""
    send(head(MOST_STEPS + len(ANSWER)))
    for _ in range(MOST_STEPS):
        send(b" ")
        server.pause()
    send(ANSWER)


def slow_head(server: RawServer, send: Callable[[bytes], object]) -> None:
    """The same with the head."""
    send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(MOST_STEPS):
        send(b"x")
        server.pause()
    send(f"\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER)


def silent(server: RawServer, send: Callable[[bytes], object]) -> None:
    """Nothing, for as long as a slow answer takes; then the answer."""
    server.pause(MOST_STEPS * PACE_SECONDS)
    whole(ANSWER)(server, send)


def endless(server: RawServer, send: Callable[[bytes], object]) -> None:
    """Spaces, 64 MiB of them, in front of an answer that is well."""
    send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in [b" " * 2**16] * 1024 + [ANSWER, b""]:
        send(b"%x\r\n%s\r\n" % (len(part), part))
