"""The benchmarks: their rows in clear words, their official scores, and splits that are the same everywhere."""

from __future__ import annotations

from collections import Counter

import dspy
import pytest

from benchmarks import heartdisease, hotpotqa
from benchmarks.heartdisease.data import in_words
from run_scaling_experiment import BENCHMARK_CONFIG
from scaling.data import load_benchmark, make_splits, shrink
from tests.support.benchmarks import REAL_ROWS, real

# (source, benchmark) -> first digits of the splits of run 0, of run 1, and of the test rows; the same on every machine.
DIGESTS = {
    ("sample", "banking77"): ("74824e79", "e09060f8", "fc567e42"),
    ("sample", "heartdisease"): ("f32ef484", "8776724d", "1c123fd1"),
    ("sample", "hotpotqa"): ("86cc0037", "ac9df17a", "8516f60f"),
    ("sample", "humaneval"): ("40d56689", "07b6b7c9", "54610b68"),
    ("sample", "toolqa"): ("9bfd8e77", "fbc4460c", "6f2554f9"),
    ("real", "banking77"): ("fcaf4726", "9cfaa90a", "5f6fdf51"),
    ("real", "heartdisease"): ("66bfb5f2", "83ccc4b5", "e07c4a00"),
    ("real", "hotpotqa"): ("0455128f", "77036acb", "6998d1b0"),
    ("sample", "gsm8k"): ("37c9afd0", "df70b344", "b4ebbeec"),
    ("sample", "math"): ("afe0ccb9", "4f5b5c2c", "a2cad216"),
    ("sample", "mathbench"): ("7f2571db", "5bedc2a3", "10bedd1e"),
    ("sample", "superglue"): ("93ca9929", "22bfe9cd", "2a2943cb"),
    ("sample", "superglue/boolq"): ("105c353a", "b034ef96", "4d0d3e5f"),
    ("sample", "superglue/cb"): ("0ae3f2e8", "0f027d30", "2ab6434d"),
    ("sample", "superglue/copa"): ("51f9ab7e", "9fd90eed", "80fcbe52"),
    ("sample", "superglue/rte"): ("4e081421", "82621166", "46768e1b"),
    ("sample", "superglue/wic"): ("9513e264", "b5498578", "bc9bb548"),
    ("sample", "superglue/wsc.fixed"): ("6fb577f5", "ca39a200", "3d940dc5"),
    ("real", "gsm8k"): ("833a538c", "e67ec052", "4370aa36"),
    ("real", "math"): ("9c98d402", "4d37d660", "de7c58f3"),
    ("real", "superglue"): ("12211a51", "c9ded710", "713dad79"),
    ("real", "superglue/boolq"): ("ef9ba769", "b7361a84", "7c9c5b22"),
    ("real", "superglue/rte"): ("388a4b1d", "f141ce44", "724608c2"),
    ("real", "humaneval"): ("0fa19d44", "652e2595", "a5e30c76"),
    ("real", "toolqa"): ("55dba88c", "0bf59ff4", "39165433"),
}
# Every other benchmark must have its digests above.
WITHOUT_REAL_ROWS = {"mathbench", "superglue/cb", "superglue/copa", "superglue/wic", "superglue/wsc.fixed"}


@pytest.mark.parametrize(("source", "name"), [("sample", n) for n in BENCHMARK_CONFIG])
def test_deals_of_the_samples_are_pinned(source: str, name: str) -> None:
    assert digests(source, name) == DIGESTS[source, name]


@real
@pytest.mark.parametrize("name", [n for n in BENCHMARK_CONFIG if n not in WITHOUT_REAL_ROWS])
def test_deals_of_real_rows_are_pinned(name: str) -> None:
    assert digests(str(REAL_ROWS), name) == DIGESTS["real", name]


