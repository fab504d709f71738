"""Running model-written Python and judging it: DSPy's interpreter (Deno and Pyodide), twice, watched from outside.

The program runs in one sandbox and its checks in another. The checks call the program through this process, and only
plain values cross (bridge.py). So a program can neither see its checks nor touch them: whatever it prints,
patches or returns, it only makes answers. Each program gets a fresh sandbox. The checks' own sandbox serves many
problems, because no program's code runs there.

Neither sandbox has files, network, environment variables or processes. What Deno itself stores goes into a folder of
the sandbox's own, which is thrown away with it. A thread of this process kills both sandboxes when the time is up, or
when one of them holds too much memory or disk. `python -m scaling.sandbox` fetches Pyodide once; after that no network
is needed.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from dspy.primitives.code_interpreter import CodeExecutionError
from dspy.primitives.python_interpreter import PythonInterpreter

from scaling.sandbox import bridge
from scaling.types import CellStopped, UsageError

SECONDS, MEGABYTES = 10.0, 512.0
DISK_MEGABYTES = 16.0
START_SECONDS = 60.0
# A longer line from a sandbox is cut: it would fill this process's memory.
LONGEST_LINE = 4_000_000
IMPORT_MAP = Path(__file__).parent / "import_map.json"
INSTALL = "Type: python -m pip install -r requirements.txt && python -m scaling.sandbox"
# A sandbox for checks is replaced after this many problems, or when it keeps this much memory (a new one has 200 MB).
PROBLEMS_A_JUDGE, JUDGE_MEGABYTES = 200, 300.0
# These signals come from outside (Ctrl-C, a machine that shuts down). A program can send one to itself only.
INTERRUPTING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Each thread keeps a judge (a sandbox belongs to one thread). Time limits are wall time: no more threads than cores.
_threads = ThreadPoolExecutor(max_workers=max(1, min(8, os.cpu_count() or 1)), thread_name_prefix="sandbox")
_own = threading.local()

# Loaded into both sandboxes, after the program. Its names are kept apart from the program's.
BRIDGE = f"""
def _bridge():
    names = {{"__name__": "bridge"}}
    exec({Path(bridge.__file__).read_text(encoding="utf-8")!r}, names)
    return names["call"], names["judge"]

_bridge_call, _bridge_judge = _bridge()
"""


class Verdict(NamedTuple):
    """Whether the checks passed; else the kind of failure and one line about it.

    kind: syntax, missing (no such function), error (the program raised), wrong (a check failed), time, memory, disk,
    or crash (the sandbox ended without an answer).
    """

    passed: bool
    kind: str | None
    detail: str


def available() -> bool:
    """Whether Deno is installed and Pyodide fetched."""
    return missing() is None


def require() -> None:
    """Raise UsageError, with what to type, unless programs can be run here."""
    lacking = missing()
    if lacking is not None:
        raise UsageError(f"model-written programs need a sandbox, and {lacking}. {INSTALL}")


def run_checks(
    code: str,
    checks: str,
    entry_point: str,
    prelude: str = "",
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
) -> Verdict:
    """Run `code` and ask its function `entry_point` what `checks` ask.

    checks: Python that defines check(candidate) and raises where an answer is wrong. prelude: Python that the checks
    may need (helpers that the task itself gives); neither is ever in reach of `code`. The same question is judged
    once, also when many threads ask it together. Raises CellStopped when a sandbox does not start: an optimizer would
    take less for a score of 0.
    """
    try:
        return _verdict(code, checks, entry_point, prelude, seconds, megabytes).result()
    except BaseException:
        _verdict.cache_clear()  # no verdict: whoever asks next tries again
        raise


@functools.lru_cache(maxsize=4096)
def _verdict(
    code: str, checks: str, entry_point: str, prelude: str, seconds: float, megabytes: float
) -> Future[Verdict]:
    return _threads.submit(_run, code, checks, entry_point, prelude, seconds, megabytes)


def install() -> None:
    """Fetch Pyodide from the npm registry into Deno's cache. Raises UsageError when that fails."""
    command = _plain_command()
    if shutil.which(command[0]) is None:
        raise UsageError(f"model-written programs need a sandbox, and Deno is not installed. {INSTALL}")
    flags = ["--no-config", "--no-lock", "--node-modules-dir=none", f"--import-map={IMPORT_MAP}"]
    environment = {"DENO_TLS_CA_STORE": "system,mozilla", "DENO_NO_PACKAGE_JSON": "1"} | os.environ
    fetched = subprocess.run([command[0], "cache", *flags, _runner(command)], env=environment, check=False)
    if fetched.returncode or missing():
        raise UsageError("Pyodide could not be fetched from the npm registry. Look at the messages above; try again.")


