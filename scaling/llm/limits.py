"""What bounds the calls of a sweep: how many a provider gets at a time, and what they may cost."""

from __future__ import annotations

import heapq
import itertools
import math
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from scaling.llm.pace import Pace, Start
from scaling.types import UsageError

# Of a sweep without its cells and connections: libraries, the cache, logs, the engines' own.
FILES_OF_A_SWEEP = 64


@dataclass(order=True)
class _Turn:
    """A call that waits: the lowest rank first, then first come."""

    rank: int
    number: int
    prompt_tokens: float = field(compare=False)
    woken: threading.Event = field(default_factory=threading.Event, compare=False)


class ConcurrencyLimiter:
    """The calls that share a limit: so many at a time, the lowest rank first, then first come.

    pace: what a call must wait for beside them. A pause holds everybody. clock: seconds, as `time.monotonic`.
    """

    def __init__(self, limit: int, pace: Pace | None = None, clock: Callable[[], float] = time.monotonic):
        self._limit, self._pace, self._clock = limit, pace, clock
        self._in_flight = 0
        self._queue: list[_Turn] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._paused_until = -math.inf

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        with self._lock:
            return len(self._queue)

    @contextmanager
    def slot(
        self, rank: int, stopped: Callable[[], None], sleep: Callable[[float], None], prompt_tokens: float = 0.0
    ) -> Iterator[Start]:
        """Hold one of the slots while the block runs; `stopped` raises when the sweep is to end, also while waiting.

        Gives the call's start, for `answered` and `refused`.
        """
        start = self._wait_for_turn(_Turn(rank, next(self._numbers), prompt_tokens), stopped, sleep)
        try:
            stopped()
            yield start
        finally:
            with self._lock:
                self._in_flight -= 1
                self._wake_first()

    def pause(self, seconds: float) -> None:
        """The provider asked for silence (Retry-After): no call to it starts before the time is over."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def answered(self, start: Start, prompt: int | None, output: int | None, headers: Mapping[str, str]) -> None:
        """A call was answered: the tokens of its prompt and its answer (None: unknown), and what its headers say."""
        if self._pace is not None:
            with self._lock:
                self._pace.answered(start, prompt, output, self._clock())
                self._pace.hear(headers, self._clock())

    def refused(self, start: Start, headers: Mapping[str, str]) -> None:
        """A call was refused as there were too many."""
        if self._pace is not None:
            with self._lock:
                self._pace.refused(start, self._clock())
                self._pace.hear(headers, self._clock())

    def _wait_for_turn(self, turn: _Turn, stopped: Callable[[], None], sleep: Callable[[float], None]) -> Start:
        with self._lock:
            heapq.heappush(self._queue, turn)
        try:
            while not isinstance(outcome := self._try(turn), Start):
                if outcome is None:
                    turn.woken.wait()
                    turn.woken.clear()
                else:
                    sleep(outcome)
                stopped()
            return outcome
        except BaseException:
            with self._lock:
                if turn in self._queue:
                    self._queue.remove(turn)
                    heapq.heapify(self._queue)
                self._wake_first()
            raise

    def _try(self, turn: _Turn) -> Start | float | None:
        """The call's start if it may be sent now, else the seconds until it may; None where it is to be woken."""
        with self._lock:
            if self._queue[0] is not turn or self._in_flight >= self._limit:
                return None
            now = self._clock()
            seconds = self._paused_until - now
            if self._pace is not None:
                seconds = max(seconds, self._pace.seconds_until(turn.prompt_tokens, now))
            if seconds > 0:
                return seconds
            heapq.heappop(self._queue)
            self._in_flight += 1
            self._wake_first()
            return Start(0, now, 0.0) if self._pace is None else self._pace.take(turn.prompt_tokens, now)

    def _wake_first(self) -> None:
        if self._queue and self._in_flight < self._limit:
            self._queue[0].woken.set()


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
