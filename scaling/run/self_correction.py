"""Self-correction: a program reviews its own answers, with or without feedback, and its control draws again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from scaling.run.pipelines import FeedbackFunction, Repeat
from scaling.run.steps import Failed, count_rollout, draws, make_predictor, noted_tool_calls, step, with_tool_calls
from scaling.types import Benchmark, UsageError


def self_correction(bench: Benchmark, steps: int, feedback: FeedbackFunction | None = None) -> dspy.Module:
    """The core of `self_correct`: all turns."""
    return SelfCorrection(bench.signature, steps, feedback, bench.tools)


def oracle(bench: Benchmark, gold: dspy.Example, answer: dspy.Prediction) -> str:
    """Whether the answer is right. This is cheating, and every output says so."""
    return "It is right." if float(bench.metric(gold, answer)) >= 1.0 else "It is wrong."


def execution(bench: Benchmark, gold: dspy.Example, answer: dspy.Prediction) -> str:
    """What the benchmark runs to check an answer: examples in the problem's own text, never hidden tests.

    Raises UsageError for a benchmark that runs nothing.
    """
    if bench.execution_feedback is None:
        raise UsageError(f"'{bench.name}' gives no execution feedback. Type --feedback none.")
    return str(bench.execution_feedback(gold, answer))


class SelfCorrection(dspy.Module):
    """Answer, then review: each later turn sees the task and all earlier answers and answers again, a call a turn.

    Turn 1 is the task's own one-step program, so its draws are those of `resample`. A turn without a usable answer is
    shown to the next one as such; only the last turn is the answer. feedback(inputs, outputs) says something about an
    earlier answer (feedback `oracle` or `execution`); None for intrinsic self-correction.
    """

    def __init__(
        self,
        signature: type[dspy.Signature],
        turns: int,
        feedback: FeedbackFunction | None = None,
        tools: Sequence[dspy.Tool] = (),
    ):
        super().__init__()
        self.turns, self.feedback, self.outputs = turns, feedback, list(signature.output_fields)
        self.has_tools = bool(tools)
        self.answer = make_predictor(signature, tools)
        if turns > 1:
            self.review = make_predictor(_review_signature(signature), tools)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        count_rollout()
        with noted_tool_calls(self.has_tools) as called:
            turns: list[dict[str, Any]] = []
            for number in range(self.turns):
                turns.append(self._turn(number, inputs, turns))
        notes = {f"turn_{i + 1}": _shown(turn) for i, turn in enumerate(turns)}
        last = dspy.Prediction(**turns[-1]["outputs"], step_notes=notes, failure=turns[-1]["failure"], turns=turns)
        if called is not None:
            last.tool_calls = called
        return last

    def _turn(self, number: int, inputs: dict[str, Any], turns: list[dict[str, Any]]) -> dict[str, Any]:
        asked = inputs | ({"earlier_answers": self._so_far(inputs, turns)} if number else {})
        try:
            answer = step(self.review if number else self.answer, "review" if number else "answer", asked)
        except Failed as failed:
            return {"outputs": dict.fromkeys(self.outputs), "failure": failed.kind}
        return {"outputs": {name: answer[name] for name in self.outputs}, "failure": None}

    def _so_far(self, inputs: dict[str, Any], turns: list[dict[str, Any]]) -> str:
        lines = []
        for number, turn in enumerate(turns, 1):
            comment = f" {self.feedback(inputs, turn['outputs'])}" if self.feedback else ""
            lines.append(f"Answer {number}: {_shown(turn)}{comment}")
        return "\n".join(lines)


class Resample(Repeat):
    """The first answer drawn again (the control of self-correction): every draw is scored, the last one counts."""

    def forward(self, **inputs: Any) -> dspy.Prediction:
        answers = draws(self.core, self.calls, inputs)
        last = with_tool_calls(answers[-1], answers)
        last.turns = [_turn(answer, self.core.outputs) for answer in answers]
        return last


def _turn(answer: dspy.Prediction, outputs: list[str]) -> dict[str, Any]:
    return {"outputs": {name: answer.get(name) for name in outputs}, "failure": answer.get("failure")}


def _shown(turn: dict[str, Any]) -> str:
    """A turn's answer in words, for the next turn and for the record."""
    if turn["failure"]:
        return "(no usable answer)"
    values = turn["outputs"]
    return str(next(iter(values.values()))) if len(values) == 1 else "; ".join(f"{n}: {v}" for n, v in values.items())


def _review_signature(task: type[dspy.Signature]) -> type[dspy.Signature]:
    """The task again, with all earlier answers to review."""
    earlier = dspy.InputField(desc="your answers so far, oldest first")
    text = f"{task.instructions}\n\nReview the earlier answers: look for mistakes, then give your final answer again."
    review: type[dspy.Signature] = task.append("earlier_answers", earlier, str).with_instructions(text)
    return review
