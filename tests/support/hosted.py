"""Keys, flags and prompts of the tests of hosted jobs, and what such a job left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaling.models import Model
from tests.support.files import read

MODEL = Model(id="openai/scripted", route="openai/scripted")
STAGES = {
    3: ["analyzer", "reasoner", "classifier"],
    5: ["parser", "contextualizer", "reasoner", "synthesizer", "classifier"],
}


PLANTED = "Look at the zebra first, then name the label."


PROPOSALS = ["Name a label quickly.", PLANTED, "Say what comes to mind."]


KEYS = {"SYNTH_API_KEY": "synth-key-0123456789", "ENVIRONMENT_API_KEY": "app-key-0123456789"}


FLAGS = {
    "--benchmarks": "toy", "--models": "openai/scripted", "--steps": "1", "--optimizers": "synth_mipro", "--runs": "1",
    "--rollout-budget": "40", "--train-size": "10", "--val-size": "12", "--test-size": "20", "--data": "sample",
    "--output-dir": "out",
}  # fmt: skip


def record_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("results.json")
    return read(path)


def program_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("program.json")
    return read(path)["instructions"]