class _Sandbox:
    """A Deno process with Pyodide, ready for code, and the folder that it may write to.

    setup: code that is run first. tools: what code in the sandbox may call, by name. Raises CellStopped when the
    sandbox does not start: nothing is known of a program then.
    """

    def __init__(self, setup: str = "", tools: dict[str, Callable[..., str]] | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
        self._remove_folder = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.interpreter = PythonInterpreter(_command(self.folder), tools=tools)
        timer = threading.Timer(START_SECONDS, self._kill)
        timer.start()
        try:
            self.interpreter.start()
            self.interpreter.execute(setup)
        except Exception as error:
            interrupted = self.interpreter.deno_process is not None and self.was_interrupted()
            self.end()
            raise CellStopped(
                "interrupted" if interrupted else "error", f"the sandbox did not start ({_last_line(error)}). {INSTALL}"
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

    def end(self) -> None:
        """Kill the process and remove its folder. A program is never asked whether it is ready to go."""
        self._kill()
        if self.interpreter.deno_process is not None:
            self.process.wait()
            for pipe in filter(None, (self.process.stdin, self.process.stdout, self.process.stderr)):
                with suppress(OSError):  # what was still to be written has no reader
                    pipe.close()
        self._remove_folder()

    def _kill(self) -> None:
        if self.interpreter.deno_process is not None:
            self.process.kill()


def _run(code: str, checks: str, entry_point: str, prelude: str, seconds: float, megabytes: float) -> Verdict:
    """One problem, in a thread of `_threads`."""
    judge, program = _judge(), _Sandbox()
    replies: list[str] = []
    try:
        judge.interpreter.tools["_ask"] = _asking(program, entry_point, replies)
        with _watched([program, judge], seconds, megabytes) as broken:
            verdict = _loaded(program, code, entry_point) or _judged(judge, checks, entry_point, prelude, replies)
        if broken:
            judge.end()  # it is being killed, and must not be given to the next program
            limits = {"time": f"{seconds:g} seconds", "memory": f"{megabytes:g} MB of memory"}
            limit = limits.get(broken[0], f"{DISK_MEGABYTES:g} MB of disk")
            return Verdict(False, broken[0], f"the program needed more than {limit}")
        # The judge can also die of an answer. That is the program's failure, unless a signal ended it.
        if not verdict.passed and judge.was_interrupted():
            raise CellStopped("interrupted", "the sandboxes were ended from outside")
        if verdict.kind == "crash":
            judge.end()  # it may be ending
        return verdict
    finally:
        program.end()


def _loaded(program: _Sandbox, code: str, entry_point: str) -> Verdict | None:
    """Load the program; a verdict when it cannot be asked anything."""
    try:
        program.execute(code)
        program.execute(BRIDGE)
        if program.execute(f"callable(globals().get({entry_point!r}))") is not True:
            return Verdict(False, "missing", f"the code defines no function {entry_point}")
    except SyntaxError:
        return Verdict(False, "syntax", "the code is not Python")
    except CodeExecutionError as error:
        return Verdict(False, "error", _last_line(error))
    except Exception as error:  # the process ended or spoke nonsense, in whatever way
        return Verdict(False, "crash", _last_line(error))
    return None


def _judged(judge: _Sandbox, checks: str, entry_point: str, prelude: str, replies: list[str]) -> Verdict:
    """Run the checks; only their own end says the word that counts as passed."""
    word = secrets.token_hex(16)
    try:
        last_word = judge.execute(f"_bridge_judge(_ask, {entry_point!r}, {prelude!r}, {checks!r}, {word!r})")
    except CodeExecutionError as error:
        kind, _, detail = (replies[-1] if replies else "").partition(" ")
        if kind == "error":
            return Verdict(False, kind, detail.replace(" ", ": ", 1))
        return Verdict(False, kind, detail) if kind == "crash" else Verdict(False, "wrong", _last_line(error))
    except Exception:
        return Verdict(False, "crash", "the process of the checks ended while it read an answer")
    return Verdict(True, None, "") if last_word == word else Verdict(False, "crash", "the checks did not end")


def _asking(program: _Sandbox, entry_point: str, replies: list[str]) -> Callable[[str], str]:
    """What the judge calls in place of the program's function: a call's arguments in, a reply out, both as text."""

    def ask(args: str) -> str:
        try:
            reply = bridge.cleaned(program.execute(f"_bridge_call({entry_point}, {args!r})"))
        except CodeExecutionError as error:
            name, _, message = _last_line(error).partition(": ")
            reply = f"error {name} {message}"
        except Exception as error:  # the process ended or spoke nonsense, in whatever way
            replies.append(f"crash {_last_line(error)}")
            raise
        replies.append(reply)
        return reply

    return ask


def _judge() -> _Sandbox:
    """This thread's judge; a new one when the old one has ended, has served long enough or holds much memory."""
    judge: _Sandbox | None = getattr(_own, "judge", None)
    if judge is not None:
        _own.problems += 1
        fit = _own.problems <= PROBLEMS_A_JUDGE and judge.megabytes() <= JUDGE_MEGABYTES
        if fit and judge.process.poll() is None:
            return judge
        judge.end()
    judge = _Sandbox(BRIDGE, {"_ask": lambda args: ""})
    _own.judge, _own.problems = judge, 1
    return judge


@contextmanager
def _watched(sandboxes: list[_Sandbox], seconds: float, megabytes: float) -> Iterator[list[str]]:
    """Kill the sandboxes when the time is up or when one holds too much; the list then says of what."""
    broken: list[str] = []
    done = threading.Event()
    deadline = time.monotonic() + seconds

    def watch() -> None:
        while not done.wait(0.02):
            if time.monotonic() > deadline:
                broken.append("time")
            elif any(sandbox.megabytes() > megabytes for sandbox in sandboxes):
                broken.append("memory")
            elif any(_holds_more(sandbox.folder, DISK_MEGABYTES) for sandbox in sandboxes):
                broken.append("disk")
            if broken:
                for sandbox in sandboxes:
                    sandbox.process.kill()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield broken
    finally:
        done.set()
        watcher.join()


def _holds_more(folder: Path, megabytes: float) -> bool:
    """Whether the files of a folder take more than that, each at least 4 kB; it stops to count as soon as they do."""
    left = megabytes * 1e6
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it has gone since
                left -= max(4096, os.lstat(os.path.join(parent, name)).st_size)
            if left < 0:
                return True
    return False


def missing() -> str | None:
    """What a sandbox lacks here, in words; None when programs can be run."""
    command = _plain_command()
    if shutil.which(command[0]) is None:
        return "Deno is not installed"
    version = re.search(r"npm:pyodide@([\d.]+)", Path(_runner(command)).read_text(encoding="utf-8"))
    folder = _cache_folder(command)
    if version and folder and any(folder.glob(f"npm/*/pyodide/{version[1]}/pyodide.asm.wasm")):
        return None
    return "Pyodide has not been fetched"


def _command(folder: Path) -> list[str]:
    """DSPy's own command line, with an empty environment, no questions, nothing fetched, and `folder` for its files.

    `folder` gets a link to the packages of Deno's shared folder, which the sandbox can read while it starts.
    """
    plain = _plain_command()
    shared = _cache_folder(plain)
    if shared is not None:
        (folder / "npm").symlink_to(shared / "npm")
    quiet = ["DENO_NO_PACKAGE_JSON=1", "DENO_NO_UPDATE_CHECK=1", "NO_COLOR=1"]
    empty = [shutil.which("env") or "/usr/bin/env", "-i", f"DENO_DIR={folder}", *quiet]
    flags = ["--cached-only", "--no-prompt", "--no-code-cache", f"--import-map={IMPORT_MAP}"]
    return [*empty, plain[0], "run", *flags, *plain[2:]]


def _plain_command() -> list[str]:
    return list(PythonInterpreter().deno_command)


def _runner(command: list[str]) -> str:
    return next(part for part in command if part.endswith("runner.js"))


def _cache_folder(command: list[str]) -> Path | None:
    """Deno's shared folder, where Pyodide is."""
    folders = [part.partition("=")[2] for part in command if part.startswith("--dspy-deno-dir=")]
    return Path(folders[0]) if folders else None


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removesuffix(":")[:300]
