"""What each format of a program consists of: {file name: text}, from the program's source and a few lines about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scaling.portable.made import Source, portable
from scaling.portable.outside import Program
from scaling.types import UsageError

Files = dict[str, str]  # name -> text
MESSAGES, PROMPT, SCRIPT, STATE = "messages.json", "prompt.txt", "program.py", "program.json"
HERE = Path(__file__).parent

LITELLM_END = '''

def ask(step: Step, messages: Messages, draw: int) -> str:
    """The model's answer, by LiteLLM; its key is in the environment. A draw is a new sample."""
    import litellm

    response = litellm.completion(messages=messages, **step.parameters)
    return response.choices[0].message.content or ""


def main() -> None:
    """Answer rows: a JSON object with the inputs on each line of standard input."""
    import sys
    from pathlib import Path

    program = read_program(Path(__file__).with_name("messages.json").read_text(encoding="utf-8"))
    for line in sys.stdin:
        try:
            print(json.dumps(run(program, json.loads(line), ask), ensure_ascii=False))
        except NoAnswer as error:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))


if __name__ == "__main__":
    main()
'''
DSPY_END = """

program, adapter = load(Path(__file__).with_name("program.json"))
"""


def messages(source: Source, about: list[str]) -> Files:
    """The messages with their marks as JSON."""
    return {MESSAGES: portable(source).to_json()}


def prompt(source: Source, about: list[str]) -> Files:
    """The messages as a text for people."""
    program = portable(source)
    return {PROMPT: "\n".join([*about, *_outline(program), *_steps_in_words(program)]) + "\n"}


def litellm_script(source: Source, about: list[str]) -> Files:
    """The messages and a script that answers rows with them."""
    return {**messages(source, about), SCRIPT: _script("outside.py", about, LITELLM_END)}


def dspy_module(source: Source, about: list[str]) -> Files:
    """A module of DSPy and its state."""
    if source.cell.pipeline != "chain":
        raise UsageError(f"--as dspy writes chains, not '{source.cell.pipeline}'. Type --as litellm.")
    portable(source)  # raises for what cannot be exported
    steps = [_dspy_step(name, predictor) for name, predictor in source.core.named_predictors()]
    whole = {"answer_format": source.model.adapter, "steps": steps}
    state = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    return {STATE: state, SCRIPT: _script("inside.py", about, DSPY_END)}


def _script(name: str, about: list[str], end: str) -> str:
    """A file of this folder as a script of its own."""
    head = "".join(f"# {line}\n" for line in about)
    return head + (HERE / name).read_text(encoding="utf-8") + end


def _outline(program: Program) -> list[str]:
    marks = sorted({mark for step in program.steps for mark in step.marks.values()})
    return ["", f"Pipeline {program.pipeline}, {program.calls} calls. Inputs go where these stand: {', '.join(marks)}"]


def _steps_in_words(program: Program) -> list[str]:
    lines = []
    for number, step in enumerate(program.steps, 1):
        lines += ["", f"##### step {number}: {step.role} (answers with {', '.join(step.outputs)})"]
        for message in step.messages:
            lines += ["", f"### {message['role']}", message["content"]]
    return lines


def _dspy_step(name: str, predictor: Any) -> dict[str, Any]:
    signature = predictor.signature
    described = {field: info.json_schema_extra["desc"] for field, info in signature.fields.items()}
    return {
        "role": name,
        "instructions": signature.instructions,
        "inputs": {field: described[field] for field in signature.input_fields},
        "outputs": {
            field: [described[field], None if info.annotation is str else list(info.annotation.__args__)]
            for field, info in signature.output_fields.items()
        },
        "demos": [dict(demo.items()) for demo in predictor.demos],
    }
