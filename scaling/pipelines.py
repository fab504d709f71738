"""How LLM calls are combined into a program: a chain of roles, the same call repeated, a vote.

A pipeline is a `dspy.Module` whose forward() makes exactly `steps` calls. An answer that cannot be parsed
ends its example with no answer and `failure` set; it raises nothing, so it ends no evaluation. To add a
pipeline: write the module and add it to `PIPELINES` (and its folder suffix to `types.PIPELINE_SUFFIX`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import dspy
from dspy.teleprompt.bootstrap_trace import FailedPrediction
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from scaling.lm import variant
from scaling.types import UsageError

ROLES: dict[int, tuple[str, ...]] = {
    1: ("classifier",),
    2: ("analyzer", "classifier"),
    3: ("analyzer", "reasoner", "classifier"),
    4: ("parser", "contextualizer", "reasoner", "classifier"),
    5: ("parser", "contextualizer", "reasoner", "synthesizer", "classifier"),
}

# What each role writes for the roles after it; a benchmark's `roles` may say it in its own words.
ROLE_TASKS = {
    "parser": "Take the input apart: list the facts in it that matter for the task.",
    "contextualizer": "Say what the facts mean in their context: background, relations, what is normal.",
    "analyzer": "Name the parts of the input that decide the answer, and why.",
    "reasoner": "Think step by step from the notes towards the answer, weighing the alternatives.",
    "synthesizer": "Draw the notes together: what is certain, what is open, where they point.",
}


class Failed(Exception):
    """One step of a program gave nothing to go on with; `kind` is parse or too_long."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


class MultiStepClassifier(dspy.Module):
    """A chain of `num_steps` roles; each sees the task's inputs and the notes of the roles before it.

    signature: the task's dspy.Signature; its outputs are those of the last role. roles: role name ->
    instruction, in place of `ROLE_TASKS`. Optimizers see each predictor by its role's name.
    Raises UsageError for steps outside 1 to 5.
    """

    def __init__(self, signature: type[dspy.Signature], num_steps: int, roles: dict[str, str] | None = None):
        super().__init__()
        if num_steps not in ROLES:
            raise UsageError(f"steps {num_steps} is not possible; possible: 1 to 5. Type --steps 1 3 5, for example.")
        self.role_names = ROLES[num_steps]
        notes_so_far: list[str] = []
        for role in self.role_names[:-1]:
            task = (roles or {}).get(role) or ROLE_TASKS[role]
            setattr(self, role, dspy.Predict(_role_signature(signature, role, task, notes_so_far)))
            notes_so_far.append(f"{role}_notes")
        self.classifier = dspy.Predict(_with_notes(signature, notes_so_far))
        self.outputs = list(signature.output_fields)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        count_rollout()
        notes: dict[str, str] = {}
        try:
            for role in self.role_names[:-1]:
                answer = step(getattr(self, role), role, {**inputs, **notes})
                notes[f"{role}_notes"] = str(answer[f"{role}_notes"])
            answer = step(self.classifier, "classifier", {**inputs, **notes})
        except Failed as failed:
            return no_answer(self.outputs, failed.kind, notes)
        return dspy.Prediction(**{name: answer[name] for name in self.outputs}, step_notes=notes, failure=None)


class Repeat(dspy.Module):
    """The same one-step program `calls` times with nothing passed on; the last answer counts (a control)."""

    def __init__(self, core: dspy.Module, calls: int):
        super().__init__()
        self.core, self.calls = core, calls

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return draws(self.core, self.calls, inputs)[-1]


class Vote(Repeat):
    """`calls` independent samples of a one-step program, majority answer, ties to the earliest (a control).

    Self-consistency (Wang et al. 2022, arXiv 2203.11171) without its chain of thought. Answers that differ in
    case, spaces or a closing full stop only are one ballot.
    """

    def forward(self, **inputs: Any) -> dspy.Prediction:
        answers = draws(self.core, self.calls, inputs)
        notes = {f"vote_{i + 1}": str(a.get(self.core.outputs[0])) for i, a in enumerate(answers)}
        usable = [(self._ballot(a), a) for a in answers if a.failure is None]
        if not usable:
            return no_answer(self.core.outputs, answers[0].failure, notes)
        winner = Counter(ballot for ballot, _ in usable).most_common(1)[0][0]  # of equals, the earliest comes first
        chosen = next(answer for ballot, answer in usable if ballot == winner)
        return dspy.Prediction(**{n: chosen[n] for n in self.core.outputs}, step_notes=notes, failure=None)

    def _ballot(self, answer: dspy.Prediction) -> tuple[str, ...]:
        return tuple(_ballot_text(str(answer[name])) for name in self.core.outputs)


