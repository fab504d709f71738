"""Experiments beside each other in one process: each in a thread, one at a time in a folder, stopped when cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from scaling.command.options import Caller, Options
from scaling.llm.gateway import Gateway
from scaling.planning.study import Study

POLL_SECONDS = 0.05
Result = TypeVar("Result")

_locks: dict[Path, threading.Lock] = {}
_lock = threading.Lock()


@asynccontextmanager
async def one_at_a_time(folder: Path) -> AsyncIterator[None]:
    """Wait until no other experiment of this process, in whatever event loop, writes to the folder."""
    with _lock:
        own = _locks.setdefault(folder.resolve(), threading.Lock())
    while not own.acquire(blocking=False):  # never block the loop, nor one of the threads that experiments run in
        await asyncio.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        own.release()


async def in_thread(sweep: Callable[[Study, Options, Caller], Result], study: Study, options: Options) -> Result:
    """Run the sweep of one cell in a thread. When it is cancelled, its calls end and nothing that came back is lost."""
    gateways: list[Gateway] = []
    cancelled = False

    def started(gateway: Gateway) -> None:
        gateways.append(gateway)
        if cancelled:
            stop()

    def stop() -> None:
        for gateway in gateways:
            gateway.stop("interrupted", "the experiment was cancelled")

    caller = Caller(one_folder=True, on_start=started)
    thread = asyncio.ensure_future(asyncio.to_thread(sweep, study, options, caller))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        cancelled = True
        stop()
        await asyncio.wait([thread])
        raise
