"""The model-scaling study as a whole, on the scripted server, with scores planted by the model's size."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.data import load_benchmark
from scaling.testing import ScriptedServer
from tests.support.chaos import only_in_chaos
from tests.support.planted import golds_of, planted_answers

SIZES = {"s0": 0.5, "s1": 1.7, "s2": 6.0, "s3": 20.0, "s4": 70.0, "s5": 250.0}
AMPLITUDE, ALPHA = 0.4, 0.13
BENCHMARKS = ["superglue", "mathbench"]
ENTRY = """
[models."toy/{name}"]
route = "openai/{name}"
api_base = "{url}"
sends_seed = true
input_usd_per_million = {usd}
output_usd_per_million = {usd}
price_date = "today"
price_source = "made up"
parameters_billions = {size}
parameters_source = "made up"
parameters_status = "published"
"""


def planted(model: str) -> float:
    return AMPLITUDE * SIZES[model] ** ALPHA


pytestmark = only_in_chaos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Phase 3 of the study on two of its benchmarks: six models, a run, all sample rows."""
    home = tmp_path_factory.mktemp("model-scaling")
    golds = []
    for name in BENCHMARKS:
        golds += golds_of(load_benchmark(name, script.BENCHMARK_CONFIG[name], "sample"))
    with ScriptedServer(answer=planted_answers(golds, lambda request: planted(request.model))) as server:
        models = [ENTRY.format(name=n, size=s, url=server.url, usd=s / 10) for n, s in SIZES.items()]
        (home / "models.toml").write_text("".join(models))
        flags = ["--study", "model-scaling", "--phase", "3", "--benchmarks", *BENCHMARKS, "--data", "sample"]
        flags += ["--models", *(f"toy/{name}" for name in SIZES), "--models-file", str(home / "models.toml")]
        assert script.main([*flags, "--output-dir", str(home / "results")]) == 0
    options = ["--results-dir", str(home / "results"), "--output-dir", str(home), "--at-size", "30"]
    assert analyze_results.main(options) == 0
    yield home


def rows_of(path: Path, column: str, text: str) -> list[dict[str, str]]:
    with path.open() as lines:
        return [row for row in csv.DictReader(lines) if text in row[column]]


def test_the_largest_is_shown_to_be_better_than_the_smallest_and_by_how_much(folder: Path) -> None:
    (row,) = rows_of(folder / "summary_tests.csv", "comparison", "all benchmarks 1step none: toy/s5 - toy/s0")
    assert row["verdict"] in ("better", "on these rows: higher")
    assert float(row["ci_low"]) <= planted("s5") - planted("s0") <= float(row["ci_high"])
    assert len(rows_of(folder / "summary_tests.csv", "family", "models on each benchmark")) == 2 * 15


def test_the_score_grows_with_size_as_planted(folder: Path) -> None:
    (row,) = rows_of(folder / "summary_tests.csv", "family", "score against model size")
    assert row["verdict"] == "rises"
    fits = folder / "summary_fits.csv"
    score = "all benchmarks 1step none: score"
    (law,) = [row for row in rows_of(fits, "benchmark", score) if row["family"] == "A size^alpha"]
    assert float(law["ci_low"]) <= ALPHA <= float(law["ci_high"]) and law["verdict"].startswith("alpha")
    (at,) = [row for row in rows_of(fits, "benchmark", score) if row["family"] == "expected score at 30 billion"]
    assert float(at["ci_low"]) <= AMPLITUDE * 30**ALPHA <= float(at["ci_high"])
    assert at["verdict"].startswith("expect ")


def test_the_report_has_scores_costs_and_figures_of_the_models(folder: Path) -> None:
    page = (folder / "summary_results.md").read_text()
    for title in ("Models", "Scores by model and dataset", "Cost by model", "Scores by subtask"):
        assert f"## {title}\n" in page, title
    assert "no cell is recommended" in page
    names = {path.name for path in (folder / "visualizations").iterdir()}
    assert {"score_against_size_1step-none.png", "score_against_price_1step-none.png"} <= names