def digests(source: str, name: str) -> tuple[str, str, str]:
    config = BENCHMARK_CONFIG[name]
    # The published tables of a benchmark with tools are not here.
    bench = load_benchmark(name, config, source, closed_book="tools" in config and source != "sample")
    train, val, test = shrink(bench, 50, 100, 500)
    first, second = (make_splits(bench, train, val, val // 2, test, run) for run in (0, 1))
    assert first.test_sha256 == second.test_sha256
    return first.sha256[:8], second.sha256[:8], first.test_sha256[:8]


def test_samples_are_as_large_as_promised() -> None:
    banking = load_benchmark("banking77", BENCHMARK_CONFIG["banking77"], "sample")
    counts = Counter(row["intent"] for row in banking.train)
    assert len(counts) >= 8 and min(counts.values()) >= 25
    assert len(load_benchmark("heartdisease", BENCHMARK_CONFIG["heartdisease"], "sample").train) >= 150
    hotpot = load_benchmark("hotpotqa", BENCHMARK_CONFIG["hotpotqa"], "sample").train
    assert len(hotpot) >= 80
    assert max(Counter(row["group"] for row in hotpot).values()) == 3  # questions over the same facts
    assert len(load_benchmark("humaneval", BENCHMARK_CONFIG["humaneval"], "sample").train) >= 24
    assert len(load_benchmark("toolqa", BENCHMARK_CONFIG["toolqa"], "sample").train) >= 80


@real
def test_no_train_row_nearly_repeats_a_test_row_of_banking77() -> None:
    bench = load_benchmark("banking77", BENCHMARK_CONFIG["banking77"], str(REAL_ROWS))
    splits = make_splits(bench, 50, 100, 50, 500, 0)
    assert splits.dropped > 0  # the real data have such rows
    tests = [frozenset(row["text"].lower().split()) for row in bench.test]
    for row in splits.train + splits.select + splits.check:
        tokens = frozenset(row["text"].lower().split())
        assert all(len(tokens & other) < len(tokens | other) for other in tests)


@real
def test_labels_of_real_rows_are_names() -> None:
    bench = load_benchmark("banking77", BENCHMARK_CONFIG["banking77"], str(REAL_ROWS))
    assert len({row["intent"] for row in bench.test}) == 77
    assert "card_arrival" in {row["intent"] for row in bench.test}


def test_heart_records_are_in_words_and_never_show_the_answer() -> None:
    raw = {"age": 63, "sex": 1, "cp": 1, "trestbps": 145, "chol": None, "fbs": 1, "restecg": 2, "thalach": 150,
           "exang": 0, "oldpeak": 2.3, "slope": 3, "ca": "", "thal": "fixed", "target": 0, "num": 4}  # fmt: skip
    text = in_words(raw)
    assert "Age: 63 years." in text and "Resting blood pressure: 145 mm Hg." in text
    assert "Cholesterol: unknown." in text and "fluoroscopy: unknown." in text
    assert "fixed defect" in text
    assert in_words(raw | {"num": 0, "target": 1}) == text
    for row in heartdisease.CONFIG["loader"](source="sample")["train"]:
        assert set(row) == {"record", "diagnosis"}


@pytest.mark.parametrize(
    ("gold", "answer", "f1", "exact"),
    [
        ("The Eiffel Tower", "eiffel tower", 1.0, 1.0),
        ("Paris, France", "paris", 2 / 3, 0.0),
        ("yes", "yes, they are", 0.0, 0.0),
        ("no", "No.", 1.0, 1.0),
        ("1,024 metres", "1024 metres", 1.0, 1.0),
        ("a b b", "b b b", 0.8, 0.0),
        ("Oslo", None, 0.0, 0.0),
    ],
)
def test_hotpotqa_scores_as_the_official_script(gold: str, answer: str | None, f1: float, exact: float) -> None:
    example, prediction = dspy.Example(answer=gold), dspy.Prediction(answer=answer)
    assert hotpotqa.metric(example, prediction) == pytest.approx(f1)
    assert hotpotqa.exact_match(example, prediction) == exact


@real
def test_every_gold_answer_is_right_against_itself() -> None:
    for row in load_benchmark("hotpotqa", BENCHMARK_CONFIG["hotpotqa"], str(REAL_ROWS)).test:
        example, prediction = dspy.Example(**row), dspy.Prediction(answer=row["answer"])
        assert hotpotqa.metric(example, prediction) == hotpotqa.exact_match(example, prediction) == 1.0
        assert all(title in row["context"] for title in row["titles"])


def test_feedback_says_what_is_right() -> None:
    for name, gold, wrong in (("banking77", "age_limit", "change_pin"), ("heartdisease", "disease", "no disease")):
        field = BENCHMARK_CONFIG[name]["label_field"]
        said = BENCHMARK_CONFIG[name]["feedback"](dspy.Example(**{field: gold}), dspy.Prediction(**{field: wrong}))
        assert gold in said and wrong in said and said.startswith("Wrong")
