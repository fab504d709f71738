"""Every optimizer keeps to the budget and to its rows, and says what it tried."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import run_scaling_experiment as script
from scaling.data import load_benchmark, make_splits
from scaling.planning.budgets import plan_bootstrap, plan_mipro
from scaling.planning.optimizer_options import MiproOptions
from scaling.planning.optimizers import OPTIMIZERS, hosted_names
from scaling.run import dspy_optimizers
from scaling.run.pipelines import MultiStepClassifier
from scaling.testing import Body, ScriptedServer, chat_fields, json_fields, message_text, whole_prompt
from scaling.types import Splits
from tests.support import toy as toy_benchmark
from tests.support.files import lines, read

OPTIMIZING = ("gepa", "mipro", "mipro_instruct", "bootstrap")
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZING)
one_and_two_steps = pytest.mark.parametrize("steps", [1, 2])


def dealt_in(record: dict[str, Any]) -> Splits:
    """The rows that a toy cell was splits, found again from its record."""
    cell = record["cell"]
    sizes = [cell[f"{part}_size"] for part in ("train", "val", "select", "test")]
    again = make_splits(load_benchmark("toy", toy_benchmark.config(), "sample"), *sizes, cell["run"], cell["seed"])
    assert again.sha256 == record["data"]["sha256"]
    return again


def on_select(curve: list[dict[str, Any]], record: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of full passes over the selection rows."""
    full = [point for point in curve if point.get("rows", "select") == "select"]
    return [point for point in full if point["val_n"] == record["cell"]["select_size"]]


def is_proposal(body: Body) -> bool:
    """Whether the request asks for a new instruction."""
    return any("instruction" in field for field in {**chat_fields(body), **json_fields(body)})


@every_optimizer
# Right always: every bootstrap lands at once. Right never: each takes all the rows it may.
@pytest.mark.parametrize(("steps", "skill"), [(1, 0.0), (1, 0.6), (2, 0.6), (1, 1.0)])
def test_rollouts_stay_at_or_below_the_budget(
    experiment: Callable, server: ScriptedServer, optimizer: str, steps: int, skill: float
) -> None:
    server.skill = lambda body: skill
    record = experiment(optimizer=optimizer, num_steps=steps)

    assert record["status"] == "ok", record["error"]
    assert record["rollouts_used"] <= record["cell"]["rollout_budget"] == 40
    if optimizer.startswith("mipro"):
        assert record["rollouts_used"] >= 32


@every_optimizer
def test_a_rollout_is_a_run_of_the_whole_program(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str
) -> None:
    record = experiment(optimizer=optimizer, num_steps=2)

    roles = [call["role"] for call in lines(tmp_path / "cell/calls.jsonl") if call["phase"] == "optimize"]
    assert roles.count("analyzer") == roles.count("classifier") == record["rollouts_used"] > 0


@every_optimizer
@one_and_two_steps
def test_optimizers_see_train_and_select_rows_only(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str, steps: int
) -> None:
    record = experiment(optimizer=optimizer, num_steps=steps)

    rows = dealt_in(record)
    sent = [call for call in lines(tmp_path / "cell/calls.jsonl") if not call["cache_hit"]]
    while_optimizing = [call["phase"] for call in sent].count("optimize")
    assert [call["phase"] for call in sent] == ["optimize"] * while_optimizing + ["evaluate"] * (
        len(sent) - while_optimizing
    )
    before = "\n".join(whole_prompt(body) for body in server.requests[:while_optimizing])
    after = "\n".join(whole_prompt(body) for body in server.requests[while_optimizing:])
    assert not [row["id"] for row in rows.test + rows.check if row["message"] in before]
    assert [row["message"] in before for row in rows.select] == [True] * len(rows.select)
    # The same search finds the test rows once they are opened, so it could have found them above.
    opened = rows.test + rows.check
    assert [row["message"] in after for row in opened] == [True] * len(opened)


@every_optimizer
def test_the_learning_curve_has_a_point_for_each_candidate(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str
) -> None:
    record = experiment(optimizer=optimizer, rollout_budget=60, num_steps=2)

    curve = read(tmp_path / "cell/learning_curve.json")["points"]
    assert record["proposals"]["tried"] > 2
    assert len(curve) > 2
    rollouts = [point["rollouts"] for point in curve]
    assert rollouts == sorted(set(rollouts))
    assert rollouts[-1] <= record["rollouts_used"]
    full = on_select(curve, record)
    assert len(full) >= 2
    best = None
    for point in curve:
        if point in full:
            best = max(point["candidate_val_score"], best or 0.0)
        assert point["best_val_score"] == best
    assert record["val_baseline_score"] == full[0]["candidate_val_score"]
    assert record["val_final_score"] == max(point["candidate_val_score"] for point in full)
    for name in ("lm_calls", "tokens"):
        assert [p[name] for p in curve] == sorted(p[name] for p in curve)
    assert [point for point in curve if point["test_score"] is not None]


