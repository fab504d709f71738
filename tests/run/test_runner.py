"""A cell's record: complete, reproducible, paid for once, and honest about what failed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import run_scaling_experiment as script
from run_scaling_experiment import MultiStepClassifier
from scaling.data import load_benchmark
from scaling.testing import ScriptedServer
from scaling.types import UsageError
from tests.support.files import lines, read, tree
from tests.support.small import records_in, sweep
from tests.support.toy import rows

FIELDS = [
    "schema_version", "status", "cell_id", "cell", "split", "n", "level", "unchanged", "proposals", "baseline_score",
    "final_score", "improvement", "baseline_ci95", "final_ci95", "improvement_ci95", "val_baseline_score",
    "val_final_score", "rollouts_used", "lm_calls_per_example", "usage", "error_rates", "elapsed_seconds",
    "environment", "data", "error",
]  # fmt: skip
CELL_FIELDS = [
    "benchmark", "pipeline", "steps", "optimizer", "model", "optimizer_model", "run", "seed", "temperature",
    "max_output_tokens", "train_size", "val_size", "select_size", "test_size", "rollout_budget", "data", "labels",
    "feedback",
]  # fmt: skip
USAGE_FIELDS = ["calls", "cache_hits", "prompt_tokens", "completion_tokens", "list_cost_usd", "billed_cost_usd"]
POINT_FIELDS = [
    "rollouts", "lm_calls", "tokens", "list_cost_usd", "elapsed_seconds", "val_n", "candidate_val_score",
    "best_val_score", "test_score",
]  # fmt: skip
LINE_FIELDS = [
    "program", "id", "group", "draw", "gold", "prediction", "score", "turn_scores", "notes", "tokens",
    "latency_seconds", "error",
]  # fmt: skip
CALL_FIELDS = [
    "phase", "role", "prompt_tokens", "completion_tokens", "list_cost_usd", "billed_cost_usd", "latency_seconds",
    "attempts", "cache_hit", "error",
]  # fmt: skip


def test_the_record_and_the_files_beside_it_have_every_field(experiment: Callable, tmp_path: Path) -> None:
    returned = experiment(optimizer="gepa", num_steps=2)
    record = read(tmp_path / "cell/results.json")

    assert record == returned
    assert not [field for field in FIELDS if field not in record]
    assert not [field for field in CELL_FIELDS if field not in record["cell"]]
    assert set(record["usage"]) == {"optimize", "evaluate"}
    for phase in record["usage"].values():
        assert not [field for field in USAGE_FIELDS if field not in phase]
    assert set(record["proposals"]) == {"tried", "unparsed", "accepted"}
    assert set(record["error_rates"]) == {"infrastructure", "parse"}
    assert {"python", "packages", "git", "platform"} <= set(record["environment"])
    assert {"source", "revision", "sha256"} <= set(record["data"])
    assert (record["schema_version"], record["status"], record["error"]) == (1, "ok", None)
    assert (record["split"], record["n"], record["level"]) == ("test", 20, "this program")
    for name in ("baseline", "final"):
        low, high = record[f"{name}_ci95"]
        assert 0 <= low < record[f"{name}_score"] < high <= 1
    for name, fields in (
        ("learning_curve.json", POINT_FIELDS),
        ("predictions.jsonl", LINE_FIELDS),
        ("calls.jsonl", CALL_FIELDS),
    ):
        path = tmp_path / "cell" / name
        for entry in lines(path) if name.endswith("l") else read(path)["points"]:
            assert not [field for field in fields if field not in entry], name


def test_the_cell_says_what_was_asked_for(experiment: Callable) -> None:
    cell = experiment(num_steps=3, seed=2, run=1, temperature=0.3, rollout_budget=50)["cell"]

    asked = {
        "benchmark": "toy", "pipeline": "chain", "steps": 3, "optimizer": "none", "model": "openai/scripted",
        "optimizer_model": "openai/scripted", "run": 1, "seed": 2, "temperature": 0.3, "train_size": 10,
        "val_size": 20, "test_size": 20, "select_size": 5, "rollout_budget": 50,
    }  # fmt: skip
    assert {name: cell[name] for name in asked} == asked


def test_what_is_recorded_as_sent_was_sent(experiment: Callable, server: ScriptedServer) -> None:
    record = experiment(temperature=0.3, test_size=3)

    assert {body["temperature"] for body in server.requests} == {0.3}
    sent = {body.get("max_tokens", body.get("max_completion_tokens")) for body in server.requests}
    assert sent == {record["cell"]["max_output_tokens"]}


@pytest.mark.parametrize("optimizer", ["none", "gepa", "mipro"])
def test_the_same_command_again_makes_no_call(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str
) -> None:
    first = experiment(optimizer=optimizer)
    calls, before = len(server.requests), (tmp_path / "cell/results.json").read_bytes()
    second = experiment(optimizer=optimizer)

    assert calls > 0
    assert len(server.requests) == calls
    assert second == first
    assert (tmp_path / "cell/results.json").read_bytes() == before


def test_a_cell_that_lost_its_record_runs_again_from_the_cache(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    first = experiment(optimizer="mipro", num_steps=2)
    calls = len(server.requests)
    (tmp_path / "cell/results.json").unlink()
    second = experiment(optimizer="mipro", num_steps=2)

    assert len(server.requests) == calls
    assert second["final_score"] == first["final_score"]
    for phase, usage in second["usage"].items():
        assert usage["cache_hits"] == usage["calls"] == first["usage"][phase]["calls"] > 0


def test_another_experiment_may_not_take_the_folder(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    experiment()
    calls, before = len(server.requests), tree(tmp_path / "cell")
    with pytest.raises(UsageError, match="holds another experiment"):
        experiment(num_steps=2)

    assert len(server.requests) == calls
    assert tree(tmp_path / "cell") == before


def broken_metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    raise ZeroDivisionError("nothing to divide by")


def test_a_cell_that_breaks_does_not_break_the_others(
    toy: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    toy("broken", metric=broken_metric)
    toy("third")
    code = script.main(sweep(server, tmp_path / "out", "--benchmarks", "toy", "broken", "third"))

    found = records_in(tmp_path / "out")
    assert code == 1
    assert {name: record["status"] for name, record in found.items()} == {"toy": "ok", "broken": "error", "third": "ok"}
    error = found["broken"]["error"]
    assert error["kind"] == "ZeroDivisionError"
    assert "nothing to divide by" in error["message"]
    assert "broken_metric" in error["traceback"]
    assert found["broken"]["baseline_score"] is found["broken"]["final_score"] is None
    assert not [field for field in FIELDS if field not in found["broken"]]
    shown = capsys.readouterr()
    assert "1 error, 2 ok" in shown.out
    assert "--retry-failed" in shown.out


@pytest.mark.parametrize("optimizer", ["gepa", "mipro", "bootstrap"])
def test_a_metric_that_breaks_while_optimizing_is_an_error_too(
    experiment: Callable, toy: Callable, server: ScriptedServer, optimizer: str
) -> None:
    toy(metric=broken_metric)
    record = experiment(optimizer=optimizer)

    assert record["status"] == "error"
    assert record["final_score"] is None
    assert len(server.requests) < 200


def test_a_failed_cell_runs_again_only_when_asked_to(toy: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    toy(metric=broken_metric)
    command = sweep(server, tmp_path / "out", "--benchmarks", "toy")
    assert script.main(command) == 1
    toy()
    assert script.main(command) == 1
    assert script.main([*command, "--retry-failed"]) == 0
    assert records_in(tmp_path / "out")["toy"]["status"] == "ok"
    assert script.main(command) == 0


def test_baseline_and_final_are_scored_on_the_same_rows(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    record = experiment(optimizer="bootstrap", num_steps=5)

    scored: dict[str, list[str]] = {}
    for line in lines(tmp_path / "cell/predictions.jsonl"):
        scored.setdefault(line["program"], []).append(line["id"])
    assert set(scored) == {"baseline", "final", "at_equal_calls", "check"}
    assert not set(scored["check"]) & set(scored["final"])
    assert record["check_n"] == len(scored["check"]) == 15
    assert scored["baseline"] == scored["final"] == scored["at_equal_calls"]
    assert len(set(scored["final"])) == len(scored["final"]) == record["n"] == 20
    labels = {row["id"]: row["label"] for row in rows()}
    for line in lines(tmp_path / "cell/predictions.jsonl"):
        assert line["gold"] == labels[line["id"]]
        assert line["score"] == float(line["prediction"] == line["gold"])
    for name in ("baseline", "final"):
        scores = [line["score"] for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == name]
        assert record[f"{name}_score"] == pytest.approx(sum(scores) / 20)


@pytest.mark.parametrize("optimizer", ["gepa", "bootstrap"])
def test_the_program_loads_and_answers_as_it_did(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, optimizer: str
) -> None:
    server.skill = lambda body: 0.9 if "of the house" in str(body) or len(body["messages"]) > 2 else 0.2
    record = experiment(optimizer=optimizer, num_steps=2)
    assert record["unchanged"] is False

    program = MultiStepClassifier(load_benchmark("toy", script.BENCHMARK_CONFIG["toy"], "sample").signature, 2)
    program.load(tmp_path / "cell/program.json")

    told = read(tmp_path / "cell/program.json")["instructions"]
    assert list(told) == ["analyzer", "classifier"]
    for role, predictor in program.named_predictors():
        assert predictor.signature.instructions == told[role]["after"]
    cell = record["cell"]
    lm = dspy.LM(
        "openai/scripted", api_base=server.url, api_key="none", cache=False,
        temperature=cell["temperature"], max_tokens=cell["max_output_tokens"],
    )  # fmt: skip
    message = {row["id"]: row["message"] for row in rows()}
    final = [line for line in lines(tmp_path / "cell/predictions.jsonl") if line["program"] == "final"]
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        answers = [program(message=message[line["id"]]).label for line in final]
    assert answers == [line["prediction"] for line in final]


def five_keys() -> dict[str, Any]:
    """The smallest entry that the README promises to be enough."""

    class Sort(dspy.Signature):
        """Sort a message."""

        message: str = dspy.InputField()
        label: str = dspy.OutputField()

    def right(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
        return float(pred.label == gold.label)

    plain = [{"message": row["message"], "label": row["label"]} for row in rows()]
    return {
        "signature": Sort,
        "loader": lambda: plain,
        "metric": right,
        "train_seeds": range(20),
        "val_seeds": range(20, 60),
    }


@pytest.mark.parametrize("optimizer", ["none", "gepa"])
def test_five_keys_are_enough_for_a_benchmark(
    experiment: Callable, toy: Callable, tmp_path: Path, optimizer: str, capsys: pytest.CaptureFixture
) -> None:
    toy(**dict.fromkeys(script.BENCHMARK_CONFIG["toy"]))
    script.BENCHMARK_CONFIG["toy"] |= five_keys()
    record = experiment(optimizer=optimizer)

    assert record["status"] == "ok", record["error"]
    assert record["split"] == "check"
    assert record["n"] == record["cell"]["test_size"] == 20 - record["cell"]["select_size"]
    assert len(lines(tmp_path / "cell/predictions.jsonl")) >= 15
    assert "check rows" in capsys.readouterr().out


def test_a_benchmark_may_have_official_test_rows_and_a_second_metric(experiment: Callable, toy: Callable) -> None:
    every = rows()
    toy(
        loader=lambda source: {"train": every[::2], "test": every[1::2], "revision": f"of {source}"},
        train_seeds=range(10),
        val_seeds=range(10, 30),
        extra_metrics={"is_refund": lambda gold, pred: float(pred.label == "refund")},
    )
    record = experiment()

    assert record["status"] == "ok", record["error"]
    assert record["data"]["revision"] == "of sample"
    assert record["cell"]["test_size"] == 20
    assert 0 < record["extra_scores"]["is_refund"]["final"] < 1


def test_a_model_that_is_held_to_a_schema_answers_in_it(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    models = tmp_path / "models.toml"
    models.write_text(
        '[models."toy/json"]\nroute = "openai/scripted"\nadapter = "json"\nsends_seed = true\n'
        f'api_base = "{server.url}"\n'
    )
    record = experiment(optimizer="gepa", num_steps=2, model="toy/json", models_file=models, api_base=None)

    assert record["status"] == "ok", record["error"]
    assert record["error_rates"]["parse"] == 0.0
    assert record["proposals"]["tried"] > record["proposals"]["unparsed"] == 0
    forms = Counter((body.get("response_format") or {}).get("type") for body in server.requests)
    assert set(forms) == {"json_schema"}
    assert all(isinstance(body["seed"], int) for body in server.requests)


def test_no_key_and_no_prompt_is_written(
    experiment: Callable, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models.toml"
    models.write_text(
        f'[models."toy/keyed"]\nroute = "openai/scripted"\napi_base = "{server.url}"\nkey_env = "TOY_KEY"\n'
    )
    monkeypatch.setenv("TOY_KEY", "sesame-open-77")
    experiment(optimizer="gepa", model="toy/keyed", models_file=models, api_base=None)

    for name, content in tree(tmp_path / "cell").items():
        assert b"sesame-open-77" not in content, name
    calls = (tmp_path / "cell/calls.jsonl").read_text()
    assert not [row for row in rows() if row["message"] in calls]


def test_the_paths_of_a_sweep_say_what_a_cell_is(toy: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    axes = ["--steps", "1", "2", "--optimizers", "none", "bootstrap", "--runs", "2", "--benchmarks", "toy"]

    assert script.main(sweep(server, out, *axes)) == 0
    found = sorted(os.path.relpath(path.parent, out) for path in out.rglob("results.json"))
    assert found == sorted(
        f"toy/{steps}step/{optimizer}/openai-scripted/run{run}"
        for steps in (1, 2)
        for optimizer in ("none", "bootstrap")
        for run in (0, 1)
    )
    together = read(out / "aggregate_results.json")
    assert together["cells"] == len(together["records"]) == 8
    assert len({record["cell_id"] for record in together["records"]}) == 8
    # Within a run all cells are splits the same rows; test never varies.
    for record in together["records"]:
        same = [other for other in together["records"] if other["cell"]["run"] == record["cell"]["run"]]
        assert {other["data"]["sha256"] for other in same} == {record["data"]["sha256"]}
    assert len({record["data"]["test_sha256"] for record in together["records"]}) == 1
    assert len({record["data"]["sha256"] for record in together["records"]}) == 2


def test_another_size_gets_a_folder_of_its_own(toy: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert script.main(sweep(server, out, "--benchmarks", "toy")) == 0
    assert script.main(sweep(server, out, "--benchmarks", "toy", "--test-size", "10")) == 0

    found = {path.parent.name: read(path) for path in out.rglob("results.json")}
    assert {record["cell"]["test_size"] for record in found.values()} == {10, 20}
    other = next(record for record in found.values() if record["cell"]["test_size"] == 10)
    assert set(found) == {"run0", f"run0-{other['cell_id'][:6]}"}
