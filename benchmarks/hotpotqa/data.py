"""Rows of HotpotQA: context, question, answer; with type and the titles of the supporting paragraphs."""

from pathlib import Path
from typing import Any

from benchmarks.sources import read

HUB = {
    "path": "hotpotqa/hotpot_qa",
    "name": "distractor",
    "train": "train",
    "test": "validation",
    "revision": "refs/convert/parquet",
}


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"id", "group", "context", "question", "answer", "type", "titles"}; UsageError when unreadable."""
    raw = read(source, Path(__file__).parent, HUB)
    for part in ("train", "test"):
        raw[part] = raw[part] and _with_groups([_row(row) for row in raw[part]])
    return raw


def _row(raw: dict[str, Any]) -> dict[str, Any]:
    paragraphs = zip(raw["context"]["title"], raw["context"]["sentences"], strict=True)
    return {
        "id": str(raw["id"]),
        "context": "\n".join(f"{title}: {''.join(_spaced(sentences))}" for title, sentences in paragraphs),
        "question": raw["question"],
        "answer": raw["answer"],
        "type": raw.get("type", ""),
        "titles": sorted(set(raw["supporting_facts"]["title"])),
    }


def _spaced(sentences: list[str]) -> list[str]:
    """The hub's sentences carry their own leading space; those that do not get one."""
    return [s if i == 0 or s.startswith(" ") else f" {s}" for i, s in enumerate(sentences)]


def _with_groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that share a supporting paragraph, directly or through others, get one group (union-find)."""
    leader: dict[str, str] = {}

    def find(title: str) -> str:
        while leader.setdefault(title, title) != title:
            title = leader[title]
        return title

    for row in rows:
        roots = sorted(find(title) for title in row["titles"])
        for root in roots[1:]:
            leader[root] = roots[0]
    return [row | {"group": find(row["titles"][0]) if row["titles"] else row["id"]} for row in rows]
