"""An exported program, run without DSPy: its messages are filled in, its answers are read, its calls are combined.

This file stands alone. `export_results.py CELL --as litellm` puts it beside the program's messages.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import json_repair

FORMAT = 1  # of the file
HEADING = re.compile(r"\[\[ ## (\w+) ## \]\]")
NO_ANSWER = "(no usable answer)"
Messages = list[dict[str, str]]
Values = dict[str, str]


@dataclass(frozen=True)
class Step:
    """One kind of call.

    messages: as chat APIs take them, with a mark in the place of each input. marks: input -> its mark. outputs: output
    -> the labels that it may be, None for any text. answer_format: 'chat' for sections under headings, 'json'.
    """

    role: str
    messages: Messages
    marks: dict[str, str]
    outputs: dict[str, list[str] | None]
    answer_format: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A program. calls: how many it makes for a row. Its last step gives the answer."""

    pipeline: str
    calls: int
    steps: list[Step]

    def to_json(self) -> str:
        """The program as the text of a file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


# (step, messages, number of the draw) -> the model's answer
Ask = Callable[[Step, Messages, int], str]


class NoAnswer(Exception):
    """A model's answer that does not have the form that it was asked for."""


def read_program(text: str) -> Program:
    """The program in the text of a file. Raises ValueError for another format."""
    whole = json.loads(text)
    if whole.pop("format", None) != FORMAT:
        raise ValueError(f"the file is not of format {FORMAT}")
    return Program(whole["pipeline"], whole["calls"], [Step(**step) for step in whole["steps"]])


def run(program: Program, inputs: Values, ask: Ask) -> Values:
    """The outputs of the program for one row's inputs. Raises NoAnswer."""
    return COMBINED[program.pipeline](program, inputs, ask)


def messages_of(step: Step, values: Values) -> Messages:
    """The messages of a step for these inputs, byte for byte as the program sent them."""
    value_of = {mark: values[name] for name, mark in step.marks.items()}
    marks = re.compile("|".join(map(re.escape, value_of)))
    return [
        message | {"content": marks.sub(lambda found: value_of[found[0]], message["content"])}
        for message in step.messages
    ]


def read_answer(step: Step, text: str) -> Values:
    """The outputs in a model's answer. Raises NoAnswer."""
    found = _fields(text) if step.answer_format == "json" else _sections(text)
    if missing := [name for name in step.outputs if name not in found]:
        raise NoAnswer(f"the answer has no {missing[0]}")
    return {name: _value(found[name], labels) for name, labels in step.outputs.items()}


def _sections(text: str) -> dict[str, Any]:
    """What stands under each heading; of two equal ones the first counts."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []  # those before the first heading belong to none
    for line in text.splitlines():
        if heading := HEADING.match(line.strip()):
            rest = line[heading.end() :].strip()
            lines = [rest] if rest else []
            sections.setdefault(heading[1], lines)
        else:
            lines.append(line)
    return {name: "\n".join(lines).strip() for name, lines in sections.items()}


def _fields(text: str) -> dict[str, Any]:
    """The fields of a JSON object, which may be damaged or stand in other text."""
    fields = _repaired(text)
    if not isinstance(fields, dict):
        fields = _repaired(text[text.find("{") : text.rfind("}") + 1])
    if not isinstance(fields, dict):
        raise NoAnswer("the answer is no JSON object")
    return fields


def _repaired(text: str) -> Any:
    try:
        return json_repair.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoAnswer("the answer is nested too deeply") from error


def _value(found: Any, labels: list[str] | None) -> str:
    """A text as it is; a label without the quotes that models put around it. Raises NoAnswer for no label."""
    if labels is None:
        return str(found)
    if isinstance(found, str) and found not in labels:
        found = found.strip()
        if found.startswith(("Literal[", "str[")) and found.endswith("]"):
            found = found[found.index("[") + 1 : -1]
        if len(found) > 1 and found[0] == found[-1] and found[0] in "\"'":
            found = found[1:-1]
        if found not in labels:
            found = _repaired(found)
    if found not in labels:
        raise NoAnswer(f"{str(found)[:80]!r} is none of the labels")
    return str(found)


def _answer(step: Step, values: Values, ask: Ask, draw: int = 0) -> Values:
    return read_answer(step, ask(step, messages_of(step, values), draw))


def _chain(program: Program, inputs: Values, ask: Ask) -> Values:
    """Each step sees the notes of the steps before it."""
    known, outputs = dict(inputs), {}
    for step in program.steps:
        outputs = _answer(step, known, ask)
        known |= outputs
    return outputs


def _draws(program: Program, inputs: Values, ask: Ask) -> list[Values | None]:
    """The same call again and again; None where an answer cannot be read."""
    answers: list[Values | None] = []
    for draw in range(program.calls):
        try:
            answers.append(_answer(program.steps[-1], inputs, ask, draw))
        except NoAnswer:
            answers.append(None)
    return answers


def _last(program: Program, inputs: Values, ask: Ask) -> Values:
    """The last draw counts."""
    if (last := _draws(program, inputs, ask)[-1]) is None:
        raise NoAnswer("the last draw has no usable answer")
    return last


def _vote(program: Program, inputs: Values, ask: Ask) -> Values:
    """The majority counts, and of equals the earliest; case, spaces and a closing full stop make no difference."""
    usable = [answer for answer in _draws(program, inputs, ask) if answer is not None]
    if not usable:
        raise NoAnswer("no draw has a usable answer")
    ballots = [tuple(" ".join(text.casefold().split()).rstrip(".") for text in a.values()) for a in usable]
    return usable[ballots.index(Counter(ballots).most_common(1)[0][0])]


def _self_correct(program: Program, inputs: Values, ask: Ask) -> Values:
    """The first step answers; the second one sees all earlier answers and answers again."""
    shown: list[str] = []
    answer: Values | None = None
    for turn in range(program.calls):
        earlier = "\n".join(f"Answer {number}: {text}" for number, text in enumerate(shown, 1))
        values = inputs | {"earlier_answers": earlier}
        try:
            answer = _answer(program.steps[min(turn, 1)], values, ask)
            shown.append(_in_words(answer))
        except NoAnswer:
            answer = None
            shown.append(NO_ANSWER)
    if answer is None:
        raise NoAnswer("the last turn has no usable answer")
    return answer


def _in_words(answer: Values) -> str:
    if len(answer) == 1:
        return next(iter(answer.values()))
    return "; ".join(f"{name}: {value}" for name, value in answer.items())


COMBINED: dict[str, Callable[[Program, Values, Ask], Values]] = {
    "chain": _chain,
    "repeat": _last,
    "resample": _last,
    "vote": _vote,
    "self_correct": _self_correct,
}
