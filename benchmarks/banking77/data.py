"""Rows of Banking77: text, intent."""

from pathlib import Path
from typing import Any

from benchmarks.sources import named, read

HUB = {"path": "PolyAI/banking77", "train": "train", "test": "test", "revision": "refs/convert/parquet"}


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"text", "intent"}; raises UsageError when the source cannot be read."""
    raw = read(source, Path(__file__).parent, HUB)
    for part in ("train", "test"):
        raw[part] = raw[part] and [
            {"text": row["text"].strip(), "intent": named(row["label"], raw["label_names"])} for row in raw[part]
        ]
    return raw
