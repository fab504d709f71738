"""Batches on disk, in the ledger's file: a batch and the bills of its requests are there before it is sent.

So a command that was killed at any moment finds its batches again. A batch without an id was being sent when it
happened; its name finds it at the provider.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.llm.cache import transaction
from scaling.llm.gateway import Call

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    name TEXT PRIMARY KEY, at REAL NOT NULL, model TEXT NOT NULL, provider_id TEXT, ended INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS batch_requests (
    batch TEXT NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, bill INTEGER NOT NULL, highest_usd REAL,
    status INTEGER, body BLOB, PRIMARY KEY (batch, number)
);
"""
# What is settled is in the cache; a kill may have come before its request was forgotten.
_FORGET_SETTLED = """
DELETE FROM batch_requests WHERE bill IN (SELECT bill FROM bills WHERE state = 'settled')
"""

LANDED_AT_A_TIME = 1000


@dataclass(frozen=True)
class Batch:
    """A batch of one model. provider_id: None until the provider has said that it took it. at: seconds since 1970."""

    name: str
    model: str
    at: float
    provider_id: str | None


@dataclass(frozen=True)
class BatchRequest:
    """A request of a batch, and its bill. highest_usd: None without a price."""

    batch: str
    number: int
    key: str
    bill: int
    highest_usd: float | None

    @property
    def name(self) -> str:
        return request_name(self.batch, self.number)


@dataclass(frozen=True)
class Landed:
    """A request whose batch has ended. status None: it was never answered."""

    request: BatchRequest
    status: int | None
    body: bytes


class BatchStore:
    """The batches of one results folder. since (seconds since 1970) hides earlier ones. Raises sqlite3.Error.

    Thread-safe.
    """

    def __init__(self, ledger: Path, since: float = 0.0):
        self._since = since
        self._lock = threading.RLock()
        self._db = sqlite3.connect(os.fspath(ledger), check_same_thread=False, isolation_level=None, timeout=60)
        self._db.executescript(_SCHEMA)
        self._db.execute(_FORGET_SETTLED)

    def begin(self, name: str, calls: Sequence[Call]) -> tuple[Batch, list[BatchRequest]]:
        """Note a batch that is about to be sent, and open a bill for each of its calls at its highest cost."""
        batch = Batch(name, calls[0].model.id, time.time(), None)
        requests = []
        with self._lock, transaction(self._db):
            self._db.execute("INSERT INTO batches (name, at, model) VALUES (?, ?, ?)", (name, batch.at, batch.model))
            for number, call in enumerate(calls):
                request = BatchRequest(name, number, call.key, self._open_bill(batch, call), call.highest_cost)
                row = (name, number, call.key, request.bill, call.highest_cost)
                self._db.execute("INSERT INTO batch_requests VALUES (?, ?, ?, ?, ?, NULL, NULL)", row)
                requests.append(request)
        return batch, requests

    def _open_bill(self, batch: Batch, call: Call) -> int:
        bill = self._db.execute(
            "INSERT INTO bills (at, cell_id, model, phase, usd, state) VALUES (?, ?, ?, ?, ?, 'open')",
            (batch.at, call.cell_id, batch.model, call.phase, call.highest_cost),
        ).lastrowid
        assert bill is not None  # sqlite3 gives the new row's number after every INSERT
        return bill

    def sent(self, batch: Batch, provider_id: str) -> None:
        """The provider took the batch and calls it so."""
        self._execute("UPDATE batches SET provider_id = ? WHERE name = ?", (provider_id, batch.name))

    def withdraw(self, batch: Batch) -> None:
        """The provider never took the batch, or did nothing of it: its bills are settled at nothing."""
        with self._lock, transaction(self._db):
            bills = "SELECT bill FROM batch_requests WHERE batch = ?"
            self._db.execute(f"UPDATE bills SET usd = 0, state = 'settled' WHERE bill IN ({bills})", (batch.name,))
            self._db.execute("DELETE FROM batch_requests WHERE batch = ?", (batch.name,))
            self._db.execute("DELETE FROM batches WHERE name = ?", (batch.name,))

    def open_batches(self, model: str) -> list[Batch]:
        """The model's batches whose results are not here yet."""
        query = "SELECT name, model, at, provider_id FROM batches WHERE model = ? AND NOT ended AND at >= ? ORDER BY at"
        return [Batch(*row) for row in self._execute(query, (model, self._since))]

    def requests(self, batch: Batch) -> list[BatchRequest]:
        query = "SELECT batch, number, key, bill, highest_usd FROM batch_requests WHERE batch = ? ORDER BY number"
        return [BatchRequest(*row) for row in self._execute(query, (batch.name,))]

    def land(self, batch: Batch, results: Iterable[tuple[str, int | None, bytes]]) -> None:
        """Keep what became of the requests of a batch that has ended: (name, status, body) of each that is told."""
        told = iter(results)
        while some := list(itertools.islice(told, LANDED_AT_A_TIME)):  # no lock while results come over the network
            with self._lock, transaction(self._db):
                for name, status, body in some:
                    self._land(batch, name, status, body)
        self._execute("UPDATE batches SET ended = 1 WHERE name = ?", (batch.name,))

    def _land(self, batch: Batch, name: str, status: int | None, body: bytes) -> None:
        start, _, number = name.rpartition("-")
        if start == batch.name and number.isdecimal():
            values = (status, body, batch.name, int(number))
            self._db.execute("UPDATE batch_requests SET status = ?, body = ? WHERE batch = ? AND number = ?", values)

    def landed(self, model: str) -> Iterator[Landed]:
        """The model's requests whose batch has ended and that are not forgotten yet."""
        query = """SELECT r.batch, r.number, r.key, r.bill, r.highest_usd FROM batch_requests r JOIN batches b
            ON r.batch = b.name WHERE b.ended AND b.model = ? AND b.at >= ?"""
        for request in [BatchRequest(*row) for row in self._execute(query, (model, self._since))]:
            place = (request.batch, request.number)
            query = "SELECT status, body FROM batch_requests WHERE batch = ? AND number = ?"
            ((status, body),) = self._execute(query, place)
            yield Landed(request, status, body or b"")

    def forget(self, request: BatchRequest) -> None:
        """The bill of a request is settled, and its answer is in the cache where it has one."""
        place = (request.batch, request.number)
        self._execute("DELETE FROM batch_requests WHERE batch = ? AND number = ?", place)

    def close(self) -> None:
        self._db.close()

    def _execute(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(query, values).fetchall()


def requests_under_way(ledger: Path) -> int:
    """How many requests of a results folder are in batches whose results are not here yet."""
    with closing(sqlite3.connect(os.fspath(ledger), timeout=60)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchone():
            return 0
        query = "SELECT COUNT(*) FROM batch_requests r JOIN batches b ON r.batch = b.name WHERE NOT b.ended"
        return int(db.execute(query).fetchone()[0])


def request_name(batch: str, number: int) -> str:
    """The name of a request at the provider."""
    return f"{batch}-{number}"
