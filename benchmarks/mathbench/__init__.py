"""MathBench: mathematics from primary school to college, half with four options, half open.

Data: open-compass/MathBench (Liu et al. 2024, arXiv 2405.12209), Apache-2.0. Its questions are on no hub
in a form that `datasets` reads: unpack its release, and `python -m benchmarks.prepare mathbench --from FOLDER
--out DIR` makes DIR/mathbench/test.jsonl with question, options (four texts), answer (a letter), or question
and answer for an open question, and the level (arithmetic, primary, middle, high, college).
Each question is asked once. MathBench's own circular evaluation asks a choice four times with the
options turned and counts it when all four are right: that is not done here (`note`), so scores are
higher than those it publishes.
Sample: 84 questions written for this project, half of them with options.
Metric: accuracy; of a choice the letter, given as 'A', '(A)', 'A.' or the option's text, of an open
question equality as numbers or expressions (math-verify).
"""

import re

import dspy

from benchmarks.answers import boxed, normalise_latex, same_maths
from benchmarks.mathbench.data import LETTERS, load

# 'A', '(A)', 'A.' and 'A. 12': the letter, alone or in front of the option's text.
LETTER = re.compile(r"\(?([A-D])(?:[).:]+(?:\s.*)?)?", re.IGNORECASE | re.DOTALL)


class MathBench(dspy.Signature):
    """Answer the question of mathematics. With options, answer with the letter of the right one; without,
    with the result and nothing else."""

    question: str = dspy.InputField()
    options: str = dspy.InputField(desc="one a line, or none")
    answer: str = dspy.OutputField(desc="a letter, or the result")


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 for the right option or an equal result, else 0.0."""
    answer = getattr(pred, "answer", None)
    if answer is None:
        return 0.0
    if gold.get("choices"):
        return float(chosen(str(answer), gold.choices) == gold.answer)
    return float(same_maths(gold.answer, str(answer)))


def chosen(answer: str, choices: list[str]) -> str | None:
    """The letter of the option that an answer names, by its letter or by its text; None where it names none."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", boxed(answer) or answer).strip("*$ \n")
    named = LETTER.fullmatch(bare)
    if named and named.group(1).upper() in LETTERS[: len(choices)]:
        return named.group(1).upper()
    texts, given = [normalise_latex(choice).lower() for choice in choices], normalise_latex(bare).lower()
    return LETTERS[texts.index(given)] if texts.count(given) == 1 else None


def failure_kind(gold: dspy.Example, pred: dspy.Prediction) -> str | None:
    """`no_option` for an answer to a choice that names none of its options."""
    answer = str(getattr(pred, "answer", None))
    return "no_option" if gold.get("choices") and chosen(answer, gold.choices) is None else None


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, an option with its text."""
    right = f"'{gold.answer}'"
    if gold.get("choices"):
        right += f" ({gold.choices[LETTERS.index(gold.answer)]})"
    if metric(gold, pred):
        return f"Right: the answer is {right}."
    return f"Wrong: the answer was '{getattr(pred, 'answer', None)}', the right answer is {right}."


CONFIG = {
    "signature": MathBench,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "failure_kind": failure_kind,
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "stratify": "kind",
    "match_fields": ("question",),
    "mask_digits": True,
    "task_class": "reasoning",
    "licence": "Apache-2.0",
    "note": "each question is asked once: MathBench's circular evaluation (four calls a question) is not done",
    "roles": {
        "parser": "Write down what is given, what is asked, and what sets the options apart.",
        "contextualizer": "Name the definition, theorem or rule that the question is about.",
        "analyzer": "Say what is asked and which rule decides it.",
        "reasoner": "Work out the result step by step; with options, say which it matches and why not the others.",
        "synthesizer": "Check the result once more, and state the letter, or the result where there are no options.",
    },
}
