"""Writing what is exported: nothing that is there already is overwritten, and no secret goes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scaling.records.store import write_bytes
from scaling.redact import hide_known
from scaling.types import UsageError


def write_new(path: Path, data: bytes) -> bytes:
    """Write a text file; returns what is in it. The same file again is well; UsageError where another one is there."""
    data = hide_known(data.decode()).encode()
    check_free(path, data)
    write_bytes(path, data)
    return data


def check_free(path: Path, data: bytes | None = None) -> None:
    """Raise UsageError where a path is taken by something else than `data`."""
    if path.exists() and (data is None or not path.is_file() or path.read_bytes() != data):
        raise UsageError(f"{path} is there already. Give another --out, or move it away.")


def as_json(value: Any) -> bytes:
    """Indented JSON in UTF-8, for people to read."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
