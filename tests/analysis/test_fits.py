"""Shapes, families of curves, exponents and lines, against libraries and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats as scipy_stats
from scipy.optimize import curve_fit

from scaling.analysis.fit_table import shape_of
from scaling.analysis.fits import bands, families, power_law, shape_label, size_line, zero_set
from scaling.analysis.stats import Estimate
from simulations.data import arms as simulated


def a_slope(effect: float, se: float = 0.01) -> Estimate:
    p = float(2 * scipy_stats.norm.sf(abs(effect) / se))
    return Estimate(effect, effect - 2 * se, effect + 2 * se, p, se, 1e6, "this optimizer", 500, 3)


@pytest.mark.parametrize(
    ("early", "late", "label"),
    [
        (0.0, 0.0, "flat not rejected"), (0.1, 0.1, "rising"), (0.1, 0.0, "levelling"), (0.1, 0.07, "rising"),
        (0.1, -0.1, "rise then fall"), (-0.1, 0.0, "falling"), (-0.1, 0.1, "fall then rise"), (0.0, 0.1, "rising"),
    ],
)  # fmt: skip
def test_shapes(early: float, late: float, label: str) -> None:
    bend = a_slope(early - late, 0.014)
    assert shape_label(a_slope(early), a_slope(late), bend) == label


def test_a_half_that_is_measured_less_well_is_not_levelling() -> None:
    """The same slope before and after: the second is not shown, and no bend is."""
    assert shape_label(a_slope(0.1), a_slope(0.1, se=0.09), a_slope(0.0, se=0.09)) == "rising"


@pytest.mark.parametrize("steps", [(1, 2, 3), (1, 3, 5), (1, 2, 5), (1, 2, 3, 5)])
def test_a_straight_rise_is_rising_whatever_the_middle_step(steps: tuple[int, ...]) -> None:
    means = {("x", "gepa", k): 0.3 + 0.1 * k for k in steps}
    cells = simulated(np.random.default_rng(3), means, 500, 3, 0.01)
    assert shape_of({k: cells["x", "gepa", k] for k in steps}, {}) == ("rising", "")


def test_the_shape_of_one_run_is_about_its_programs() -> None:
    means = {("x", "gepa", k): 0.3 + 0.1 * k for k in (1, 2, 3)}
    cells = simulated(np.random.default_rng(3), means, 500, 1)
    label, reason = shape_of({k: cells["x", "gepa", k] for k in (1, 2, 3)}, {})
    assert label == "on these rows: rising" and "one run" in reason


def test_a_curve_without_variation_has_no_shape() -> None:
    cells = simulated(np.random.default_rng(3), {("x", "gepa", 1): 0.5}, 100, 3)
    same = replace(cells["x", "gepa", 1], scores=np.full((100, 3), 0.5))
    label, reason = shape_of({1: same, 3: same, 5: same}, {})
    assert label == "cannot tell" and reason.startswith("no variation")


def test_bands_need_other_runs_answers() -> None:
    baseline = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 0]], float)
    change = np.array([[1, 1, -1], [0, 0, 0], [1, 0, 0]], float)
    found = bands(baseline, change)
    # Item 0 is "hard" for run 2 only, "some" for runs 0 and 1; item 1 is easy and item 2 hard for all.
    assert found == pytest.approx({"hard": (-1 + 1 + 0 + 0) / 4, "some": 1.0, "easy": 0.0})


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


SIZE, SCORE = np.array([0.5, 1, 3, 8, 30, 70.0]), np.array([0.42, 0.44, 0.50, 0.57, 0.66, 0.72])


def least_squares(size: np.ndarray, score: np.ndarray, at: tuple[float, float] | None = None) -> float:
    """The smallest sum of squares of A s^alpha by scipy's optimizer; at: a point that the curve goes through."""
    if at is None:
        (a, alpha), _ = curve_fit(lambda s, a, e: a * s**e, size, score, p0=(0.45, 0.1))
    else:
        (alpha,), _ = curve_fit(lambda s, e: at[1] * (s / at[0]) ** e, size, score, p0=(0.1,))
        a = at[1] / at[0] ** alpha
    return float(((score - a * size**alpha) ** 2).sum())


def test_the_score_to_expect_is_where_one_more_model_is_not_rejected() -> None:
    """By brute force: a model at an end of the interval adds just as much misfit as the F test allows."""
    value, ends = power_law(SIZE, SCORE).expected(15.0)
    smallest = least_squares(SIZE, SCORE)
    assert ends[0] < value < ends[1]
    for end in ends:
        more = least_squares(np.append(SIZE, 15.0), np.append(SCORE, end)) - smallest
        assert more / (smallest / 4) == pytest.approx(scipy_stats.f.ppf(0.95, 1, 4), rel=0.05)  # a step of the grid


def test_the_band_of_the_power_law_is_where_its_curve_is_not_rejected() -> None:
    band = power_law(SIZE, SCORE).curve(np.array([15.0]))
    smallest = least_squares(SIZE, SCORE)
    for end in (band.low[0], band.high[0]):
        more = least_squares(SIZE, SCORE, (15.0, end)) - smallest
        assert more / (smallest / 4) == pytest.approx(scipy_stats.f.ppf(0.95, 1, 4), rel=0.05)


def test_a_size_that_comes_twice_is_one_size() -> None:
    law = power_law([1.0, 1.0, 8.0, 8.0, 70.0], [0.4, 0.41, 0.5, 0.51, 0.7])
    assert law.unbounded.startswith("3 sizes") and law.refused == law.unbounded


def test_a_flat_score_has_no_exponent_and_can_still_be_expected() -> None:
    law = power_law(SIZE, np.array([0.60, 0.61, 0.59, 0.60, 0.605, 0.595]))
    assert law.refused == "the set of exponents holds 0" and not law.unbounded
    value, (low, high) = law.expected(15.0)
    assert low < 0.6 < high and high - low < 0.06 and value == pytest.approx(0.6, abs=0.01)


def test_the_band_of_the_size_line_is_that_of_ordinary_least_squares() -> None:
    model = sm.OLS(SCORE, sm.add_constant(np.log10(SIZE))).fit()
    band = size_line(SIZE, SCORE).band(np.log10(np.array([2.0, 20.0])))
    expected = model.get_prediction(np.column_stack([np.ones(2), np.log10([2.0, 20.0])])).conf_int()
    assert np.column_stack([band.low, band.high]) == pytest.approx(expected)


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
