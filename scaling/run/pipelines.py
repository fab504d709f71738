"""How LLM calls are combined into a program: a chain of roles, the same call repeated, a vote.

A pipeline is a `dspy.Module` whose forward() makes exactly `steps` calls (with tools: at least one a step). An
answer that cannot be parsed ends its example with no answer and `failure` set; it raises nothing, so it ends no
evaluation. To add a pipeline: write the module and add it to `PIPELINES` (and its folder suffix to
`types.PIPELINE_SUFFIX`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dspy
from dspy.teleprompt.bootstrap_trace import FailedPrediction
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from scaling.llm.gateway import variant
from scaling.types import Benchmark, Cell, UsageError, digest

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


# With tools: turns a step may take before it must answer, and how much of a tool's result is kept in the record.
MAX_TOOL_TURNS = 6
SHORT_RESULT = 200
_tool_calls: ContextVar[list[dict[str, Any]] | None] = ContextVar("tool_calls", default=None)


# (inputs, outputs of an earlier turn) -> what is said about them to the next turn
Judge = Callable[[dict[str, Any], dict[str, Any]], str]


class Failed(Exception):
    """One step of a program gave nothing to go on with; `kind` is parse or too_long."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


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
            setattr(self, role, _predictor(_role_signature(signature, role, task, notes_so_far), tools))
            notes_so_far.append(f"{role}_notes")
        self.classifier = _predictor(_with_notes(signature, notes_so_far), tools)
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


class ToolUser(dspy.ReAct):
    """A step that may call tools before it answers: DSPy's ReAct, at most `MAX_TOOL_TURNS` turns and an answer.

    ReAct shows a tool's error to the model as a traceback with paths of this machine; here a tool's error is its
    one line. An answer that cannot be parsed ends the step as it does without tools: the failure joins the trace
    of the predictor that made it.
    """

    def __init__(self, signature: type[dspy.Signature], tools: Sequence[dspy.Tool]):
        super().__init__(signature, [recorded(tool) for tool in tools], max_iters=MAX_TOOL_TURNS)

    def _call_with_potential_trajectory_truncation(
        self, module: dspy.Module, trajectory: dict[str, Any], **inputs: Any
    ) -> dspy.Prediction:
        try:
            return super()._call_with_potential_trajectory_truncation(module, trajectory, **inputs)
        except AdapterParseError as error:
            shown = {**inputs, "trajectory": self._format_trajectory(trajectory)}
            _trace_failure(getattr(module, "predict", module), shown, error)
            raise Failed("parse") from error


@contextmanager
def noted_tool_calls(wanted: bool) -> Iterator[list[dict[str, Any]] | None]:
    """The tool calls that are made while the block runs; None where there are no tools."""
    called: list[dict[str, Any]] = []
    token = _tool_calls.set(called)
    try:
        yield called if wanted else None
    finally:
        _tool_calls.reset(token)


def recorded(tool: dspy.Tool) -> dspy.Tool:
    """The tool, whose calls are noted for the record and whose errors are answers."""

    def call(**arguments: Any) -> str:
        try:
            result = str(tool(**arguments))
        except Exception as error:  # whatever the model's arguments do to a tool is an answer to the model
            result = f"error: {type(error).__name__}: {error}"
        if (called := _tool_calls.get()) is not None:
            step_name = getattr(dspy.settings.lm, "role", None)
            short = {"step": step_name, "name": tool.name, "arguments": arguments, "result": result[:SHORT_RESULT]}
            called.append(short)
        return result

    return dspy.Tool(call, name=tool.name, desc=tool.desc, args=tool.args)


class Repeat(dspy.Module):
    """The same one-step program `calls` times with nothing passed on; the last answer counts (a control)."""

    def __init__(self, core: dspy.Module, calls: int):
        super().__init__()
        self.core, self.calls = core, calls

    def forward(self, **inputs: Any) -> dspy.Prediction:
        answers = draws(self.core, self.calls, inputs)
        return _with_tool_calls(answers[-1], answers)


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
            return _with_tool_calls(no_answer(self.core.outputs, answers[0].failure, notes), answers)
        winner = Counter(ballot for ballot, _ in usable).most_common(1)[0][0]  # of equals, the earliest comes first
        chosen = next(answer for ballot, answer in usable if ballot == winner)
        answer = dspy.Prediction(**{n: chosen[n] for n in self.core.outputs}, step_notes=notes, failure=None)
        return _with_tool_calls(answer, answers)

    def _ballot(self, answer: dspy.Prediction) -> tuple[str, ...]:
        return tuple(_ballot_text(str(answer[name])) for name in self.core.outputs)


