"""Chains call once a role and pass their notes on; votes and repeats draw anew; a bad answer is a scored failure."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from run_scaling_experiment import MultiStepClassifier
from scaling.testing import Body, ScriptedServer, chat_fields, last_user_message, whole_prompt
from scaling.types import UsageError
from tests.support.files import lines
from tests.support.toy import LABELS, Toy, rows

ROLES = {
    1: ("classifier",),
    2: ("analyzer", "classifier"),
    3: ("analyzer", "reasoner", "classifier"),
    4: ("parser", "contextualizer", "reasoner", "classifier"),
    5: ("parser", "contextualizer", "reasoner", "synthesizer", "classifier"),
}
EXAMPLES = 4
NO_CHECK = {"val_size": 5}  # all of val is select: the test rows are all that is scored


def message_of(body: Body) -> str:
    """The item that a request is about."""
    return next(row["message"] for row in rows() if row["message"] in last_user_message(body))


def section(name: str, value: str) -> str:
    return f"[[ ## {name} ## ]]\n{value}\n\n[[ ## completed ## ]]"


def in_turn(*answers: str) -> Callable[[Body], str]:
    """A script that gives each item these answers one after another (unparseable where no label)."""
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(body: Body) -> str:
        with lock:
            number = asked[message_of(body)]
            asked[message_of(body)] += 1
        value = answers[number]
        return section("label", value) if value in LABELS else value

    return answer


@pytest.mark.parametrize("steps", ROLES)
def test_a_chain_calls_each_role_once_and_in_order(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, steps: int
) -> None:
    record = experiment(num_steps=steps, test_size=EXAMPLES, **NO_CHECK, max_concurrency=1)

    assert record["status"] == "ok"
    assert record["lm_calls_per_example"] == steps
    assert server.calls == steps * EXAMPLES
    assert [call["role"] for call in lines(tmp_path / "cell/calls.jsonl")] == list(ROLES[steps]) * EXAMPLES
    assert [line["calls"] for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"] == [
        steps
    ] * EXAMPLES


@pytest.mark.parametrize("steps", ROLES)
def test_optimizers_see_each_predictor_by_its_role(steps: int) -> None:
    program = MultiStepClassifier(Toy, steps)

    assert tuple(name for name, _ in program.named_predictors()) == ROLES[steps]
    instructions = [predictor.signature.instructions for predictor in program.predictors()]
    assert len(set(instructions)) == steps
    assert instructions[-1] == Toy.instructions


@pytest.mark.parametrize("steps", [0, 6, -1])
def test_other_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(UsageError, match="1 to 5"):
        MultiStepClassifier(Toy, steps)


def test_each_role_sees_the_notes_of_the_roles_before_it(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    experiment(num_steps=5, test_size=EXAMPLES, **NO_CHECK)

    prompts: dict[str, list[str]] = defaultdict(list)
    for body in server.requests:
        prompts[message_of(body)].append(last_user_message(body))
    by_id = {row["id"]: row["message"] for row in rows()}
    seen = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    assert len(seen) == EXAMPLES
    for line in seen:
        assert list(line["notes"]) == [f"{role}_notes" for role in ROLES[5][:-1]]
        notes = list(line["notes"].values())
        assert len(set(notes)) == 4
        for number, prompt in enumerate(prompts[by_id[line["id"]]]):
            assert [note in prompt for note in notes] == [i < number for i in range(4)]


def test_a_benchmark_may_say_in_its_own_words_what_a_role_does(
    experiment: Callable, server: ScriptedServer, toy: Callable
) -> None:
    toy(roles={"analyzer": "Look for the words that a clerk would underline."})
    experiment(num_steps=2, test_size=1, **NO_CHECK)

    asked = ["a clerk would underline" in whole_prompt(body) for body in server.requests]
    assert asked == [True, False]


@pytest.mark.parametrize("steps", [1, 3])
def test_an_answer_that_cannot_be_parsed_is_a_scored_failure(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, steps: int
) -> None:
    default = server.default_answer
    server.answer = lambda body: "I would rather not say." if "about a" in last_user_message(body) else default(body)
    record = experiment(num_steps=steps, test_size=40)

    by_id = {row["id"]: row["message"] for row in rows()}
    final = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    failed = [line for line in final if "about a" in by_id[line["id"]]]
    assert 0 < len(failed) < len(final) == 40
    for line in failed:
        assert (line["error"], line["score"], line["prediction"], line["calls"]) == ("parse", 0.0, None, 1)
    assert all(line["error"] is None and line["calls"] == steps for line in final if line not in failed)
    assert record["status"] == "ok"
    assert record["n"] == 40
    assert record["error_rates"] == {"infrastructure": 0.0, "parse": len(failed) / 40}
    assert record["final_score"] == pytest.approx(sum(line["score"] for line in final) / 40)


@pytest.mark.parametrize("optimizer", ["gepa", "mipro", "bootstrap"])
def test_unparseable_answers_end_no_optimization(experiment: Callable, server: ScriptedServer, optimizer: str) -> None:
    default = server.default_answer
    server.answer = lambda body: "Hm." if "label" in chat_fields(body) and "7>" in whole_prompt(body) else default(body)
    record = experiment(optimizer=optimizer, num_steps=2)

    assert record["status"] == "ok", record["error"]
    assert record["rollouts_used"] >= 20


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 10 tokens. Please reduce the length.", "context_length_exceeded"),
        ("request (8570 tokens) exceeds the available context size (8192 tokens), try increasing it", None),
    ],
)
def test_a_prompt_beyond_the_context_window_is_a_failure_of_its_own_kind(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, message: str, code: str | None
) -> None:
    server.fault = lambda n, body: ("status", 400, {}, message, code) if n == 0 else None
    record = experiment(test_size=EXAMPLES, **NO_CHECK, max_concurrency=1)

    final = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    assert [line["error"] for line in final] == ["too_long", None, None, None]
    assert final[0]["score"] == 0.0
    assert record["status"] == "ok"


@pytest.mark.parametrize(
    ("drawn", "elected"),
    [
        (("refund", "billing", "billing"), "billing"),
        (("refund", "refund", "billing"), "refund"),
        (("support", "refund", "billing"), "support"),
        (("support", "billing", "refund", "refund", "billing"), "billing"),
        (("refund", "?", "billing", "billing", "?"), "billing"),
        (("?", "?", "delivery"), "delivery"),
    ],
)
def test_a_vote_elects_the_majority_and_the_earliest_of_a_tie(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, drawn: tuple[str, ...], elected: str
) -> None:
    server.answer = in_turn(*drawn)
    record = experiment(pipeline="vote", num_steps=len(drawn), test_size=EXAMPLES)

    final = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    assert [line["prediction"] for line in final] == [elected] * EXAMPLES
    assert [line["error"] for line in final] == [None] * EXAMPLES
    assert [line["calls"] for line in final] == [len(drawn)] * EXAMPLES
    assert record["lm_calls_per_example"] == len(drawn)


def test_answers_in_other_words_of_the_same_are_one_ballot(
    experiment: Callable, server: ScriptedServer, toy: Callable, tmp_path: Path
) -> None:
    toy(label_field=None)
    drawn = iter(["London", "New  Paris", "new paris."])
    server.answer = lambda body: section("label", next(drawn))
    experiment(pipeline="vote", num_steps=3, test_size=1, **NO_CHECK)

    (final,) = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    assert final["prediction"] == "New  Paris"


def test_a_vote_without_a_usable_ballot_is_a_failure(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    server.answer = in_turn("?", "??", "???")
    record = experiment(pipeline="vote", num_steps=3, test_size=EXAMPLES, **NO_CHECK)

    final = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    assert {(line["error"], line["score"]) for line in final} == {("parse", 0.0)}
    assert record["status"] == "ok"
    assert record["final_score"] == 0.0


def test_repeat_counts_the_last_answer(experiment: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    server.answer = in_turn("support", "support", "billing")
    record = experiment(pipeline="repeat", num_steps=3, test_size=EXAMPLES, **NO_CHECK)

    final = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    assert [line["prediction"] for line in final] == ["billing"] * EXAMPLES
    assert record["lm_calls_per_example"] == 3


@pytest.mark.parametrize("pipeline", ["vote", "repeat"])
def test_each_draw_is_a_request_of_its_own(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, pipeline: str
) -> None:
    server.answer = in_turn("support", "refund", "billing", "delivery", "refund")
    record = experiment(pipeline=pipeline, num_steps=5, test_size=EXAMPLES, **NO_CHECK)

    assert Counter(message_of(body) for body in server.requests) == {
        row["message"]: 5 for row in rows() if any(row["message"] in whole_prompt(b) for b in server.requests)
    }
    # The words of all draws are the same: nothing is passed on.
    assert len({whole_prompt(body) for body in server.requests}) == EXAMPLES
    assert record["usage"]["evaluate"]["cache_hits"] == 0
    assert not any(call["cache_hit"] for call in lines(tmp_path / "cell/calls.jsonl"))
