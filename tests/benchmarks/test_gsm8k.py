"""Numbers in answers, and GSM8K: its score and its rows."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest

from benchmarks import answers, gsm8k
from scaling.data import make_splits
from tests.support.benchmarks import REAL_ROWS, bench, real, sample, score


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("$1,200.00 and -3", ["1200", "-3"]),
        ("10-12", ["10", "12"]),
        ("-$5, $-6 or \u22127", ["-5", "-6", "-7"]),
        ("1,2 and 12,34", ["1", "2", "12", "34"]),
        ("1,234,567.50.", ["1234567.5"]),
        (".5 is half", ["0.5"]),
        ("none", []),
    ],
)
def test_numbers_are_found(text: str, numbers: list[str]) -> None:
    assert answers.numbers_in(text) == [Fraction(number) for number in numbers]


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("18", "18", 1),
        ("18", "It is 9 * 2 = 18 dollars.", 1),
        ("1200", "$1,200.00.", 1),
        ("40,000", "40000", 1),
        ("18", "She has 20.\n#### 18", 1),
        ("18", "#### 18\nThat took 5 minutes", 1),
        ("18", "####\nso 18", 1),
        ("18", "18.0", 1),
        ("-4", "\u22124 degrees", 1),
        ("18", "18.5", 0),
        ("18", "180", 0),
        ("18", "18 or 19", 0),
        ("18", "eighteen", 0),
        ("18", "", 0),
    ],
)
def test_gsm8k_scores_the_final_number(gold: str, answer: str, right: int) -> None:
    assert score(gsm8k, {"answer": gold}, answer) == right


def test_arithmetic_of_the_gsm8k_sample_is_right() -> None:
    steps = 0
    for row in sample("gsm8k"):
        for sum_, value in re.findall(r"<<(.*?)=(.*?)>>", row["answer"]):
            assert re.fullmatch(r"[\d.()+*/ -]+", sum_)
            assert eval(re.sub(r"(\d+(?:\.\d+)?)", r"Fraction('\1')", sum_)) == Fraction(value), row
            steps += 1
        last = re.findall(r"=([^=]*?)>>", row["answer"])[-1]
        assert Fraction(last) == Fraction(row["answer"].rpartition("#### ")[2])
    assert steps > 180


def test_gsm8k_rows_show_the_solution_without_the_calculators_marks() -> None:
    row = bench("gsm8k").train[0]
    assert "<<" not in row["solution"] and "####" not in row["solution"] and row["answer"] == "65"


@real
def test_gold_numbers_of_all_real_rows_are_read() -> None:
    rows = bench("gsm8k", str(REAL_ROWS))
    assert (len(rows.train), len(rows.test)) == (7473, 1319)
    for row in rows.train + rows.test:
        assert score(gsm8k, row, row["answer"]) == 1.0 == score(gsm8k, row, f"So it is ${row['answer']}.00.")
        assert score(gsm8k, row, row["answer"] + "1") == 0.0


@real
def test_no_train_row_is_a_test_row_with_other_numbers() -> None:
    rows = bench("math", str(REAL_ROWS))

    def masked(row: dict[str, Any]) -> str:
        return " ".join(re.findall(r"[a-z]+|0", re.sub(r"\d[\d.,]*", "0", row["problem"].lower())))

    tests = {masked(row) for row in rows.test}
    assert any(masked(row) in tests for row in rows.train)  # the real data have such rows
    splits = make_splits(rows, 50, 900, 50, 500, 0)
    assert splits.dropped > 0
    assert not [row for row in splits.train + splits.select + splits.check if masked(row) in tests]
