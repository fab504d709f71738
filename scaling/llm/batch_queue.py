"""Where the cells of a sweep put the calls that a batch is to answer, and wait for them.

A batch goes out when every cell that runs waits for one: so the calls of all cells are in it, and a chain of k calls
takes k rounds. A cell that waits leaves its slot to another cell, which optimizes its program meanwhile.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from scaling.llm.batch_calls import BatchCall, BatchCollector, BilledGateway
from scaling.llm.batch_round import BatchContext, Round
from scaling.models import Model
from scaling.types import CellStopped

T = TypeVar("T")
MOST_CELLS = 1000  # that wait for a batch at the same time, each in a thread
STOP_SECONDS = 1.0  # between two looks of a cell that waits, at whether the sweep is stopped


class BatchQueue:
    """The batches of a sweep. Thread-safe: each cell calls it from its own thread."""

    def __init__(self, context: BatchContext):
        self._context = context
        self._changed = threading.Condition()
        self._slots = threading.Semaphore(1)
        self._cells = 0  # that have not ended
        self._most = 1
        self._queued: list[BatchCall] = []
        self._waiting = 0
        self._round = 0
        self._is_sending = False
        self._failure: BaseException | None = None

    def expect(self, cells: int, together: int) -> int:
        """So many cells come, `together` of which may work at a time; gives how many threads they need."""
        with self._changed:
            self._slots = threading.Semaphore(together)
            self._cells, self._most = cells, max(together, min(cells, MOST_CELLS))
            return self._most

    def with_slot(self, run_cell: Callable[..., T]) -> Callable[..., T]:
        """The function that runs a cell when it has a slot."""

        def run(*arguments: Any) -> T:
            try:
                with self._slots:
                    return run_cell(*arguments)
            finally:
                with self._changed:
                    self._cells -= 1
                self._send_if_all_wait()

        return run

    def collector(self, model: Model) -> BatchCollector:
        """The gateway of a program that is run to see what it asks the model."""
        return BatchCollector(self._context.gateway, self._context.clients, model, self._context.asked_live)

    def scoring_gateway(self) -> BilledGateway:
        """The gateway of a cell whose answers have come."""
        return BilledGateway(self._context.gateway, self._context.billed)

    def answer(self, calls: Sequence[BatchCall]) -> None:
        """Wait until each call has its answer in the cache, or is left to the live call. Raises CellStopped."""
        with self._changed:
            self._queued += calls
            self._waiting += 1
            number = self._round
        self._slots.release()
        try:
            self._send_if_all_wait()
            self._wait_for_round(number, calls[0].model)
        finally:
            self._slots.acquire()

    def _wait_for_round(self, number: int, model: Model) -> None:
        with self._changed:
            while self._round == number:
                self._changed.wait(STOP_SECONDS)
                if not self._is_sending and self._round == number:
                    self._check(model)
            if self._failure is not None:
                raise self._failure
        self._context.gateway.check(model)

    def _check(self, model: Model) -> None:
        """Raise CellStopped where a cell need not wait any more."""
        try:
            self._context.gateway.check(model)
        except CellStopped:
            self._waiting -= 1
            raise

    def _send_if_all_wait(self) -> None:
        """Send what is queued, from the thread that finds that nobody else works."""
        with self._changed:
            if self._is_sending or not self._waiting or self._waiting < min(self._cells, self._most):
                return
            self._is_sending = True
            calls, self._queued = self._queued, []
        failure = self._sent(calls)
        with self._changed:
            self._is_sending, self._waiting, self._failure = False, 0, failure
            self._round += 1
            self._changed.notify_all()

    def _sent(self, calls: Sequence[BatchCall]) -> BaseException | None:
        """What went wrong with a round, for all who wait; a model that was stopped stops its own cells."""
        by_model: dict[str, list[BatchCall]] = defaultdict(list)
        for call in calls:
            by_model[call.model.id].append(call)
        with ThreadPoolExecutor(len(by_model)) as pool:
            rounds = [pool.submit(Round(self._context, own).run) for own in by_model.values()]
            errors = [error for one in rounds if (error := one.exception()) and not isinstance(error, CellStopped)]
        if errors and isinstance(errors[0], sqlite3.Error):
            self._context.gateway.stop("interrupted", f"the ledger cannot be used ({errors[0]}): free the disk")
            return None
        return errors[0] if errors else None
