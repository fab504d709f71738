"""RQ1 to RQ4: effects of size that were planted in a server's answers are found inside their sets."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.findings import Findings
from scaling.analysis.fits import power_law, regression, zero_set
from scaling.analysis.research import FIRST_TURN, size_line_of, spearman, threshold
from scaling.analysis.research import test_research as research_rows
from scaling.analysis.size_figures import gain_against_size
from scaling.analysis.turn_figures import turn_curves
from scaling.testing import Body, ScriptedServer, whole_prompt
from tests.support import toy

SIZES = {"s0": 0.5, "s1": 2.0, "s2": 9.0, "s3": 40.0, "s5": 180.0}
AMPLITUDE, ALPHA = 0.05, 0.35
ROWS = toy.rows(700)
ENTRY = """
[models."toy/{name}"]
route = "openai/{name}"
api_base = "{url}"
input_usd_per_million = 1.0
output_usd_per_million = 1.0
price_date = "today"
price_source = "made up"
parameters_billions = {size}
parameters_source = "made up"
parameters_status = "published"
"""
STUDY = """
benchmarks = ["many"]
pipelines = ["{pipeline}"]
steps = [{steps}]
optimizers = ["none"]
models = {models}
runs = 1
train_size = 10
val_size = 10
test_size = 500
data = "sample"
"""


def skill(body: Body) -> float:
    """0.4 at first; what size adds comes with the review."""
    gain = AMPLITUDE * SIZES[body["model"]] ** ALPHA
    return 0.4 + (gain if "earlier_answers" in whole_prompt(body) else 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study of five models, 500 items each, and the largest one's redraws, on the scripted server, analysed."""
    home = tmp_path_factory.mktemp("research")
    truth = {row["message"]: row["label"] for row in ROWS}
    config = toy.config(loader=lambda: ROWS, train_seeds=range(50), val_seeds=range(50, 100), test_seeds=range(500))
    with pytest.MonkeyPatch.context() as patched, ScriptedServer(skill=skill, truth=truth) as server:
        patched.setitem(script.BENCHMARK_CONFIG, "many", config)
        models = [f"toy/{name}" for name in SIZES]
        entries = "".join(ENTRY.format(name=n, url=server.url, size=s) for n, s in SIZES.items())
        (home / "models.toml").write_text(entries)
        flags = ["--study", str(home / "study.toml"), "--models-file", str(home / "models.toml")]
        for pipeline, steps, some in (("self_correct", 2, models), ("resample", 3, models[-1:])):
            (home / "study.toml").write_text(STUDY.format(pipeline=pipeline, steps=steps, models=some))
            assert script.main([*flags, "--output-dir", str(home / "results")]) == 0
    options = ["--results-dir", str(home / "results"), "--output-dir", str(home), "--value-per-correct", "0.001"]
    assert analyze_results.main(options) == 0
    yield home


@pytest.fixture(scope="module")
def findings(folder: Path) -> Findings:
    return analyze_results.find([folder / "results"], 0.001, False)


def test_figures_draw_the_intervals_that_they_are_given(findings: Findings) -> None:
    """Of each turn, Wilson's; of a model's mean gain, t on the degrees of freedom of its items."""
    (ax,) = turn_curves(findings.turned).axes
    for cell, drawn in zip(findings.turned, ax.containers, strict=True):
        right = cell.turns.sum(axis=(0, 2))
        wilson = [proportion_confint(int(count), 500, method="wilson") for count in right]
        bars = [tuple(segment[:, 1] / 100) for segment in drawn[2][0].get_segments()]
        assert bars == [pytest.approx(ends) for ends in wilson]
    by_model, _ = size_line_of(findings.gains)
    half = distributions.t.ppf(0.975, 499) * np.sqrt(by_model["variance"])
    (ax,) = gain_against_size(findings.gains).axes
    bars = [drawn[2][0].get_segments()[0][:, 1] / 100 for drawn in ax.containers]
    assert np.allclose(bars, np.column_stack([by_model["gain"] - half, by_model["gain"] + half]))


def test_the_planted_exponent_is_in_its_set(folder: Path, findings: Findings) -> None:
    gains = findings.gains
    assert len(gains) == len(SIZES) and set(gains["status"]) == {"published"}
    law = power_law(gains["size"], gains["gain"])
    assert law.refused == "" and law.low <= ALPHA <= law.high
    with (folder / "summary_fits.csv").open() as lines:
        rows = [
            row for row in csv.DictReader(lines) if row["family"] == "A size^alpha" and "self-corr" in row["benchmark"]
        ]
    assert rows and all(row["verdict"].startswith("alpha") for row in rows)
    assert all(float(row["ci_low"]) <= ALPHA <= float(row["ci_high"]) for row in rows)


def test_gain_grows_with_size_and_pays_from_some_size_on(findings: Findings) -> None:
    gains = findings.gains
    one, *_, four = research_rows(gains, 0.001)
    assert one.question.startswith("RQ1") and one.verdict == "supported"
    by_model, _ = size_line_of(gains)
    x = np.log10(by_model["size"])
    value = float((gains["extra_usd"] / gains["gain"]).median())  # it pays for the larger half
    net = value * AMPLITUDE * by_model["size"] ** ALPHA - by_model["extra_usd"]
    line = regression(x, value * by_model["gain"] - by_model["extra_usd"], value**2 * by_model["variance"])
    planted = np.interp(0.0, net.sort_index(), x.sort_index())
    assert any(low <= planted <= high for low, high in zero_set(line, float(x.min()), float(x.max())))
    assert threshold(gains, 1e-9) == ("contradicted", "it does not pay at any measured size")
    assert four.question.startswith("RQ4") and four.reason


