"""A new benchmark, pipeline, optimizer and figure, each added from outside as one entry of one table."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import dspy
import pytest
from matplotlib.figure import Figure

import analyze_results
import run_scaling_experiment as script
from scaling.analysis import figures
from scaling.analysis.figure_kind import FigureKind
from scaling.analysis.findings import Findings
from scaling.pipelines import PIPELINES, PipelineSpec
from scaling.planning.budgets import Budget, Workload
from scaling.planning.optimizers import OPTIMIZERS, OptimizerSpec
from scaling.run.context import OptimizerContext
from scaling.run.pipelines import Repeat
from scaling.run.steps import draws
from scaling.types import UsageError
from tests.conftest import SMALL
from tests.support import toy
from tests.support.files import lines, read

RULE = "Rule one: read twice."


class FirstAnswer(Repeat):
    """The pipeline `first`: the same call several times, of which the first answer counts."""

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return draws(self.core, self.calls, inputs)[0]


def add_rule(context: OptimizerContext) -> dspy.Module:
    """The optimizer `rule`: adds a sentence to each instruction, and looks at it on select once."""
    program: dspy.Module = context.core.deepcopy()
    for _, predictor in program.named_predictors():
        predictor.signature = predictor.signature.with_instructions(f"{predictor.signature.instructions} {RULE}")
    for example in context.select:
        context.metric(example, program(**example.inputs()))
    context.proposals.tried = 1
    return program


def one_look(budget: Budget) -> Workload:
    """What `rule` does with any budget."""
    return Workload(bare=budget.select, rounds=budget.select)


def draw_cells(found: Findings, value: str) -> Figure:
    """The figure `cells`: how many there are."""
    figure = Figure()
    figure.subplots().bar(["cells"], [len(found.results.cells)])
    return figure


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(script.BENCHMARK_CONFIG, "mine", toy.config())
    monkeypatch.setitem(
        PIPELINES,
        "first",
        PipelineSpec("first", "first", "scaling.run.pipelines:one_step", f"{__name__}:FirstAnswer", draws=True),
    )
    monkeypatch.setitem(OPTIMIZERS, "rule", OptimizerSpec("rule", "A rule", f"{__name__}:add_rule", one_look))
    kind = FigureKind("cells", "How many cells there are.", draw_cells, lambda found: [""])
    monkeypatch.setattr(figures, "FIGURES", [*figures.FIGURES, kind])


def test_new_things_run_are_estimated_and_reported(extended: None, server: Any, tmp_path: Path) -> None:
    results, report = tmp_path / "results", tmp_path / "report"
    flags = ["--benchmarks", "mine", "--pipelines", "first", "--optimizers", "rule", "none", "--steps", "1", "3"]
    flags += ["--models", "openai/scripted", "--api-base", server.url, "--data", "sample", "--runs", "1"]
    flags += ["--rollout-budget", "40", "--train-size", "10", "--val-size", "20", "--test-size", "20"]
    assert script.main([*flags, "--output-dir", str(results)]) == 0

    planned = read(results / "plan.json")
    for steps, optimizer in itertools.product((1, 3), ("rule", "none")):
        record = read(results / "mine" / f"{steps}first" / optimizer / "openai-scripted" / "run0" / "results.json")
        assert record["status"] == "ok" and record["lm_calls_per_example"] == steps
        calls = sum(part["calls"] for part in record["usage"].values())
        low, high = planned[record["cell_id"]]["calls"]
        assert low <= calls <= high
        assert record["unchanged"] is (optimizer == "none")
        if optimizer == "rule":
            assert record["rollouts_used"] == record["cell"]["select_size"]
            assert record["proposals"] == {"tried": 1, "unparsed": 0, "accepted": 0}
            own_calls = lines(results / "mine" / f"{steps}first" / "rule" / "openai-scripted" / "run0" / "calls.jsonl")
            assert len(own_calls) == calls

    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(report)]) == 0
    page = next(report.rglob("report.html")).read_text()
    assert "A rule" in page and "How many cells there are." in page
    assert list(report.rglob("cells.*"))


def test_an_optimizer_that_nobody_planned_is_an_error(server: Any, toy: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown optimizer 'rule'; possible: none, gepa"):
        asyncio.run(script.run_single_experiment(**SMALL | {"optimizer": "rule", "output_dir": tmp_path}))
    assert server.requests == []


def test_the_command_says_how_to_run_a_benchmark_that_was_added(
    toy: Any, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--study", "pipeline", "--data", "sample", "--dry-run"]
    assert script.main(flags) == 0
    said = capsys.readouterr().out
    advice = "--benchmarks banking77 heartdisease hotpotqa toy"
    assert f"note: the study pipeline does not name toy. To add, type {advice}" in said
    assert script.main([*flags, *advice.split()]) == 0
    said = capsys.readouterr().out
    assert "does not name" not in said and "toy 1step gepa" in said
