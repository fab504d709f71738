"""What tests of benchmarks share: loading one by its name, its sample's rows, a score, and where real rows are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

import run_scaling_experiment as script
from scaling.data import load_benchmark
from scaling.types import Benchmark

REAL_ROWS = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not REAL_ROWS.is_dir(), reason="no real rows beside this clone")
PACKAGES = Path(script.__file__).parent / "benchmarks"
TEXT_BENCHMARKS = ("gsm8k", "math", "mathbench", "superglue")


def bench(name: str, source: str = "sample") -> Benchmark:
    return load_benchmark(name, script.BENCHMARK_CONFIG[name], source)


def sample(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (PACKAGES / name / "sample.jsonl").read_text().splitlines()]


def score(package: Any, gold: dict[str, Any], answer: str | None) -> float:
    return package.metric(dspy.Example(**gold), dspy.Prediction(answer=answer))
