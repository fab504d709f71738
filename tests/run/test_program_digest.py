"""A result belongs to the program that made it: with another metric, prompt or constant it is not taken for settled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Any

import dspy
import pytest

import run_scaling_experiment as script
from scaling.data import load_benchmark
from scaling.models import Model
from scaling.planning import budgets
from scaling.planning.optimizers import OPTIMIZERS
from scaling.run import optimizers, pipelines
from scaling.run.program_digest import program_digest
from scaling.testing import ScriptedServer
from scaling.types import Benchmark, Cell, UsageError
from tests.support import toy
from tests.support.files import lines, read

MODEL = Model(id="openai/any", route="openai/any")
ROOT = Path(script.__file__).parent


def strict(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
    """Another metric than the toy's: 1.0 for 'refund' only."""
    return float(pred.label == gold.label == "refund")


def cell(**changes: Any) -> Cell:
    return replace(Cell("toy", "chain", 3, "gepa", MODEL.id, MODEL.id), **changes)


def bench(**changes: Any) -> Benchmark:
    return load_benchmark("toy", toy.config(**changes), "sample")


def parts(one: Any, other: Any) -> set[str]:
    """In which parts two digests differ."""
    return {name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)}


# What a sweep does about it


def test_another_metric_is_not_settled_already(experiment: Callable, toy: Callable, tmp_path: Path) -> None:
    before = experiment()
    assert experiment() == before
    toy(metric=strict)
    with pytest.raises(UsageError, match="the score of another program"):
        experiment()
    assert read(tmp_path / "cell/results.json") == before  # and nothing is overwritten


