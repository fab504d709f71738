"""Running model-written Python and judging it: DSPy's interpreter (Deno and Pyodide), twice, watched from outside.

The program runs in one sandbox, the checks in another, and the checks call the program through this process:
arguments go over as literals and answers come back as literals. So a program can neither see its checks nor touch
them; whatever it prints, patches or returns, it only makes answers. Each program gets a fresh sandbox; the checks'
own serves many problems, as no program's code runs there.

Neither has files, network, environment variables or processes. A thread of this process kills both when the time
is up or when one holds too much memory. `python -m scaling.sandbox` fetches Pyodide once; after that no network is
needed.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from dspy.primitives.code_interpreter import CodeExecutionError
from dspy.primitives.python_interpreter import PythonInterpreter

from scaling.types import CellStopped, UsageError

SECONDS, MEGABYTES = 10.0, 512
START_SECONDS = 60.0
# An answer beyond this many characters is no answer: it would fill this process's memory.
LONGEST_LINE = 4_000_000
IMPORT_MAP = Path(__file__).parent / "import_map.json"
INSTALL = "Type: python -m pip install -r requirements-dev.txt && python -m scaling.sandbox"
PROBLEMS_A_JUDGE = 200
# A thread keeps a judge (a sandbox belongs to one thread). Time limits are wall time: no more threads than cores.
_threads = ThreadPoolExecutor(max_workers=max(1, min(8, os.cpu_count() or 1)), thread_name_prefix="sandbox")
_own = threading.local()

# Both sides: values as literals. Iterators are told apart, so that `== [...]` is as false as it would be in place.
BRIDGE = """
def _bridge():
    import ast, builtins

    def show(value):
        for kind in (bool, int, complex, str, bytes):
            if isinstance(value, kind):
                return ascii(kind(value))
        if value is None:
            return "None"
        if isinstance(value, float):
            return repr(float(value)).replace("inf", "1e999")
        if isinstance(value, dict):
            return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(show, value)) + "]"
        if isinstance(value, tuple):
            return "(" + "".join(show(v) + ", " for v in value) + ")"
        if isinstance(value, (set, frozenset)):
            return "{" + ", ".join(map(show, value)) + "}" if value else "set()"
        raise TypeError(f"the answer is a {type(value).__name__}, which is no plain value")

    def call(function, text):
        args, kwargs = ast.literal_eval(text)
        try:
            value = function(*args, **kwargs)
            if hasattr(value, "__iter__") and not isinstance(value, (str, bytes, dict, list, tuple, set, frozenset)):
                return "iter " + show(list(value))
            return "value " + show(value)
        except Exception as error:
            return f"error {type(error).__name__} {str(error)[:300]}"

    def caller(ask):
        def candidate(*args, **kwargs):
            kind, _, text = ask(args=show((args, kwargs))).partition(" ")
            if kind == "value":
                return ast.literal_eval(text)
            if kind == "iter":
                return iter(ast.literal_eval(text))
            name, _, message = text.partition(" ")
            raised = getattr(builtins, name, None)
            known = isinstance(raised, type) and issubclass(raised, Exception)
            raise raised(message) if known else RuntimeError(text)
        return candidate


    def judge(ask, entry_point, prelude, checks, word):
        names = {"__name__": "checks"}
        exec(prelude, names)
        exec(checks, names)
        names[entry_point] = caller(ask)
        names["check"](names[entry_point])
        return word

    return call, judge

