"""MATH: answers that are equal, the judge that says so, and the rows."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from benchmarks import answers
from benchmarks import math as math_benchmark
from scaling.data import load_benchmark
from scaling.types import CellStopped
from tests.support.benchmarks import REAL_ROWS, bench, real, sample, score


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"so $x=\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{1}, no: \boxed{\{2, 3\}}", r"\{2, 3\}"),
        (r"\fbox{7}", "7"),
        (r"thus \boxed 2$.", "2"),
        (r"\boxed{never closed", None),
        ("nothing", None),
    ],
)
def test_the_last_box_is_the_answer(text: str, inside: str | None) -> None:
    assert answers.boxed(text) == inside


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (r"\frac{1}{2}", "0.5", 1),
        (r"\frac{1}{2}", r"$\dfrac12$", 1),
        (r"\frac{1}{2}", "1/2", 1),
        (r"\frac{1}{2}", r"The answer is $\boxed{\tfrac{2}{4}}$.", 1),
        (r"6\sqrt{2}", r"\sqrt{72}", 1),
        (r"7\sqrt{2}", "7 sqrt(2)", 1),
        (r"81\pi", r"81 pi", 1),
        ("(x-8)(x+3)", "(x+3)(x-8)", 1),
        ("(-2,5)", r"\left( -2, 5 \right)", 1),
        (r"60^\circ", "60", 1),
        (r"\$4.50", "4.5", 1),
        ("1000", "1,000", 1),
        ("y=3", "3", 1),
        ("5", "So x = 5.", 1),
        (r"\text{odd}", "Odd", 1),
        (r"\text{(C)}", "C", 1),
        ("(-2,5)", "(-2,4)", 0),
        ("(2,5)", "(5,2)", 0),
        ("[1,2)", "(1,2)", 0),
        (r"\begin{pmatrix} 3 \\ 7 \end{pmatrix}", r"\begin{pmatrix} 7 \\ 3 \end{pmatrix}", 0),
        (r"\text{odd}", "even", 0),
        ("C", "D", 0),
        ("12", "about 12 or 13", 0),
        ("3", "", 0),
        ("3", r"\frac{3}{", 0),
        ("3", "1" * 5000, 0),
    ],
)
def test_math_answers_are_right_when_equal(gold: str, answer: str, right: int) -> None:
    assert score(math_benchmark, {"answer": gold}, answer) == right


@real
def test_gold_of_every_math_row_is_right_against_itself_and_wrong_against_the_next() -> None:
    rows = bench("math", str(REAL_ROWS))
    gold = [row["answer"] for row in rows.train + rows.test]
    assert len(gold) == 2000 and all(gold)
    gold = gold if os.environ.get("CHAOS") else gold[::5]  # all of them in `make chaos`
    for one, other in zip(gold, gold[1:] + gold[:1], strict=True):
        assert answers.same_maths(one, f"$\\boxed{{{one}}}$.")
        if answers.normalise_latex(one) != answers.normalise_latex(other):
            assert not answers.same_maths(one, other), (one, other)


def test_answers_are_judged_from_threads() -> None:
    found: dict[int, bool] = {}

    def ask(n: int) -> None:
        found[n] = answers.same_maths(f"\\frac{{{n}}}{{7}}", f"{2 * n}/14")

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(100, 120)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(100, 120), True)


def test_an_answer_that_takes_too_long_is_wrong_and_the_next_is_judged() -> None:
    judge = answers.Judge()
    assert judge.equal(r"\frac{1}{4}", "0.25")
    first, judge.patience = judge.process, 0.5
    assert not judge.equal("12", "9^{9^{9^{9}}} - 1")
    assert first.poll() is not None
    judge.patience = answers.PATIENCE
    assert judge.equal(r"\frac{1}{4}", "2/8")
    assert judge.process is not first
    judge.process.kill()


@pytest.mark.parametrize("optimizer", ["none", "gepa"])
def test_a_judge_that_cannot_start_is_told_and_is_no_score_of_0(
    experiment: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimizer: str
) -> None:
    (tmp_path / "judge.py").write_text("print('no')" if optimizer == "none" else "")
    monkeypatch.setattr(answers, "judge", answers.Judge(tmp_path / "judge.py"))
    with pytest.raises(CellStopped, match="math-verify"):
        answers.same_maths(r"\frac{1}{5}", "0.2")
    record = experiment(benchmark="math", optimizer=optimizer)
    assert record["status"] == "error" and "math-verify" in record["error"]["message"]


@real
def test_math_of_the_folder_says_where_its_train_rows_come_from() -> None:
    config = script.BENCHMARK_CONFIG["math"]
    assert load_benchmark("math", config, str(REAL_ROWS)).note == "its train rows come from MATH's test split"
    assert load_benchmark("math", config, "sample").note is None


def test_math_from_the_hub_is_train_of_one_data_set_and_test_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: str, package: Path, hub: dict[str, Any]) -> dict[str, Any]:
        rows = [row | {"problem": f"{hub['path']} {row['problem']}"} for row in sample("math")]
        return {"train": rows, "test": None, "revision": hub["path"][:3], "label_names": None}

    monkeypatch.setattr("benchmarks.math.data.read", read)
    loaded = bench("math", "hub")
    assert all(row["problem"].startswith("DigitalLearningGmbH/MATH-lighteval ") for row in loaded.train)
    assert all(row["problem"].startswith("HuggingFaceH4/MATH-500 ") for row in loaded.test)
    assert loaded.revision == "train Dig, test Hug"


def test_rows_of_math_500_have_their_own_answer(tmp_path: Path) -> None:
    row = {"problem": "2+2?", "solution": "It is \\boxed{4}.", "answer": "4", "subject": "Algebra", "level": 2}
    old = {"problem": "2+3?", "solution": "It is \\boxed{5}.", "type": "Algebra", "level": "Level 1"}
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "train.jsonl").write_text(json.dumps(old))
    (tmp_path / "math" / "test.jsonl").write_text(json.dumps(row))
    loaded = bench("math", str(tmp_path))
    assert [(r["answer"], r["level"], r["type"]) for r in loaded.train + loaded.test] == [
        ("5", "Level 1", "Algebra"),
        ("4", "Level 2", "Algebra"),
    ]