class Resample(Repeat):
    """The first answer drawn again (the control of self-correction): every draw is scored, the last one counts."""

    def forward(self, **inputs: Any) -> dspy.Prediction:
        answers = draws(self.core, self.calls, inputs)
        last = _with_tool_calls(answers[-1], answers)
        last.turns = [_turn(answer, self.core.outputs) for answer in answers]
        return last


class SelfCorrection(dspy.Module):
    """Answer, then review: each later turn sees the task and all earlier answers and answers again, a call a turn.

    Turn 1 is the task's own one-step program, so its draws are those of `resample`. A turn without a usable answer is
    shown to the next one as such; only the last turn is the answer. judge(inputs, outputs) says something about an
    earlier answer (feedback `oracle` or `execution`); None for intrinsic self-correction.
    """

    def __init__(
        self,
        signature: type[dspy.Signature],
        turns: int,
        judge: Judge | None = None,
        tools: Sequence[dspy.Tool] = (),
    ):
        super().__init__()
        self.turns, self.judge, self.outputs = turns, judge, list(signature.output_fields)
        self.has_tools = bool(tools)
        self.answer = _predictor(signature, tools)
        if turns > 1:
            self.review = _predictor(_review_signature(signature), tools)

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
        said = []
        for number, turn in enumerate(turns, 1):
            comment = f" {self.judge(inputs, turn['outputs'])}" if self.judge else ""
            said.append(f"Answer {number}: {_shown(turn)}{comment}")
        return "\n".join(said)


# pipeline -> how the optimizable core becomes the program that is run
PIPELINES: dict[str, Callable[[dspy.Module, int], dspy.Module]] = {
    "chain": lambda core, steps: core,
    "repeat": Repeat,
    "vote": Vote,
    "self_correct": lambda core, steps: core,
    "resample": Resample,
}


def _ballot_text(text: str) -> str:
    """Case, spaces and a closing full stop do not make another answer; a sign or a symbol does ("-5", "C++")."""
    return " ".join(text.casefold().split()).rstrip(".")


def make_core(cell: Cell, bench: Benchmark, judge: Judge | None = None) -> dspy.Module:
    """The part that optimizers work on: the chain or all turns, or the one-step program of the other pipelines."""
    if cell.pipeline == "self_correct":
        return SelfCorrection(bench.signature, cell.steps, judge, bench.tools)
    return MultiStepClassifier(bench.signature, cell.steps if cell.pipeline == "chain" else 1, bench.roles, bench.tools)


def make_judge(cell: Cell, bench: Benchmark, rows: list[dspy.Example]) -> Judge | None:
    """What `oracle` and `execution` say about an earlier answer; None for intrinsic self-correction.

    oracle knows the right answers of the rows: it is cheating, and every output says so. execution runs what the
    benchmark's `execution_feedback` runs (the examples in the problem's own text, never hidden tests).
    """
    if cell.feedback == "none":
        return None
    gold_of = {digest({name: row[name] for name in bench.inputs}): row for row in rows}

    def judge(inputs: dict[str, Any], outputs: dict[str, Any]) -> str:
        gold = gold_of[digest({name: inputs[name] for name in bench.inputs})]
        answer = dspy.Prediction(**outputs)
        if None in outputs.values():
            return "It had no usable answer."
        if cell.feedback == "execution":
            return bench.config["execution_feedback"](gold, answer)
        return "It is right." if float(bench.metric(gold, answer)) >= 1.0 else "It is wrong."

    return judge


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


def step(predictor: dspy.Module, role: str, inputs: dict[str, Any]) -> dspy.Prediction:
    """One call under its role's name. Raises Failed when its answer cannot be parsed or its prompt is too long.

    The failed answer joins the trace, so that GEPA can reflect on it.
    """
    try:
        with dspy.context(**variant(role=role)):
            return predictor(**inputs)
    except AdapterParseError as error:
        _trace_failure(predictor, inputs, error)
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


def _trace_failure(predictor: dspy.Module, inputs: dict[str, Any], error: AdapterParseError) -> None:
    if dspy.settings.trace is not None:
        dspy.settings.trace.append((predictor, inputs, FailedPrediction(completion_text=error.lm_response)))


def _with_tool_calls(answer: dspy.Prediction, draws: list[dspy.Prediction]) -> dspy.Prediction:
    """The answer with the tool calls of all draws, where there are tools."""
    made = [draw.get("tool_calls") for draw in draws]
    if None not in made:
        answer.tool_calls = [call for calls in made for call in calls]
    return answer


def _predictor(signature: type[dspy.Signature], tools: Sequence[dspy.Tool]) -> dspy.Module:
    return ToolUser(signature, tools) if tools else dspy.Predict(signature)


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
    return task.append("earlier_answers", earlier, str).with_instructions(text)


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
