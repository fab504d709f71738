"""A scripted model whose skill is planted: right with a chance that its model, the program's steps and the turn set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scaling.testing import Body, ScriptedServer, chat_fields, fingerprint, last_user_message
from scaling.types import Benchmark

# A field of a prompt in DSPy's chat format: its name and its text.
SECTION = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ## |\n\nRespond with |\Z)", re.DOTALL)
EARLIER = re.compile(r"^Answer \d+: ", re.MULTILINE)
WRONG = "none of these 987654321"
STEPS = {5: "synthesizer_notes", 3: "reasoner_notes", 2: "analyzer_notes"}  # the notes that the last role reads
TOOLS = {"next_thought": "Nothing is to be looked up.", "next_tool_name": "finish", "next_tool_args": "{}"}


@dataclass(frozen=True)
class Request:
    """What a request shows of its cell. Turns count from 0."""

    benchmark: str
    model: str
    steps: int
    turn: int


Chance = Callable[[Request], float]


@dataclass(frozen=True)
class Gold:
    """The right answer to a row, and the row's inputs by name, which all of its prompts hold."""

    benchmark: str
    inputs: frozenset[tuple[str, str]]
    field: str
    answer: str


def golds_of(bench: Benchmark) -> list[Gold]:
    """The right answers to a benchmark's rows."""
    rows = [*bench.train, *(bench.test or [])]
    (field,) = bench.outputs
    texts = [name for name in bench.inputs if all(isinstance(row[name], str) for row in rows)]
    return [
        Gold(bench.name, frozenset((name, row[name].strip()) for name in texts), field, str(row[field])) for row in rows
    ]


def planted_answers(golds: Iterable[Gold], chance: Chance) -> Callable[[Body], str]:
    """The answer to a request as a function of its body, for `ScriptedServer`.

    Luck is drawn by request, so models, draws and runs are independent.
    """
    known, script = {gold.inputs: gold for gold in golds}, ScriptedServer()
    named = {frozenset(name for name, _ in inputs) for inputs in known}

    def answer(body: Body) -> str:
        given, fields = dict(SECTION.findall(last_user_message(body))), chat_fields(body)
        asked = [frozenset((name, given[name].strip()) for name in names) for names in named if names <= given.keys()]
        found = [known[inputs] for inputs in asked if inputs in known]
        if not found or not fields:
            return script.default_answer(body)
        (gold,) = found
        values = {name: _value(name, options, gold, body, chance) for name, options in fields.items()}
        return "\n\n".join([*(f"[[ ## {n} ## ]]\n{v}" for n, v in values.items()), "[[ ## completed ## ]]"])

    return answer


def _value(name: str, options: list[str], gold: Gold, body: Body, chance: Chance) -> str:
    if name in TOOLS:
        return TOOLS[name]
    if name != gold.field:
        return f"{name} {fingerprint([body, name]):012x}"
    if fingerprint([body, body["model"], "luck"]) / 16**12 < chance(_request(gold, body)):
        return gold.answer
    wrong = [option for option in options if option != gold.answer]
    return wrong[fingerprint([body, name]) % len(wrong)] if wrong else WRONG


def _request(gold: Gold, body: Body) -> Request:
    asked = last_user_message(body)
    steps = next((steps for steps, notes in STEPS.items() if f"[[ ## {notes} ## ]]" in asked), 1)
    turn = len(EARLIER.findall(asked.rpartition("[[ ## earlier_answers ## ]]")[2]))
    return Request(gold.benchmark, body["model"], steps, turn)
