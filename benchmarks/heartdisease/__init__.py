"""Heart disease: does a patient's record point to heart disease (narrowing above 50 % in a main vessel)?

Data: the Cleveland records of UCI's heart disease collection (Detrano et al. 1989), 303 rows, one
split. On the hub `buio/heart-disease`, whose `target` is not the same as `num > 0` of the original:
do not compare scores between the two sources. `num` (the degree of disease) would give the answer
away and is never shown.
Sample: 200 invented records, illustrative and not clinical; no real patient.
Metric: accuracy (0 or 1 a record).

Example: "Age: 63 years. Sex: male. Chest pain: typical angina. ..." -> no disease
"""

import dspy

from benchmarks.heartdisease.data import load


class HeartDisease(dspy.Signature):
    """Judge from a patient's record whether heart disease is present."""

    record: str = dspy.InputField(desc="the patient's findings, with units")
    diagnosis: str = dspy.OutputField(desc="disease or no disease")


def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """1.0 when the diagnosis is the recorded one, else 0.0."""
    return float(getattr(pred, "diagnosis", None) == gold.diagnosis)


def feedback(gold: dspy.Example, pred: dspy.Prediction) -> str:
    """What was wrong and what is right, in a sentence."""
    if metric(gold, pred):
        return f"Right: '{gold.diagnosis}'."
    return f"Wrong: the answer was '{getattr(pred, 'diagnosis', None)}', the record is a case of '{gold.diagnosis}'."


CONFIG = {
    "signature": HeartDisease,
    "loader": load,
    "metric": metric,
    "feedback": feedback,
    "label_field": "diagnosis",
    "train_seeds": range(50),
    "val_seeds": range(50, 150),
    "test_seeds": range(153),
    "task_class": "classification",
    "roles": {
        "parser": "List the findings that are outside the normal range, and those that are unknown.",
        "contextualizer": "Say how age and sex change what the findings mean.",
        "analyzer": "Name the findings that speak most for and most against heart disease.",
        "reasoner": "Weigh the findings for and against, and say how strong the case is.",
        "synthesizer": "Draw the notes together into one judgement and say how sure it is.",
    },
}
