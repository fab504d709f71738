"""Intervals and tests against published examples, libraries and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scipy.optimize import curve_fit
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from scaling.analysis.fits import families, power_law, shape_label, size_line, zero_set
from scaling.analysis.hypotheses import Grid, judge
from scaling.analysis.money import breakeven
from scaling.analysis.self_correction import correction, labels
from scaling.analysis.stats import (
    Arm,
    Estimate,
    adoption_p,
    bands,
    contrast,
    holm,
    is_skewed,
    midp_mcnemar,
    run_variances,
    score_interval,
    settling_size,
    verdict,
)  # fmt: skip
from scaling.intervals import mean_interval, newcombe_paired, paired_interval
from simulations.data import arms as simulated


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
    assert holm([]) == []


@settings(max_examples=6)  # each collects garbage in statsmodels
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def arm(rng: np.random.Generator, mean: float, run_sd: float, runs: int, items: int, optimizer: str = "gepa") -> Arm:
    difficulty = rng.normal(0, 0.2, (items, 1))
    shift = rng.normal(0, run_sd, (1, runs))
    scores = (rng.random((items, runs)) < np.clip(mean + difficulty + shift, 0, 1)).astype(float)
    names = np.array([f"i{i}" for i in range(items)])
    return Arm("b", optimizer, names, names, scores)


def test_the_contrasts_parts_by_hand() -> None:
    """A, B and C of plan.txt recomputed with loops on a small table."""
    rng = np.random.default_rng(3)
    one, two = arm(rng, 0.6, 0.05, 3, 30), arm(rng, 0.5, 0.05, 3, 30)
    between = run_variances([one, two])
    found = contrast([(1.0, one), (-1.0, two)], between)
    a = (one.scores.mean(axis=1) - two.scores.mean(axis=1)).var(ddof=1) / 30
    w = np.mean([x.scores.mean(axis=0).var(ddof=1) for x in (one, two)])
    b = 2 * w / 3
    c = 0.0
    for x in (one, two):
        y = x.scores
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
    right = int(one.scores.sum())
    assert score_interval(one, {}) == pytest.approx(proportion_confint(right, 50, method="wilson"))


def test_several_runs_widen_the_interval_of_pooled_items() -> None:
    rng = np.random.default_rng(2)
    several = arm(rng, 0.7, 0.05, 3, 100)
    right = int(several.scores.sum())
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
    assert verdict(e, e.p, e.p_at_least(0.02)) == said


@pytest.mark.parametrize(
    ("early", "late", "label"),
    [
        (0.0, 0.0, "flat not rejected"), (0.1, 0.1, "rising"), (0.1, 0.0, "levelling"),
        (0.1, -0.1, "rise then fall"), (-0.1, 0.0, "falling"),
    ],
)  # fmt: skip
def test_shapes(early: float, late: float, label: str) -> None:
    assert shape_label(an_estimate(early, 0.01), an_estimate(late, 0.01)) == label


def arm_of(scores: list[list[float]], optimizer: str = "gepa", groups: list[str] | None = None) -> Arm:
    names = np.array([f"i{i}" for i in range(len(scores))])
    return Arm("b", optimizer, names, np.array(groups or names), np.array(scores, float))


def test_adoption_is_one_sided_and_mid_p() -> None:
    base, final = arm_of([[0.0]] * 6 + [[1.0]] * 4, "none"), arm_of([[1.0]] * 5 + [[0.0]] + [[1.0]] * 4)
    assert adoption_p(base, final, {}) == pytest.approx(0.5**6)  # five won, none lost: half of 1/32
    assert adoption_p(final, base, {}) == pytest.approx(1 - 0.5**6)


def test_the_sizes_that_settle_shrink_the_right_part() -> None:
    rng = np.random.default_rng(4)
    one, two = arm(rng, 0.7, 0.0, 1, 100), arm(rng, 0.6, 0.0, 1, 100)
    found = contrast([(1.0, one), (-1.0, two)], {})
    factor = scipy_stats.t.ppf(0.975, found.df) + scipy_stats.t.ppf(0.8, found.df)
    assert found.detectable == pytest.approx(factor * found.se)
    needed = int(settling_size(found, 0.05).split()[0].replace(",", ""))
    assert needed == pytest.approx(100 * (found.detectable / 0.05) ** 2, rel=0.1)


def test_bands_need_other_runs_answers() -> None:
    baseline = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 0]], float)
    change = np.array([[1, 1, -1], [0, 0, 0], [1, 0, 0]], float)
    found = bands(baseline, change)
    # Item 0 is "hard" for run 2 only, "some" for runs 0 and 1; item 1 is easy and item 2 hard for all.
    assert found == pytest.approx({"hard": (-1 + 1 + 0 + 0) / 4, "some": 1.0, "easy": 0.0})


def test_scores_that_hardly_vary_are_called_skewed() -> None:
    assert is_skewed(arm_of([[1.0]] * 40 + [[0.4]] * 5))
    assert not is_skewed(arm_of([[1.0]] * 20 + [[0.4]] * 20))
    assert not is_skewed(arm_of([[1.0]] * 45 + [[0.0]] * 5))  # Wilson serves these


def test_all_wrong_in_groups_is_still_an_interval() -> None:
    low, high = mean_interval([0.0] * 20, [f"g{i // 2}" for i in range(20)])
    assert (low, high) == pytest.approx(proportion_confint(0, 10, method="wilson"))


def test_gls_without_correlation_is_weighted_least_squares() -> None:
    y, sd = np.array([0.5, 0.58, 0.6, 0.66, 0.64]), np.array([0.02, 0.01, 0.03, 0.02, 0.02])
    fitted = {one.name: one for one in families([1, 2, 3, 4, 5], y, np.diag(sd**2), df=1e9)}
    x = np.log2([1, 2, 3, 4, 5])
    model = sm.WLS(y, sm.add_constant(x), weights=1 / sd**2).fit()
    assert list(fitted["log"].parameters.values()) == pytest.approx(list(model.params))
    misfit = float((((y - model.fittedvalues) / sd) ** 2).sum())
    assert fitted["log"].p == pytest.approx(scipy_stats.chi2.sf(misfit, 3), rel=1e-5)
    assert fitted["flat"].p == pytest.approx(
        scipy_stats.chi2.sf((((y - np.average(y, weights=1 / sd**2)) / sd) ** 2).sum(), 4)
    )


def test_the_exponents_set_is_the_profile_of_the_least_squares() -> None:
    """By brute force with scipy's optimizer: the set ends where the F test of alpha ends."""
    size, gain = np.array([0.5, 1, 3, 8, 30, 70.0]), np.array([0.02, 0.028, 0.036, 0.055, 0.07, 0.095])
    law = power_law(size, gain)
    (a, alpha), _ = curve_fit(lambda s, a, e: a * s**e, size, gain, p0=(0.03, 0.3))
    assert law.alpha == pytest.approx(alpha, abs=0.005)
    smallest = ((gain - a * size**alpha) ** 2).sum()
    for end in (law.low, law.high):
        shape = size**end
        left = ((gain - (shape @ gain) / (shape @ shape) * shape) ** 2).sum()
        f = (left - smallest) / (smallest / 4)
        assert f == pytest.approx(scipy_stats.f.ppf(0.95, 1, 4), rel=0.08)  # within a step of the grid
    assert law.refused == ""
    assert power_law(size[:4], gain[:4]).refused.startswith("4 sizes")
    assert power_law(size, gain * np.array([1, -1, 1, -1, 1, -1])).refused


