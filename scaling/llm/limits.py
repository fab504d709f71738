"""What bounds the calls of a sweep: how many a provider gets at a time, and what they may cost."""

from __future__ import annotations

import heapq
import itertools
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scaling.types import UsageError

# Of a sweep without its cells and connections: libraries, the cache, logs, the engines' own.
FILES_OF_A_SWEEP = 64


class ConcurrencyLimiter:
    """The concurrency limit of one provider: the lowest rank first, then first come; a pause holds everybody."""

    def __init__(self, limit: int):
        self._free = limit
        self._queue: list[tuple[int, int, threading.Event]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._paused_until = 0.0

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        with self._lock:
            return len(self._queue)

    @contextmanager
    def slot(self, rank: int, stopped: Callable[[], None], sleep: Callable[[float], None]) -> Iterator[None]:
        """Hold one of the slots while the block runs; `stopped` raises when the sweep is to end, also while waiting."""
        self._wait_for_turn(rank)
        try:
            stopped()
            while (left := self._paused_until - time.monotonic()) > 0:
                sleep(left)
            yield
        finally:
            self._release()

    def pause(self, seconds: float) -> None:
        """The provider asked for silence (Retry-After): no call to it starts before the time is over."""
        with self._lock:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def _wait_for_turn(self, rank: int) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = threading.Event()
            heapq.heappush(self._queue, (rank, next(self._numbers), turn))
        turn.wait()

    def _release(self) -> None:
        with self._lock:
            if self._queue:
                heapq.heappop(self._queue)[2].set()
            else:
                self._free += 1


def allow_open_files(connections: int, cells: int) -> None:
    """See to it that this process may hold so many connections, and a file for each cell that runs at a time.

    Raises UsageError where the system does not allow as many open files.
    """
    needed = connections + cells + FILES_OF_A_SWEEP
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        fits = max(1, (hard - FILES_OF_A_SWEEP) // 2)
        raise UsageError(
            f"{connections} calls at a time for {cells} cells need {needed} open files, and this shell allows {hard}. "
            f"Type --max-concurrency {fits}, or first: ulimit -n {needed}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class CostBudget:
    """The cost cap of a sweep in USD: reserve the highest possible cost before, settle the real one after."""

    def __init__(self, cap: float | None, spent: float):
        self.cap, self.spent, self.reserved = cap, spent, 0.0
        self._changed = threading.Condition()

    def reserve(self, amount: float, stopped: Callable[[], None]) -> bool:
        """Set `amount` aside. Waits for calls in flight when it does not fit; False when none are left to wait for."""
        with self._changed:
            while self.cap is not None and self.spent + self.reserved + amount > self.cap:
                if self.reserved <= 0:
                    return False
                self._changed.wait(timeout=0.5)
                stopped()
            self.reserved += amount
            return True

    def settle(self, reserved: float, billed: float) -> None:
        with self._changed:
            self.reserved = max(0.0, self.reserved - reserved)
            if self.reserved < 1e-12:
                self.reserved = 0.0
            self.spent += billed
            self._changed.notify_all()
