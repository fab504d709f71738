"""A program's prompts in the words of hosted optimizers: its stages out, somebody's candidate in.

A stage is one predictor under the name that optimizers see (analyzer, reasoner, classifier ...). A candidate changes
its instruction, and may bring few-shot examples; the format around it is the program's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dspy

Json = dict[str, Any]
INDENT = " " * 8  # of an instruction in DSPy's formats


class PromptError(Exception):
    """A candidate that the program cannot hold; the message is one line."""


@dataclass(frozen=True)
class Stage:
    """What one predictor sends: its system message, and its user message with {name} in place of each input."""

    name: str
    instruction: str
    system: str
    user: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class StagePrompt:
    """What a candidate says of one stage."""

    instruction: str
    few_shots: tuple[Json, ...] = ()


def stages_of(core: dspy.Module, adapter: dspy.Adapter) -> list[Stage]:
    """The stages of a program in the adapter's format, in the order of its calls."""
    stages = []
    for name, predictor in core.named_predictors():
        signature = predictor.signature
        shown = {field: "{" + field + "}" for field in signature.input_fields}
        system, user = adapter.format(signature, [], shown)
        stages.append(Stage(name, signature.instructions, system["content"], user["content"], tuple(shown)))
    return stages


def initial_prompt(name: str, stages: Sequence[Stage]) -> Json:
    """The baseline as a hosted optimizer takes it: messages with wildcards, two a stage, and the stages by name."""
    texts = [(role, text) for stage in stages for role, text in (("system", stage.system), ("user", stage.user))]
    return {
        "id": name,
        "name": name,
        "messages": [{"role": role, "pattern": text, "order": order} for order, (role, text) in enumerate(texts)],
        "wildcards": {field: "REQUIRED" for stage in stages for field in stage.inputs},
        "metadata": {
            "pipeline_modules": [{"name": stage.name, "instruction_text": stage.instruction} for stage in stages]
        },
    }


def read_prompt(prompt: Any, stages: Sequence[Stage]) -> dict[str, StagePrompt]:
    """What a candidate says of each stage, from any of the forms it may come in.

    A text; messages or sections; text replacements; pipeline_modules; stage_payloads. Raises PromptError for another
    form, and for a candidate that lacks a stage or an input.
    """
    prompts = _read(prompt, stages)
    for stage in stages:
        if stage.name not in prompts:
            raise PromptError(f"the prompt lacks the stage '{stage.name}'; it has {', '.join(prompts) or 'none'}")
        if not prompts[stage.name].instruction:
            raise PromptError(f"the prompt's stage '{stage.name}' is empty")
    return prompts


def _read(prompt: Any, stages: Sequence[Stage]) -> dict[str, StagePrompt]:
    """The first form that the prompt has."""
    if isinstance(prompt, str):
        return _of_texts([_text(prompt)], [], stages)
    if not isinstance(prompt, dict):
        raise PromptError(f"the prompt must be text or an object, not {type(prompt).__name__}")
    for reader in (_from_modules, _from_payloads, _from_replacements, _from_messages):
        if (prompts := reader(prompt, stages)) is not None:
            return prompts
    names = " ".join(", ".join(map(str, prompt)).split())
    raise PromptError(f"the prompt has none of the known forms; it has {names or 'nothing'}")


def keeps_format(prompt: Any, stages: Sequence[Stage]) -> bool:
    """Whether a candidate leaves what stands around the inputs as it was: that is the format, which programs keep."""
    users = _texts_of(prompt, stages)[1] if isinstance(prompt, dict) else []
    return all(_words(stage.user) == _words(user) for stage, user in zip(stages, users, strict=False))


def with_prompts(core: dspy.Module, prompts: dict[str, StagePrompt]) -> dspy.Module:
    """A copy of the program with these instructions and, where they come along, few-shot examples."""
    changed = core.deepcopy()
    for name, predictor in changed.named_predictors():
        predictor.signature = predictor.signature.with_instructions(prompts[name].instruction)
        if prompts[name].few_shots:
            predictor.demos = [_demo(shot, predictor.signature) for shot in prompts[name].few_shots]
    return changed


def _from_modules(prompt: Json, stages: Sequence[Stage]) -> dict[str, StagePrompt] | None:
    for place in (prompt, prompt.get("prompt_metadata"), prompt.get("metadata")):
        modules = place.get("pipeline_modules") if isinstance(place, dict) else None
        if modules:
            named = [(str(module.get("name")), module) for module in _objects(modules, "a module")]
            by_name = {stage.name: stage for stage in stages}
            return {name: _payload(module, by_name[name]) for name, module in named if name in by_name}
    return None


def _from_payloads(prompt: Json, stages: Sequence[Stage]) -> dict[str, StagePrompt] | None:
    payloads = prompt.get("stage_payloads")
    if not payloads:
        return None
    payloads = _object(payloads, "stage_payloads")
    return {stage.name: _payload(payloads[stage.name], stage) for stage in stages if stage.name in payloads}