def test_without_own_variances_the_size_line_is_ordinary_least_squares() -> None:
    size, gain = np.array([1, 3, 10, 30, 100.0]), np.array([0.01, 0.03, 0.02, 0.05, 0.06])
    line, model = size_line(size, gain), sm.OLS(gain, sm.add_constant(np.log10(size))).fit()
    assert line.slope == pytest.approx(model.params[1])
    assert line.slope_interval == pytest.approx(tuple(model.conf_int()[1]))
    assert line.p == pytest.approx(model.pvalues[1])
    assert line.p_at_least(0.0) == pytest.approx(1 - line.p / 2)


def test_with_large_own_variances_the_size_line_weighs_them() -> None:
    size, gain = [1, 10, 100, 1000], [0.0, 0.05, 0.30, 0.05]
    free = size_line(size, gain, [1e-6] * 4)
    heavy = size_line(size, gain, [1e-6, 1e-6, 1.0, 1e-6])
    assert heavy.slope < free.slope  # the third is hardly believed


def test_the_threshold_is_where_zero_is_not_rejected() -> None:
    line = size_line([1, 3, 10, 30, 100], [-0.02, -0.012, 0.001, 0.008, 0.021])
    ((low, high),) = zero_set(line, 0.0, 2.0)
    assert low < 1.0 < high and high - low < 0.6
    flat = size_line([1, 3, 10, 30, 100], [0.01, -0.01, 0.012, -0.012, 0.0])
    assert zero_set(flat, 0.0, 2.0) == [(0.0, 2.0)]  # everything: no bounded threshold
    assert zero_set(size_line([1, 3, 10, 30, 100], [0.2, 0.21, 0.2, 0.22, 0.21]), 0.0, 2.0) == []


