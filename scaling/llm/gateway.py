"""The one gateway through which every LM call goes: cache, single flight, cap, concurrency, retries, stop.

All cells of a sweep share one `Gateway`; nothing else caches, retries or limits calls. A call: look in the cache;
join an identical call in flight; take a slot at the provider; reserve its highest possible cost; send; settle; retry
if it helps. `scaling.llm.lm` has the `dspy.LM` whose calls come here.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import tenacity
from dspy.utils import exceptions as lm_errors
from msgspec.structs import replace

from scaling.concurrency import Concurrency, adapts, most_at_a_time, shares_limit
from scaling.llm.cache import Cache
from scaling.llm.client import ModelClients
from scaling.llm.errors import (
    CallFailed,
    advice,
    backoff_seconds,
    headers_of,
    is_fatal,
    is_too_long,
    is_too_many,
    is_worth_retrying,
    never_billed,
    pause_seconds,
)
from scaling.llm.limits import ConcurrencyLimiter, CostBudget
from scaling.llm.pace import Pace
from scaling.models import Model
from scaling.records.record import Answer
from scaling.redact import redact
from scaling.types import CellStopped

T = TypeVar("T")
StopStatus = Literal["budget", "interrupted", "error"]
MAX_ATTEMPTS = 8
# What is under way when a sweep is interrupted has so long to end: its answers are paid for.
GRACE_SECONDS = 5.0
LONGEST_REASON = 300  # letters of what a provider said
# After so many calls in a row that failed every attempt, the provider counts as down.
PROVIDER_DOWN_AFTER = 5


@dataclass
class Call:
    """One request on its way through the gateway.

    key: equal for requests that may share an answer. highest_cost: USD, None without a price. send: one attempt, with
    neither time nor attempts in its answer. wanted: raises when nobody waits for the answer any more. prompt_tokens:
    about so many.
    """

    key: str
    model: Model
    cell_id: str
    rank: int
    phase: str
    highest_cost: float | None
    send: Callable[[], Answer]
    wanted: Callable[[], None] = lambda: None
    prompt_tokens: float = 0.0


class CellGateway(Protocol):
    """What one cell needs of a gateway: `Gateway` itself, or on a worker the one that asks it."""

    max_concurrency: Concurrency
    clients: ModelClients

    def check(self, model: Model) -> None:
        """Raise CellStopped when the sweep, the provider or the model has been stopped."""

    def answer(self, call: Call) -> Answer:
        """The answer to a call. Raises CellStopped, CallFailed, and LMError for a prompt that is too long."""


@dataclass
class _Flight:
    """A call under way; those who asked for the same wait for its answer."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None


