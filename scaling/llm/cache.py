"""The response cache and the bills of one results folder: one SQLite file, never evicting, owner-only.

A request's bill is opened at its highest possible cost before it is sent, and settled in one transaction with
its answer. So a kill at any byte loses at most the answers in flight, and their money still counts as spent.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout
from msgspec import structs

from scaling.records.record import Answer
from scaling.types import UsageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, created REAL NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS bills (
    bill INTEGER PRIMARY KEY, at REAL NOT NULL, cell_id TEXT NOT NULL, model TEXT NOT NULL, phase TEXT NOT NULL,
    usd REAL, state TEXT NOT NULL
);
"""


class Cache:
    """Answers that were paid for, by request key, and the append-only sum of what was billed.

    since (seconds since 1970) hides every answer stored before that time; new ones are stored as always.
    Raises UsageError for a file that cannot be opened and for a folder that another sweep is writing to; its methods
    raise sqlite3.Error, as on a full disk.
    """

    def __init__(self, path: Path, since: float = 0.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        self._claim = _claimed(path.with_suffix(".lock"))
        self._lock = threading.Lock()
        self._since = since
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self.spent_usd()  # whether it can be read
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{path} cannot be used ({error}). {_what_to_do(error)}") from None

    def get(self, key: str) -> Answer | None:
        """The stored answer, or None. Answers of earlier versions, which lack some fields, are read as well."""
        with self._lock:
            row = self._db.execute(
                "SELECT value FROM responses WHERE key = ? AND created >= ?", (key, self._since)
            ).fetchone()
        return msgspec.convert(json.loads(zlib.decompress(row[0])), Answer) if row else None

    def open_bill(self, cell_id: str, model: str, phase: str, highest_usd: float | None) -> int:
        """Note a request that is about to be sent, at its highest possible cost in USD; gives the bill's number."""
        with self._lock:
            values = (time.time(), cell_id, model, phase, highest_usd)
            bill = self._db.execute(
                "INSERT INTO bills (at, cell_id, model, phase, usd, state) VALUES (?, ?, ?, ?, ?, 'open')", values
            ).lastrowid
        assert bill is not None  # sqlite3 gives the new row's number after every INSERT
        return bill

    def settle_bill(self, bill: int, usd: float | None, answer: tuple[str, Answer] | None = None) -> None:
        """What a request was really billed, in one transaction with its answer (key, value) where it has one.

        A bill that is never settled stays at its highest cost: nobody knows what the provider billed.
        """
        with self._lock, self._transaction():
            if answer is not None:
                blob = zlib.compress(json.dumps(structs.asdict(answer[1])).encode(), 1)
                self._db.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?)", (answer[0], time.time(), blob))
            self._db.execute("UPDATE bills SET usd = ?, state = 'settled' WHERE bill = ?", (usd, bill))

    def spent_usd(self) -> float:
        """USD billed since the results folder began, over all sweeps in it; bills left open at their highest cost.

        Earlier versions wrote bills below 0 where a provider counted nonsense: those lower nothing.
        """
        with self._lock:
            return float(self._db.execute("SELECT COALESCE(SUM(MAX(usd, 0)), 0) FROM bills").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._claim.release()


def _what_to_do(error: sqlite3.Error) -> str:
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # what is above it are details
    if kind == sqlite3.SQLITE_FULL:
        return "Free the disk and type the same command again."
    if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "Move the damaged file away: its answers would be paid for again."
    return "Give another --output-dir, on a disk of this machine that you may write to."


def _claimed(path: Path) -> FileLock:
    """Hold the results folder until it is released: two sweeps in one folder would pay for the same calls."""
    claim = FileLock(path, timeout=0, thread_local=False)
    try:
        claim.acquire()
    except Timeout:
        raise UsageError(
            f"another sweep is writing to {path.parent.parent}. Wait until it has ended, or give another --output-dir."
        ) from None
    return claim