@pytest.mark.parametrize("optimizer", ["gepa", "mipro", "mipro_instruct"])
def test_proposals_are_distinct_and_in_the_record(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str
) -> None:
    record = experiment(optimizer=optimizer, rollout_budget=60)

    asked = [body for body in server.requests if is_proposal(body)]
    proposed = {server.default_answer(body) for body in asked}
    assert len(proposed) > 1
    tried, unparsed, accepted = (record["proposals"][key] for key in ("tried", "unparsed", "accepted"))
    assert tried >= 2
    assert unparsed == 0
    assert 0 <= accepted <= tried
    curve = read(tmp_path / "cell/learning_curve.json")["points"]
    better = {point["best_val_score"] for point in on_select(curve, record)}
    assert accepted >= len(better) - 1


@pytest.mark.parametrize("optimizer", ["gepa", "mipro", "mipro_instruct"])
def test_proposals_that_cannot_be_parsed_are_counted_and_end_nothing(
    experiment: Callable, server: ScriptedServer, optimizer: str
) -> None:
    server.answer = lambda body: "I have no idea." if is_proposal(body) else server.default_answer(body)
    record = experiment(optimizer=optimizer)

    assert record["status"] == "ok", record["error"]
    assert record["proposals"]["unparsed"] > 0
    assert record["rollouts_used"] >= 20


