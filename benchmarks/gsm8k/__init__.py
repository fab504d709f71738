"""GSM8K: word problems of primary school that take two to eight steps of arithmetic.

Data: openai/gsm8k, configuration `main` (Cobbe et al. 2021, arXiv 2110.14168), MIT; 7,473 train and
1,319 test problems. A train problem that is a test problem with other numbers would never reach the
optimizer (`mask_digits`); the published files hold none.
Sample: 84 problems written for this project, their arithmetic checked by a test.
Metric: accuracy. The number after `####`, else the last number of the answer, is compared with the
gold one as a number: commas, signs of money, units, a full stop and a trailing `.0` do not count.
"""

from fractions import Fraction

import dspy

from benchmarks.answers import numbers_in
from benchmarks.gsm8k.data import load


class GSM8K(dspy.Signature):
    """Solve the word problem. Answer with the final number and nothing else."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the final number, without unit")


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 when the final numbers are equal, else 0.0; an answer without a number is wrong."""
    given = final_number(str(getattr(pred, "answer", None)))
    return float(given is not None and given == final_number(gold.answer))


def final_number(text: str) -> Fraction | None:
    """The number after `####`, else the last of the text, as a Fraction; None without one."""
    after = numbers_in(text.rpartition("####")[2]) if "####" in text else []
    return next(iter(after or numbers_in(text)[-1:]), None)


def failure_kind(gold: dspy.Example, pred: dspy.Prediction) -> str | None:
    """`no_number` for an answer without one."""
    return None if final_number(str(getattr(pred, "answer", None))) is not None else "no_number"


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, with the worked solution."""
    if metric(gold, pred):
        return f"Right: the answer is {gold.answer}."
    solution = gold.get("solution", "")
    way = f" A way to it: {solution}" if solution else ""
    return f"Wrong: the answer was '{getattr(pred, 'answer', None)}', the right answer is {gold.answer}.{way}"


CONFIG = {
    "signature": GSM8K,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "failure_kind": failure_kind,
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "match_fields": ("question",),
    "mask_digits": True,
    "task_class": "reasoning",
    "licence": "MIT",
    "roles": {
        "parser": "List every quantity in the problem with its unit and what it belongs to, and what is asked.",
        "contextualizer": "Say how the quantities hang together: which are added, shared, repeated, or per something.",
        "analyzer": "Name what is asked, the quantities that matter, and those that do not.",
        "reasoner": "Work the problem out step by step, one calculation a line.",
        "synthesizer": "Check each calculation, and state the number that answers the question asked.",
    },
}