def test_turns_correct_beyond_a_redraw(folder: Path) -> None:
    page = (folder / "summary_results.md").read_text()
    table = page[page.index("## Self-correction") :]
    largest = next(line for line in table.splitlines() if "toy/s5" in line)
    assert "| corrects |" in largest and largest.count("not run") == 1  # two turns have no vote of as many calls
    assert (folder / "visualizations" / "turn_curves.png").exists()
    assert (folder / "visualizations" / "gain_against_size.png").exists()


def test_a_rank_correlation_of_few_models_is_exact() -> None:
    x, y = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 4, 3, 5])
    rho, p = spearman(x, y, np.random.default_rng(0))
    assert rho == pytest.approx(distributions.spearmanr(x, y).statistic)

    def statistic(order: np.ndarray) -> float:
        return distributions.spearmanr(order, y).statistic

    exact = distributions.permutation_test(
        (x,), statistic, permutation_type="pairings", alternative="two-sided", n_resamples=np.inf
    )
    assert p == pytest.approx(exact.pvalue)


def frame(**changes: list) -> pd.DataFrame:
    gains = pd.DataFrame(
        {
            "model": [f"m{i}" for i in range(6)] * 2,
            "benchmark": ["a"] * 6 + ["b"] * 6,
            "gain": [0.00, 0.02, 0.04, 0.06, 0.08, 0.10] + [0.05, 0.049, 0.051, 0.05, 0.05, 0.051],
            "variance": [1e-6] * 12,
            "beyond_vote": [0.01, 0.02, 0.0, 0.01, 0.03, 0.01] * 2,
            "extra_usd": [0.001] * 12,
            "size": [1.0, 3, 10, 30, 100, 300] * 2,
            "status": ["published"] * 12,
            "price": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6] * 2,
            "context_length": [8192] * 12,
            "df": [99.0] * 12,
            **dict.fromkeys(("gain_even", "gain_odd", "first_even", "first_odd"), [np.nan] * 12),
        }
    )
    return gains.assign(**changes)


def test_tasks_are_told_apart_by_pairs_and_unusable_properties_are_not_run() -> None:
    rows = research_rows(frame(), None)
    by_name = {row.comparison: row for row in rows}
    assert by_name["a - b"].verdict == "supported" and "more with size on a than on b" in by_name["a - b"].note
    assert "not run" in by_name["Spearman with context_length"].reason  # all have the same
    assert "not run: one run" in by_name[f"Spearman with {FIRST_TURN}"].reason
    assert by_name["Spearman with size"].effect > 0.9
    assert "--value-per-correct" in rows[-1].reason


def test_without_published_sizes_nothing_is_concluded() -> None:
    one, *rest = research_rows(frame(status=["assumed"] * 12), 0.05)
    assert one.verdict == "cannot tell" and one.reason.startswith("not run: 0 models")
    assert all(row.verdict == "cannot tell" for row in rest if row.question.startswith(("RQ3", "RQ4")))


def test_a_property_of_the_answers_is_not_measured_on_the_runs_of_the_gain() -> None:
    """Each half of the runs has noise of its own, which lowers the gain where it raises the first turn."""
    noise = np.array([[0.03, -0.02, 0.01, -0.03, 0.02, 0.0], [0.0, 0.03, -0.03, 0.01, 0.02, -0.02]])
    halves = {
        "first_even": 0.5 + noise[0], "gain_even": 0.02 - noise[0],
        "first_odd": 0.5 + noise[1], "gain_odd": 0.02 - noise[1],
    }  # fmt: skip
    columns = {name: list(values) * 2 for name, values in halves.items()}
    row = {r.comparison: r for r in research_rows(frame(**columns), None)}[f"Spearman with {FIRST_TURN}"]
    crossed = (
        distributions.spearmanr(-noise[0], noise[1]).statistic,
        distributions.spearmanr(-noise[1], noise[0]).statistic,
    )
    assert row.effect == pytest.approx(np.mean(crossed)) and abs(row.effect) < 0.3 and row.p > 0.05


def test_a_model_that_lacks_a_task_is_in_no_mean_over_tasks() -> None:
    rows = research_rows(frame(price=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6] * 2)[:-1], None)
    assert {row.comparison: row for row in rows}["Spearman with price"].n == 5
    assert rows[0].n == 5 and rows[0].note == "left out, as they lack a task: m5"


def test_contradicted_follows_holm() -> None:
    """A slope whose raw p of 'a point a tenfold or more' is 0.02: excluded alone, and not in a family of two."""
    gains = frame(gain=[0.0006, 0.0121, 0.0012, 0.0082, 0.0105, 0.0109] * 2, variance=[1e-9] * 12)
    _, line = size_line_of(gains)
    assert 0.0125 < line.p_at_least(0.01) < 0.025
    assert research_rows(gains, None)[0].verdict == "cannot tell"


def test_a_flat_gain_excludes_a_point_a_tenfold() -> None:
    flat = [0.05, 0.0501, 0.0499, 0.05, 0.0502, 0.0498] * 2
    assert research_rows(frame(gain=flat), None)[0].verdict == "contradicted"
