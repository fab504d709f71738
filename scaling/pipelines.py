"""The table of pipelines, which is the one place that names them. Nothing here imports DSPy.

A pipeline says how LLM calls are combined into a program. To add one, write the function that makes its program and
add one `PipelineSpec`. The command line, the plan, the estimate, the folders and the report follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _once(predictor: str, steps: int) -> int:
    return 1


def _no_answers(steps: int) -> int:
    return 0


def _one_answer(steps: int) -> int:
    return 1


def _an_answer_a_step(steps: int) -> int:
    return steps


def _answers_of_one_step(steps: int) -> int:
    return int(steps == 1)


def _a_call_a_turn(predictor: str, steps: int) -> int:
    return steps - 1 if predictor.startswith("review") else 1


@dataclass(frozen=True)
class PipelineSpec:
    """A pipeline: its name, the names of its folders, and its functions as 'module:function'.

    suffix: a cell's folder is named '<steps><suffix>'. core: makes the part that optimizers work on, from
    (Benchmark, steps, FeedbackFunction or None). program: makes what is run from (core, steps); None where the core
    itself is run. draws: the program runs its core `steps` times with nothing passed on, so that a temperature of 0
    makes no sense. calls: how often one run of the core calls a predictor, from (its name, steps). takes_feedback:
    each turn can be told something about the answers before it. scores_turns: each of its answers is scored, not only
    the last. one_step_answers: how many answers of the task's one-step program it draws, from steps; the cells of a
    study share them through the cache.
    """

    name: str
    suffix: str
    core: str
    program: str | None = None
    draws: bool = False
    calls: Callable[[str, int], int] = _once
    takes_feedback: bool = False
    scores_turns: bool = False
    one_step_answers: Callable[[int], int] = _no_answers


_ONE_STEP = "scaling.run.pipelines:one_step"


def _draws(name: str, suffix: str, program: str, scores_turns: bool = False) -> PipelineSpec:
    """A pipeline that draws the one-step program's answer several times."""
    return PipelineSpec(
        name, suffix, _ONE_STEP, program, draws=True, scores_turns=scores_turns, one_step_answers=_an_answer_a_step
    )


PIPELINES: dict[str, PipelineSpec] = {
    spec.name: spec
    for spec in (
        PipelineSpec("chain", "step", "scaling.run.pipelines:chain", one_step_answers=_answers_of_one_step),
        _draws("repeat", "repeat", "scaling.run.pipelines:Repeat"),
        _draws("vote", "vote", "scaling.run.pipelines:Vote"),
        PipelineSpec(
            "self_correct",
            "turn",
            "scaling.run.self_correction:self_correction",
            calls=_a_call_a_turn,
            takes_feedback=True,
            scores_turns=True,
            one_step_answers=_one_answer,
        ),
        _draws("resample", "redraw", "scaling.run.self_correction:Resample", scores_turns=True),
    )
}

# What a turn of self-correction can be told about an earlier answer: the function that says it, from (Benchmark, the
# row as a dspy.Example, the answer as a dspy.Prediction).
FEEDBACKS: dict[str, str | None] = {
    "none": None,
    "oracle": "scaling.run.self_correction:oracle",
    "execution": "scaling.run.self_correction:execution",
}


def step_name(pipeline: str, steps: int) -> str:
    """A program's size as folders and tables name it: '3step'. Records may name a pipeline that is not in the table."""
    return f"{steps}{PIPELINES[pipeline].suffix if pipeline in PIPELINES else pipeline}"
