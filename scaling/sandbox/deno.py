"""A Deno process with Pyodide that can reach nothing: DSPy's interpreter, shut in more tightly.

A process has a folder of its own, which is thrown away with it. There it finds links to DSPy's runner, to Pyodide and
to the files of this package, and there is what Deno itself stores. So no path that a program can see names a user. Once
Pyodide has loaded, no file can be opened, and none can grow. There is no network, no environment and no child process.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from dspy.primitives.python_interpreter import PythonInterpreter

from scaling.types import CellStopped, UsageError

START_SECONDS = 60.0
# A longer line from a sandbox is cut: it would fill this process's memory.
LONGEST_LINE = 4_000_000
INSTALL = "Type: python -m pip install -r requirements.txt && python -m scaling.sandbox"
# These signals come from outside (Ctrl-C, a machine that shuts down). A program can send one to itself only.
INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OWN_FILES = ("pyodide.js", "read_lines.js")
PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
RUNNER, IMPORT_MAP = "runner.js", "import_map.json"
# Modules that read_lines.js takes the place of: the one that DSPy's runner reads with, and two of Node's.
TAKEN = ("https://deno.land/std@0.186.0/io/mod.ts", "node:process", "node:worker_threads")
# In the folder ($1), no core dumps, and no file that can grow: writing to one is an error, where the signal would kill.
SHUT_IN = 'cd "$1" && shift && ulimit -c 0 && trap "" XFSZ && ulimit -f 0 && exec "$@"'


class Sandbox:
    """A Deno process with Pyodide, ready for code.

    setup: code that is run first. tools: what code in the sandbox may call, by name. Raises CellStopped when the
    sandbox does not start: nothing is known of a program then.
    """

    def __init__(self, setup: str = "", tools: dict[str, Callable[..., str]] | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix="sandbox-")).resolve()
        self._remove_folder = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.interpreter = PythonInterpreter(_command(self.folder), tools=tools)
        timer = threading.Timer(START_SECONDS, self.kill)
        timer.start()
        try:
            self.interpreter.start()
            self.interpreter.execute(setup)
        except Exception as error:
            interrupted = self.interpreter.deno_process is not None and self.was_interrupted()
            self.end()
            raise CellStopped(
                "interrupted" if interrupted else "error", f"the sandbox did not start ({last_line(error)}). {INSTALL}"
            ) from error
        finally:
            timer.cancel()
        output: Any = self.process.stdout
        output.readline = functools.partial(output.readline, LONGEST_LINE)

    @property
    def process(self) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = self.interpreter.deno_process
        return process

    def execute(self, code: str) -> Any:
        """What the code's last line gives; raises what DSPy's interpreter raises."""
        return self.interpreter.execute(code)

    def megabytes(self) -> float:
        """Memory that the process holds now; 0 when it has ended."""
        try:
            return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0

    def was_interrupted(self) -> bool:
        """Whether the process has been ended from outside, or is at this moment."""
        try:
            return -self.process.wait(0.1) in INTERRUPTING
        except subprocess.TimeoutExpired:
            return False

    def kill(self) -> None:
        if self.interpreter.deno_process is not None:
            self.process.kill()

    def end(self) -> None:
        """Kill the process and remove its folder. A program is never asked whether it is ready to go."""
        self.kill()
        if self.interpreter.deno_process is not None:
            self.process.wait()
            for pipe in filter(None, (self.process.stdin, self.process.stdout, self.process.stderr)):
                with suppress(OSError):  # what was still to be written has no reader
                    pipe.close()
        self._remove_folder()


def available() -> bool:
    """Whether Deno is installed and Pyodide fetched."""
    return missing() is None


def require() -> None:
    """Raise UsageError, with what to type, unless programs can be run here."""
    lacking = missing()
    if lacking is not None:
        raise UsageError(f"model-written programs need a sandbox, and {lacking}. {INSTALL}")


def missing() -> str | None:
    """What a sandbox lacks here, in words; None when programs can be run."""
    if shutil.which(_plain_command()[0]) is None:
        return "Deno is not installed"
    return "Pyodide has not been fetched" if _pyodide() is None else None


def install() -> None:
    """Fetch Pyodide from the npm registry into Deno's cache. Raises UsageError when that fails."""
    deno = _plain_command()[0]
    if shutil.which(deno) is None:
        raise UsageError(f"model-written programs need a sandbox, and Deno is not installed. {INSTALL}")
    environment = {"DENO_TLS_CA_STORE": "system,mozilla", "DENO_NO_PACKAGE_JSON": "1"} | os.environ
    package = f"npm:pyodide@{_pyodide_version()}/pyodide.js"
    fetch = [deno, "cache", "--no-config", "--no-lock", "--node-modules-dir=none", package]
    if subprocess.run(fetch, env=environment, check=False).returncode or missing():
        raise UsageError("Pyodide could not be fetched from the npm registry. Look at the messages above; try again.")


def last_line(error: Exception) -> str:
    """The last line of an error's text, at most 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removesuffix(":")[:300]


def _command(folder: Path) -> list[str]:
    """The command line of a process in `folder`, with an empty environment, no questions and nothing fetched."""
    pyodide = _pyodide()
    if pyodide is None:
        raise CellStopped("error", f"Pyodide is not there any more. {INSTALL}")
    sources = {RUNNER: _dspys_runner()} | {name: Path(__file__).with_name(name) for name in OWN_FILES}
    for name, path in (sources | {name: pyodide / name for name in PYODIDE_FILES}).items():
        (folder / name).symlink_to(path)
    imports = {f"npm:pyodide@{_pyodide_version()}/pyodide.js": "./pyodide.js"} | dict.fromkeys(TAKEN, "./read_lines.js")
    (folder / IMPORT_MAP).write_text(json.dumps({"imports": imports}), encoding="utf-8")
    deno = Path(shutil.which(_plain_command()[0]) or "deno").absolute()
    quiet = ["DENO_NO_PACKAGE_JSON=1", "DENO_NO_UPDATE_CHECK=1", "NO_COLOR=1"]
    # Found on PATH, so that the process knows itself by its bare name.
    empty = ["env", "-i", f"PATH={deno.parent}", f"DENO_DIR={folder / 'deno'}", *quiet]
    flags = ["--no-config", "--no-lock", "--no-npm", "--no-remote", "--no-prompt", "--no-code-cache"]
    reads = f"--allow-read={folder},{pyodide}"  # until Pyodide has loaded: see read_lines.js
    run = [deno.name, "run", *flags, reads, f"--import-map={IMPORT_MAP}", RUNNER, ""]
    return ["/bin/sh", "-c", SHUT_IN, "sh", str(folder), *empty, *run]


def _pyodide() -> Path | None:
    """The folder of the Pyodide that DSPy's runner wants, in Deno's cache; None where it has not been fetched."""
    caches = [part.partition("=")[2] for part in _plain_command() if part.startswith("--dspy-deno-dir=")]
    folders = [path for cache in caches for path in Path(cache).glob(f"npm/*/pyodide/{_pyodide_version()}")]
    return next((path.resolve() for path in folders if (path / "pyodide.asm.wasm").exists()), None)


def _pyodide_version() -> str:
    named = re.search(r"npm:pyodide@([\d.]+)", _dspys_runner().read_text(encoding="utf-8"))
    return named[1] if named else ""


def _dspys_runner() -> Path:
    return Path(next(part for part in _plain_command() if part.endswith(RUNNER)))


def _plain_command() -> list[str]:
    return list(PythonInterpreter().deno_command)
