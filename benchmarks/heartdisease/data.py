"""Rows of the heart disease benchmark: the columns in clear words with units, and the diagnosis."""

from pathlib import Path
from typing import Any

from benchmarks.sources import read

HUB = {"path": "buio/heart-disease", "train": "train", "revision": "refs/convert/parquet"}

CHEST_PAIN = {0: "asymptomatic", 1: "typical angina", 2: "atypical angina", 3: "non-anginal pain", 4: "asymptomatic"}
ECG = {0: "normal", 1: "ST-T wave abnormality", 2: "left ventricular hypertrophy"}
SLOPE = {1: "rising", 2: "flat", 3: "falling"}
THALLIUM = {"normal": "normal", "fixed": "fixed defect", "reversible": "reversible defect"}
SEX = {0: "female", 1: "male"}
YES_NO = {0: "no", 1: "yes"}

# column -> (clear words, unit or the words for its codes)
COLUMNS: dict[str, tuple[str, str | dict[Any, str]]] = {
    "age": ("Age", " years"),
    "sex": ("Sex", SEX),
    "cp": ("Chest pain", CHEST_PAIN),
    "trestbps": ("Resting blood pressure", " mm Hg"),
    "chol": ("Cholesterol", " mg/dl"),
    "fbs": ("Fasting sugar above 120 mg/dl", YES_NO),
    "restecg": ("Resting ECG", ECG),
    "thalach": ("Peak heart rate", "/min"),
    "exang": ("Exercise angina", YES_NO),
    "oldpeak": ("Exercise ST depression", " mm"),
    "slope": ("ST slope", SLOPE),
    "ca": ("Vessels on fluoroscopy", " of 3"),
    "thal": ("Thallium scan", THALLIUM),
}


def load(source: str = "hub") -> dict[str, Any]:
    """Rows {"record", "diagnosis"}; raises UsageError when the source cannot be read."""
    raw = read(source, Path(__file__).parent, HUB)
    for part in ("train", "test"):
        raw[part] = raw[part] and [
            {"record": in_words(row), "diagnosis": "disease" if int(row["target"]) else "no disease"}
            for row in raw[part]
        ]
    return raw


def in_words(row: dict[str, Any]) -> str:
    """A record as sentences; a value that is missing or has no known code is said to be unknown."""
    return " ".join(f"{words}: {_value(row.get(column), kind)}." for column, (words, kind) in COLUMNS.items())


def _value(value: Any, kind: str | dict[Any, str]) -> str:
    if value is None or value in ("", "?") or value != value:  # NaN is not equal to itself
        return "unknown"
    if isinstance(kind, dict):
        return kind.get(value if isinstance(value, str) else int(value), "unknown")
    return f"{float(value):g}{kind}"
