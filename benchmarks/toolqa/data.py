"""Rows of ToolQA: question, answer; with domain, difficulty, and the digest of the tables they are asked about."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.sources import read
from benchmarks.toolqa.tables import open_tables
from benchmarks.toolqa.tools import corpora_of
from scaling.types import UsageError

# A word belongs to a template when this share of its domain's questions has it.
TEMPLATE_SHARE = 0.05
TEMPLATE_WORDS = 4


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"id", "group", "question", "answer", "domain", "difficulty", "corpora"}; UsageError when unreadable."""
    if source == "hub":
        raise UsageError(
            "toolqa is not on the Hugging Face hub. Use --data sample, or --data DIR with DIR/toolqa/*.jsonl."
        )
    raw = read(source, Path(__file__).parent, {})
    corpora = corpora_digest(source)
    for part in ("train", "test"):
        raw[part] = raw[part] and _rows(raw[part], corpora)
    return raw


def corpora_digest(source: str) -> str:
    """Digits over all tables of a source, so that other tables make another cell; '' without tables."""
    folder = corpora_of(source)
    tables = open_tables(folder) if folder else None
    if tables is None:
        return ""
    return f"{tables.digest}-prepared" if tables.prepared else tables.digest


def _rows(raw: list[dict[str, Any]], corpora: str) -> list[dict[str, Any]]:
    seen: Counter[str] = Counter()
    rows = []
    for row, group in zip(raw, templates(raw), strict=True):
        seen[row["qid"]] += 1
        # Upstream gives ten ids to two questions each.
        again = f"-{seen[row['qid']]}" if seen[row["qid"]] > 1 else ""
        rows.append(
            {
                "id": f"{row['qid']}{again}",
                "group": group or f"{row['qid']}{again}",
                "question": row["question"],
                "answer": str(row["answer"]),
                "domain": row["domain"],
                "difficulty": row["difficulty"],
                "corpora": corpora,
            }
        )
    return rows


def templates(raw: list[dict[str, Any]]) -> list[str]:
    """The template of each question: its first words among those that its domain's questions share.

    Upstream does not name templates. gsm8k has none: '' there, and each question is its own group.
    """
    by_domain: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    sizes: Counter[tuple[str, str]] = Counter()
    for row in raw:
        key = row["domain"], row["difficulty"]
        sizes[key] += 1
        by_domain[key].update(set(_words(row["question"])))
    names = []
    for row in raw:
        key = row["domain"], row["difficulty"]
        limit = max(2, TEMPLATE_SHARE * sizes[key])
        kept = [word for word in _words(row["question"]) if by_domain[key][word] >= limit]
        name = " ".join(kept[:TEMPLATE_WORDS])
        names.append("" if row["domain"] == "gsm8k" else f"{row['difficulty']} {row['domain']}: {name}")
    return names


def _words(question: str) -> list[str]:
    """Lower-case words; numbers, names and dates are no part of a template (the first word's capital is)."""
    words = re.findall(r"[\w'/:.-]+", question)
    return [w.lower().strip(".") for i, w in enumerate(words) if w[0].isalpha() and (i == 0 or w[0].islower())]
