"""The response cache and the ledger of one results folder: one SQLite file, never evicting, owner-only.

A response and what it was billed are one transaction, so neither can be there without the other: a
kill at any byte loses at most the calls in flight.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, created REAL NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (
    at REAL NOT NULL, cell_id TEXT NOT NULL, model TEXT NOT NULL, phase TEXT NOT NULL, billed_usd REAL
);
"""


class Cache:
    """Answers that were paid for, by request key, and the append-only sum of what was billed.

    fresh=True hides every answer stored before this object was made, and keeps storing new ones.
    """

    def __init__(self, path: Path, fresh: bool = False):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        os.chmod(path, 0o600)
        self._lock = threading.Lock()
        self._since = time.time() if fresh else 0.0
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored answer, or None."""
        with self._lock:
            row = self._db.execute(
                "SELECT value FROM responses WHERE key = ? AND created >= ?", (key, self._since)
            ).fetchone()
        return json.loads(zlib.decompress(row[0])) if row else None

    def put(self, key: str, value: dict[str, Any], bill: tuple[str, str, str, float | None]) -> None:
        """Store an answer and its bill (cell_id, model, phase, billed USD) in one transaction."""
        blob = zlib.compress(json.dumps(value).encode(), 1)
        now = time.time()
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?)", (key, now, blob))
            self._db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", (now, *bill))
            self._db.execute("COMMIT")

    def spent_usd(self) -> float:
        """USD billed since the results folder began, over all sweeps in it."""
        with self._lock:
            return self._db.execute("SELECT COALESCE(SUM(billed_usd), 0) FROM ledger").fetchone()[0]

    def close(self) -> None:
        with self._lock:
            self._db.close()
