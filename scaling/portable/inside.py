"""An exported program as a DSPy module: a chain of predictors with their instructions and worked examples.

This file stands alone. `export_results.py CELL --as dspy` puts it beside the program's own file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import dspy


class ExportedProgram(dspy.Module):
    """Calls each role once; each sees the inputs and the notes of the roles before it.

    steps: of the exported file: role, instructions, inputs (name -> description), outputs (name -> description and
    labels, None for any text), demos.
    """

    def __init__(self, steps: list[dict[str, Any]]):
        super().__init__()
        self.roles = [step["role"] for step in steps]
        for step in steps:
            predictor = dspy.Predict(signature_of(step))
            predictor.demos = [dspy.Example(**demo) for demo in step["demos"]]
            setattr(self, step["role"], predictor)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        known, answer = dict(inputs), dspy.Prediction()
        for role in self.roles:
            answer = getattr(self, role)(**known)
            known |= dict(answer.items())
        return answer


def signature_of(step: dict[str, Any]) -> type[dspy.Signature]:
    """The signature of a step."""
    fields: dict[str, Any] = {name: (str, dspy.InputField(desc=desc)) for name, desc in step["inputs"].items()}
    for name, (desc, labels) in step["outputs"].items():
        kind = str if labels is None else Literal[tuple(labels)]
        fields[name] = (kind, dspy.OutputField(desc=desc))
    signature: type[dspy.Signature] = dspy.Signature(fields, step["instructions"])
    return signature


def adapter_of(answer_format: str) -> dspy.Adapter:
    """The adapter that the program was optimized with, without a second call in another format."""
    return dspy.JSONAdapter() if answer_format == "json" else dspy.ChatAdapter(use_json_adapter_fallback=False)


def load(path: Path) -> tuple[ExportedProgram, dspy.Adapter]:
    """The program in an exported file, and its adapter: `dspy.configure(lm=..., adapter=adapter)`."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    return ExportedProgram(whole["steps"]), adapter_of(whole["answer_format"])