def _from_replacements(prompt: Json, stages: Sequence[Stage]) -> dict[str, StagePrompt] | None:
    """New texts for old ones; a stage of which none speaks stays as it is."""
    changes = prompt.get("deltas") or prompt
    changes = changes.get("transformation") or changes if isinstance(changes, dict) else {}
    replacements = changes.get("text_replacements") if isinstance(changes, dict) else None
    if not replacements:
        return None
    prompts = {stage.name: StagePrompt(stage.instruction) for stage in stages}
    for replacement in _objects(replacements, "a text replacement"):
        if replacement.get("apply_to_role", "system") in ("system", "developer"):
            stage = _stage_of(replacement, stages)
            prompts[stage.name] = StagePrompt(_instruction(_text(replacement.get("new_text")), stage))
    return prompts


def _stage_of(replacement: Json, stages: Sequence[Stage]) -> Stage:
    """Told by the text that is replaced, by its place among the messages, or because there is one stage only."""
    old, order = replacement.get("old_text"), replacement.get("apply_to_order")
    for stage in stages:
        if old and _words(old) in (_words(stage.instruction), _words(stage.system)):
            return stage
    if isinstance(order, int) and 0 <= order // 2 < len(stages):
        return stages[order // 2]
    if len(stages) > 1:
        raise PromptError(f"a text replacement does not say which stage it is for: {', '.join(s.name for s in stages)}")
    return stages[0]


def _from_messages(prompt: Json, stages: Sequence[Stage]) -> dict[str, StagePrompt] | None:
    systems, users = _texts_of(prompt, stages)
    return _of_texts(systems, users, stages) if systems or users else None


def _texts_of(prompt: Json, stages: Sequence[Stage]) -> tuple[list[str], list[str]]:
    """The system and the user texts of messages or sections in their order; those of a single stage in one."""
    messages = prompt.get("messages") or prompt.get("sections") or prompt.get("prompt_sections") or []
    messages = _objects(messages, "a message")
    if all(isinstance(message.get("order"), int) for message in messages):
        messages = sorted(messages, key=lambda message: message["order"])
    texts: dict[str, list[str]] = {"system": [], "user": []}
    for message in messages:
        role = str(message.get("role")).replace("developer", "system")
        if role in texts:
            texts[role].append(_text(message.get("pattern") or message.get("content")))
    if len(stages) == 1:
        texts = {role: ["\n\n".join(some)] if some else [] for role, some in texts.items()}
    return texts["system"], texts["user"]


def _of_texts(systems: list[str], users: list[str], stages: Sequence[Stage]) -> dict[str, StagePrompt]:
    """System and user messages, one of each a stage; where there are user messages, every input must be in them."""
    for stage, user in zip(stages, users, strict=False):
        for field in stage.inputs:
            if "{" + field + "}" not in user:
                raise PromptError(f"the prompt's stage '{stage.name}' lacks the input {{{field}}}")
    pairs = zip(stages, systems, strict=False)
    return {stage.name: StagePrompt(_instruction(text, stage)) for stage, text in pairs}


def _payload(module: Any, stage: Stage) -> StagePrompt:
    module = _object(module, f"stage '{stage.name}'")
    lines = module.get("instruction_lines")
    text = (
        "\n".join(map(_text, _list(lines, "instruction_lines")))
        if lines
        else _text(module.get("instruction_text") or "")
    )
    shots = _objects(module.get("few_shots") or [], "a few-shot example")
    return StagePrompt(_instruction(text, stage), tuple(shots))


def _instruction(text: str, stage: Stage) -> str:
    """The instruction in a text: what stands after the format's last line, where that is there, else all of it."""
    frame = stage.system[: stage.system.rfind(stage.instruction.split("\n", 1)[0])]
    last_line = frame.strip().rpartition("\n")[2]
    _, found, rest = text.rpartition(last_line) if last_line else ("", "", text)
    return _unindented(rest.strip("\n")).strip() if found else text.strip()


def _unindented(text: str) -> str:
    """Without the spaces that the format puts before each line of an instruction; a candidate's own lines stay."""
    lines = text.split("\n")
    framed = all(line.startswith(INDENT) or not line.strip() for line in lines)
    return "\n".join(line.removeprefix(INDENT) for line in lines) if framed else text


def _demo(shot: Json, signature: type[dspy.Signature]) -> dspy.Example:
    """A few-shot example: an object by field, or a text, which is the first input or the last output."""
    values: Json = {}
    for names, fields, alone in (
        (("input", "input_text", "input_data"), list(signature.input_fields), 0),
        (("output", "output_text", "output_data"), list(signature.output_fields), -1),
    ):
        given = next((shot[name] for name in names if shot.get(name) is not None), None)
        if isinstance(given, dict):
            values |= {name: value for name, value in given.items() if name in fields}
        elif given is not None:
            values[fields[alone]] = str(given)
    return dspy.Example(**values)


def _object(value: Any, what: str) -> Json:
    if not isinstance(value, dict):
        raise PromptError(f"the prompt cannot be read: {what} must be an object, not {type(value).__name__}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise PromptError(f"the prompt cannot be read: {what} must be a list, not {type(value).__name__}")
    return value


def _objects(values: Any, what: str) -> list[Json]:
    """A list of objects, each of which is `what`."""
    return [_object(value, what) for value in _list(values, f"what holds {what}")]


def _text(value: Any) -> str:
    """A text that can be written: half a character cannot."""
    if not isinstance(value, str):
        raise PromptError(f"the prompt cannot be read: a text must be a string, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeError:
        raise PromptError("the prompt cannot be read: a text holds half a character") from None
    return value


def _words(text: Any) -> str:
    return " ".join(str(text).split())
