"""SuperGLUE: six tasks of understanding English, each asked in words and answered with one of its labels.

Data: aps/super_glue (Wang et al. 2019, arXiv 1905.00537), licences by subtask: BoolQ CC-BY-SA-3.0, the
others for research. The validation split is our test (the test labels are secret). `superglue` takes all
subtasks that are there, in proportion to their rows (mostly BoolQ, from the hub); its score is the mean
over rows, not the leaderboard's mean over subtasks. `superglue/boolq`, `superglue/cb`, `superglue/copa`,
`superglue/rte`, `superglue/wic` and `superglue/wsc.fixed` are each subtask alone. MultiRC and ReCoRD are
left out: they are not scored an answer at a time.
Sample: 40 rows of each of the six, written for this project.
Metric: accuracy, case ignored, as officially for all six. CB's second official score, macro-F1, is a
score of all its rows together and none of a row; it is not recorded.
Questions over one BoolQ passage, and hypotheses over one RTE or CB premise, share a group.
"""

from functools import partial

import dspy

from benchmarks.answers import normalise_words
from benchmarks.superglue.data import SUBTASKS, load


class SuperGLUE(dspy.Signature):
    """Do the task that the text describes. Answer with exactly one of the labels that it names last."""

    text: str = dspy.InputField(desc="the task, its texts and its labels")
    answer: str = dspy.OutputField(desc="one of the labels")


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 for the right label, in any case, else 0.0."""
    answer = getattr(pred, "answer", None)
    return float(answer is not None and normalise_words(str(answer)) == normalise_words(gold.answer))


def failure_kind(gold: dspy.Example, pred: dspy.Prediction) -> str | None:
    """`no_label` for an answer that is none of the task's labels."""
    labels = {normalise_words(label) for label in gold.get("labels", [])}
    is_label = not labels or normalise_words(str(getattr(pred, "answer", None))) in labels
    return None if is_label else "no_label"


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, and whether the answer was a label at all."""
    if metric(gold, pred):
        return f"Right: the label is '{gold.answer}'."
    form = f" An answer is one of: {', '.join(gold['labels'])}." if failure_kind(gold, pred) else ""
    return f"Wrong: the answer was '{getattr(pred, 'answer', None)}', the right label is '{gold.answer}'.{form}"


CONFIG = {
    "signature": SuperGLUE,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "failure_kind": failure_kind,
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "stratify": "stratum",
    "task_class": "classification",
    "roles": {
        "parser": "Name the task, its labels, and the parts of the text that it is about.",
        "contextualizer": "Say what the text states outright about the matter, and what it leaves open.",
        "analyzer": "Quote the words of the text that decide the label.",
        "reasoner": "Weigh the labels against each other by what the text says, not by what is known otherwise.",
        "synthesizer": "Draw the notes together and say which label they point to.",
    },
}
# Each subtask alone, as superglue/<subtask>.
CONFIGS = {f"superglue/{name}": CONFIG | {"loader": partial(load, subtask=name)} for name in SUBTASKS}
CONFIGS["superglue/boolq"]["licence"] = "CC-BY-SA-3.0"  # the others are for research
