"""HumanEval: write a Python function from its head and docstring.

Data: openai/openai_humaneval (Chen et al. 2021, arXiv 2107.03374), MIT; 164 problems in one split, published as
`test`: a single pool, split into train, val and test, so that sizes are maxima.
Sample: 30 small problems with solutions and tests, written for this project.
Metric: pass@1 of the one answer: the hidden tests pass in the sandbox (scaling/sandbox/; 10 s and 512 MB each). The
program is taken out of the answer there as well.
Feedback names the kind of failure and the error; hidden tests are never shown. `execution_feedback` runs the
docstring's own examples and nothing else.

`python -m benchmarks.humaneval [sample|hub|DIR]` runs all canonical solutions through the sandbox: 164 of 164 pass
(Deno 2.9.8, Pyodide 0.29.4).
"""

from __future__ import annotations

from pathlib import Path

import dspy

from benchmarks.humaneval.data import load
from benchmarks.humaneval.examples import examples, examples_check
from scaling.sandbox.deno import require
from scaling.sandbox.programs import Verdict, run_checks

PROGRAM_OF = Path(__file__).with_name("program.py").read_text(encoding="utf-8")
READER = """{source}
def read(answer):
    return program_of(answer, {prompt!r}, {entry_point!r})
"""
REASONS = {
    "missing": "no function of that name was found in the answer; answer with the whole function, in plain Python",
    "syntax": "the code is not valid Python",
    "error": "the function raised an error",
    "wrong": "the function runs, but an answer of it is not right",
    "time": "the function did not end in time",
    "memory": "the function took too much memory",
    "disk": "the program wrote too much to disk",
    "crash": "the program left the sandbox without an answer",
}


class HumanEval(dspy.Signature):
    """Complete the Python function. Answer with the whole function, its imports included, and no text around it."""

    prompt: str = dspy.InputField(desc="the function's head with its docstring")
    code: str = dspy.OutputField(desc="the whole function in Python")


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 when the hidden tests pass in the sandbox, else 0.0. Raises CellStopped where there is none."""
    return float(_verdict(gold, pred, gold.tests).passed)


def failure_kind(gold: dspy.Example, pred: dspy.Prediction) -> str | None:
    """A word of REASONS, as the sandbox or the extraction of the code ended."""
    return _verdict(gold, pred, gold.tests).kind


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """How the program failed on the hidden tests, with its own error and none of theirs."""
    verdict = _verdict(gold, pred, gold.tests)
    if verdict.passed:
        return "Right: all hidden tests pass."
    own_error = f" ({verdict.detail})" if verdict.kind == "error" else ""
    return f"Wrong: {REASONS[str(verdict.kind)]}{own_error}."


def execution_feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What happens when the docstring's own examples are run; the hidden tests never are."""
    shown = examples(gold.prompt, gold.entry_point)
    if not shown:
        return "The docstring has no examples that can be run."
    verdict = _verdict(gold, pred, examples_check(shown))
    if verdict.passed:
        return f"All {len(shown)} examples of the docstring come out right."
    return f"The docstring's examples fail: {REASONS[str(verdict.kind)]} ({verdict.detail})."


def _verdict(gold: dspy.Example, pred: dspy.Prediction, checks: str) -> Verdict:
    answer = str(getattr(pred, "code", None) or "")
    if not any(word in answer for word in (gold.entry_point, "return", "yield")):
        return Verdict(False, "missing", f"no function {gold.entry_point}")  # no sandbox is needed to see that
    reader = READER.format(source=PROGRAM_OF, prompt=gold.prompt, entry_point=gold.entry_point)
    return run_checks(answer, checks, gold.entry_point, prelude=f"{gold.prompt}\n    pass\n", reader=reader)


CONFIG = {
    "signature": HumanEval,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "failure_kind": failure_kind,
    "execution_feedback": execution_feedback,
    "needs": require,
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "task_class": "code",
    "licence": "MIT",
    "roles": {
        "parser": "List what goes in, what comes out, and every rule and example that the docstring states.",
        "contextualizer": "Name the edge cases: empty input, ties, negative numbers, order, repeated items.",
        "analyzer": "Name the algorithm that fits and the edge cases that a careless version gets wrong.",
        "reasoner": "Walk through one example of the docstring, step by step, as the function would.",
        "synthesizer": "Give the plan of the function in a few lines of plain words, edge cases included.",
    },
}
