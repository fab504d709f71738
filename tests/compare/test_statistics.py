"""The numbers of `compare` against computations by hand with statsmodels, on files of rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tests.support.compared import compared, scored, write_csv

RNG = np.random.default_rng(7)
ROWS = 120
FIRST = (RNG.random(ROWS) < 0.55).astype(int)
SECOND = np.where(RNG.random(ROWS) < 0.3, 1, FIRST)
THIRD = (RNG.random(ROWS) < 0.6).astype(int)


def midp(before: np.ndarray, after: np.ndarray) -> float:
    """statsmodels' exact McNemar p, less half of the chance of the table that was seen, twice over."""
    won, lost = int((before < after).sum()), int((before > after).sum())
    table = [[0, lost], [won, 0]]
    exact = mcnemar(table, exact=True).pvalue
    return float(exact - stats.binom.pmf(min(won, lost), won + lost, 0.5))


def newcombe(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Newcombe 1998, method 10, from the four counts and Wilson's intervals."""
    n = len(before)
    a, b = int((before & after).sum()), int((after & ~before & 1).sum())
    c, d = int((before & ~after & 1).sum()), 0
    d = n - a - b - c
    (l1, u1), (l2, u2) = (proportion_confint(int(x.sum()), n, method="wilson") for x in (before, after))
    p1, p2 = before.mean(), after.mean()
    cross = a * d - b * c
    cross = cross - n / 2 if cross > n / 2 else min(cross, 0)
    phi = cross / math.sqrt((a + c) * (b + d) * (a + b) * (c + d))
    low = p2 - p1 - math.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    high = p2 - p1 + math.sqrt((u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2)
    return low, high


def test_binary_rows_of_one_run_are_midp_mcnemar_with_newcombes_interval_and_holm(tmp_path: Path) -> None:
    columns = {"first": FIRST, "second": SECOND, "third": THIRD}
    paths = [write_csv(tmp_path / f"{name}.csv", scored(scores.tolist())) for name, scores in columns.items()]

    pairs = compared(tmp_path / "out", *paths)["pairs"]

    by_hand = [midp(a, b) for a, b in ((FIRST, SECOND), (FIRST, THIRD), (SECOND, THIRD))]
    assert [pair["p"] for pair in pairs] == pytest.approx(by_hand, rel=1e-9)
    assert [pair["p_holm"] for pair in pairs] == pytest.approx(multipletests(by_hand, method="holm")[1], rel=1e-9)
    assert (pairs[0]["ci_low"], pairs[0]["ci_high"]) == pytest.approx(newcombe(FIRST, SECOND))
    assert pairs[0]["effect"] == pytest.approx(SECOND.mean() - FIRST.mean())
    assert (pairs[0]["higher_in_second"], pairs[0]["lower_in_second"]) == (int((SECOND > FIRST).sum()), 0)


def test_clustered_rows_are_a_clustered_t_test(tmp_path: Path) -> None:
    passages = RNG.integers(0, 30, ROWS)
    before, after = RNG.random(ROWS), RNG.random(ROWS)
    paths = [
        write_csv(
            tmp_path / f"{name}.csv",
            [row | {"group": f"p{p}"} for row, p in zip(scored(scores.tolist()), passages, strict=True)],
        )
        for name, scores in (("a", before), ("b", after))
    ]

    (pair,) = compared(tmp_path / "out", *paths)["pairs"]

    change = after - before
    fit = OLS(change, np.ones(ROWS)).fit(
        cov_type="cluster", cov_kwds={"groups": passages, "use_correction": True, "df_correction": True}, use_t=True
    )
    # statsmodels' correction for small samples has (n - 1) / (n - 1) beside g / (g - 1) for one coefficient.
    assert pair["effect"] == pytest.approx(fit.params[0])
    assert pair["p"] == pytest.approx(fit.pvalues[0], rel=1e-6)
    assert (pair["ci_low"], pair["ci_high"]) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-6)
    assert pair["clusters"] == len(set(passages.tolist()))


def test_graded_scores_of_one_run_are_a_paired_t_test(tmp_path: Path) -> None:
    before, after = RNG.random(ROWS), RNG.random(ROWS)
    paths = [write_csv(tmp_path / f"{n}.csv", scored(s.tolist())) for n, s in (("a", before), ("b", after))]
    (pair,) = compared(tmp_path / "out", *paths)["pairs"]
    by_hand = stats.ttest_rel(after, before)
    interval = by_hand.confidence_interval(0.95)
    assert pair["p"] == pytest.approx(by_hand.pvalue)
    assert (pair["ci_low"], pair["ci_high"]) == pytest.approx((interval.low, interval.high))


def test_the_smallest_effect_has_80_percent_power_by_statsmodels(tmp_path: Path) -> None:
    from statsmodels.stats.power import TTestPower

    before, after = RNG.random(ROWS), RNG.random(ROWS)
    paths = [write_csv(tmp_path / f"{n}.csv", scored(s.tolist())) for n, s in (("a", before), ("b", after))]
    (pair,) = compared(tmp_path / "out", *paths)["pairs"]
    sd = np.std(after - before, ddof=1)
    assert TTestPower().power(pair["detectable"] / sd, ROWS, 0.05) == pytest.approx(0.8, abs=1e-4)


def test_runs_speak_of_more_than_these_rows(tmp_path: Path) -> None:
    runs = [row | {"run": run} for run in range(3) for row in scored((RNG.random(60) < 0.5).astype(int).tolist())]
    better = [row | {"run": run} for run in range(3) for row in scored((RNG.random(60) < 0.9).astype(int).tolist())]
    paths = [write_csv(tmp_path / "a.csv", runs), write_csv(tmp_path / "b.csv", better)]
    found = compared(tmp_path / "out", *paths)
    (pair,) = found["pairs"]
    assert (pair["runs"], pair["verdict"], pair["level"]) == (3, "better", "this optimizer")
    assert found["headline"].startswith("b is better than a")
