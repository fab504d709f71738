"""The response cache and the ledger of bills of one results folder: two SQLite files, never evicting, owner-only.

A request's bill is opened at its highest possible cost before it is sent, and settled together with its answer. So a
kill at any byte loses at most the answers in flight, and their money still counts as spent. The ledger is a file of its
own: what was spent is known even where the cache has been moved away. A stored answer that is damaged counts as none.
"""

from __future__ import annotations

import hashlib
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
CREATE TABLE IF NOT EXISTS ledger.bills (
    bill INTEGER PRIMARY KEY, at REAL NOT NULL, cell_id TEXT NOT NULL, model TEXT NOT NULL, phase TEXT NOT NULL,
    usd REAL, state TEXT NOT NULL
);
"""
# Caches of earlier versions hold the bills themselves.
_EARLIER_BILLS = """
INSERT INTO ledger.bills (at, cell_id, model, phase, usd, state)
    SELECT at, cell_id, model, phase, usd, state FROM main.bills
    WHERE (at, cell_id) NOT IN (SELECT at, cell_id FROM ledger.bills)
"""
# A stored answer is this mark, a checksum and zlib's data. Earlier ones are zlib's data alone, which has its own.
_MARK, _CHECKSUM_BYTES = b"sha256:", 16


class Cache:
    """Answers that were paid for, by request key, and the append-only sum of what was billed.

    ledger: the file of the bills, beside the cache where none is given. since (seconds since 1970) hides every answer
    stored before that time; new ones are stored as always.
    Raises UsageError for a file that cannot be opened and for a folder that another sweep is writing to; its methods
    raise sqlite3.Error, as on a full disk.
    """

    def __init__(self, path: Path, since: float = 0.0, ledger: Path | None = None):
        ledger = ledger or path.with_name(f"{path.stem}-ledger.sqlite")
        _make_private(path, ledger)
        self.path = path
        self._damaged: set[str] = set()
        self._claim = _claimed(path.with_suffix(".lock"))
        self._lock = threading.Lock()
        self._since = since
        try:
            self._db = _opened(path, ledger)
        except BaseException:
            self._claim.release()
            raise

    def get(self, key: str) -> Answer | None:
        """The stored answer, or None, also where it is damaged. Answers of earlier versions are read as well."""
        with self._lock:
            row = self._db.execute(
                "SELECT value FROM responses WHERE key = ? AND created >= ?", (key, self._since)
            ).fetchone()
            answer = _unpacked(key, row[0]) if row else None
            if row and answer is None:
                self._damaged.add(key)
        return answer

    @property
    def damaged(self) -> int:
        """How many stored answers were found damaged."""
        return len(self._damaged)

    def open_bill(self, cell_id: str, model: str, phase: str, highest_usd: float | None) -> int:
        """Note a request that is about to be sent, at its highest possible cost in USD; gives the bill's number."""
        with self._lock:
            values = (time.time(), cell_id, model, phase, highest_usd)
            columns = "(at, cell_id, model, phase, usd, state)"
            bill = self._db.execute(
                f"INSERT INTO ledger.bills {columns} VALUES (?, ?, ?, ?, ?, 'open')", values
            ).lastrowid
        assert bill is not None  # sqlite3 gives the new row's number after every INSERT
        return bill

    def settle_bill(self, bill: int, usd: float | None, answer: tuple[str, Answer] | None = None) -> None:
        """What a request was really billed, together with its answer (key, value) where it has one.

        Each of the two files is written whole or not at all. A kill between them leaves an answer whose bill is open,
        or a settled bill whose answer is paid for again, so that no sum is too low. A bill that is never settled stays
        at its highest cost: nobody knows what the provider billed.
        """
        with self._lock, transaction(self._db):
            if answer is not None:
                row = (answer[0], time.time(), _packed(*answer))
                self._db.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?)", row)
            self._db.execute("UPDATE ledger.bills SET usd = ?, state = 'settled' WHERE bill = ?", (usd, bill))

    def spent_usd(self) -> float:
        """USD billed since the results folder began, over all sweeps in it; bills left open at their highest cost.

        Earlier versions wrote bills below 0 where a provider counted nonsense: those lower nothing.
        """
        with self._lock:
            total = self._db.execute("SELECT COALESCE(SUM(MAX(usd, 0)), 0) FROM ledger.bills").fetchone()[0]
        return float(total)

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._claim.release()


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """What the block writes is written whole or not at all. The caller lets no other thread write meanwhile."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled back by itself
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _what_to_do(error: sqlite3.Error, if_damaged: str) -> str:
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # what is above it are details
    if kind == sqlite3.SQLITE_FULL:
        return "Free the disk and type the same command again."
    if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return if_damaged
    return "Give another --output-dir, on a disk of this machine that you may write to."


def _make_private(*paths: Path) -> None:
    """Files that their owner alone can read, and the folders for them."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)


def _opened(path: Path, ledger: Path) -> sqlite3.Connection:
    """The cache with its ledger attached. Raises UsageError, with what to do, for the file that cannot be used."""
    file, advice = path, "Move it away: its answers are paid for again, and what was spent stays known."
    database = None
    try:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
        database.execute("PRAGMA journal_mode=WAL")
        file, advice = ledger, "Put a whole copy in its place: it says what was spent."
        database.execute("ATTACH DATABASE ? AS ledger", (os.fsencode(ledger),))
        database.execute("PRAGMA ledger.journal_mode=WAL")
        for name in ("main", "ledger"):
            database.execute(f"PRAGMA {name}.synchronous=NORMAL")
        database.executescript(_SCHEMA)
        if database.execute("SELECT 1 FROM main.sqlite_master WHERE name = 'bills'").fetchone():
            database.execute(_EARLIER_BILLS)
        database.execute("SELECT SUM(usd) FROM ledger.bills")  # whether it can be read
    except sqlite3.DatabaseError as error:
        if database is not None:
            database.close()
        raise UsageError(f"{file} cannot be used ({error}). {_what_to_do(error, advice)}") from None
    return database


def _packed(key: str, answer: Answer) -> bytes:
    data = zlib.compress(json.dumps(structs.asdict(answer)).encode(), 1)
    return _MARK + _checksum(key, data) + data


def _unpacked(key: str, stored: bytes) -> Answer | None:
    """The answer that was stored under the key; None where it is damaged, or another key's."""
    try:
        data = stored
        if stored.startswith(_MARK):
            start = len(_MARK) + _CHECKSUM_BYTES
            data = stored[start:]
            if stored[len(_MARK) : start] != _checksum(key, data):
                return None
        return msgspec.convert(json.loads(zlib.decompress(data)), Answer)
    except (zlib.error, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + data).digest()[:_CHECKSUM_BYTES]


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
