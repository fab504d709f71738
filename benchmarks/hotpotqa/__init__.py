"""HotpotQA (distractor setting): a question whose answer needs two of the ten paragraphs given with it.

Data: hotpotqa/hotpot_qa, configuration `distractor` (Yang et al. 2018, arXiv 1809.09600),
CC-BY-SA-4.0; 90,447 train and 7,405 validation questions; the validation split is our test.
Sample: 2-hop questions over an invented world, written for this project, so that no model can know
the answers; questions over the same facts share a group, which stays on one side of every split.
Metric: F1 over answer tokens, with exact match recorded beside it; both as in the official scorer
(lower case, punctuation and articles out; yes, no and noanswer must match whole).
"""

import re
import string
from collections import Counter

import dspy

from benchmarks.hotpotqa.data import load

WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class HotpotQA(dspy.Signature):
    """Answer the question from the paragraphs. Two of them together hold the answer. Answer with a name,
    a number, a date, yes or no: a few words, no sentence."""

    context: str = dspy.InputField(desc="paragraphs, each with its title")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="a few words")


def normalise_answer(text: str) -> str:
    """Lower case without punctuation, articles and repeated spaces (official evaluation script)."""
    text = text.lower().translate(WITHOUT_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(gold: dspy.Example, pred: dspy.Prediction) -> float:
    """1.0 when the normalised answers are equal."""
    answer = getattr(pred, "answer", None)
    return float(answer is not None and normalise_answer(str(answer)) == normalise_answer(gold.answer))


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """F1 of the answer's tokens, 0 to 1 (official evaluation script)."""
    answer = getattr(pred, "answer", None)
    if answer is None:
        return 0.0
    given, right = normalise_answer(str(answer)), normalise_answer(gold.answer)
    closed = {"yes", "no", "noanswer"}
    if given != right and (given in closed or right in closed):
        return 0.0
    common = sum((Counter(given.split()) & Counter(right.split())).values())
    if not common:
        return 0.0
    precision, recall = common / len(given.split()), common / len(right.split())
    return 2 * precision * recall / (precision + recall)


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, and which paragraphs hold the answer."""
    titles = " and ".join(f"'{title}'" for title in gold.get("titles", []))
    where = f" The facts are in {titles}." if titles else ""
    if exact_match(gold, pred):
        return f"Right: '{gold.answer}'.{where}"
    score = metric(gold, pred)
    kind = "Partly right" if score else "Wrong"
    return f"{kind}: the answer was '{getattr(pred, 'answer', None)}', the right answer is '{gold.answer}'.{where}"


CONFIG = {
    "signature": HotpotQA,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "stratify": "type",
    "match_fields": ("question",),
    "extra_metrics": {"exact_match": exact_match},
    "task_class": "reasoning",
    "licence": "CC-BY-SA-4.0",
    "roles": {
        "parser": "Split the question into the two things that must be found out, in order.",
        "contextualizer": "Name the paragraphs that matter and quote the sentences that matter in them.",
        "analyzer": "Name the two paragraphs that matter and the fact that joins them.",
        "reasoner": "Follow the two steps from the question to the answer, one short sentence each.",
        "synthesizer": "State the answer that the notes lead to and check it against the question.",
    },
}
