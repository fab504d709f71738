"""Candidates of a hosted job become a program's instructions and come back as they went."""

from __future__ import annotations

from typing import Any

import pytest

from scaling.data import load_benchmark
from scaling.hosted.prompts import PromptError, initial_prompt, read_prompt, stages_of, with_prompts
from scaling.llm.adapters import make_adapter
from scaling.run.pipelines import MultiStepClassifier
from tests.support import toy
from tests.support.hosted import MODEL, STAGES

BENCH = load_benchmark("toy", toy.config(), "sample")


CORES = {n: MultiStepClassifier(BENCH.signature, n, BENCH.roles) for n in (1, 3)}


STAGES_OF = {n: stages_of(core, make_adapter(MODEL)) for n, core in CORES.items()}


def texts(prompt: Any, steps: int = 3) -> list[str]:
    return [prompt.instruction for prompt in read_prompt(prompt, STAGES_OF[steps]).values()]


def test_the_baseline_comes_back_as_it_went() -> None:
    for steps, core in CORES.items():
        prompt = initial_prompt("toy", STAGES_OF[steps])
        for form in (prompt, {"messages": prompt["messages"]}, {"sections": prompt["messages"][::-1]}):
            again = with_prompts(core, read_prompt(form, STAGES_OF[steps]))
            assert again.dump_state() == core.dump_state()


def test_an_instruction_of_several_lines_comes_back_as_it_went() -> None:
    text = "First.\n  Second, indented.\n\nThird."
    signature = BENCH.signature.with_instructions(text)
    core = MultiStepClassifier(signature, 1, BENCH.roles)
    stages = stages_of(core, make_adapter(MODEL))
    for form in (stages[0].system, stages[0].system.replace(" " * 8 + "Third", "Third")):
        assert read_prompt(form, stages)["classifier"].instruction.replace(" " * 8, "") == text


def test_every_form_of_a_candidate_is_read() -> None:
    new = ["A.\n  indented", "B.", "C."]
    names = STAGES[3]
    system = [stage.system.replace(stage.instruction, text) for stage, text in zip(STAGES_OF[3], new, strict=True)]
    for form in (
        {"pipeline_modules": [{"name": n, "instruction_text": t} for n, t in zip(names, new, strict=True)]},
        {"metadata": {"pipeline_modules": [
            {"name": n, "instruction_lines": t.split("\n")} for n, t in zip(names, new, strict=True)
        ]}},
        {"stage_payloads": {n: {"instruction_text": t} for n, t in zip(names, new, strict=True)}},
        {"messages": [{"role": "system", "content": text} for text in new]},
        {"messages": [{"role": "developer", "pattern": text} for text in system]},
        {"text_replacements": [
            {"old_text": stage.instruction, "new_text": text} for stage, text in zip(STAGES_OF[3], new, strict=True)
        ]},
        {"deltas": {"transformation": {"text_replacements": [
            {"new_text": text, "apply_to_role": "system", "apply_to_order": 2 * i} for i, text in enumerate(new)
        ]}}},
    ):  # fmt: skip
        assert texts(form) == new, form
    assert texts("Just a text.", 1) == ["Just a text."]
    assert texts({"text_replacements": [{"new_text": "X.", "apply_to_role": "system"}]}, 1) == ["X."]
    # One replacement leaves the other stages as they were.
    one = {"text_replacements": [{"old_text": STAGES_OF[3][1].instruction, "new_text": "B."}]}
    assert texts(one) == [STAGES_OF[3][0].instruction, "B.", STAGES_OF[3][2].instruction]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("A text for three.", "lacks the stage 'reasoner'"),
        ({"messages": [{"role": "system", "content": "A."}]}, "lacks the stage 'reasoner'; it has analyzer"),
        ({"stage_payloads": {"classifier": {"instruction_text": "A."}}}, "lacks the stage 'analyzer'"),
        ({"pipeline_modules": [{"name": n, "instruction_text": ""} for n in STAGES[3]]}, "'analyzer' is empty"),
        ({"messages": [{"role": r, "content": "A."} for r in ("system", "user") * 3]}, "lacks the input {message}"),
        ({"text_replacements": [{"new_text": "A."}]}, "does not say which stage"),
        ({"text_replacements": [{"old_text": "x", "new_text": 3, "apply_to_order": 0}]}, "must be a string, not int"),
        ({"messages": ["A."]}, "must be an object, not str"),
        ({"pipeline_modules": ["A."]}, "must be an object, not str"),
        ({}, "nothing"),
        (42, "must be text or an object, not int"),
        (None, "not NoneType"),
    ],
)
def test_a_candidate_that_the_program_cannot_hold_is_told(prompt: Any, says: str) -> None:
    with pytest.raises(PromptError) as told:
        texts(prompt)
    assert says in str(told.value) and "\n" not in str(told.value)
