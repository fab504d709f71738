"""Models beside each other: planted scores, sizes and prices are found in tables, fits and figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analyze_results
from scaling.analysis.figures import pictures_of
from scaling.analysis.findings import Findings
from scaling.analysis.report import report_of
from scaling.analysis.size_figures import score_against_price, score_against_size
from scaling.analysis.text import Table
from scaling.records.record import ModelFacts
from scaling.types import Cell
from simulations.data import arms
from tests.support.made_up import USAGE, write_answers

SIZES = {"m1": 0.5, "m2": 1.5, "m3": 4.0, "m4": 10.0, "m5": 30.0, "m6": 120.0}
AMPLITUDE, ALPHA = 0.45, 0.12
ROWS, RUNS = 400, 3
PROGRAM = "1step none"


def planted(benchmark: str, model: str) -> float:
    """AMPLITUDE size^ALPHA, and five points less on the second benchmark."""
    return AMPLITUDE * SIZES[model] ** ALPHA - (0.05 if benchmark == "beta" else 0.0)


def write_study(
    results: Path, runs: int = RUNS, status: str = "published", usd: dict[str, float] | None = None, val_size: int = 10
) -> None:
    """Six models on two benchmarks; an answer of each costs as many thousandths of a dollar as it has parameters."""
    rng = np.random.default_rng(4)
    for benchmark in ("alpha", "beta"):
        means = {(benchmark, "none", i): planted(benchmark, model) for i, model in enumerate(SIZES)}
        for (model, size), arm in zip(SIZES.items(), arms(rng, means, ROWS, runs).values(), strict=True):
            facts = ModelFacts(size if status != "unknown" else None, status, None, 2.0, None)
            for run in range(runs):
                cell = Cell(benchmark, "chain", 1, "none", f"made/{model}", f"made/{model}", run=run, select_size=5,
                            val_size=val_size, test_size=ROWS, data_sha256=str(run))  # fmt: skip
                price = (usd or {}).get(model, size / 1000)
                write_answers(results, cell, arm.scores[:, [run]], facts, price)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Findings]:
    results = tmp_path_factory.mktemp("models") / "results"
    write_study(results, usd={"m3": 0.2})  # dearer than the largest, which is better
    yield analyze_results.find([results], None, False, [7.0, 500.0])


def found(tmp_path: Path, **setting: object) -> Findings:
    write_study(tmp_path / "results", **setting)
    return analyze_results.find([tmp_path / "results"], None, False)


def table(f: Findings, title: str) -> Table:
    return next(one for one in report_of(f).tables if one.title == title)


def rows(one: Table) -> list[dict[str, str]]:
    return [dict(zip(one.columns, row, strict=True)) for row in one.rows]


def comparisons_of(f: Findings, family: str) -> pd.DataFrame:
    return f.tests[f.tests["family"].str.startswith(family)].set_index("comparison")


def test_all_pairs_of_models_are_compared_and_hold_what_was_planted(findings: Findings) -> None:
    pooled, each = comparisons_of(findings, "models on the mean"), comparisons_of(findings, "models on each")
    assert len(pooled) == 15 and len(each) == 30
    largest = pooled.loc[f"all benchmarks {PROGRAM}: made/m6 - made/m1"]
    difference = np.mean([planted(b, "m6") - planted(b, "m1") for b in ("alpha", "beta")])
    assert largest["verdict"] == "better" and largest["ci_low"] <= difference <= largest["ci_high"]
    assert largest["n"] == 2 * ROWS and largest["runs"] == RUNS
    on_beta = each.loc[f"beta {PROGRAM}: made/m6 - made/m1"]
    assert on_beta["verdict"] == "better" and on_beta["n"] == ROWS
    misses = [
        not row["ci_low"] <= planted(b, second) - planted(b, first) <= row["ci_high"]
        for name, row in each.iterrows()
        for b, second, first in re.findall(rf"(\w+) {PROGRAM}: made/(m\d) - made/(m\d)", str(name))
    ]
    assert len(misses) == 30 and sum(misses) <= 4


def test_one_run_speaks_of_these_rows(tmp_path: Path) -> None:
    told = set(comparisons_of(found(tmp_path, runs=1), "models")["verdict"])
    assert told == {"on these rows: higher", "on these rows: no difference shown"}


def test_the_score_fits_hold_the_planted_exponent_and_the_score_at_other_sizes(findings: Findings) -> None:
    fits = findings.fits.set_index(["benchmark", "family"])
    law = fits.loc[f"alpha {PROGRAM}: score", "A size^alpha"]
    assert law["ci_low"] <= ALPHA <= law["ci_high"] and law["verdict"].startswith("alpha")
    at = fits.loc[f"alpha {PROGRAM}: score", "expected score at 7 billion"]
    assert at["ci_low"] <= AMPLITUDE * 7.0**ALPHA <= at["ci_high"] and at["ci_high"] - at["ci_low"] < 0.15
    assert re.fullmatch(r"expect \d\d\.\d points", at["verdict"])
    over_all = fits.loc[f"all benchmarks {PROGRAM}: score"]
    assert "expected score at 50 billion" in over_all.index and "expected score at 200 billion" not in over_all.index
    beyond = over_all.loc["expected score at 500 billion"]
    assert beyond["verdict"] == "refused" and "0.5 to 120 billion" in beyond["reason"]


def test_a_score_that_grows_with_size_is_called_so(findings: Findings) -> None:
    (row,) = comparisons_of(findings, "score against model size").to_dict("records")
    x, y = np.log10(list(SIZES.values())), [np.mean([planted(b, model) for b in ("alpha", "beta")]) for model in SIZES]
    assert row["verdict"] == "rises" and row["n"] == len(SIZES) and row["note"].startswith("exponent 0.1")
    assert row["ci_low"] <= np.polyfit(x, y, 1)[0] <= row["ci_high"]


@pytest.mark.parametrize("status", ["unknown", "assumed"])
def test_without_published_sizes_no_score_is_expected(tmp_path: Path, status: str) -> None:
    f = found(tmp_path, status=status)
    expected = f.fits[f.fits["family"].str.startswith("expected score")]
    assert set(expected["verdict"]) == {"refused"}
    assert set(expected["reason"]) == {"0 published sizes: 5 over 1.5 decades are needed"}
    (row,) = comparisons_of(f, "score against model size").to_dict("records")
    assert row["verdict"] == "cannot tell" and row["reason"] == "not run: 0 published sizes, 4 are needed"


def test_a_dear_model_is_named_with_the_one_that_beats_it(findings: Findings) -> None:
    shown = {(row["benchmark"], row["model"]): row for row in rows(table(findings, "Models"))}
    dear = shown["all benchmarks", "made/m3"]
    assert dear["cheapest at its score"] == "no: made/m6 (shown)" and dear["USD for 1,000 answers"] == "200.0000"
    assert shown["alpha", "made/m6"]["cheapest at its score"] == "yes"
    assert shown["alpha", "made/m6"]["size"] == "120" and shown["alpha", "made/m6"]["n x runs"] == "400 x 3"


def test_scores_stand_by_dataset_and_costs_by_model(findings: Findings) -> None:
    by_dataset = rows(table(findings, "Scores by model and dataset"))
    assert [row["model"] for row in by_dataset] == [f"made/{model}" for model in SIZES]
    of_models = findings.models.set_index(["benchmark", "model"])
    for row in by_dataset:
        score = of_models.loc[("beta", row["model"]), "score"]
        assert re.fullmatch(rf"{100 * score:.1f} \[\d+\.\d, \d+\.\d\]", row["beta"])
    costs = {row["model"]: row for row in rows(table(findings, "Cost by model"))}
    assert costs["made/m1"]["cells"] == "6" and costs["all"]["cells"] == "36"
    assert costs["made/m1"]["USD in all"] == f"{6 * 2 * USAGE.list_cost_usd:.4f}"
    assert costs["all"]["USD evaluate"] == f"{36 * USAGE.list_cost_usd:.4f}"


def test_without_prices_there_is_no_front(tmp_path: Path) -> None:
    f = found(tmp_path, usd=dict.fromkeys(SIZES))
    assert {row["cheapest at its score"] for row in rows(table(f, "Models"))} == {"a price is not known"}
    assert not [picture for picture in pictures_of(f) if picture.name.startswith("score_against_price")]


def test_figures_of_models_have_a_panel_a_benchmark_and_one_for_their_mean(findings: Findings) -> None:
    names = {picture.name for picture in pictures_of(findings)}
    assert {"score_against_size_1step-none", "score_against_price_1step-none"} <= names
    for figure in (score_against_size(findings.models, PROGRAM), score_against_price(findings.models, PROGRAM)):
        assert [ax.get_title() or ax.get_title(loc="left") for ax in figure.axes] == ["all benchmarks", "alpha", "beta"]
        assert all(len(ax.containers) == len(SIZES) for ax in figure.axes)
    band = score_against_size(findings.models, PROGRAM).axes[1].collections[-1].get_paths()[0].vertices
    assert np.log10(band[:, 0].max() / band[:, 0].min()) == pytest.approx(np.log10(120 / 0.5))


@pytest.mark.parametrize(("val_size", "named"), [(10, False), (34, False), (35, True)])
def test_no_cell_is_recommended_from_fewer_than_thirty_check_rows(tmp_path: Path, val_size: int, named: bool) -> None:
    said = report_of(found(tmp_path, runs=1, val_size=val_size)).recommendations
    assert len(said) == 2 and ("has the best score" in said[0] or "with the best score" in said[0]) == named
    if not named:
        assert said[0] == f"alpha: no cell is recommended: {val_size - 5} check rows, and 30 are needed (--val-size)."


def test_a_model_that_lacks_a_benchmark_is_not_in_their_mean(tmp_path: Path) -> None:
    write_study(tmp_path / "results")
    lonely = Cell("alpha", "chain", 1, "none", "made/new", "made/new", select_size=5, val_size=10, test_size=ROWS,
                  data_sha256="0")  # fmt: skip
    write_answers(tmp_path / "results", lonely, np.ones((ROWS, 1)), ModelFacts(7.0, "published", None, 1.0, None))
    models = analyze_results.find([tmp_path / "results"], None, False).models
    assert "made/new" in set(models[models["benchmark"] == "alpha"]["model"])
    assert "made/new" not in set(models[models["benchmark"] == "all benchmarks"]["model"])


def test_controls_are_no_programs_of_their_own_here(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        for pipeline in ("chain", "vote", "resample", "repeat"):
            steps = 1 if pipeline == "chain" else 3
            cell = Cell("alpha", pipeline, steps, "none", model, model, test_size=40, data_sha256="0")
            scores = np.random.default_rng(0).integers(0, 2, (40, 1)).astype(float)
            write_answers(tmp_path / "results", cell, scores, ModelFacts(1.0, "published", None, 1.0, None))
    models = analyze_results.find([tmp_path / "results"], None, False).models
    assert set(models["program"]) == {PROGRAM}


def test_what_differs_beside_the_model_is_named_where_it_must_be(tmp_path: Path) -> None:
    """A model with two limits of output is two; other budgets are another program, other rows another benchmark."""
    for run, changes in enumerate((
        {}, {"max_output_tokens": 99}, {"model": "b"}, {"rollout_budget": 80}, {"rollout_budget": 80, "model": "b"},
        {"val_size": 20}, {"val_size": 20, "model": "b"},
    )):  # fmt: skip
        cell = replace(Cell("alpha", "chain", 1, "none", "a", "a", val_size=10, select_size=5), **changes)
        scores = np.random.default_rng(run).integers(0, 2, (40, 1)).astype(float)
        write_answers(tmp_path / "results" / str(run), cell, scores, ModelFacts(1.0, "published", None, 1.0, None))
    names = analyze_results.find([tmp_path / "results"], None, False).models[["program", "benchmark", "model"]]
    assert sorted(names.itertuples(index=False, name=None)) == [
        ("1step none (rollout_budget 200)", "alpha (val_size 10)", "a (max_output_tokens 1024)"),
        ("1step none (rollout_budget 200)", "alpha (val_size 10)", "a (max_output_tokens 99)"),
        ("1step none (rollout_budget 200)", "alpha (val_size 10)", "b"),
        ("1step none (rollout_budget 200)", "alpha (val_size 20)", "a"),
        ("1step none (rollout_budget 200)", "alpha (val_size 20)", "b"),
        ("1step none (rollout_budget 80)", "alpha (val_size 10)", "a"),
        ("1step none (rollout_budget 80)", "alpha (val_size 10)", "b"),
    ]


def test_rows_of_one_group_have_no_variance_to_share(tmp_path: Path) -> None:
    for model in ("a", "b"):
        cell = Cell("alpha", "chain", 1, "none", model, model, test_size=4, data_sha256="0")
        facts = ModelFacts(1.0, "published", None, 1.0, None)
        write_answers(tmp_path / "results", cell, np.array([[0.0], [1.0], [1.0], [0.0]]), facts, group_size=4)
    models = analyze_results.find([tmp_path / "results"], None, False).models
    assert models["shared_variance"].tolist() == [0.0, 0.0]


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        analyze_results.main(["--at-size", "-3"])
    assert "'-3' is not a number above 0" in capsys.readouterr().err