_bridge_call, _bridge_judge = _bridge()
"""


class Verdict(NamedTuple):
    """Whether the checks passed; else the kind of failure and one line about it.

    kind: syntax, missing (no such function), error (the program raised), wrong (a check failed), time, memory, or
    crash (it left the sandbox without an answer).
    """

    passed: bool
    kind: str | None
    detail: str


def available() -> bool:
    """Whether Deno is installed and Pyodide fetched."""
    return _missing() is None


def require() -> None:
    """Raise UsageError, with what to type, unless programs can be run here."""
    if (what := _missing()) is not None:
        raise UsageError(f"model-written programs need a sandbox, and {what}. {INSTALL}")


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
def _verdict(*question: str | float) -> Future[Verdict]:
    return _threads.submit(_run, *question)


def install() -> None:
    """Fetch Pyodide from the npm registry into Deno's cache. Raises UsageError when that fails."""
    command = _plain_command()
    if shutil.which(command[0]) is None:
        raise UsageError(f"model-written programs need a sandbox, and Deno is not installed. {INSTALL}")
    runner = next(part for part in command if part.endswith("runner.js"))
    flags = ["--no-config", "--no-lock", "--node-modules-dir=none", f"--import-map={IMPORT_MAP}"]
    environment = {"DENO_TLS_CA_STORE": "system,mozilla", "DENO_NO_PACKAGE_JSON": "1"} | os.environ
    if subprocess.run([command[0], "cache", *flags, runner], env=environment, check=False).returncode or _missing():
        raise UsageError("Pyodide could not be fetched from the npm registry. Look at the messages above; try again.")


def _run(code: str, checks: str, entry_point: str, prelude: str, seconds: float, megabytes: float) -> Verdict:
    """One problem, in a thread of `_threads`."""
    judge, program, heard = _judge(), PythonInterpreter(_command()), []
    try:
        _start(program)
        judge.tools["_ask"] = _asking(program, entry_point, heard)
        with _watched(program.deno_process, judge.deno_process, seconds, megabytes) as broken:
            verdict = _loaded(program, code, entry_point) or _judged(judge, checks, entry_point, prelude, heard)
        if not broken and not verdict.passed and _ended(judge.deno_process) and _ended(program.deno_process):
            # Neither can end the other: this is Ctrl-C, or a machine that is going down.
            raise CellStopped("interrupted", "the sandboxes were ended from outside")
    finally:
        _end(program.deno_process)
    if broken:
        limit = f"{seconds:g} seconds" if broken[0] == "time" else f"{megabytes:g} MB of memory"
        return Verdict(False, broken[0], f"the program needed more than {limit}")
    return verdict


def _loaded(program: PythonInterpreter, code: str, entry_point: str) -> Verdict | None:
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


def _judged(judge: PythonInterpreter, checks: str, entry_point: str, prelude: str, heard: list[str]) -> Verdict:
    """Run the checks; only their own end says the word that counts as passed."""
    word = secrets.token_hex(16)
    try:
        said = judge.execute(f"_bridge_judge(_ask, {entry_point!r}, {prelude!r}, {checks!r}, {word!r})")
    except CodeExecutionError as error:
        kind, _, said = (heard[-1] if heard else "").partition(" ")
        if kind in ("error", "crash"):
            return Verdict(False, kind, said.replace(" ", ": ", 1) if kind == "error" else said)
        return Verdict(False, "wrong", _last_line(error))
    except Exception as error:
        return Verdict(False, "crash", _last_line(error))
    return Verdict(True, None, "") if said == word else Verdict(False, "crash", "the checks did not come to their end")


def _asking(program: PythonInterpreter, entry_point: str, heard: list[str]) -> Callable[[str], str]:
    """What the judge calls in place of the program's function: a call as a literal in, the answer as a literal out."""

    def ask(args: str) -> str:
        try:
            answer = program.execute(f"_bridge_call({entry_point}, {args!r})")
        except CodeExecutionError as error:
            name, _, message = _last_line(error).partition(": ")
            answer = f"error {name} {message}"
        except Exception as error:  # the process ended or spoke nonsense, in whatever way
            heard.append(f"crash {_last_line(error)}")
            raise
        heard.append(answer if isinstance(answer, str) else "error RuntimeError the program ended early")
        return heard[-1]

    return ask