def test_once_the_old_result_is_moved_away_its_answers_come_from_the_cache(
    experiment: Callable, toy: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    before = experiment()
    asked = server.calls
    toy(metric=strict)
    for path in (tmp_path / "cell").iterdir():
        if not path.name.startswith("."):
            path.rename(tmp_path / path.name)
    after = experiment()
    assert server.calls == asked
    assert after["cell_id"] == before["cell_id"]
    assert after["program"] != before["program"]
    assert after["final_score"] < before["final_score"]


def test_a_result_from_before_there_were_digests_stays(
    experiment: Callable, toy: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    experiment()
    path = tmp_path / "cell" / "results.json"
    old = {name: value for name, value in read(path).items() if name != "program"}
    path.write_text(json.dumps(old))
    asked = server.calls
    toy(metric=strict)
    again = experiment()
    assert (again["program"], again["final_score"], server.calls) == (None, old["final_score"], asked)


def test_a_failure_of_another_program_is_no_score_and_stays_until_it_is_asked_to_run_again(
    command: Callable, toy: Callable
) -> None:
    toy(metric=lambda gold, pred, trace=None: "much")
    assert script.main(command()) == 1
    toy()
    assert script.main(command()) == 1
    assert script.main([*command(), "--retry-failed"]) == 0


def test_the_command_says_it_in_one_line(command: Callable, refused: Callable, toy: Callable) -> None:
    flags = command()
    assert script.main(flags) == 0
    toy(metric=strict)
    said = refused(flags)
    assert "another program" in said and "--fresh" in said and "--output-dir" in said
    assert script.main([*flags, "--fresh"]) == 0


# What is in it


class OtherWords(toy.Toy):
    """Choose the label of a message."""


def told(gold: dspy.Example, pred: dspy.Prediction) -> str:
    return "Try again."


def look(word: str) -> str:
    """Look a word up."""
    return word.upper()


OF_THE_BENCHMARK = {
    "metric": ({"metric": strict}, {"task"}),
    "another metric beside it": ({"extra_metrics": {"strict": strict}}, {"task"}),
    "instruction": ({"signature": OtherWords}, {"task", "program"}),
    "role": ({"roles": {"analyzer": "Look at the first word."}}, {"program"}),
    "feedback": ({"feedback": told}, {"optimizer"}),
    "tools": ({"tools": lambda source: [dspy.Tool(look)]}, {"program"}),
    "rows that no prompt shows": ({"train_seeds": range(10)}, set()),
    "label sets": ({"labels": 3}, {"program"}),
}


@pytest.mark.parametrize(("changes", "expected"), OF_THE_BENCHMARK.values(), ids=list(OF_THE_BENCHMARK))
def test_each_part_of_a_benchmark_is_in_its_part_of_the_digest(changes: dict[str, Any], expected: set[str]) -> None:
    before = program_digest(cell(), bench(), MODEL, MODEL)
    assert parts(before, program_digest(cell(), bench(**changes), MODEL, MODEL)) == expected


OF_THE_CODE = {
    "a role's task": (pipelines.ROLE_TASKS, "analyzer", "Think.", {"program"}),
    "a budget's share": (vars(budgets), "PASSES_SHARE", 0.5, {"optimizer"}),
    "a threshold": (vars(optimizers), "DEMO_THRESHOLD", 0.9, {"optimizer"}),
}


@pytest.mark.parametrize(("where", "name", "value", "expected"), OF_THE_CODE.values(), ids=list(OF_THE_CODE))
def test_a_constant_of_the_program_is_in_it(
    monkeypatch: pytest.MonkeyPatch, where: dict[str, Any], name: str, value: Any, expected: set[str]
) -> None:
    before = program_digest(cell(optimizer="mipro"), bench(), MODEL, MODEL)
    monkeypatch.setitem(where, name, value)
    assert parts(before, program_digest(cell(optimizer="mipro"), bench(), MODEL, MODEL)) == expected


def test_another_optimizer_in_the_table_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = program_digest(cell(optimizer="mipro"), bench(), MODEL, MODEL)
    monkeypatch.setitem(OPTIMIZERS, "new", replace(OPTIMIZERS["gepa"], name="new"))
    assert program_digest(cell(optimizer="mipro"), bench(), MODEL, MODEL) == before


def test_a_default_of_its_options_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = program_digest(cell(optimizer="mipro"), bench(), MODEL, MODEL)
    other = make_dataclass("Other", [("minibatch_size", int, 7)], bases=(OPTIMIZERS["mipro"].options,), frozen=True)
    monkeypatch.setitem(OPTIMIZERS, "mipro", replace(OPTIMIZERS["mipro"], options=other))
    assert parts(before, program_digest(cell(optimizer="mipro"), bench(), MODEL, MODEL)) == {"optimizer"}


def test_the_adapter_and_the_limits_of_a_model_are_in_it() -> None:
    before = program_digest(cell(), bench(), MODEL, MODEL)
    in_json = replace(MODEL, adapter="json")
    assert parts(before, program_digest(cell(), bench(), in_json, MODEL)) == {"program", "optimizer"}
    shorter = replace(MODEL, optimizer_max_output_tokens=100)
    assert parts(before, program_digest(cell(), bench(), MODEL, shorter)) == {"optimizer"}
    elsewhere = replace(MODEL, api_base="http://127.0.0.1:1/v1", input_usd_per_million=3.0)
    assert before == program_digest(cell(), bench(), elsewhere, elsewhere)


def test_runs_rows_and_sizes_are_fields_of_the_cell_and_not_in_it() -> None:
    before = program_digest(cell(), bench(), MODEL, MODEL)
    other = cell(run=3, seed=2, train_size=9, rollout_budget=77, data_sha256="0")
    assert program_digest(other, bench(), MODEL, MODEL) == before


# Run in a process of its own: the digests of all benchmarks with a sample.
PRINT_DIGESTS = """
import run_scaling_experiment as script
from scaling.data import load_benchmark
from scaling.models import Model
from scaling.run.program_digest import program_digest
from scaling.types import Cell
model = Model(id="openai/any", route="openai/any")
for name, config in script.BENCHMARK_CONFIG.items():
    bench = load_benchmark(name, config, "sample")
    print(name, program_digest(Cell(name, "chain", 3, "gepa", model.id, model.id), bench, model, model))
"""


def test_a_copy_of_the_program_in_another_folder_says_the_same(tmp_path: Path) -> None:
    """Results move between machines, where the program lies elsewhere."""
    for name in ("scaling", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_scaling_experiment.py", tmp_path)
    printed = []
    for folder, seed in ((ROOT, "1"), (tmp_path, "7")):
        # Started without the path of the installed package.
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", PRINT_DIGESTS], cwd=folder, env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert "humaneval" in printed[0]


def test_every_record_has_it(experiment: Callable, tmp_path: Path) -> None:
    record = experiment(optimizer="gepa", num_steps=2)
    assert set(record["program"]) == {"task", "program", "optimizer"}
    assert all(len(part) == 16 for part in record["program"].values())
    assert lines(tmp_path / "cell/predictions.jsonl")
