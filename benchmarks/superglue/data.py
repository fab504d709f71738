"""Rows of SuperGLUE: text (the task in words), answer (a label's name); with subtask and labels."""

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.sources import named, read, read_folder, read_jsonl
from scaling.types import UsageError

PACKAGE = Path(__file__).parent
HUB = {"path": "aps/super_glue", "train": "train", "test": "validation", "revision": "refs/convert/parquet"}
# Subtask -> its label names in the order of the hub's numbers, and what is asked.
LABELS = {
    "boolq": ["False", "True"],
    "cb": ["entailment", "contradiction", "neutral"],
    "copa": ["choice1", "choice2"],
    "rte": ["entailment", "not_entailment"],
    "wic": ["False", "True"],
    "wsc.fixed": ["False", "True"],
}
ASKED = {
    "boolq": "Is the answer to the question yes (True) or no (False), by the passage?",
    "cb": "Does the premise entail the hypothesis, contradict it, or leave it open (neutral)?",
    "copa": "Which choice is the likelier {question} of the premise?",
    "rte": "Does the premise entail the hypothesis?",
    "wic": "Does the word '{word}' mean the same in both sentences?",
    "wsc.fixed": "Does '{span2_text}' stand for '{span1_text}' in the text?",
}
# Columns that are shown, in this order.
SHOWN = {
    "boolq": ("passage", "question"),
    "cb": ("premise", "hypothesis"),
    "copa": ("premise", "choice1", "choice2"),
    "rte": ("premise", "hypothesis"),
    "wic": ("sentence1", "sentence2"),
    "wsc.fixed": ("text",),
}
GROUPED_BY = {"boolq": "passage", "cb": "premise", "rte": "premise"}
SUBTASKS = tuple(LABELS)


def load(source: str = "hub", subtask: str | None = None) -> dict[str, Any]:
    """Rows {"text", "answer", "subtask", "labels", "stratum", "group"} of one subtask, or of all that are there.

    Raises UsageError when the source cannot be read or has no rows of the subtask.
    """
    parts = {name: _raw(source, name) for name in _present(source, subtask)}
    test = [_row(name, row, part) for name, part in parts.items() for row in part["test"] or []]
    return {
        "train": [_row(name, row, part) for name, part in parts.items() for row in part["train"]],
        "test": test or None,
        "revision": next(iter(parts.values()))["revision"],
    }


def _present(source: str, subtask: str | None) -> list[str]:
    """The subtasks to read: the one asked for, or those that the source has."""
    if subtask is not None:
        return [subtask]
    if source in ("hub", "sample"):
        return [name for name in SUBTASKS if source == "hub" or _sample(name)]
    present = [name for name in SUBTASKS if (Path(source) / "superglue" / name).is_dir()]
    if not present:
        raise UsageError(
            f"--data {source}: there is no folder superglue/<subtask> in it, of {', '.join(SUBTASKS)}. "
            f"Give a folder that holds superglue/boolq/*.jsonl, for example, or --data sample, or --data hub."
        )
    return present


def _raw(source: str, subtask: str) -> dict[str, Any]:
    if source == "sample":
        rows = _sample(subtask)
        if not rows:
            raise UsageError(f"the sample has no rows of superglue/{subtask}. Use --data hub, or --data DIR.")
        return {"train": rows, "test": None, "revision": None, "label_names": None}
    if source == "hub":
        return read(source, PACKAGE, HUB | {"name": subtask})
    raw = read_folder(Path(source) / "superglue", subtask)
    names_file = Path(source) / "superglue" / "label_names.json"
    if raw["label_names"] is None and names_file.exists():
        raw["label_names"] = json.loads(names_file.read_text(encoding="utf-8")).get(subtask)
    return raw


def _sample(subtask: str) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(PACKAGE / "sample.jsonl") if row["subtask"] == subtask]


def _row(subtask: str, raw: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    labels = part["label_names"] or LABELS[subtask]
    if isinstance(raw["label"], int) and not 0 <= raw["label"] < len(labels):  # the official test files say -1
        raise UsageError(f"superglue/{subtask}: a row has the label {raw['label']}. Leave files without labels out.")
    answer = named(raw["label"], labels)
    shown = [f"{column.capitalize()}: {raw[column]}" for column in SHOWN[subtask]]
    lines = [*shown, ASKED[subtask].format(**raw), f"Answer with one of: {', '.join(labels)}."]
    row = {
        "text": "\n".join(lines),
        "answer": answer,
        "subtask": subtask,
        "labels": labels,
        "stratum": f"{subtask} {answer}",
    }
    if subtask in GROUPED_BY:
        over = " ".join(raw[GROUPED_BY[subtask]].split())
        row["group"] = f"{subtask}-{hashlib.sha256(over.encode()).hexdigest()[:12]}"
    return row
