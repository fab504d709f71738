"""Intervals and tests against published examples, libraries and brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from scaling.analysis.money import breakeven
from scaling.analysis.pairs import adoption_p, difference, midp_mcnemar
from scaling.analysis.self_correction import correction, labels
from scaling.analysis.stats import Arm, Estimate, contrast, holm, is_skewed, run_variances, score_interval
from scaling.intervals import mean_interval, newcombe_paired, paired_interval


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


@settings(max_examples=2)  # each collects garbage in statsmodels
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
    """A, B and C of plan.txt recomputed with loops on a small table; B from each cell's own variance."""
    rng = np.random.default_rng(3)
    one, two = arm(rng, 0.6, 0.05, 3, 30), arm(rng, 0.5, 0.05, 3, 30)
    estimate = contrast([(1.0, one), (-1.0, two)])
    a = (one.scores.mean(axis=1) - two.scores.mean(axis=1)).var(ddof=1) / 30
    b_of = [x.scores.mean(axis=0).var(ddof=1) / 3 for x in (one, two)]
    b = sum(b_of)
    c = 0.0
    for x in (one, two):
        y = x.scores
        square = 0.0
        for i, r in itertools.product(range(30), range(3)):
            square += (y[i, r] - y[i].mean() - y[:, r].mean() + y.mean()) ** 2
        c += square / (29 * 2) / 90
    assert estimate.se == pytest.approx(np.sqrt(max(a + b - c, a)))
    assert estimate.df == pytest.approx((a + b) ** 2 / (a**2 / 29 + sum(part**2 / 2 for part in b_of)))
    assert estimate.level == "this optimizer"


def test_a_pair_takes_the_larger_of_own_and_pooled_run_variance() -> None:
    rng = np.random.default_rng(12)
    quiet, loud = arm(rng, 0.6, 0.0, 3, 200), arm(rng, 0.6, 0.15, 3, 200)
    pooled = run_variances([quiet, loud])
    assert pooled["gepa"].df == 4
    assert pooled["gepa"].variance == pytest.approx((quiet.run_variance + loud.run_variance) / 2)
    assert contrast([(1.0, quiet)], pooled).se > contrast([(1.0, quiet)]).se  # its own is the smaller one
    own = contrast([(1.0, loud)], pooled)  # its own is the larger one, and is not reduced
    assert own.se**2 == pytest.approx(loud.item_means.var(ddof=1) / 200 + loud.run_variance / 3)


