"""The function that a HumanEval answer holds is found in it, in whatever form it comes."""

from __future__ import annotations

import os

import dspy
import pytest

from benchmarks import humaneval
from benchmarks.humaneval.examples import examples
from benchmarks.humaneval.program import program_of
from scaling.sandbox import deno
from scaling.sandbox.programs import run_checks


def test_an_answer_without_the_function_scores_nothing_with_feedback() -> None:
    gold = dspy.Example(**humaneval.load("sample")["train"][0])
    for answer in ("I cannot do that.", "def other(): pass", "", None):
        assert humaneval.metric(gold, dspy.Prediction(code=answer)) == 0.0
        assert "no function of that name" in humaneval.feedback(gold, dspy.Prediction(code=answer))


HEAD = 'import math\n\n\ndef area(r: float) -> float:\n    """Area.\n    >>> area(0)\n    0.0\n    """\n'


@pytest.mark.parametrize(
    "answer",
    [
        "def area(r):\n    return math.pi * r * r",
        "```python\nimport math\n\ndef area(r):\n    return math.pi * r * r\n```",
        "Here it is:\n\n```\ndef area(r):\n    return math.pi * r * r\n```\nIt squares r.",
        "Sure, the function is\n\ndef area(r):\n    return math.pi * r * r\n\nI hope that helps!",
        "    return math.pi * r * r",
        "return math.pi * r * r",
        "square = r * r\nreturn math.pi * square",
        "First helper:\n```python\ndef square(x):\n    return x * x\n```\nthen\n"
        "```python\ndef area(r):\n    return math.pi * square(r)\n```\nTry it:\n```\n$ python area.py\n```",
    ],
)
def test_the_function_is_found_in_an_answer(answer: str) -> None:
    code = program_of(answer, HEAD, "area")
    names: dict = {}
    exec(code, names)
    assert names["area"](2) == pytest.approx(12.566, abs=0.001)
    assert examples(HEAD, "area") == [("area(0)", "0.0")]


@pytest.mark.parametrize("answer", ["Sorry.", "sorry", "area", "def circle(r):\n    return r", "```\n\n```", ""])
def test_no_function_is_found_where_there_is_none(answer: str) -> None:
    assert program_of(answer, HEAD, "area") is None


# Answers that take minutes to parse, or that end the process that does.
HOSTILE = {
    "many beginnings": "a = 1\n" * 1000 + "b: (\n" * 900 + "def area(r):\n",
    "many errors": "a = (\n" * 1900 + "def area(r):\n    return 1\n" + "b = )\n" * 90,
    "brackets": "def area(r):\n    return " + "(" * 100_000,
    "signs": "def area(r):\n    return " + "-" * 100_000 + "1",
    "a long sum": "def area(r):\n    return " + "1+" * 50_000 + "1",
    "fences": "```\n" * 25_000 + "def area(r):\n    return 1",
}


@pytest.mark.skipif(not deno.available(), reason="no Deno with Pyodide here: python -m scaling.sandbox")
@pytest.mark.parametrize("name", HOSTILE if os.environ.get("CHAOS") else ["many beginnings"])
def test_an_answer_that_cannot_be_parsed_in_time_is_given_up_in_the_sandbox(name: str) -> None:
    reader = humaneval.READER.format(source=humaneval.PROGRAM_OF, prompt=HEAD, entry_point="area")
    checks = "def check(candidate):\n    assert candidate(2) > 12\n"
    verdict = run_checks(HOSTILE[name], checks, "area", prelude=f"{HEAD}\n    pass\n", reader=reader, seconds=2.0)
    assert not verdict.passed
    assert verdict.kind in ("time", "memory", "crash", "missing", "error", "wrong"), verdict
    assert verdict.kind == "time" or name != "many beginnings"
