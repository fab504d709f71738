"""Who may speak to the coordinator and to Dask's scheduler, and what strangers can do to them."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from scaling.distributed import protocol, worker
from scaling.distributed.coordinator import Coordinator
from scaling.testing import ScriptedServer
from scaling.types import EXIT_OK
from tests.support.coordinators import a_coordinator
from tests.support.sweeps import ROOT, start, write_study

psutil = pytest.importorskip("psutil")
Task = pytest.importorskip("dask._task_spec").Task
engine = pytest.importorskip("scaling.distributed.engine")
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
    with engine.connected(None, 1, 1) as client:
        places = listening(os.getpid())
        assert len(places) >= 4  # scheduler, its pages, nanny, worker
        assert {ip for _, ip, _ in places} == {"127.0.0.1"}
        addresses = [client.scheduler.address, *client.scheduler_info()["workers"]]
        assert all(address.startswith("tls://") for address in addresses)
        command = [sys.executable, "-W", "ignore", "-c", code, *addresses]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True).stdout
        assert client.submit(os.getpid).result() != os.getpid()  # we are let in
    assert said.count("refused") == 2 * 2 and "let in" not in said


# Looks and tries as long as its standard input is open. What it could read goes to standard output.
NEIGHBOUR = """
import json, os, pickle, re, socket, ssl, struct, sys, urllib.parse, urllib.request
places, processes, folders, target = json.loads(sys.stdin.readline())

class Payload:
    def __reduce__(self):
        return os.system, (f"touch '{target}'",)

payload = pickle.dumps(Payload())
framed = struct.pack("!i", len(payload)) + payload  # as multiprocessing frames it
dask = struct.pack("<QQ", 1, len(payload)) + payload  # as Dask does

def heard(port, said, tls=False):
    with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
        if tls:
            context = ssl._create_unverified_context()
            line = context.wrap_socket(line)
        line.sendall(said)
        return line.recv(65536)

def fetch(port, path, seen):
    if path in seen or len(seen) > 60:
        return
    seen.add(path)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
        text = answer.read().decode(errors="replace")
    print(text)
    for link in re.findall(r'href="([^"]+)"', text):
        joined = urllib.parse.urljoin(f"http://127.0.0.1:{port}{path}", link)
        if joined.startswith(f"http://127.0.0.1:{port}/"):
            attempt(fetch, port, urllib.parse.urlsplit(joined).path, seen)

def attempt(what, *arguments):
    try:
        return what(*arguments)
    except Exception as error:
        print(type(error).__name__, error)

os.environ["no_proxy"] = "*"
for port in places:
    for said in (framed, dask, payload):
        for tls in (False, True):
            print(attempt(heard, port, said, tls))
    seen = set()
    for path in ("/", "/health", "/json/identity.json", "/info/main/workers.html", "/info/main/logs.html"):
        attempt(fetch, port, path, seen)
for process in processes:
    for name in ("environ", "cmdline", "maps"):
        print(attempt(lambda: open(f"/proc/{process}/{name}", "rb").read()))
for folder in folders:
    for parent, inside, files in os.walk(folder):
        for name in files:
            print(attempt(lambda: open(os.path.join(parent, name), "rb").read()))
"""
NOBODY = 65534
OWN_SECRET = "a-key-of-the-worker-0123456789"


def listening(pid: int) -> set[tuple[int, str, int]]:
    """(process, address, port) of all sockets that a process and its children listen on."""
    process = psutil.Process(pid)
    return {
        (one.pid, connection.laddr.ip, connection.laddr.port)
        for one in [process, *process.children(recursive=True)]
        for connection in one.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder as /tmp is, in which a neighbour has made the one that Dask would use."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    trap = folder / "dask-scratch-space"
    trap.mkdir()
    trap.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(trap, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not FULL, reason="a whole sweep on workers: make chaos")
def test_a_neighbour_on_the_machine_reads_no_key_and_runs_nothing_as_us(
    sweep_server: ScriptedServer, tmp_path: Path, shared_folder: Path
) -> None:
    """Root plays the user of the sweep where it can, and another user the neighbour; else both are one user."""
    asked, go_on = threading.Event(), threading.Event()
    sweep_server.fault = lambda n, body: (asked.set(), go_on.wait(120), None)[-1]
    flags = write_study(tmp_path, sweep_server.url, [1], ["none"], 2)
    models = (tmp_path / "models.toml").read_text()
    (tmp_path / "models.toml").write_text(models + '\nkey_env = "TOY_API_KEY"\n')
    command = [*flags, "--engine", "dask", "--workers", "2"]
    sweep = start(command, tmp_path / "out", TMPDIR=str(shared_folder), TOY_API_KEY=OWN_SECRET)
    try:
        assert asked.wait(120)
        places = listening(sweep.pid)
        assert len(places) >= 5 and {ip for _, ip, _ in places} == {"127.0.0.1"}
        own = [folder for folder in shared_folder.iterdir() if folder.name != "dask-scratch-space"]
        assert own and {stat.S_IMODE(folder.stat().st_mode) for folder in own} == {0o700}
        assert not list((shared_folder / "dask-scratch-space").iterdir())
        processes = sorted({pid for pid, _, _ in places})
        assert any(OWN_SECRET in psutil.Process(pid).environ().values() for pid in processes)
        target = tmp_path / "written as us"
        orders = json.dumps([sorted({port for _, _, port in places}), processes, [str(shared_folder)], str(target)])
        as_neighbour = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        python = "/usr/bin/python3" if as_neighbour and Path("/usr/bin/python3").exists() else sys.executable
        told = subprocess.run(
            [python, "-I", "-c", NEIGHBOUR], input=orders, capture_output=True, text=True, timeout=300, check=True,
            cwd="/", **as_neighbour,
        ).stdout  # fmt: skip
    finally:
        go_on.set()
        said, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == EXIT_OK, said
    assert "CHALLENGE" in told and "</html>" in told  # the neighbour has reached the coordinator, and Dask's pages
    assert not target.exists() and os.listdir(shared_folder) == ["dask-scratch-space"]
    if as_neighbour:  # the same user may read its own processes
        assert OWN_SECRET not in told and "PRIVATE KEY" not in told and "key of the sweep" not in told


def test_certificates_are_on_disk_only_while_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Path, int]] = []
    load = ssl.SSLContext.load_cert_chain

    def noted(context: ssl.SSLContext, certificate: str, key: str) -> None:
        loaded.extend((Path(path), stat.S_IMODE(Path(path).parent.stat().st_mode)) for path in (certificate, key))
        load(context, certificate, key)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", noted)
    with engine.connected(None, 1, 1):
        assert loaded and {mode for _, mode in loaded} == {0o700}
        assert not any(path.parent.exists() for path, _ in loaded)


def test_the_key_of_the_sweep_is_in_nothing_that_dask_prints(coordinator: Coordinator) -> None:
    arguments = (coordinator.address, coordinator.key, protocol.AttemptRequest("a"))
    key = repr(bytes(coordinator.key))
    printed = [repr(arguments), str(arguments), f"{coordinator.key}", repr(Task("c", worker.run_attempt, *arguments))]
    assert "<key of the sweep>" in printed[0] and not [text for text in printed if key in text or key[2:-1] in text]
    assert pickle.loads(pickle.dumps(coordinator.key)) == coordinator.key


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
