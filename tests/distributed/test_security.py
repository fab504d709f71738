"""Who may speak to the coordinator and to Dask's scheduler, and what strangers can do to them."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from scaling.distributed import protocol, worker
from scaling.distributed.coordinator import Coordinator
from tests.support.coordinators import a_coordinator
from tests.support.sweeps import ROOT

psutil = pytest.importorskip("psutil")
FULL = "CHAOS" in os.environ


@contextmanager
def few_files(limit: int) -> Iterator[None]:
    """This process may hold so many files open while the block runs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    with a_coordinator(tmp_path / "cache.sqlite") as running:
        yield running


# Connects when it is told to, so often, says nothing, and hangs up when its standard input ends.
STRANGERS = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.stdin.readline()
connections = [socket.create_connection((host, port), timeout=10) for _ in range(count)]
print("connected", flush=True)
sys.stdin.read()
"""


@contextmanager
def strangers(address: tuple[str, int], count: int) -> Iterator[Callable[[], None]]:
    """Gives a function that makes so many connections without a key; they stay open while the block runs."""
    command = [sys.executable, "-c", STRANGERS, address[0], str(address[1]), str(count)]

    def connect() -> None:
        process.stdin.write("now\n")
        process.stdin.flush()
        assert process.stdout.readline() == "connected\n"

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield connect


@pytest.mark.parametrize("spare", [20, 100])
def test_silent_strangers_do_not_end_the_listener(coordinator: Coordinator, spare: int) -> None:
    """With 20 file descriptors to spare the listener runs out of them, with 100 it does not."""
    threads_before = threading.active_count()  # other tests' servers may still end theirs
    with strangers(coordinator.address, 600 if FULL else 150) as connect:
        with few_files(len(os.listdir("/proc/self/fd")) + spare):
            connect()
        worker.ping(coordinator.address, coordinator.key)
        assert threading.active_count() < threads_before + 100
    worker.ping(coordinator.address, coordinator.key)


def test_nobody_without_the_sweeps_certificate_reaches_the_scheduler_or_a_worker() -> None:
    """Another process on this machine, with no certificate and with one of its own, gets no connection."""
    code = """
import asyncio, sys
from distributed.core import connect
from distributed.security import Security

async def main():
    for address in sys.argv[1:]:
        own = Security.temporary().get_connection_args("client")
        for where, arguments in ((address.replace("tls", "tcp"), {}), (address, own)):
            try:
                await connect(where, timeout=1, **arguments)
            except OSError:
                print("refused")
            else:
                print("let in")

asyncio.run(main())
"""
    from scaling.distributed import engine

    with engine.connected(None, 1, 1) as client:
        here = psutil.Process()
        listening = {
            (process.pid, connection.laddr.ip, connection.laddr.port)
            for process in [here, *here.children(recursive=True)]
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert len(listening) >= 4  # scheduler, its pages, nanny, worker
        assert {ip for _, ip, _ in listening} == {"127.0.0.1"}
        addresses = [client.scheduler.address, *client.scheduler_info()["workers"]]
        assert all(address.startswith("tls://") for address in addresses)
        command = [sys.executable, "-W", "ignore", "-c", code, *addresses]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True).stdout
        assert client.submit(os.getpid).result() != os.getpid()  # we are let in
    assert said.count("refused") == 2 * 2 and "let in" not in said


def test_a_mistake_of_ours_in_a_conversation_is_no_lost_worker(coordinator: Coordinator) -> None:
    """A cell that the coordinator does not know: its own mistake, which it keeps and nobody takes for a loss."""
    with protocol.connected(coordinator.address, coordinator.key) as channel:
        channel.send(protocol.AttemptRequest("unknown cell"))
        with pytest.raises(protocol.ChannelClosed):
            channel.receive()
    assert isinstance(coordinator.failure, KeyError)


def test_a_stranger_who_shows_its_key_byte_by_byte_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "CONNECT_SECONDS", 0.3)
    with a_coordinator(tmp_path / "cache.sqlite") as coordinator, socket.create_connection(coordinator.address) as end:
        end.settimeout(0.05)
        sent = 0
        with suppress(ConnectionError):
            while sent < 200:  # ten seconds, of which it has 0.3
                end.sendall(b"\0\0\0\x40"[sent : sent + 1] or b"x")
                sent += 1
                with suppress(TimeoutError):
                    if not end.recv(1024):
                        break
        assert 0 < sent < 200


def test_a_worker_gives_up_on_a_command_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(protocol.Unreachable, match="hung up"):
        worker.ping(silent.getsockname(), b"key")
