"""Processes that a benchmark starts: a server, so that its work is not ours, and a command that is timed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Ask = Callable[[str], Any]


@dataclass(frozen=True)
class Timed:
    """What a command took: when it started (seconds of the clock `perf_counter`); seconds of wall and of CPU."""

    started: float
    wall: float
    cpu: float


@contextmanager
def beside(serve: Callable[..., None], *arguments: Any) -> Iterator[tuple[str, Ask]]:
    """Run `serve(pipe, *arguments)` in a process of its own while the block runs: its address, and a way to ask it.

    `serve` sends its address first. It answers each question, and ends after its answer to `stop`.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, *arguments), daemon=True)
    process.start()

    def ask(what: str) -> Any:
        here.send(what)
        return here.recv()

    try:
        yield here.recv(), ask
    finally:
        ask("stop")
        process.join()


def timed(command: Sequence[str], name: str) -> Timed:
    """Run a command to its end, with its output thrown away. Raises RuntimeError with its name where it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{name} ended with {os.waitstatus_to_exitcode(status)}")
    return Timed(started, wall, usage.ru_utime + usage.ru_stime)
