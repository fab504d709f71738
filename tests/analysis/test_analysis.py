"""The analysis through its command line, on records that real (scripted) cells wrote."""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.learning_figures import learning_curves, learning_lines
from scaling.analysis.summary import recommended
from scaling.testing import ScriptedServer
from scaling.types import EXIT_OK, EXIT_USAGE
from tests.conftest import SMALL
from tests.support import damaged, toy
from tests.support.files import read


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells of the toy benchmark that are ok, and one that is invalid by hand."""
    folder = tmp_path_factory.mktemp("made") / "results"
    server = ScriptedServer(skill=lambda body: 0.6, truth=toy.truth())
    with pytest.MonkeyPatch.context() as patched, server:
        patched.setitem(script.BENCHMARK_CONFIG, "toy", toy.config())
        for optimizer, steps in itertools.product(("gepa", "mipro"), (1, 2)):
            cell = {"optimizer": optimizer, "num_steps": steps, "output_dir": folder / f"{optimizer}{steps}"}
            asyncio.run(script.run_single_experiment(**SMALL | {"api_base": server.url} | cell))
    record = read(folder / "gepa1" / "results.json")
    record |= {"status": "invalid", "cell_id": "0" * 16, "final_score": None, "baseline_score": None}
    record["error"] = {"kind": "infrastructure", "message": "9.0 % of test examples failed in the infrastructure"}
    (folder / "bad").mkdir()
    (folder / "bad" / "results.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy of the records that a test may change."""
    return shutil.copytree(made, tmp_path / "results")


def test_all_figures_and_tables_appear_and_missing_cells_are_missing(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(out)]) == EXIT_OK
    pictures = {path.stem for path in (out / "visualizations").glob("*.png")}
    assert pictures == {
        "scaling_curves_overall", "scaling_curve_toy", "improvement_heatmap_gepa", "improvement_heatmap_mipro",
        "optimizer_comparison", "learning_curves", "learning_curves_calls", "cost_quality",
    }  # fmt: skip
    with (out / "summary_results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    ok = [row for row in rows if row["status"] == "ok"]
    bad = [row for row in rows if row["status"] != "ok"]
    assert len(ok) == 4 and [row["status"] for row in bad] == ["invalid"]
    assert bad[0]["final_score"] == "" and bad[0]["baseline_score"] == ""
    for row in ok:
        record = read(results / f"{row['optimizer']}{row['steps']}" / "results.json")
        assert float(row["final_score"]) == pytest.approx(record["final_score"])
        assert float(row["final_low"]) == pytest.approx(record["final_ci95"][0])
        assert int(row["n"]) == record["n"]
    text = (out / "summary_results.md").read_text() + (out / "report.html").read_text()
    assert text.count("9.0 % of test examples failed") == 2
    made = sum(phase["calls"] for phase in read(results / "gepa1" / "results.json")["usage"].values())
    assert "Estimate against actual" in text and f"| {made} |" in text
    with (out / "summary_tests.csv").open() as lines:
        tests = list(csv.DictReader(lines))
    four = [row for row in tests if row["family"] == "H1-H4"]
    assert [row["verdict"] for row in four] == ["cannot tell"] * 4
    assert all(row["reason"] for row in four)


def test_the_same_records_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        options = ["--results-dir", str(results), "--output-dir", str(tmp_path / name), "--format", "pdf", "svg"]
        assert analyze_results.main(options) == EXIT_OK
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name
    assert (tmp_path / "one" / "visualizations" / "cost_quality.pdf").exists()


def test_without_results_it_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert analyze_results.main(["--results-dir", str(tmp_path)]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run_scaling_experiment.py --quick" in error


def another(results: Path, name: str, cell_id: str, **changes: object) -> None:
    """A cell like mipro1 but for these fields."""
    record = read(results / "mipro1" / "results.json")
    record["cell"] |= changes
    record["cell_id"] = cell_id * 16
    other = results / name
    other.mkdir()
    (other / "results.json").write_text(json.dumps(record))
    for file in ("predictions.jsonl", "learning_curve.json"):
        shutil.copy(results / "mipro1" / file, other)


def test_cells_on_other_terms_are_refused_and_the_field_is_named(results: Path, tmp_path: Path) -> None:
    another(results, "other", "1", rollout_budget=80)
    another(results, "again", "2", rollout_budget=80, run=1)
    out = tmp_path / "out"
    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(out)]) == EXIT_OK
    text = (out / "summary_results.md").read_text()
    assert "Not compared" in text
    # Runs are cells of one series; Markdown escapes the underscore.
    assert re.search(r"2 cells \(1 series\) with the others: rollout.?_budget 80 against 40", text)


def test_each_model_has_a_family_of_hypotheses_and_lines_of_its_own(results: Path, tmp_path: Path) -> None:
    another(results, "other", "1", model="openai/another")
    out = tmp_path / "out"
    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(out)]) == EXIT_OK
    with (out / "summary_tests.csv").open() as lines:
        families = [row["family"] for row in csv.DictReader(lines) if row["family"].startswith("H1-H4")]
    assert families == ["H1-H4 (openai/another)"] * 4 + ["H1-H4 (openai/scripted)"] * 4
    assert "model openai/another against" not in (out / "summary_results.md").read_text()
    findings = analyze_results.find([results], None, False)
    names = [line.line for line in learning_lines(findings, "rollouts") if line.steps == 1]
    assert names == ["GEPA, openai/scripted", "MIPROv2, openai/another", "MIPROv2, openai/scripted"]  # never one line
    figure = learning_curves(learning_lines(findings, "rollouts"), "rollouts")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["toy, 1 step", "toy, 2 steps"]


def test_help_does_not_load_pandas_or_dspy() -> None:
    code = "import sys, analyze_results as a\ntry: a.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'pandas', 'dspy', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_per_dollar_recommends_the_cheapest_that_is_near_the_best(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "benchmark": ["toy"] * 3, "check_score": [0.80, 0.78, 0.50], "usd_per_example": [0.02, 0.01, 0.001],
            "tokens_per_example": [400, 300, 200], "val_size": [100] * 3, "select_size": [50] * 3, "runs": [1] * 3,
            "optimizer": ["gepa", "mipro", "none"], "pipeline": "chain", "feedback": "none",
        }
    )  # fmt: skip

    def chosen(table: pd.DataFrame, per_dollar: bool = False) -> list[str]:
        return recommended(table, per_dollar)["optimizer"].tolist()

    assert chosen(frame) == ["gepa"] and chosen(frame, per_dollar=True) == ["mipro"]
    assert chosen(frame[:1]) == []  # nothing to choose from
    assert chosen(frame.assign(pipeline=["resample", "chain", "chain"])) == ["mipro"]
    assert chosen(frame.assign(feedback=["oracle", "none", "none"])) == ["mipro"]
    assert chosen(frame.assign(check_score=0.8, usd_per_example=0.01)) == ["none"]
    damaged.write_healthy(tmp_path / "results")
    options = ["--results-dir", str(tmp_path / "results"), "--output-dir", str(tmp_path / "out"), "--per-dollar"]
    assert analyze_results.main(options) == EXIT_OK
    assert "the cheapest cell within one standard error" in (tmp_path / "out" / "summary_results.md").read_text()