def test_the_contrast_covers_the_truth() -> None:
    """200 simulations at run sd 3 points: 95 % minus the 99.9 % band of the binomial at 200 is 88 %."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        one, two = arm(rng, 0.6, 0.03, 3, 150), arm(rng, 0.6, 0.03, 3, 150)
        estimate = contrast([(1.0, one), (-1.0, two)])
        hits += estimate.low <= 0.0 <= estimate.high
    assert hits >= 176


def test_one_run_is_about_this_program_only() -> None:
    rng = np.random.default_rng(1)
    one = arm(rng, 0.7, 0.0, 1, 50)
    assert contrast([(1.0, one)]).level == "this program on these rows"
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


def test_a_contrast_is_over_the_rows_that_all_arms_share_and_says_what_it_left_out() -> None:
    rng = np.random.default_rng(13)
    whole, other = arm(rng, 0.7, 0.02, 3, 200), arm(rng, 0.7, 0.02, 3, 200)
    short = other.at(other.items[3:])
    estimate = contrast([(1.0, whole), (-1.0, short)])
    alike = contrast([(1.0, whole.at(whole.items[3:])), (-1.0, short)])
    assert (estimate.effect, estimate.se, estimate.n) == (alike.effect, alike.se, 197)
    assert contrast([(-1.0, short), (1.0, whole)]).n == 197  # in either order
    (left_out,) = estimate.left_out
    assert left_out.rows == ("i0", "i1", "i2") and left_out.of == 200
    assert left_out.sentence == "3 of 200 rows of b lack a score in some cell (i0, i1, i2)"


def test_with_more_than_two_per_cent_left_out_nothing_is_compared() -> None:
    rng = np.random.default_rng(14)
    whole, other = arm(rng, 0.7, 0.02, 3, 200), arm(rng, 0.3, 0.02, 3, 200)
    assert contrast([(1.0, whole), (-1.0, other.at(other.items[4:]))]).untestable == ""
    estimate = contrast([(1.0, whole), (-1.0, other.at(other.items[5:]))])
    assert np.isnan(estimate.effect) and estimate.p == 1.0
    assert estimate.untestable.startswith("not compared: 5 of 200 rows of b lack a score")


def test_a_pair_with_different_rows_is_over_the_shared_ones() -> None:
    rng = np.random.default_rng(15)
    first, second = arm(rng, 0.7, 0.0, 1, 100), arm(rng, 0.8, 0.0, 1, 100)
    short = second.at(second.items[:98])
    estimate = difference(first, short, {})
    assert estimate.n == 98
    assert estimate.effect == pytest.approx(short.mean - first.scores[:98].mean())
    assert (estimate.low, estimate.high) == pytest.approx(newcombe_paired(first.scores[:98, 0], short.scores[:, 0]))
    assert 0 <= adoption_p(first, short, {}) <= 1


@pytest.mark.parametrize("score", [0.0, 0.37, 1.0])
def test_scores_that_are_all_equal_decide_nothing(score: float) -> None:
    """Rounding makes variances of 1e-34; an effect of 5.6e-17 was called significant."""
    cells = [replace(arm_of([[score] * 3] * 50), benchmark=b) for b in "abc"]
    weighted = [(w / 3, cell) for cell in cells for w in (1.0, -0.5, -0.5)]
    estimate = contrast(weighted)
    assert estimate.effect == 0.0 and estimate.p == estimate.p_at_least(0.02) == estimate.p_at_most(-0.02) == 1.0
    assert estimate.untestable.startswith("no variation")


@pytest.mark.parametrize("weights", [(0.1, 0.2, -0.3), (1 / 3, 1 / 3, -2 / 3), (0.7, -0.6, -0.1)])
def test_weights_of_one_sample_that_cancel_but_for_rounding_decide_nothing(weights: tuple[float, ...]) -> None:
    rng = np.random.default_rng(23)
    sample = arm(rng, 0.6, 0.05, 3, 50)
    estimate = contrast([(w, replace(sample)) for w in weights])
    assert estimate.effect == 0.0 and estimate.untestable.startswith("no variation")


def test_a_change_of_one_row_among_many_is_variation() -> None:
    before = np.full((10_000, 3), 0.5)
    after = before.copy()
    after[0, 0] = 1.0
    assert contrast([(-1 / 6, arm_of(before.tolist())), (1 / 6, arm_of(after.tolist()))]).untestable == ""


def test_fewer_than_ten_independent_rows_decide_nothing() -> None:
    worse, better = [[0.0, 0.1, 0.0]] * 9 + [[0.2, 0.0, 0.1]] * 9, [[1.0, 0.9, 1.0]] * 9 + [[1.0, 0.8, 0.9]] * 9
    nine = [f"g{i % 9}" for i in range(18)]
    told = contrast([(-1.0, arm_of(worse)), (1.0, arm_of(better))])
    grouped = contrast([(-1.0, arm_of(worse, groups=nine)), (1.0, arm_of(better, groups=nine))])
    assert told.p < 0.001 and told.untestable == ""
    assert grouped.p == 1.0 and grouped.untestable.startswith("too few rows: 9 independent")
    assert adoption_p(arm_of(worse, groups=nine), arm_of(better, groups=nine), {}) == 1.0


def arm_of(scores: list[list[float]], optimizer: str = "gepa", groups: list[str] | None = None) -> Arm:
    names = np.array([f"i{i}" for i in range(len(scores))])
    return Arm("b", optimizer, names, np.array(groups or names), np.array(scores, float))


def test_adoption_is_one_sided_and_mid_p() -> None:
    base, final = arm_of([[0.0]] * 6 + [[1.0]] * 4, "none"), arm_of([[1.0]] * 5 + [[0.0]] + [[1.0]] * 4)
    assert adoption_p(base, final, {}) == pytest.approx(0.5**6)  # five won, none lost: half of 1/32
    assert adoption_p(final, base, {}) == pytest.approx(1 - 0.5**6)


def test_scores_that_hardly_vary_are_called_skewed() -> None:
    assert is_skewed(arm_of([[1.0]] * 40 + [[0.4]] * 5))
    assert not is_skewed(arm_of([[1.0]] * 20 + [[0.4]] * 20))
    assert not is_skewed(arm_of([[1.0]] * 45 + [[0.0]] * 5))  # Wilson serves these


def test_all_wrong_in_groups_is_still_an_interval() -> None:
    low, high = mean_interval([0.0] * 20, [f"g{i // 2}" for i in range(20)])
    assert (low, high) == pytest.approx(proportion_confint(0, 10, method="wilson"))


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


def test_an_optimization_pays_when_its_gain_covers_its_cost() -> None:
    gain = an_estimate(0.10, 0.02)
    assert breakeven(6.0, gain, extra_usd=0.001, value=0.05) == pytest.approx(6.0 / (0.05 * 0.10 - 0.001))
    assert breakeven(6.0, gain, extra_usd=0.004, value=0.05) == float("inf")  # the interval's low end does not
