"""An answer of any length and shape is read in bounded time, and is a score: it neither hangs nor ends a sweep."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any, Literal

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import example, given, settings

import run_scaling_experiment as script
from benchmarks import gsm8k, hotpotqa, mathbench, own_csv, superglue, toolqa
from benchmarks import math as math_benchmark
from benchmarks.toolqa.tables import open_tables
from benchmarks.toolqa.tools import SAMPLE, calculate, look_up
from scaling.llm.adapters import make_adapter
from scaling.models import Model
from tests.support.benchmarks import bench
from tests.support.hostile import hostile_texts, within

# Each takes up to a second: many of them in `make chaos`.
EXAMPLES = 200 if os.environ.get("CHAOS") else 12
TABLES = open_tables(SAMPLE)
TEXT_BENCHMARKS = {
    "gsm8k": gsm8k, "math": math_benchmark, "mathbench": mathbench, "superglue": superglue, "toolqa": toolqa,
    "hotpotqa": hotpotqa,
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_BENCHMARKS)
@settings(max_examples=EXAMPLES)
@given(answer=hostile_texts())
@example(answer="1" * 5000)
@example(answer="#### " + "1" * 100_000)
@example(answer="1" * 12_000 + "x")
def test_any_answer_has_a_score_and_feedback(name: str, answer: str) -> None:
    package, rows = TEXT_BENCHMARKS[name], bench(name).train
    gold, pred = dspy.Example(**rows[0]), dspy.Prediction(answer=answer)
    with within(60):
        assert 0.0 <= package.metric(gold, pred) <= 1.0
        assert package.feedback(gold, pred)
        failure_kind = script.BENCHMARK_CONFIG[name].get("failure_kind")
        assert failure_kind is None or failure_kind(gold, pred) is None or isinstance(failure_kind(gold, pred), str)


@pytest.mark.parametrize("right", ["12", "1" * 5000, "the year 12"])
@settings(max_examples=EXAMPLES)
@given(answer=hostile_texts())
def test_any_answer_to_an_own_question_has_a_score(right: str, answer: str) -> None:
    with within(60):
        assert own_csv.metric(dspy.Example(answer=right), dspy.Prediction(answer=answer)) in (0.0, 1.0)
        assert own_csv.metric(dspy.Example(answer=right), dspy.Prediction(answer=right)) == 1.0


def test_a_number_of_any_length_is_a_number() -> None:
    long = "9" * 5000
    assert gsm8k.metric(dspy.Example(answer=f"#### {long}"), dspy.Prediction(answer=f"It is {long}.")) == 1.0
    assert gsm8k.metric(dspy.Example(answer="5"), dspy.Prediction(answer=f"5 or {long}")) == 0.0


@settings(max_examples=EXAMPLES)
@given(text=hostile_texts())
@example(text="round(1, -999999999)")
@example(text="round(1, 10 ** 9)")
@example(text="~" * 900)
@example(text=" " * 999 + "a")
@example(text=";a" * 400)
def test_tools_answer_whatever_they_are_asked(text: str) -> None:
    with within(60):
        assert isinstance(calculate(text), str)
        for asked in ({"where": text}, {"columns": text}, {"where": f"name = {text[:900]}"}, {"answer": text}):
            assert isinstance(look_up(TABLES, "staff", **asked), str)
        assert len(look_up(TABLES, text)) < 1000


SIGNATURES = {"text": str, "label": Literal["refund", "support"], "arguments": dict[str, Any], "number": float}


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize("kind", SIGNATURES)
@settings(max_examples=EXAMPLES)
@given(answer=hostile_texts())
def test_any_answer_is_parsed_or_cannot_be_parsed(adapter: str, kind: str, answer: str) -> None:
    signature = dspy.Signature("question: str -> answer: str").with_updated_fields("answer", type_=SIGNATURES[kind])
    parser = make_adapter(Model(id="m", route="m", adapter=adapter))
    text = answer if adapter == "json" else f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"
    with within(60), suppress(AdapterParseError):
        assert set(parser.parse(signature, text)) == {"answer"}


def test_a_long_text_is_read_whole_and_a_failed_one_is_kept_short() -> None:
    signature = dspy.Signature("question: str -> answer: str")
    parser = make_adapter(Model(id="m", route="m"))
    text = "word " * 20_000
    assert parser.parse(signature, f"[[ ## answer ## ]]\n{text}")["answer"] == text.strip()
    by_json = make_adapter(Model(id="m", route="m", adapter="json"))
    assert by_json.parse(signature, json.dumps({"answer": text}))["answer"] == text
    with pytest.raises(AdapterParseError) as failed:
        parser.parse(signature, "x" * 1_000_000)
    assert len(str(failed.value)) < 500_000