def test_a_redraw_is_told_from_a_correction() -> None:
    rng = np.random.default_rng(5)
    first = (rng.random((300, 3)) < 0.5).astype(float)
    redraw = first, (rng.random((300, 3)) < 0.5).astype(float)
    groups = np.arange(300).astype(str)
    again = correction(first, (rng.random((300, 3)) < 0.5).astype(float), redraw, groups)
    assert labels([again]) == ["cannot tell"]  # flips, and no more than a redraw makes
    found = correction(first, np.maximum(first, (rng.random((300, 3)) < 0.9)), redraw, groups)
    assert labels([found]) == ["corrects"]
    assert found.gain.effect == pytest.approx(found.wrong_to_right - found.right_to_wrong)
    assert labels([correction(first, first * (rng.random((300, 3)) < 0.5), redraw, groups)]) == ["harms"]


def grid_of(rng: np.random.Generator, gain: dict[int, float], runs: int = 3, **extra) -> Grid:
    classes = {"x": "classification", "y": "classification", "z": "reasoning"}
    means = {(b, o, k): 0.6 + g for b in classes for o in ("gepa", "mipro") for k, g in gain.items()}
    return Grid(simulated(rng, means, 200, runs, {"gepa": 0.01, "mipro": 0.01}), classes, **extra)


def test_verdicts_of_planted_effects() -> None:
    rng = np.random.default_rng(6)
    h1, h2, h3, h4 = judge(grid_of(rng, {1: 0.0, 3: 0.15, 5: 0.15}))
    assert (h1["verdict"], h2["verdict"]) == ("supported", "supported")
    assert h3["verdict"] == h4["verdict"] == "cannot tell"
    assert "vote 5 was not run" in h1["note"] and "own variance between runs" in h1["note"]
    down = judge(grid_of(rng, {1: 0.0, 3: -0.1, 5: -0.1}))
    assert down[0]["verdict"] == "contradicted" and "no rise from 1 to 3" in down[1]["reason"]
    one_run = judge(grid_of(rng, {1: 0.0, 3: 0.2, 5: 0.3}, runs=1))
    assert {row["verdict"] for row in one_run} == {"cannot tell"}
    assert all("too few runs" in row["reason"] for row in one_run)


def test_opposite_benchmarks_are_mixed() -> None:
    rng = np.random.default_rng(7)
    up, down = grid_of(rng, {1: 0.0, 5: 0.2}), grid_of(rng, {1: 0.0, 5: -0.2})
    arms = {key: (down if key[0] == "x" else up).arms[key] for key in up.arms}
    assert judge(Grid(arms, up.task_class))[0]["verdict"] == "mixed"


def test_votes_tell_whether_steps_or_calls_pay() -> None:
    rng = np.random.default_rng(8)
    cells = grid_of(rng, {1: 0.0, 5: 0.2})
    weak = {key: a for key, a in grid_of(rng, {5: 0.05}).arms.items() if key[2] == 5}
    assert "pays by steps" in judge(Grid(cells.arms, cells.task_class, vote=weak))[0]["note"]
    same = {key: a for key, a in cells.arms.items() if key[2] == 5}
    assert "pays by calls, or not shown" in judge(Grid(cells.arms, cells.task_class, vote=same))[0]["note"]


def test_flagged_cells_leave_h3_alone() -> None:
    cells = grid_of(np.random.default_rng(9), {1: 0.0, 3: 0.1, 5: 0.2})
    rows = judge(Grid(cells.arms, cells.task_class, flagged=frozenset({("x", "gepa", 5)})))
    assert rows[2]["verdict"] == "cannot tell" and rows[2]["reason"].startswith("not compared")
    assert rows[0]["verdict"] == "supported"


def test_h4_needs_its_sign_under_exact_match_too() -> None:
    rng = np.random.default_rng(10)
    classes = {"x": "classification", "y": "classification", "z": "reasoning"}
    means = {(b, o, k): 0.5 + (0.3 if (b, k) == ("z", 5) else 0.0) for b in classes for o in ("gepa", "mipro")
             for k in (1, 5)}  # fmt: skip
    arms = simulated(rng, means, 300, 3, {})
    assert judge(Grid(arms, classes))[3]["verdict"] == "supported"
    exact = {key: arms[key[0], key[1], 6 - key[2]] for key in arms if key[0] == "z"}  # the other way round
    row = judge(Grid(arms, classes, exact=exact))[3]
    assert row["verdict"] == "cannot tell" and "exact match" in row["reason"]


def test_an_optimization_pays_when_its_gain_covers_its_cost() -> None:
    gain = an_estimate(0.10, 0.02)
    assert breakeven(6.0, gain, extra_usd=0.001, value=0.05) == pytest.approx(6.0 / (0.05 * 0.10 - 0.001))
    assert breakeven(6.0, gain, extra_usd=0.004, value=0.05) == float("inf")  # the interval's low end does not
