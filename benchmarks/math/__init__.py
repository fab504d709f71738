r"""MATH: problems of mathematics competitions, with answers in LaTeX.

Data: hendrycks/competition_math (Hendrycks et al. 2021, arXiv 2103.03874), MIT. From the hub: test is
HuggingFaceH4/MATH-500 (500 rows of MATH's test split), train the 7,500 train rows as mirrored in
DigitalLearningGmbH/MATH-lighteval. From a folder: problem, level, type, solution; the rows that come with
this project's mirror have no train split, so their train rows are taken from MATH's test split (`note`).
Rows are compared with their digits masked, and those that match a test row never reach the optimizer.
Sample: 84 problems written for this project.
Metric: accuracy. Gold is the last \boxed of the solution (MATH-500 has it in `answer`). An answer is
right when its normalised LaTeX is the gold one's, or math-verify finds them equal.
"""

import dspy

from benchmarks.answers import LONGEST, boxed, same_maths
from benchmarks.math.data import load


class Math(dspy.Signature):
    """Solve the competition problem. Answer with the final result in LaTeX and nothing else."""

    problem: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the final result, in LaTeX")


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 when the answer equals the gold one, else 0.0."""
    answer = getattr(pred, "answer", None)
    return float(answer is not None and same_maths(gold.answer, str(answer)))


def failure_kind(gold: dspy.Example, pred: dspy.Prediction) -> str | None:
    """`no_answer` for an empty one, `long_answer` for one that is longer than a final result (it is not judged)."""
    answer = str(getattr(pred, "answer", None) or "").strip()
    inner = boxed(answer) or answer
    return "no_answer" if not inner else "long_answer" if len(inner) > LONGEST else None


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, with the worked solution."""
    if metric(gold, pred):
        return f"Right: the answer is {gold.answer}."
    solution = gold.get("solution", "")
    way = f" A way to it: {solution}" if solution else ""
    return f"Wrong: the answer was '{getattr(pred, 'answer', None)}', the right answer is {gold.answer}.{way}"


CONFIG = {
    "signature": Math,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "failure_kind": failure_kind,
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "stratify": "level",
    "match_fields": ("problem",),
    "mask_digits": True,
    "task_class": "reasoning",
    "licence": "MIT",
    # Of the rows in a folder, as this project's mirror has them; the hub's train rows are MATH's own.
    "roles": {
        "parser": "Write down what is given, what is asked, and in which form the answer is wanted.",
        "contextualizer": "Name the theorem, identity or method that fits the problem, and why.",
        "analyzer": "Say what kind of problem it is and which method leads to the answer.",
        "reasoner": "Work the problem out step by step, one line a step.",
        "synthesizer": "Check the steps on a simple case, and state the result in the form asked for.",
    },
}