def test_a_better_instruction_is_found_and_kept(experiment: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    # A model that sorts well only when it is told the rule of the house.
    server.skill = lambda body: 1.0 if "of the house" in whole_prompt(body) else 0.2
    record = experiment(optimizer="gepa", test_size=40)

    assert record["status"] == "ok"
    assert record["unchanged"] is False
    assert record["val_baseline_score"] < record["val_final_score"] == 1.0
    assert record["baseline_score"] < 0.5
    assert record["final_score"] == 1.0
    assert record["improvement"] == pytest.approx(record["final_score"] - record["baseline_score"])
    low, high = record["improvement_ci95"]
    assert 0 < low <= record["improvement"] <= high
    assert record["proposals"]["accepted"] >= 1
    told = read(tmp_path / "cell/program.json")["instructions"]["classifier"]
    assert told["before"] == toy_benchmark.Toy.instructions
    assert "of the house" in told["after"]


@pytest.mark.parametrize("optimizer", ["mipro", "bootstrap"])
def test_a_poor_answer_is_never_shown_as_a_demo(
    experiment: Callable, server: ScriptedServer, toy: Callable, optimizer: str
) -> None:
    toy(metric=lambda gold, pred, trace=None: 1.0 if pred.label == gold.label else 0.3)
    experiment(optimizer=optimizer)

    shown = 0
    for body in server.requests:
        if chat_fields(body).keys() == {"label"}:
            texts = [message_text(message) for message in body["messages"][1:-1]]
            for asked, answered in zip(texts[::2], texts[1::2], strict=True):
                shown += 1
                assert next(label for message, label in toy_benchmark.truth().items() if message in asked) in answered
    assert shown > 0


def test_bootstrap_keeps_right_answers_as_demos(experiment: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    # A model that sorts well only when it is shown how.
    server.skill = lambda body: 1.0 if len(body["messages"]) > 2 else 0.4
    record = experiment(optimizer="bootstrap", test_size=40)

    assert record["baseline_score"] < record["final_score"] == 1.0
    demos = read(tmp_path / "cell/program.json")["classifier"]["demos"]
    right = toy_benchmark.truth()
    assert demos
    assert all(right[demo["message"]] == demo["label"] for demo in demos)
    assert {demo["message"] for demo in demos} <= {row["message"] for row in dealt_in(record).train}
    told = read(tmp_path / "cell/program.json")["instructions"]["classifier"]
    assert told["before"] == told["after"]


def test_mipro_instruct_has_no_demos(experiment: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    server.skill = lambda body: 1.0 if "of the house" in whole_prompt(body) else 0.2
    record = experiment(optimizer="mipro_instruct", rollout_budget=60)

    assert record["final_score"] > record["baseline_score"]
    assert read(tmp_path / "cell/program.json")["classifier"]["demos"] == []
    assert not [body for body in server.requests if len(body["messages"]) > 2 and not is_proposal(body)]


@every_optimizer
def test_no_change_is_called_no_change(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str
) -> None:
    server.skill = lambda body: 1.0
    record = experiment(optimizer=optimizer)

    assert record["unchanged"] is True
    assert record["improvement"] == 0.0
    assert record["improvement_ci95"] is None
    assert record["usage"]["evaluate"]["calls"] == 20 + 15  # the test rows once, and the check rows


@every_optimizer
def test_the_same_seed_gives_the_same_numbers(experiment: Callable, tmp_path: Path, optimizer: str) -> None:
    def told(name: str) -> dict[str, Any]:
        record = experiment(optimizer=optimizer, num_steps=2, output_dir=tmp_path / name)
        record.pop("elapsed_seconds")
        record.pop("optimize_seconds")
        curve = read(tmp_path / name / "learning_curve.json")["points"]
        predictions = lines(tmp_path / name / "predictions.jsonl")
        return {
            "record": record,
            "curve": [point | {"elapsed_seconds": None} for point in curve],
            "program": read(tmp_path / name / "program.json"),
            "predictions": [line | {"latency_seconds": None} for line in predictions],
        }

    first, second = told("first"), told("second")
    for part, value in first.items():
        assert value == second[part], part


@every_optimizer
def test_another_run_is_another_experiment(experiment: Callable, tmp_path: Path, optimizer: str) -> None:
    first = experiment(optimizer=optimizer, output_dir=tmp_path / "0")
    second = experiment(optimizer=optimizer, output_dir=tmp_path / "1", run=1)

    assert first["cell_id"] != second["cell_id"]
    assert first["data"]["test_sha256"] == second["data"]["test_sha256"]
    assert first["data"]["sha256"] != second["data"]["sha256"]
    curves = [read(tmp_path / name / "learning_curve.json")["points"] for name in ("0", "1")]
    assert [p["candidate_val_score"] for p in curves[0]] != [p["candidate_val_score"] for p in curves[1]]


def test_the_table_of_optimizers_has_those_that_the_command_line_offers() -> None:
    assert set(OPTIMIZERS) == {"none", "transfer", *OPTIMIZING, *hosted_names()}


sizes = st.integers(1, 60).flatmap(
    lambda select: st.tuples(st.integers(4 * select, 4 * select + 2000), st.just(select), st.integers(1, 200))
)


@given(sizes)
def test_mipro_is_planned_within_the_budget(size: tuple[int, int, int]) -> None:
    budget, select, train = size
    trials, candidates, rows = plan_mipro(budget, select, train, MiproOptions())

    assert trials >= 0
    assert candidates >= 3
    assert 1 <= rows <= train
    # The default program and each trial take a pass; demo sets beside the empty and the labelled one are tried out.
    assert (1 + trials) * select + (candidates - 2) * rows <= budget


@given(sizes)
def test_bootstrap_is_planned_within_the_budget(size: tuple[int, int, int]) -> None:
    budget, select, train = size
    passes, candidates, rows = plan_bootstrap(budget, select, train)

    assert passes == 3 + candidates >= 3
    assert 1 <= rows <= train
    # One demo set in the order of the rows, one for each shuffle.
    assert passes * select + (1 + candidates) * rows <= budget


def test_an_example_that_waits_long_for_its_place_runs_once(
    experiment: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = experiment(optimizer="mipro_instruct")
    clock = itertools.count(step=1000.0)  # DSPy runs an example again that seems two minutes old
    parallelizer = dspy_optimizers.private_copy("dspy.utils.parallelizer")
    monkeypatch.setattr(parallelizer, "time", SimpleNamespace(time=lambda: next(clock)))
    record = experiment(optimizer="mipro_instruct", output_dir=tmp_path / "slow")
    assert record["rollouts_used"] == undisturbed["rollouts_used"]


def test_an_early_incumbent_of_gepa_is_scored_on_test(
    command: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    """A better instruction wins early, and another one later: three programs are scored."""
    rules = [f"Rule {number}" for number in range(9)]
    told = iter(rules)

    def answer(body: Body) -> str:
        if "```" in whole_prompt(body) and "assistant" in whole_prompt(body):
            return f"```\n{next(told)}\n```"
        return server.default_answer(body)

    server.answer = answer
    server.skill = lambda body: next((0.3 + 0.15 * n for n, r in enumerate(rules) if r in whole_prompt(body)), 0.2)
    line = command(optimizers="gepa", steps="2", rollout_budget="120", val_size="20")
    assert script.main([*line, "--equal-calls"]) == 0
    record = read(next(tmp_path.rglob("results.json")))
    assert record["at_equal_calls_score"] not in (record["baseline_score"], record["final_score"])


def test_a_proposer_always_sees_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are parsed before there are threads: parsing beside other parsing can fail."""
    program = MultiStepClassifier(toy_benchmark.Toy, 3)
    dspy_optimizers.prepare()
    proposing = dspy_optimizers.private_copy("dspy.propose.utils")
    monkeypatch.setattr(inspect, "getsource", lambda kind: pytest.fail(f"{kind} is parsed in a thread"))
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: proposing.get_dspy_source_code(program), range(16)))
    assert len(texts) == 1 and "class MultiStepClassifier" in texts.pop()
