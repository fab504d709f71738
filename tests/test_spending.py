"""Boundaries of group-sequential tests against published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from scaling.sequential import SequentialDesign
from scaling.spending import boundaries, conditional_power, limits_of, spent


def equally(looks: int) -> tuple[float, ...]:
    return tuple((look + 1) / looks for look in range(looks))


# Two-sided 5 % with equally spaced looks, spending of the O'Brien-Fleming kind: the tables of Lan and DeMets' program
# (Reboussin, DeMets, Kim & Lan 2000, Control Clin Trials 21:190), which R's ldbounds and gsDesign reproduce.
@pytest.mark.parametrize(
    ("looks", "published"),
    [
        (1, [1.96]),
        (2, [2.963, 1.969]),
        (3, [3.710, 2.511, 1.993]),
        (4, [4.333, 2.963, 2.359, 2.014]),
        (5, [4.877, 3.357, 2.680, 2.290, 2.031]),
    ],
)
def test_boundaries_are_those_of_the_published_tables(looks: int, published: list[float]) -> None:
    assert boundaries(0.025, equally(looks)) == pytest.approx(published, abs=0.0006)


@given(
    alpha=st.sampled_from([0.025, 0.0125, 0.00625]),
    waves=st.lists(st.integers(2, 40), min_size=1, max_size=5, unique=True).map(sorted),
)
def test_all_of_alpha_is_spent_and_a_smaller_one_has_higher_boundaries(alpha: float, waves: list[int]) -> None:
    information = tuple(runs / waves[-1] for runs in waves)
    assert spent(alpha, information[-1]) == pytest.approx(alpha)
    limits = boundaries(alpha, information)
    assert limits[0] == pytest.approx(float(distributions.norm.isf(spent(alpha, information[0]))))
    assert limits[-1] >= float(distributions.norm.isf(alpha)) - 1e-9
    # Holm's procedure needs it: alpha that is passed on makes no boundary harder to cross (Maurer & Bretz 2013).
    assert np.all(np.array(boundaries(alpha / 2, information)) >= limits)


def test_two_looks_together_reject_as_often_as_alpha_says() -> None:
    low, high = boundaries(0.025, (2 / 3, 1.0))
    either = 1 - distributions.multivariate_normal(cov=[[1, math.sqrt(2 / 3)], [math.sqrt(2 / 3), 1]]).cdf([low, high])
    assert either == pytest.approx(0.025, abs=1e-5)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=4, unique=True).map(sorted), st.integers(1, 4))
def test_a_clock_of_its_own_spends_less_early_and_keeps_alpha(waves: list[int], sharing: int) -> None:
    design = SequentialDesign(tuple(waves))
    limits, plain = limits_of(design, sharing), boundaries(0.025 / sharing, design.information)
    assert limits[0] >= plain[0] - 1e-9 and limits[-1] <= plain[-1] + 1e-9
    times = np.sqrt(design.information)
    correlation = np.minimum.outer(times, times) / np.maximum.outer(times, times)
    none = distributions.multivariate_normal(cov=correlation).cdf(np.array(limits), rng=np.random.default_rng(1))
    assert 1 - none == pytest.approx(0.025 / sharing, abs=2e-4)


def test_conditional_power() -> None:
    # Half of the information, z = 2: under the trend that is seen, the final z is N(2 / sqrt(0.5), 0.5).
    z, last = np.array([2.0, 0.0]), np.array([1.96, 1.96])
    expected = distributions.norm.sf(1.96, z / 0.5**0.5, 0.5**0.5)
    assert conditional_power(z, 0.5, last) == pytest.approx(expected)