def _judge() -> PythonInterpreter:
    """This thread's judge, a new one when the old one was killed or has served long enough."""
    old = getattr(_own, "judge", None)
    _own.served = getattr(_own, "served", 0) + 1
    if old and old.deno_process.poll() is None and _own.served <= PROBLEMS_A_JUDGE:
        return old
    if old:
        _end(old.deno_process)
    _own.judge, _own.served = PythonInterpreter(_command(), tools={"_ask": lambda args: ""}), 1
    _start(_own.judge)
    _own.judge.execute(BRIDGE)
    return _own.judge


def _start(interpreter: PythonInterpreter) -> None:
    """Start one; CellStopped when it cannot be: nothing is known of the program then."""
    timer = threading.Timer(START_SECONDS, lambda: interpreter.deno_process and interpreter.deno_process.kill())
    timer.start()
    try:
        interpreter.start()
    except Exception as error:
        process = interpreter.deno_process
        status = "interrupted" if process is not None and process.poll() == -signal.SIGINT else "error"
        raise CellStopped(status, f"the sandbox did not start ({_last_line(error)}). {INSTALL}") from error
    finally:
        timer.cancel()
    out = interpreter.deno_process.stdout
    out.readline = functools.partial(out.readline, LONGEST_LINE)


def _ended(process: subprocess.Popen) -> bool:
    """Whether it has ended, or does so at once."""
    try:
        return process.wait(0.1) is not None
    except subprocess.TimeoutExpired:
        return False


def _end(process: subprocess.Popen | None) -> None:
    """Kill it and take back its pipes: a program is never asked whether it is ready to go."""
    if process is None:
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        with suppress(OSError):  # what was still to be written has no reader
            pipe.close()


@contextmanager
def _watched(
    program: subprocess.Popen, judge: subprocess.Popen, seconds: float, megabytes: float
) -> Iterator[list[str]]:
    """Kill both when the time is up or the program holds too much memory; the list then says which."""
    broken: list[str] = []
    done = threading.Event()
    deadline = time.monotonic() + seconds

    def watch() -> None:
        while not done.wait(0.02):
            if time.monotonic() > deadline:
                broken.append("time")
            elif _resident_megabytes(program.pid) > megabytes:
                broken.append("memory")
            if broken:
                program.kill()
                judge.kill()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield broken
    finally:
        done.set()
        watcher.join()


def _resident_megabytes(pid: int) -> float:
    """Memory that a process holds now; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        if Path("/proc/self/status").exists():
            return 0.0
        asked = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return int(asked.stdout.strip() or 0) / 1024
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def _missing() -> str | None:
    """What is not there, in words; None when programs can be run."""
    command = _plain_command()
    if shutil.which(command[0]) is None:
        return "Deno is not installed"
    runner = next(part for part in command if part.endswith("runner.js"))
    version = re.search(r"npm:pyodide@([\d.]+)", Path(runner).read_text(encoding="utf-8"))
    folder = _cache_folder(command)
    if version and folder and any(folder.glob(f"npm/*/pyodide/{version[1]}/pyodide.asm.wasm")):
        return None
    return "Pyodide has not been fetched"


def _command() -> list[str]:
    """DSPy's own command line, with an empty environment, no questions, and nothing fetched."""
    plain = _plain_command()
    quiet = ["DENO_NO_PACKAGE_JSON=1", "DENO_NO_UPDATE_CHECK=1", "NO_COLOR=1"]
    empty = [shutil.which("env") or "/usr/bin/env", "-i", f"DENO_DIR={_cache_folder(plain)}", *quiet]
    return [*empty, plain[0], "run", "--cached-only", "--no-prompt", f"--import-map={IMPORT_MAP}", *plain[2:]]


def _plain_command() -> list[str]:
    return list(PythonInterpreter().deno_command)


def _cache_folder(command: list[str]) -> Path | None:
    found = [part.partition("=")[2] for part in command if part.startswith("--dspy-deno-dir=")]
    return Path(found[0]) if found else None


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removesuffix(":")[:300]


if __name__ == "__main__":
    try:
        install()
    except UsageError as problem:
        sys.exit(f"error: {problem}")
    print("the sandbox is ready")
