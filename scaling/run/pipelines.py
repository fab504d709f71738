"""How LLM calls are combined into a program: a chain of roles, the same call repeated, a vote.

A pipeline is a `dspy.Module` whose forward() makes exactly `steps` calls (with tools: at least one per step). To add a
pipeline, write its functions and add them to the table in scaling/pipelines.py.
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import dspy

from scaling.pipelines import FEEDBACKS, PIPELINES
from scaling.run.steps import (
    Failed,
    count_rollout,
    draws,
    make_predictor,
    no_answer,
    noted_tool_calls,
    step,
    with_tool_calls,
)
from scaling.types import Benchmark, Cell, PlannedCell, UsageError, digest
from scaling.wordings import WORDINGS

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

# (inputs, outputs of an earlier turn) -> what is said about them to the next turn
FeedbackFunction = Callable[[dict[str, Any], dict[str, Any]], str]


def make_core(cell: PlannedCell, bench: Benchmark, feedback: FeedbackFunction | None = None) -> dspy.Module:
    """The part of a cell's program that optimizers work on."""
    core: dspy.Module = pkgutil.resolve_name(PIPELINES[cell.pipeline].core)(bench, cell.steps, feedback)
    return worded(core, cell.wording)


def worded(core: dspy.Module, wording: str) -> dspy.Module:
    """The core with the wording's sentence at the end of each instruction; the same one for the own wording."""
    for _, predictor in core.named_predictors() if WORDINGS[wording] else []:
        signature = predictor.signature
        predictor.signature = signature.with_instructions(f"{signature.instructions}\n\n{WORDINGS[wording]}")
    return core


def make_program(pipeline: str, core: dspy.Module, steps: int) -> dspy.Module:
    """The program of a cell around its (optimized) core."""
    spec = PIPELINES[pipeline]
    return core if spec.program is None else pkgutil.resolve_name(spec.program)(core, steps)


def make_feedback(cell: Cell, bench: Benchmark, rows: list[dspy.Example]) -> FeedbackFunction | None:
    """What is said about an earlier answer to one of the rows; None for intrinsic self-correction."""
    path = FEEDBACKS[cell.feedback]
    if path is None:
        return None
    say = pkgutil.resolve_name(path)
    gold_of = {digest({name: row[name] for name in bench.inputs}): row for row in rows}

    def feedback(inputs: dict[str, Any], outputs: dict[str, Any]) -> str:
        gold = gold_of[digest({name: inputs[name] for name in bench.inputs})]
        return "It had no usable answer." if None in outputs.values() else say(bench, gold, dspy.Prediction(**outputs))

    return feedback


def chain(bench: Benchmark, steps: int, feedback: FeedbackFunction | None = None) -> dspy.Module:
    """The core of `chain`: a role a step."""
    return MultiStepClassifier(bench.signature, steps, bench.roles, bench.tools)


def one_step(bench: Benchmark, steps: int, feedback: FeedbackFunction | None = None) -> dspy.Module:
    """The core of the pipelines that run one step several times."""
    return MultiStepClassifier(bench.signature, 1, bench.roles, bench.tools)


class MultiStepClassifier(dspy.Module):
    """A chain of `num_steps` roles; each sees the task's inputs and the notes of the roles before it.

    signature: the task's dspy.Signature; its outputs are those of the last role. roles: role name ->
    instruction, in place of `ROLE_TASKS`. tools: where there are any, each role is a `ToolUser` of them.
    Optimizers see each predictor by its role's name (with tools `<role>.react` and `<role>.extract.predict`).
    Raises UsageError for steps outside 1 to 5.
    """

    def __init__(
        self,
        signature: type[dspy.Signature],
        num_steps: int,
        roles: dict[str, str] | None = None,
        tools: Sequence[dspy.Tool] = (),
    ):
        super().__init__()
        if num_steps not in ROLES:
            raise UsageError(f"steps {num_steps} is not possible; possible: 1 to 5. Type --steps 1 3 5, for example.")
        self.role_names = ROLES[num_steps]
        self.has_tools = bool(tools)
        notes_so_far: list[str] = []
        for role in self.role_names[:-1]:
            task = (roles or {}).get(role) or ROLE_TASKS[role]
            setattr(self, role, make_predictor(_role_signature(signature, role, task, notes_so_far), tools))
            notes_so_far.append(f"{role}_notes")
        self.classifier = make_predictor(_with_notes(signature, notes_so_far), tools)
        self.outputs = list(signature.output_fields)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        count_rollout()
        with noted_tool_calls(self.has_tools) as called:
            answer = self._answer(inputs)
        if called is not None:
            answer.tool_calls = called
        return answer

    def _answer(self, inputs: dict[str, Any]) -> dspy.Prediction:
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
        answers = draws(self.core, self.calls, inputs)
        return with_tool_calls(answers[-1], answers)


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
            return with_tool_calls(no_answer(self.core.outputs, answers[0].failure, notes), answers)
        winner = Counter(ballot for ballot, _ in usable).most_common(1)[0][0]  # of equals, the earliest comes first
        chosen = next(answer for ballot, answer in usable if ballot == winner)
        answer = dspy.Prediction(**{n: chosen[n] for n in self.core.outputs}, step_notes=notes, failure=None)
        return with_tool_calls(answer, answers)

    def _ballot(self, answer: dspy.Prediction) -> tuple[str, ...]:
        return tuple(_ballot_text(str(answer[name])) for name in self.core.outputs)


def instructions(program: dspy.Module) -> dict[str, str]:
    """Role name -> instruction, for the record and for telling whether anything changed."""
    return {name: predictor.signature.instructions for name, predictor in program.named_predictors()}


def _ballot_text(text: str) -> str:
    """Case, spaces and a closing full stop do not make another answer; a sign or a symbol does ("-5", "C++")."""
    return " ".join(text.casefold().split()).rstrip(".")


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
    notes: type[dspy.Signature] = base.append(f"{role}_notes", note, str).with_instructions(text)
    return notes


def _with_notes(task: type[dspy.Signature], notes: list[str]) -> type[dspy.Signature]:
    for name in notes:
        author = name.removesuffix("_notes")
        task = task.append(name, dspy.InputField(desc=f"notes of the {author}"), str)
    return task
