"""Banking77: which of 77 intents does a customer's message to a bank have?

Data: PolyAI/banking77 (Casanueva et al. 2020, arXiv 2003.04807), CC-BY-4.0; 10,003 train and 3,080
test messages, rows sorted by class. About one test message in eight has a train neighbour that is
almost the same; those neighbours never reach the optimizer here (`near_copy`).
Sample: 300 messages for 10 of the intents, written for this project.
Metric: accuracy (0 or 1 a message).

Example: "I still have not got my new card" -> card_arrival
"""

import dspy

from benchmarks.banking77.data import load


class Banking77(dspy.Signature):
    """Decide which intent a customer's message to a bank has. Answer with exactly one of the listed intents."""

    text: str = dspy.InputField(desc="the customer's message")
    intent: str = dspy.OutputField(desc="the intent of the message")


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 when the intent is the right one, else 0.0."""
    return float(getattr(pred, "intent", None) == gold.intent)


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, in a sentence."""
    if metric(gold, pred):
        return f"Right: the intent is '{gold.intent}'."
    return f"Wrong: the answer was '{getattr(pred, 'intent', None)}', the right intent is '{gold.intent}'."


CONFIG = {
    "signature": Banking77,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "label_field": "intent",
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(500),
    "near_copy": 0.8,
    "task_class": "classification",
    "licence": "CC-BY-4.0",
    "roles": {
        "parser": "Pick out what the customer reports, asks for, and has already tried.",
        "contextualizer": "Name the banking product and the stage of the process that the message is about.",
        "analyzer": "Say in a few words what the customer wants and which words show it.",
        "reasoner": "Weigh the two or three intents that fit best and say what tells them apart.",
        "synthesizer": "Draw the notes together: what is certain, what is not, which intent they point to.",
    },
}
