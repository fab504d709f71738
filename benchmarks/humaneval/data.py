"""Rows of HumanEval: prompt, code (the canonical solution), with the hidden tests and the function's name."""

from pathlib import Path
from typing import Any

from benchmarks.sources import read

# One published split: the pool that is split into train, val and test.
HUB = {"path": "openai/openai_humaneval", "train": "test"}


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"id", "prompt", "code", "tests", "entry_point"}; raises UsageError when the source cannot be read."""
    raw = read(source, Path(__file__).parent, HUB)
    raw["train"] = [
        {
            "id": row["task_id"],
            "prompt": row["prompt"],
            "code": row["prompt"] + row["canonical_solution"],
            "tests": row["test"],
            "entry_point": row["entry_point"],
        }
        for row in [*raw["train"], *(raw["test"] or [])]
    ]
    return raw | {"test": None}
