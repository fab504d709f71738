"""promptfoo's JSON (`promptfoo eval --output FILE.json`), of summary versions 2 and 3: src/types of its repository.

A result is one prompt with one provider. Its metrics are `score` and the named scores of the assertions.
"""

from __future__ import annotations

from typing import Any

import msgspec

from scaling.readers.files import Source, read_object
from scaling.readers.rows import Format, Result, Row, last_message, text_of

ERROR = 2  # failureReason of a test that was not answered or not judged
OF_FILE = {"results", "config"}
OF_SUMMARY = {"results", "stats", "version"}


class Labelled(msgspec.Struct):
    """A provider."""

    id: str | None = None
    label: str | None = None


class Prompt(msgspec.Struct):
    """A prompt with its variables filled in."""

    raw: str = ""


class Response(msgspec.Struct):
    """What the provider sent. The test's own cost is 0 where this one is not known."""

    cost: float | None = None


class TestCase(msgspec.Struct):
    """What was asked beside the variables."""

    __test__ = False  # no test class of pytest's
    metadata: dict[str, Any] | None = None


class Answered(msgspec.Struct, rename="camel"):
    """One test under one prompt and provider."""

    test_idx: int
    provider: Labelled
    prompt_id: str = ""
    score: float | None = None
    prompt: Prompt = msgspec.field(default_factory=Prompt)
    vars: dict[str, Any] = {}
    test_case: TestCase = msgspec.field(default_factory=TestCase)
    failure_reason: int = 0
    named_scores: dict[str, float] = {}
    response: Response | None = None


class Summary(msgspec.Struct):
    """The answers of one evaluation."""

    results: list[Answered]


class Output(msgspec.Struct):
    """The file; an older one is the summary itself."""

    results: Summary


def recognizes(source: Source) -> bool:
    """Whether the file is an output of promptfoo."""
    keys = source.keys
    return source.suffix == ".json" and "configs" not in keys and (keys >= OF_FILE or keys >= OF_SUMMARY)


def read(source: Source, group_field: str) -> list[Result]:
    """A result for each prompt, provider and metric."""
    whole = source.keys >= OF_SUMMARY
    answers = read_object(source.path, Summary) if whole else read_object(source.path, Output).results
    by_program: dict[tuple[str, str], list[Answered]] = {}
    for answer in answers.results:
        by_program.setdefault((answer.prompt_id, _provider(answer)), []).append(answer)
    prompts = list(dict.fromkeys(prompt for prompt, _ in by_program))
    named = {key: f"{key[1]} prompt {prompts.index(key[0]) + 1}" if len(prompts) > 1 else key[1] for key in by_program}
    return [result for key, own in by_program.items() for result in _results(source, own, named[key], group_field)]


def _results(source: Source, answers: list[Answered], name: str, group_field: str) -> list[Result]:
    metrics = ["score", *dict.fromkeys(metric for answer in answers for metric in answer.named_scores)]
    simulated = f"Simulated: {name} is promptfoo's echo, which is no model." if _provider(answers[0]) == "echo" else ""
    return [
        Result(
            name, str(source.path), FORMAT.what, tuple(_row(answer, metric, group_field) for answer in answers),
            metric=metric, notes=(simulated,) if simulated else (),
        )
        for metric in metrics
    ]  # fmt: skip


def _row(answer: Answered, metric: str, group_field: str) -> Row:
    score = answer.score if metric == "score" else answer.named_scores.get(metric)
    group = answer.vars.get(group_field, (answer.test_case.metadata or {}).get(group_field))
    return Row(
        id=str(answer.test_idx), score=None if answer.failure_reason == ERROR else score, group=text_of(group),
        input=last_message(answer.prompt.raw) or None, cost=answer.response.cost if answer.response else None,
        document=msgspec.json.encode(answer.vars, order="deterministic").decode() if answer.vars else None,
    )  # fmt: skip


def _provider(answer: Answered) -> str:
    return answer.provider.label or answer.provider.id or "a provider without a name"


FORMAT = Format("promptfoo's JSON", recognizes, read)
