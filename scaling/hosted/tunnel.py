"""How a hosted optimizer reaches the task app on this machine: directly, at the user's address, or by a tunnel."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import tenacity

from scaling.hosted.client import MAX_ATTEMPTS, SynthError, pause
from scaling.hosted.server import serving
from scaling.hosted.settings import is_local
from scaling.llm.network import is_loopback
from scaling.types import HostedSettings, UsageError

TUNNEL_SECONDS, TUNNEL_SETTLES = 60.0, 10.0
TUNNEL_ADDRESS = re.compile(r"https://[a-z0-9-]+\.trycloudflare\.com")
_PORT_IN_USE = threading.Lock()


@contextmanager
def served(app: Any, hosted: HostedSettings, check: Callable[[], None]) -> Iterator[str]:
    """The task app's address while the block runs. A given --task-app-url leads to one port: its cells take turns."""
    if hosted.task_app_url is None:
        with serving(app) as address:
            yield address
        return
    while not _PORT_IN_USE.acquire(timeout=0.5):
        check()
    try:
        with serving(app, hosted.task_app_port) as address:
            yield address
    except UsageError as error:
        raise SynthError(str(error).replace("--port", "--task-app-port")) from None
    finally:
        _PORT_IN_USE.release()


@contextmanager
def reachable(address: str, hosted: HostedSettings, sleep: Callable[[float], None]) -> Iterator[str]:
    """The address at which the backend reaches the task app: the user's, this one, or a tunnel's."""
    if hosted.task_app_url or is_local(hosted):
        yield (hosted.task_app_url or address).rstrip("/")
        return
    with tunnel(address) as public:
        sleep(TUNNEL_SETTLES)  # a name that is looked up too early is remembered as missing
        yield public


@contextmanager
def tunnel(address: str) -> Iterator[str]:
    """A quick tunnel of `cloudflared` while the block runs; gives its public address. Raises SynthError."""
    command = ["cloudflared", "tunnel", "--no-autoupdate", "--config", os.devnull, "--url", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    addresses: queue.Queue[str] = queue.Queue()

    def read() -> None:  # to its end, or the pipe would fill and hold the tunnel up
        for line in process.stderr or ():
            if match := TUNNEL_ADDRESS.search(line):
                addresses.put(match.group())
        addresses.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        try:
            public = addresses.get(timeout=TUNNEL_SECONDS)
        except queue.Empty:
            public = ""
        if not public:
            raise SynthError("cloudflared gave no address; --task-app-url URL goes without it")
        yield public
    finally:
        process.terminate()
        process.wait()


def look_at_app(url: str, key: str, sleep: Callable[[float], None]) -> None:
    """Raise SynthError unless the task app answers at its address; a new tunnel may need a while."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(MAX_ATTEMPTS), wait=pause, sleep=sleep, reraise=True,
        retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    )  # fmt: skip
    try:
        with httpx.Client(headers={"X-API-Key": key}, timeout=10.0, trust_env=not is_loopback(url)) as http:
            retrying(lambda: http.get(f"{url}/health").raise_for_status())
    except httpx.HTTPError as error:
        raise SynthError(
            f"the task app cannot be reached at {url} ({type(error).__name__}); --task-app-url names where it can"
        ) from None