# pipeline -> how the optimizable core becomes the program that is run
PIPELINES: dict[str, Callable[[dspy.Module, int], dspy.Module]] = {
    "chain": lambda core, steps: core,
    "repeat": Repeat,
    "vote": Vote,
}


def _ballot_text(text: str) -> str:
    """Case, spaces and a closing full stop do not make another answer; a sign or a symbol does ("-5", "C++")."""
    return " ".join(text.casefold().split()).rstrip(".")


def make_core(pipeline: str, signature: type[dspy.Signature], steps: int, roles: dict[str, str]) -> MultiStepClassifier:
    """The part that optimizers work on: the whole chain, or the one-step program of `repeat` and `vote`."""
    return MultiStepClassifier(signature, steps if pipeline == "chain" else 1, roles)


def wrap(pipeline: str, core: dspy.Module, steps: int) -> dspy.Module:
    """The program of a cell around its (optimized) core."""
    return PIPELINES[pipeline](core, steps)


def draws(program: dspy.Module, calls: int, inputs: dict[str, Any]) -> list[dspy.Prediction]:
    """Independent samples of a program: each has its own draw index and so its own cache entries."""
    answers = []
    for draw in range(calls):
        with dspy.context(**variant(draw=draw)):
            answers.append(program(**inputs))
    return answers


def step(predictor: dspy.Predict, role: str, inputs: dict[str, Any]) -> dspy.Prediction:
    """One call under its role's name. Raises Failed when its answer cannot be parsed or its prompt is too long.

    The failed answer joins the trace, so that GEPA can reflect on it.
    """
    try:
        with dspy.context(**variant(role=role)):
            return predictor(**inputs)
    except AdapterParseError as error:
        if dspy.settings.trace is not None:
            dspy.settings.trace.append((predictor, inputs, FailedPrediction(completion_text=error.lm_response)))
        raise Failed("parse") from error
    except ContextWindowExceededError as error:
        raise Failed("too_long") from error


def no_answer(outputs: list[str], kind: str, notes: dict[str, str]) -> dspy.Prediction:
    """The prediction of an example that failed: every output None, scored 0, counted by kind."""
    return dspy.Prediction(**dict.fromkeys(outputs), step_notes=notes, failure=kind)


def count_rollout() -> None:
    """A rollout is one run of the whole program; the metric's calls are another number."""
    lm = dspy.settings.lm
    if (meter := getattr(lm, "meter", None)) is not None:
        meter.add_rollout(lm.phase)


def instructions(program: dspy.Module) -> dict[str, str]:
    """Role name -> instruction, for the record and for telling whether anything changed."""
    return {name: predictor.signature.instructions for name, predictor in program.named_predictors()}


def _role_signature(
    task: type[dspy.Signature], role: str, instruction: str, notes_so_far: list[str]
) -> type[dspy.Signature]:
    """Inputs of the task and earlier notes in, this role's notes out."""
    base = _with_notes(task, notes_so_far)
    for name in list(base.output_fields):
        base = base.delete(name)
    wanted = ", ".join(task.output_fields)
    text = f"You prepare a decision on: {wanted}. {instruction} Write short notes, do not decide."
    note = dspy.OutputField(desc="short notes, at most two sentences")
    return base.append(f"{role}_notes", note, str).with_instructions(text)


def _with_notes(task: type[dspy.Signature], notes: list[str]) -> type[dspy.Signature]:
    for name in notes:
        author = name.removesuffix("_notes")
        task = task.append(name, dspy.InputField(desc=f"notes of the {author}"), str)
    return task