class Gateway:
    """What all calls of a sweep share. Made once a sweep; `stop` ends every cell at its next call."""

    def __init__(
        self,
        cache: Cache,
        max_cost: float | None = None,
        max_concurrency: Concurrency = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.cache, self._clock = cache, clock
        self.cost_budget = CostBudget(max_cost, cache.spent_usd())
        self.max_concurrency = max_concurrency
        self.answered = 0
        self.errors = 0
        self.clients = ModelClients()
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}
        self._limiters: dict[str, ConcurrencyLimiter] = {}
        self._halts: dict[str, CellStopped] = {}  # model id, provider, or "" for all
        self._failures_in_a_row: dict[str, int] = defaultdict(int)
        self._stop_event = threading.Event()

    def __deepcopy__(self, memo: dict[int, Any]) -> Gateway:
        return self  # programs are deep-copied by optimizers; the gateway is one

    def stop(self, status: StopStatus, message: str, scope: str = "") -> None:
        """End the cells of `scope` (a model id, a provider, or "" for all) at their next call."""
        halt = CellStopped(status, redact(message))
        with self._lock:
            is_first = self._halts.setdefault(scope, halt) is halt
        if scope == "":
            self._stop_event.set()
        if scope == "" and status == "interrupted" and is_first:
            cut = threading.Timer(GRACE_SECONDS, self.clients.cut)
            cut.daemon = True
            cut.start()

    def check(self, model: Model) -> None:
        """Raise CellStopped when the sweep, the provider or the model has been stopped."""
        for scope in ("", model.provider, model.id):
            if scope in self._halts:
                raise CellStopped(self._halts[scope].status, str(self._halts[scope]))

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until the sweep is stopped."""
        if self._stop_event.wait(seconds):
            halt = self._halts[""]
            raise CellStopped(halt.status, str(halt))

    @property
    def max_cost(self) -> float | None:
        """The cost cap of the sweep in USD."""
        return self.cost_budget.cap

    @contextmanager
    def holding_cost(
        self, cell_id: str, model: Model, highest: float | None
    ) -> Iterator[Callable[[float | None], None]]:
        """Hold the highest cost, in USD, of something that is billed elsewhere back from the cap while the block runs.

        Gives a function that takes what it cost; without that, or with None, it counts at its highest. Raises
        CellStopped when it would pass the cap.
        """
        if not self.cost_budget.reserve(highest or 0.0, lambda: self.check(model)):
            message = f"the hosted job may cost ${highest:.4f} and would pass --max-cost {self.max_cost:g}"
            raise CellStopped("budget", message)
        cost = highest

        def settle(known: float | None) -> None:
            nonlocal cost
            cost = highest if known is None else known

        bill = self.cache.open_bill(cell_id, model.id, "optimize", highest)
        try:
            yield settle
        finally:
            self.cache.settle_bill(bill, cost)
            self.cost_budget.settle(highest or 0.0, cost or 0.0)

    def answer(self, call: Call) -> Answer:
        """The answer to a call, from the cache, from an identical call in flight, or from the provider."""
        self.check(call.model)
        while True:
            flight, leads = self._flight(call.key)
            if leads:
                return self._lead(flight, call)
            flight.done.wait()
            if flight.answer is not None:
                return replace(flight.answer, cache_hit=True)
            self.check(call.model)  # the one we waited for failed: ask ourselves

    def stored(self, key: str) -> Answer | None:
        """The answer that is in the cache already."""
        stored = self._on_disk(self.cache.get, key)
        return None if stored is None else replace(stored, cache_hit=True)

    def _flight(self, key: str) -> tuple[_Flight, bool]:
        """The call of this key that is under way, and whether it is the caller who is to make it."""
        with self._lock:
            if key in self._flights:
                return self._flights[key], False
            flight = self._flights[key] = _Flight()
            return flight, True

    def _lead(self, flight: _Flight, call: Call) -> Answer:
        """Look into the cache and, where it is not there, make the call, while others wait for the same."""
        try:
            flight.answer = self.stored(call.key) or self._send(call)
            return flight.answer
        finally:
            with self._lock:
                del self._flights[call.key]
            flight.done.set()

    def _go_on(self, call: Call) -> None:
        """Raise when a call that waits need not be sent any more."""
        self.check(call.model)
        call.wanted()

    def _send(self, call: Call) -> Answer:
        """The provider's answer, after as many attempts as it takes; CallFailed when it takes too many."""
        limiter = self._limiter_of(call.model)
        attempts, maybe_billed = 0, False

        def attempt() -> Answer:
            nonlocal attempts, maybe_billed
            attempts += 1
            with limiter.slot(call.rank, lambda: self._go_on(call), self.sleep, call.prompt_tokens) as start:
                try:
                    answer = self._pay(call)
                except lm_errors.LMError as error:
                    self.errors += 1
                    maybe_billed |= not never_billed(error)
                    limiter.pause(pause_seconds(error))
                    if is_too_many(error):
                        limiter.refused(start, headers_of(error))
                    raise
            limiter.answered(start, answer.prompt_tokens, answer.completion_tokens, answer.rate_limits)
            return answer

        try:
            try:
                answer = attempt()
            except lm_errors.LMError as first:
                answer = self._retry(first, attempt)
        except lm_errors.LMError as error:
            failed = self._failed(call, error, attempts)
            if isinstance(failed, CallFailed):
                failed.maybe_billed = maybe_billed
            raise failed from error
        with self._lock:
            self._failures_in_a_row[call.model.provider] = 0
            self.answered += 1
        return replace(answer, attempts=attempts, rate_limits={})

    def _retry(self, first: lm_errors.LMError, attempt: Callable[[], Answer]) -> Answer:
        """Attempts after one that failed, which is the first of `MAX_ATTEMPTS`."""
        failed = [first]

        def again() -> Answer:
            if failed:
                raise failed.pop()
            return attempt()

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
            wait=backoff_seconds,
            retry=tenacity.retry_if_exception(is_worth_retrying),
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(again)

    def _pay(self, call: Call) -> Answer:
        """One attempt: reserve, send, settle and store; the answer is on disk before anybody sees it."""
        reserved = call.highest_cost or 0.0
        if not self.cost_budget.reserve(reserved, lambda: self._go_on(call)):
            cap = self.cost_budget.cap
            self.stop("budget", f"the next call may cost ${reserved:.6f} and would pass --max-cost {cap:g}")
            self.check(call.model)
        billed = 0.0
        try:
            bill = self._on_disk(self.cache.open_bill, call.cell_id, call.model.id, call.phase, call.highest_cost)
            # A request that ends without an answer and without a refusal may have been billed: its bill stays open.
            billed = reserved
            started = self._clock()
            try:
                answer = replace(call.send(), latency_seconds=self._clock() - started)
            except lm_errors.LMError as error:
                if never_billed(error):
                    billed = 0.0
                    self._on_disk(self.cache.settle_bill, bill, 0.0)
                raise
            # A provider that reports no tokens is billed at the highest possible cost.
            cost = call.highest_cost if answer.list_cost_usd is None else answer.list_cost_usd
            billed = cost or 0.0
            self._on_disk(self.cache.settle_bill, bill, cost, (call.key, replace(answer, rate_limits={})))
        finally:
            self.cost_budget.settle(reserved, billed)
        self.check_reserve(call.model, billed, reserved)
        return answer

    def check_reserve(self, model: Model, billed: float | None, reserved: float | None) -> None:
        """Stop a model's cells where an answer cost more, in USD, than was held back for it: no cap can hold those."""
        if self.cost_budget.cap is not None and (billed or 0.0) > (reserved or 0.0):
            used = "used more tokens than its prompt and its limit of tokens allow"
            message = f"'{model.id}' {used}, so --max-cost cannot hold it"
            self.stop("error", f"{message}: leave --max-cost out, or use another server", scope=model.id)

    def _on_disk(self, use: Callable[..., T], *args: Any) -> T:
        """Use the cache; a full disk or a damaged file ends the sweep, as nothing that is paid for could be kept."""
        try:
            return use(*args)
        except sqlite3.Error as error:
            message = f"the cache cannot be used ({error}): free the disk, or move {self.cache.path.name} away"
            self.stop("interrupted", message)
            raise CellStopped("interrupted", message) from error

    def _failed(self, call: Call, error: Exception, attempts: int) -> BaseException:
        """What a call that failed for good means: the end of the model's cells, the provider's, or this call only."""
        text = redact(str(error)).strip()  # before it is cut: half a secret would not be known for one
        said = " ".join(text.partition("\n\n")[0].split())[:LONGEST_REASON]  # after it, DSPy gives advice of its own
        todo = advice(error)
        status = getattr(error, "status", None)
        reason = f"{type(error).__name__}{f', HTTP {status}' if status else ''}: {said}{todo}"
        model = call.model
        if is_too_long(error):
            # The program's doing: its example is scored as a failure.
            too_long: Exception = lm_errors.ContextWindowExceededError(message=reason, model=model.id)
            return too_long
        if is_fatal(error):
            key = f"; check {model.key_env}" if model.key_env and not todo else ""
            self.stop("error", f"'{model.id}' cannot be called{key} ({reason})", scope=model.id)
            self.check(model)
        if not is_worth_retrying(error):
            return CallFailed(reason)  # the request itself was refused: that says nothing of the provider
        with self._lock:
            self._failures_in_a_row[model.provider] += 1
            in_a_row = self._failures_in_a_row[model.provider]
        if in_a_row >= PROVIDER_DOWN_AFTER:
            message = f"{model.provider} is down: {in_a_row} calls in a row failed {attempts} times ({reason})"
            self.stop("error", message, scope=model.provider)
            self.check(model)
        return CallFailed(reason)

    def _limiter_of(self, model: Model) -> ConcurrencyLimiter:
        shared_by = shares_limit(model, self.max_concurrency)
        with self._lock:
            if shared_by not in self._limiters:
                pace = Pace(model, self._clock()) if adapts(model, self.max_concurrency) else None
                places = most_at_a_time(model, self.max_concurrency)
                self._limiters[shared_by] = ConcurrencyLimiter(places, pace, self._clock)
            return self._limiters[shared_by]
