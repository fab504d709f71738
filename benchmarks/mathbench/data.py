"""Rows of MathBench: question, options (in one text), answer; with kind and the list of choices."""

import re
from pathlib import Path
from typing import Any

from benchmarks.sources import read
from scaling.types import UsageError

LETTERS = ("A", "B", "C", "D")


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"question", "options", "answer", "kind", "choices", "group"}, and "level" where the source has it.

    Raises UsageError when they cannot be read.
    """
    if source == "hub":
        raise UsageError(
            "mathbench is not on the Hugging Face hub. Use --data sample, or --data DIR with DIR/mathbench/*.jsonl."
        )
    raw = read(source, Path(__file__).parent, {})
    for part in ("train", "test"):
        raw[part] = raw[part] and [_row(row) for row in raw[part]]
    return raw


def _row(raw: dict[str, Any]) -> dict[str, Any]:
    # Some files repeat the letter in front of each option.
    choices = [re.sub(r"^\(?[A-D][.):]\s+", "", str(text).strip()) for text in raw.get("options") or []]
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False)]
    question, answer = raw["question"].strip(), str(raw["answer"]).strip()
    if choices and (len(choices) > len(LETTERS) or answer not in LETTERS[: len(choices)]):
        raise UsageError(f"mathbench: '{question[:60]}' has {len(choices)} options and the answer '{answer}'. Fix it.")
    return {
        "question": question,
        "options": "\n".join(lines) or "none",
        "answer": answer,
        "kind": "choice" if choices else "open",
        "choices": choices,
        "group": " ".join(question.split()),
    } | ({"level": str(raw["level"])} if raw.get("level") else {})
