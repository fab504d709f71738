"""Intervals and tests against published examples, libraries and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportion_confint

from scaling.fits import shape_label
from scaling.intervals import mean_interval, newcombe_paired, paired_interval
from scaling.stats import Arm, Estimate, contrast, holm, midp_mcnemar, run_variances, score_interval, verdict


def pairs(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[float], list[float]]:
    first = [1.0] * (both + only_first) + [0.0] * (only_second + neither)
    second = [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
    return first, second


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe 1998, Stat Med 17:2635, Table III, method 10: p1 - p2 for (e, f, g, h).
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_newcombe_agrees_with_the_published_examples(table: tuple, low: float, high: float) -> None:
    first, second = pairs(*table)
    found = newcombe_paired(second, first)  # the paper's difference is first - second
    assert found == pytest.approx((low, high), abs=6e-4)


def test_no_discordant_pair_still_gives_an_interval() -> None:
    first, second = pairs(20, 0, 0, 5)
    low, high = paired_interval(first, second)
    assert low < 0 < high


@given(st.integers(2, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_a_binary_mean_has_wilsons_interval(case: tuple[int, int]) -> None:
    n, right = case
    scores = [1.0] * right + [0.0] * (n - right)
    assert mean_interval(scores) == pytest.approx(proportion_confint(right, n, method="wilson"))


def test_other_means_have_the_t_interval_and_groups_widen_it() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(40).round(2).tolist()
    half = scipy_stats.t.ppf(0.975, 39) * np.std(scores, ddof=1) / np.sqrt(40)
    low, high = mean_interval(scores)
    assert (low, high) == pytest.approx((np.mean(scores) - half, np.mean(scores) + half))
    doubled = mean_interval(scores * 2, [str(i) for i in range(40)] * 2)
    assert doubled[1] - doubled[0] == pytest.approx(high - low)


@pytest.mark.parametrize(("b", "c"), [(1, 0), (3, 9), (12, 4), (5, 5)])
def test_mid_p_counts_half_of_the_observed_table(b: int, c: int) -> None:
    first, second = pairs(7, c, b, 3)
    n, k = b + c, min(b, c)
    tail = sum(scipy_stats.binom.pmf(i, n, 0.5) for i in range(k)) + 0.5 * scipy_stats.binom.pmf(k, n, 0.5)
    assert midp_mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def arm(rng: np.random.Generator, mean: float, run_sd: float, runs: int, items: int, optimizer: str = "gepa") -> Arm:
    difficulty = rng.normal(0, 0.2, (items, 1))
    shift = rng.normal(0, run_sd, (1, runs))
    scores = (rng.random((items, runs)) < np.clip(mean + difficulty + shift, 0, 1)).astype(float)
    frame = pd.DataFrame(scores, index=[f"i{i}" for i in range(items)], columns=range(runs))
    return Arm("b", optimizer, frame, pd.Series(frame.index, index=frame.index))


def test_the_contrasts_parts_by_hand() -> None:
    """A, B and C of plan.txt recomputed with loops on a small table."""
    rng = np.random.default_rng(3)
    one, two = arm(rng, 0.6, 0.05, 3, 30), arm(rng, 0.5, 0.05, 3, 30)
    between = run_variances([one, two])
    found = contrast([(1.0, one), (-1.0, two)], between)
    u = one.scores.mean(axis=1) - two.scores.mean(axis=1)
    a = u.var(ddof=1) / 30
    w = np.mean([x.scores.mean(axis=0).var(ddof=1) for x in (one, two)])
    b = 2 * w / 3
    c = 0.0
    for x in (one, two):
        y = x.scores.to_numpy()
        square = 0.0
        for i, r in itertools.product(range(30), range(3)):
            square += (y[i, r] - y[i].mean() - y[:, r].mean() + y.mean()) ** 2
        c += square / (29 * 2) / 90
    assert between["gepa"].df == 4
    assert found.se == pytest.approx(np.sqrt(max(a + b - c, a)))
    assert found.df == pytest.approx((a + b) ** 2 / (a**2 / 29 + b**2 / 4))
    assert found.level == "this optimizer"


def test_the_contrast_covers_the_truth() -> None:
    """200 simulations at run sd 3 points: 95 % minus the 99.9 % band of the binomial at 200 is 88 %."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        one, two = arm(rng, 0.6, 0.03, 3, 150), arm(rng, 0.6, 0.03, 3, 150)
        found = contrast([(1.0, one), (-1.0, two)], run_variances([one, two]))
        hits += found.low <= 0.0 <= found.high
    assert hits >= 176


def test_one_run_is_about_this_program_only() -> None:
    rng = np.random.default_rng(1)
    one = arm(rng, 0.7, 0.0, 1, 50)
    assert contrast([(1.0, one)], {}).level == "this program"
    right = int(one.scores.to_numpy().sum())
    assert score_interval(one, {}) == pytest.approx(proportion_confint(right, 50, method="wilson"))


def test_several_runs_widen_the_interval_of_pooled_items() -> None:
    rng = np.random.default_rng(2)
    several = arm(rng, 0.7, 0.05, 3, 100)
    right = int(several.scores.to_numpy().sum())
    low, high = score_interval(several, run_variances([several]))
    naive = proportion_confint(right, 300, method="wilson")
    assert high - low > 1.2 * (naive[1] - naive[0])


def an_estimate(effect: float, se: float) -> Estimate:
    p = float(2 * scipy_stats.norm.sf(abs(effect) / se))
    return Estimate(effect, effect - 2 * se, effect + 2 * se, p, se, 1e6, "this optimizer", 500, 3)


@pytest.mark.parametrize(
    ("effect", "se", "said"),
    [
        (0.05, 0.01, "supported"),
        (-0.05, 0.01, "contradicted"),
        (0.0, 0.005, "contradicted"),
        (0.01, 0.02, "cannot tell"),
    ],
)
def test_verdicts(effect: float, se: float, said: str) -> None:
    e = an_estimate(effect, se)
    assert verdict(e, 0.02, e.p, e.p_at_least(0.02)) == said


@pytest.mark.parametrize(
    ("early", "late", "label"),
    [
        (0.0, 0.0, "flat not rejected"), (0.1, 0.1, "rising"), (0.1, 0.0, "levelling"),
        (0.1, -0.1, "rise then fall"), (-0.1, 0.0, "falling"),
    ],
)  # fmt: skip
def test_shapes(early: float, late: float, label: str) -> None:
    assert shape_label(an_estimate(early, 0.01), an_estimate(late, 0.01)) == label
