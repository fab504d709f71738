r"""Rows of MATH: problem, answer (the last \boxed of the solution); with level, type and solution."""

from pathlib import Path
from typing import Any

from benchmarks.answers import boxed
from benchmarks.sources import read

# MATH-500 has a test split only, and the original is no longer on the hub: train comes from a mirror of it.
HUB_TRAIN = {"path": "DigitalLearningGmbH/MATH-lighteval", "name": "default", "train": "train"}
HUB_TEST = {"path": "HuggingFaceH4/MATH-500", "train": "test"}


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"problem", "answer", "level", "type", "solution"}; UsageError when the source cannot be read."""
    package = Path(__file__).parent
    raw = read(source, package, HUB_TRAIN)
    if source == "hub":
        test = read(source, package, HUB_TEST)
        raw |= {"test": test["train"], "revision": f"train {raw['revision']}, test {test['revision']}"}
    elif source != "sample":
        # The folder that there is has no train rows of MATH.
        raw["note"] = "its train rows come from MATH's test split"
    for part in ("train", "test"):
        raw[part] = raw[part] and [_row(row) for row in raw[part]]
    return raw


def _row(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem": raw["problem"].strip(),
        "answer": raw.get("answer") or boxed(raw["solution"]) or "",
        "level": f"Level {raw['level']}".replace("Level Level", "Level"),
        "type": raw.get("type") or raw.get("subject", ""),
        "solution": raw["solution"],
    }
