"""Rows of GSM8K: question, answer (the number after ####), and the worked solution before it."""

import re
from pathlib import Path
from typing import Any

from benchmarks.sources import read

HUB = {"path": "openai/gsm8k", "name": "main", "train": "train", "test": "test"}


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"question", "answer", "solution"}; raises UsageError when the source cannot be read."""
    raw = read(source, Path(__file__).parent, HUB)
    for part in ("train", "test"):
        raw[part] = raw[part] and [_row(row) for row in raw[part]]
    return raw


def _row(raw: dict[str, Any]) -> dict[str, Any]:
    solution, _, answer = raw["answer"].rpartition("####")
    # The data mark each calculation once more for a calculator, as <<2*3=6>>; people need it once.
    return {
        "question": raw["question"].strip(),
        "answer": answer.strip(),
        "solution": re.sub(r"<<.*?>>", "", solution).strip(),
    }
