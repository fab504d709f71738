"""Judging programs that models wrote: the program in one sandbox (deno.py), its checks in another.

The checks call the program through this process, and only plain values cross (bridge.py). So a program can neither see
its checks nor touch them: whatever it prints, patches or returns, it only makes answers. Each program gets a fresh
sandbox. The checks' own sandbox serves many problems, because no program's code runs there.

A thread of this process kills both sandboxes when the time is up, or when one of them holds too much memory or disk.
"""

from __future__ import annotations

import functools
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from dspy.primitives.code_interpreter import CodeExecutionError

from scaling.sandbox import bridge
from scaling.sandbox.deno import Sandbox, last_line
from scaling.types import CellStopped

SECONDS, MEGABYTES = 10.0, 512.0
DISK_MEGABYTES = 16.0
# A sandbox for checks is replaced after this many problems, or when it keeps this much memory (a new one has 200 MB).
PROBLEMS_A_JUDGE, JUDGE_MEGABYTES = 200, 300.0
# Each thread keeps a judge (a sandbox belongs to one thread). Time limits are wall time: no more threads than cores.
THREADS = ThreadPoolExecutor(max_workers=max(1, min(8, os.cpu_count() or 1)), thread_name_prefix="sandbox")
_own = threading.local()

# Loaded into both sandboxes, after the program. Its names are kept apart from the program's.
BRIDGE = f"""
def _bridge():
    names = {{"__name__": "bridge"}}
    exec({Path(bridge.__file__).read_text(encoding="utf-8")!r}, names)
    return names["call"], names["judge"]

_bridge_call, _bridge_judge = _bridge()
"""
# Loaded before the program: its last line gives the program that is in the answer.
READ = """
def _read():
    names = {{"__name__": "reader"}}
    exec({reader!r}, names)
    return names["read"]({answer!r})

_read()
"""


class Verdict(NamedTuple):
    """Whether the checks passed; else the kind of failure and one line about it.

    kind: syntax, missing (no such function), error (the program raised), wrong (a check failed), time, memory, disk,
    or crash (the sandbox ended without an answer).
    """

    passed: bool
    kind: str | None
    detail: str


class Question(NamedTuple):
    """What is judged: an answer with its checks, as `run_checks` takes them."""

    answer: str
    checks: str
    entry_point: str
    prelude: str
    reader: str
    seconds: float
    megabytes: float


def run_checks(
    answer: str,
    checks: str,
    entry_point: str,
    prelude: str = "",
    reader: str = "",
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
) -> Verdict:
    """Run the program that an answer holds, and ask its function `entry_point` what `checks` ask.

    checks: Python that defines check(candidate) and raises where an answer is wrong. prelude: Python that the checks
    may need (helpers that the task itself gives); neither is ever in reach of the program. reader: Python that defines
    read(answer), which gives the program or None; without it the answer is the program. It runs in the program's
    sandbox, as parsing an answer can take as much as running it. The same question is judged once, also when many
    threads ask it together. Raises CellStopped when a sandbox does not start: an optimizer would take less for a score
    of 0.
    """
    try:
        return _verdict(Question(answer, checks, entry_point, prelude, reader, seconds, megabytes)).result()
    except BaseException:
        _verdict.cache_clear()  # no verdict: whoever asks next tries again
        raise


@functools.lru_cache(maxsize=4096)
def _verdict(question: Question) -> Future[Verdict]:
    return THREADS.submit(_run, question)


def _run(question: Question) -> Verdict:
    """One question, in a thread of `THREADS`."""
    judge, program = _judge(), Sandbox()
    replies: list[str] = []
    try:
        judge.interpreter.tools["_ask"] = _asking(program, question.entry_point, replies)
        with _watched([program, judge], question.seconds, question.megabytes) as broken:
            verdict = _loaded(program, question) or _judged(judge, question, replies)
        if broken:
            judge.end()  # it is being killed, and must not be given to the next program
            limits = {"time": f"{question.seconds:g} seconds", "memory": f"{question.megabytes:g} MB of memory"}
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


def _loaded(program: Sandbox, question: Question) -> Verdict | None:
    """Load the program that is in the answer; a verdict when it cannot be asked anything."""
    code, entry_point = question.answer, question.entry_point
    try:
        if question.reader:
            code = program.execute(READ.format(reader=question.reader, answer=code))
        if code:
            program.execute(code)
            program.execute(BRIDGE)
        if not code or program.execute(f"callable(globals().get({entry_point!r}))") is not True:
            return Verdict(False, "missing", f"the answer defines no function {entry_point}")
    except SyntaxError:
        return Verdict(False, "syntax", "the code is not Python")
    except CodeExecutionError as error:
        return Verdict(False, "error", last_line(error))
    except Exception as error:  # the process ended or spoke nonsense, in whatever way
        return Verdict(False, "crash", last_line(error))
    return None


def _judged(judge: Sandbox, question: Question, replies: list[str]) -> Verdict:
    """Run the checks; only their own end says the word that counts as passed."""
    word = secrets.token_hex(16)
    given = (question.entry_point, question.prelude, question.checks, word)
    try:
        last_word = judge.execute(f"_bridge_judge(_ask, {', '.join(map(repr, given))})")
    except CodeExecutionError as error:
        kind, _, detail = (replies[-1] if replies else "").partition(" ")
        if kind == "error":
            return Verdict(False, kind, detail.replace(" ", ": ", 1))
        return Verdict(False, kind, detail) if kind == "crash" else Verdict(False, "wrong", last_line(error))
    except Exception:
        return Verdict(False, "crash", "the process of the checks ended while it read an answer")
    return Verdict(True, None, "") if last_word == word else Verdict(False, "crash", "the checks did not end")


def _asking(program: Sandbox, entry_point: str, replies: list[str]) -> Callable[[str], str]:
    """What the judge calls in place of the program's function: a call's arguments in, a reply out, both as text."""

    def ask(args: str) -> str:
        try:
            reply = bridge.cleaned(program.execute(f"_bridge_call({entry_point}, {args!r})"))
        except CodeExecutionError as error:
            name, _, message = last_line(error).partition(": ")
            reply = f"error {name} {message}"
        except Exception as error:  # the process ended or spoke nonsense, in whatever way
            replies.append(f"crash {last_line(error)}")
            raise
        replies.append(reply)
        return reply

    return ask


def _judge() -> Sandbox:
    """This thread's judge; a new one when the old one has ended, has served long enough or holds much memory."""
    judge: Sandbox | None = getattr(_own, "judge", None)
    if judge is not None:
        _own.problems += 1
        fit = _own.problems <= PROBLEMS_A_JUDGE and judge.megabytes() <= JUDGE_MEGABYTES
        if fit and judge.process.poll() is None:
            return judge
        judge.end()
    judge = Sandbox(BRIDGE, {"_ask": lambda args: ""})
    _own.judge, _own.problems = judge, 1
    return judge


@contextmanager
def _watched(sandboxes: list[Sandbox], seconds: float, megabytes: float) -> Iterator[list[str]]:
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
                    sandbox.kill()
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
