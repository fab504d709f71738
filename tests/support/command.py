"""A command line of a small cell that works; the tests change it."""

from __future__ import annotations

GOOD = {
    "--benchmarks": "toy",
    "--models": "openai/scripted",
    "--steps": "1",
    "--optimizers": "none",
    "--runs": "1",
    "--rollout-budget": "40",
    "--train-size": "10",
    "--val-size": "5",
    "--test-size": "20",
    "--data": "sample",
    "--output-dir": "out",
}
