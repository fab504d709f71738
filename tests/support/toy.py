"""A benchmark of 120 made-up messages with four labels: small, quick to read, and in no way special."""

from __future__ import annotations

from typing import Any

import dspy

LABELS = ("billing", "delivery", "refund", "support")
WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "hazel", "inlet", "jade",
    "kelp", "lotus", "maple", "north", "ocean", "pearl", "quartz", "river", "slate", "tulip",
)  # fmt: skip


class Toy(dspy.Signature):
    """Sort a message into one of the labels."""

    message: str = dspy.InputField()
    label: str = dspy.OutputField()


def rows(count: int = 120) -> list[dict[str, Any]]:
    """Messages of which none is part of another, sorted by label as published data often are."""
    made = []
    for i in range(count):
        label = LABELS[i * len(LABELS) // count]
        words = f"{WORDS[i % 20]} {WORDS[(7 * i + 3) % 20]} {WORDS[(3 * i + i // 20) % 20]}"
        made.append({"id": f"m{i:03d}", "message": f"case <{i:03d}> about {words}", "label": label})
    return made


def truth() -> dict[str, str]:
    """Message -> label, as the scripted server wants it."""
    return {row["message"]: row["label"] for row in rows()}


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 for the right label."""
    return float(pred.label == gold.label)


def config(**changes: Any) -> dict[str, Any]:
    """An entry of BENCHMARK_CONFIG; a change to None takes the key out."""
    entry = {
        "signature": Toy,
        "loader": rows,
        "metric": metric,
        "label_field": "label",
        "train_seeds": range(20),
        "val_seeds": range(20, 60),
        "test_seeds": range(40),
    } | changes
    return {key: value for key, value in entry.items() if value is not None}
