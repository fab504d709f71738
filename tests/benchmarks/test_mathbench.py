"""MathBench: options and open questions, and its rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import run_scaling_experiment as script
from benchmarks import mathbench
from scaling.types import UsageError
from tests.support.benchmarks import bench, score


@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "B.", "**B**", r"\boxed{\text{B}}", "B. 12 cm", "12 cm", " 12 CM."]
)
def test_an_option_is_named_by_its_letter_or_its_text(answer: str) -> None:
    gold = {"answer": "B", "choices": ["10 cm", "12 cm", "14 cm", "16 cm"]}
    assert score(mathbench, gold, answer) == 1.0


@pytest.mark.parametrize("answer", ["A", "", "E", "12 or 14", "Because", "A. 12 cm", "14 cm"])
def test_another_option_is_wrong(answer: str) -> None:
    assert score(mathbench, {"answer": "B", "choices": ["10 cm", "12 cm", "14 cm", "16 cm"]}, answer) == 0.0


def test_open_questions_are_scored_by_equality() -> None:
    gold = {"answer": r"\frac{3}{2}", "choices": []}
    assert [score(mathbench, gold, answer) for answer in ("1.5", "3/2", "$1\\frac12$", "2", "A")] == [1, 1, 1, 0, 0]


def test_the_mathbench_sample_is_half_choice_half_open_and_no_letter_is_favoured() -> None:
    rows = bench("mathbench").train
    assert Counter(row["kind"] for row in rows) == {"choice": 42, "open": 42}
    letters = Counter(row["answer"] for row in rows if row["kind"] == "choice")
    assert set(letters) == set("ABCD") and max(letters.values()) <= 11
    assert all(row["options"] == "none" for row in rows if row["kind"] == "open")
    assert rows[0]["options"] == "A. 50\nB. 14\nC. 62\nD. 48"
    assert "circular" in script.BENCHMARK_CONFIG["mathbench"]["note"]


def test_mathbench_rows_that_cannot_be_meant_are_told(tmp_path: Path) -> None:
    (tmp_path / "mathbench").mkdir()
    bad = {"question": "2+2?", "options": ["3", "4"], "answer": "C"}
    (tmp_path / "mathbench" / "single_choice_en.jsonl").write_text(json.dumps(bad))
    with pytest.raises(UsageError, match="2 options and the answer 'C'"):
        bench("mathbench", str(tmp_path))
    with pytest.raises(UsageError, match="DIR/mathbench"):
        bench("mathbench", "hub")
