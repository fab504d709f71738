"""Rooms with text answers (gsm8k, math, mathbench, superglue) and a user's own CSV: rows, official scores, samples."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import dspy
import pytest

import run_scaling_experiment as script
from benchmarks import answers, gsm8k, mathbench, own_csv, superglue
from benchmarks import math as math_room
from benchmarks.superglue.data import SUBTASKS
from scaling.data import deal, load_benchmark, shrink
from scaling.llm import gateway as lm
from scaling.types import Benchmark, CellStopped, UsageError
from tests.benchmarks.test_benchmarks import REAL_ROWS, real
from tests.support.files import read
from tests.support.server import ScriptedServer
from tests.test_cli import command, refused  # noqa: F401  (fixtures)

ROOMS = Path(script.__file__).parent / "benchmarks"
TEXT_ROOMS = ("gsm8k", "math", "mathbench", "superglue")


def bench(name: str, source: str = "sample") -> Benchmark:
    return load_benchmark(name, script.BENCHMARK_CONFIG[name], source)


def sample(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOMS / name / "sample.jsonl").read_text().splitlines()]


def score(room: Any, gold: dict[str, Any], answer: str | None) -> float:
    return room.metric(dspy.Example(**gold), dspy.Prediction(answer=answer))


# every room


@pytest.mark.parametrize("name", TEXT_ROOMS)
def test_samples_have_80_rows_that_differ(name: str) -> None:
    rows = sample(name)
    assert len(rows) >= 80
    assert len({json.dumps({k: v for k, v in row.items() if k != "idx"}) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", TEXT_ROOMS)
def test_every_gold_answer_of_the_samples_is_right_and_the_feedback_says_so(name: str) -> None:
    entry = script.BENCHMARK_CONFIG[name]
    for row in bench(name).train:
        gold = dspy.Example(**row)
        assert entry["metric"](gold, dspy.Prediction(answer=row["answer"])) == 1.0, row
        assert entry["feedback"](gold, dspy.Prediction(answer=row["answer"])).startswith("Right")
        assert entry["metric"](gold, dspy.Prediction(answer="zebra")) == 0.0
        said = entry["feedback"](gold, dspy.Prediction(answer="zebra"))
        assert said.startswith("Wrong") and "zebra" in said and row["answer"] in said
        assert entry["metric"](gold, dspy.Prediction(answer=None)) == 0.0


@pytest.mark.parametrize("name", TEXT_ROOMS)
def test_a_cell_of_the_room_runs(experiment: Callable[..., dict[str, Any]], tmp_path: Path, name: str) -> None:
    gold = {row["answer"] for row in bench(name).train}
    record = experiment(benchmark=name)
    assert record["status"] == "ok" and record["n"] == 20 and 0 <= record["final_score"] <= 1
    lines = (tmp_path / "cell" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["gold"] for line in lines} <= gold


PROSE = "I would rather not say. "


@pytest.mark.parametrize(
    ("name", "answer", "kind"),
    [
        ("gsm8k", "no idea", "no_number"),
        ("gsm8k", PROSE * 5000, "no_number"),  # 100 KB
        ("math", PROSE * 5000, "long_answer"),
        ("mathbench", PROSE, "no_option"),
        ("superglue", PROSE * 5000, "no_label"),
        ("humaneval", PROSE * 5000, "missing"),
        ("humaneval", "```python\ndef another():\n    return 1\n```", "missing"),
    ],
)
def test_an_answer_that_is_no_answer_scores_0_with_its_kind(
    experiment: Callable[..., dict[str, Any]],
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    answer: str,
    kind: str,
) -> None:
    if name == "humaneval":  # no such answer gets as far as the sandbox
        monkeypatch.delitem(script.BENCHMARK_CONFIG[name], "needs")
    field = "code" if name == "humaneval" else "answer"
    server.answer = lambda body: f"[[ ## {field} ## ]]\n{answer}\n\n[[ ## completed ## ]]"
    record = experiment(benchmark=name, train_size=3, val_size=6, test_size=6)
    assert record["status"] == "ok" and record["final_score"] == 0.0
    assert record["error_rates"] == {"infrastructure": 0, "parse": 0}
    lines = [json.loads(line) for line in (tmp_path / "cell" / "predictions.jsonl").read_text().splitlines()]
    told = [line["failure_kind"] for line in lines if line["program"] == "final"]
    # Open questions of mathbench have no options: there the answer is merely wrong.
    assert set(told) == ({kind, None} if name == "mathbench" else {kind})
    assert record["failure_kinds"]["final"] == {kind: told.count(kind)}


def test_an_answer_that_is_not_utf_8_is_lost_to_the_infrastructure(
    experiment: Callable[..., dict[str, Any]], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(lm, "_backoff", lambda state: 0.0)
    server.fault = lambda number, body: ("raw", b'{"choices": [{"message": {"content": "\xff\xfe 12"}}]}')
    record = experiment(benchmark="gsm8k")
    assert record["status"] in ("error", "invalid") and record["final_score"] is None
    assert record["error"]["message"]


@pytest.mark.parametrize("name", ["gsm8k", "math", "superglue", "superglue/cb"])
def test_the_hub_is_asked_for_and_its_absence_told(name: str) -> None:
    with pytest.raises(UsageError, match="cannot read '.*' from the Hugging Face hub.*--data sample") as told:
        bench(name, "hub")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", [*TEXT_ROOMS, "superglue/rte"])
def test_a_folder_without_the_room_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder.*--data sample"):
        bench(name, str(tmp_path))


# numbers, GSM8K


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
    dealt = deal(rows, 50, 900, 50, 500, 0)
    assert dealt.dropped > 0
    assert not [row for row in dealt.train + dealt.select + dealt.check if masked(row) in tests]


# MATH


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
    assert score(math_room, {"answer": gold}, answer) == right


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


def test_an_answer_that_takes_too_long_is_wrong_and_the_next_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers.same_maths(r"\frac{1}{4}", "0.25")
    first = answers._process.pid
    monkeypatch.setattr(answers, "PATIENCE", 0.5)
    assert not answers.same_maths("12", "9^{9^{9^{9}}} - 1")
    assert answers._process.poll() is not None
    monkeypatch.undo()
    assert answers.same_maths(r"\frac{1}{4}", "2/8")
    assert answers._process.pid != first


def test_a_judge_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("print('no')")
    answers.same_maths.cache_clear()
    monkeypatch.setattr(answers, "_process", None)
    monkeypatch.setattr(answers, "_JUDGE", tmp_path / "judge.py")
    with pytest.raises(CellStopped, match="math-verify"):
        answers.same_maths(r"\frac{1}{5}", "0.2")


@pytest.mark.parametrize("optimizer", ["none", "gepa"])
def test_a_judge_that_cannot_start_is_no_score_of_0(
    experiment: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimizer: str
) -> None:
    (tmp_path / "judge.py").write_text("")
    answers.same_maths.cache_clear()
    monkeypatch.setattr(answers, "_process", None)
    monkeypatch.setattr(answers, "_JUDGE", tmp_path / "judge.py")
    record = experiment(benchmark="math", optimizer=optimizer)
    assert record["status"] == "error" and "math-verify" in record["error"]["message"]


@real
def test_math_of_the_folder_says_where_its_train_rows_come_from() -> None:
    config = script.BENCHMARK_CONFIG["math"]
    assert load_benchmark("math", config, str(REAL_ROWS)).note == "its train rows come from MATH's test split"
    assert load_benchmark("math", config, "sample").note is None


def test_math_from_the_hub_is_train_of_one_data_set_and_test_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: str, room: Path, hub: dict[str, Any]) -> dict[str, Any]:
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


# MathBench


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


# SuperGLUE


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("True", "true", 1),
        ("True", " TRUE.", 1),
        ("True", "False", 0),
        ("True", "yes", 0),
        ("entailment", "not_entailment", 0),
        ("not_entailment", "Not_Entailment", 1),
        ("choice1", "choice2", 0),
    ],
)
def test_labels_are_compared_without_case(gold: str, answer: str, right: int) -> None:
    assert score(superglue, {"answer": gold}, answer) == right


def test_the_superglue_sample_has_40_rows_of_each_subtask_in_even_shares() -> None:
    rows = bench("superglue").train
    assert Counter(row["subtask"] for row in rows) == dict.fromkeys(SUBTASKS, 40)
    for name in SUBTASKS:
        alone = bench(f"superglue/{name}").train
        assert {row["text"] for row in alone} == {row["text"] for row in rows if row["subtask"] == name}
        labels = Counter(row["answer"] for row in alone)
        assert set(labels) == set(alone[0]["labels"]) and max(labels.values()) - min(labels.values()) <= 4


def test_the_hub_is_asked_for_each_subtask_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: str, room: Path, hub: dict[str, Any]) -> dict[str, Any]:
        rows = [row for row in sample("superglue") if row["subtask"] == hub["name"]]
        names = ["no", "yes"] if hub["name"] == "wic" else None  # the hub's own names win
        return {"train": rows[:30], "test": rows[30:], "revision": "abc", "label_names": names}

    monkeypatch.setattr("benchmarks.superglue.data.read", read)
    loaded = bench("superglue", "hub")
    assert (len(loaded.train), len(loaded.test), loaded.revision) == (180, 60, "abc")
    assert {row["answer"] for row in bench("superglue/wic", "hub").train} == {"no", "yes"}


def test_every_subtask_is_in_words(tmp_path: Path) -> None:
    rows = {
        "cb": {"premise": "It rains.", "hypothesis": "It is dry.", "label": 1},
        "wic": {"word": "bank", "sentence1": "The bank lent.", "sentence2": "A river bank.", "label": 0},
        "wsc.fixed": {"text": "Ann met Eve as she left.", "span1_text": "Ann", "span2_text": "she", "label": 1},
        "copa": {
            "premise": "It broke.",
            "choice1": "It fell.",
            "choice2": "It shone.",
            "question": "cause",
            "label": 0,
        },
        "boolq": {"question": "is it", "passage": "It is.", "label": True},
    }
    for name, row in rows.items():
        folder = tmp_path / "superglue" / name
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text(json.dumps(row))
        (folder / "validation.jsonl").write_text(json.dumps(row))
    loaded = {row["subtask"]: row for row in bench("superglue", str(tmp_path)).test}
    assert {name: row["answer"] for name, row in loaded.items()} == {
        "cb": "contradiction", "wic": "False", "wsc.fixed": "True", "copa": "choice1", "boolq": "True",
    }  # fmt: skip
    assert loaded["copa"]["text"].splitlines()[3:] == [
        "Which choice is the likelier cause of the premise?",
        "Answer with one of: choice1, choice2.",
    ]
    assert "'she' stand for 'Ann'" in loaded["wsc.fixed"]["text"] and "'bank'" in loaded["wic"]["text"]


def test_rows_whose_label_is_secret_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "superglue" / "boolq"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(json.dumps({"question": "is it", "passage": "It is.", "label": -1}))
    with pytest.raises(UsageError, match="superglue/boolq.*-1"):
        bench("superglue/boolq", str(tmp_path))


@real
def test_passages_and_premises_are_on_one_side_of_every_split() -> None:
    boolq = bench("superglue/boolq", str(REAL_ROWS))
    assert len(boolq.test) == 3270 and len({row["group"] for row in boolq.test}) == 2939
    rte = bench("superglue/rte", str(REAL_ROWS))
    dealt = deal(rte, 50, 2000, 50, 277, 0)
    premises = [{row["text"].splitlines()[0] for row in part} for part in (dealt.train, dealt.select + dealt.check)]
    assert dealt.dropped > 0
    assert not premises[0] & premises[1]
    assert not (premises[0] | premises[1]) & {row["text"].splitlines()[0] for row in rte.test}
    assert {row["subtask"] for row in bench("superglue", str(REAL_ROWS)).test} == {"boolq", "rte"}


# a user's own CSV


def write_csv(path: Path, count: int = 60, header: str = "ID,Question,ANSWER") -> Path:
    lines = [f'q{i},"what, in words, is {i} + {i}?",{2 * i}' for i in range(count)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("1200", "$1,200.00", 1),
        ("50%", "50", 1),
        ("New York", "new  york.", 1),
        ("12", "twelve", 0),
        ("12", "12 or 13", 0),
        ("12 apples", "12", 0),
    ],
)
def test_own_answers_are_compared_as_numbers_or_words(gold: str, answer: str, right: int) -> None:
    assert score(own_csv, {"answer": gold}, answer) == right


@pytest.mark.parametrize(
    ("count", "sizes"), [(12, (3, 3, 6)), (60, (15, 15, 30)), (400, (50, 100, 200)), (1200, (50, 100, 500))]
)
def test_seeds_come_from_the_number_of_rows(tmp_path: Path, count: int, sizes: tuple[int, int, int]) -> None:
    entry = own_csv.entry(write_csv(tmp_path / "mine.csv", count))
    assert tuple(len(entry[part]) for part in ("train_seeds", "val_seeds", "test_seeds")) == sizes
    loaded = load_benchmark("mine", entry, "hub")
    assert loaded.source == str(tmp_path / "mine.csv")
    assert {row["id"] for row in loaded.train + loaded.test} == {f"q{i}" for i in range(count)}
    assert shrink(loaded, 50, 100, 500)[2] == sizes[2]


def test_a_csv_is_a_benchmark_by_its_path(
    command: Callable[..., list[str]],  # noqa: F811
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(script, "BENCHMARK_CONFIG", dict(script.BENCHMARK_CONFIG))
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "my sums.csv")
    line = command(benchmarks=None, data="hub")

    assert script.main([*line, "--benchmarks", "data/my sums.csv"]) == 0
    assert server.calls == 20
    record = read(tmp_path / "out" / "my sums" / "1step" / "none" / "openai-scripted" / "run0" / "results.json")
    assert record["status"] == "ok" and record["cell"]["benchmark"] == "my sums"
    assert record["data"]["source"] == "data/my sums.csv" and not record["sample"]
    capsys.readouterr()
    assert script.main([*line, "--benchmarks", "data/my sums.csv"]) == 0  # the same command finds its cell settled
    assert server.calls == 20


BAD_FILES = [
    (b"", "empty"),
    (b"prompt,target\na,b\n", "no column 'question'; its columns are prompt, target"),
    (b"question,Question,answer\na,b,c\n", "more than one column 'question'"),
    (b"question,answer\nna\xefve?,yes\n", "not UTF-8"),
    (b"question,answer\na,1\nb,2\n", "2 rows; at least 12"),
    (b"question,answer\n" + b"a,1\n" * 20 + b"b\n", "row 21 has no answer"),
    (b"question,answer\na," + b"x" * 200_000 + b"\n", "not CSV"),
    (None, "cannot read"),
]


@pytest.mark.parametrize(("content", "says"), BAD_FILES, ids=[says for _, says in BAD_FILES])
def test_a_csv_that_cannot_be_used_is_refused(
    command: Callable[..., list[str]],  # noqa: F811
    refused: Callable[[list[str]], str],  # noqa: F811
    tmp_path: Path,
    content: bytes | None,
    says: str,
) -> None:
    if content is not None:
        (tmp_path / "mine.csv").write_bytes(content)
    said = refused(command(benchmarks="mine.csv"))
    assert "mine.csv" in said and says in said


@pytest.mark.parametrize("names", ["banking77.csv", "a/mine.csv b/mine.csv"])
def test_a_csv_with_the_name_of_another_benchmark_is_refused(
    command: Callable[..., list[str]],  # noqa: F811
    refused: Callable[[list[str]], str],  # noqa: F811
    tmp_path: Path,
    names: str,
) -> None:
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_csv(tmp_path / name)
    assert "another benchmark called" in refused(command(benchmarks=names))
