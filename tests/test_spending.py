"""Boundaries of group-sequential tests against published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from scaling.spending import boundaries, conditional_power, levels, spent


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
    ordinary = float(distributions.norm.isf(alpha))
    assert boundaries(alpha, information)[0] == pytest.approx(
        float(distributions.norm.isf(spent(alpha, information[0])))
    )
    assert boundaries(alpha, information)[-1] >= ordinary - 1e-9
    # Holm's procedure needs it: alpha that is passed on makes no boundary harder to cross (Maurer & Bretz 2013).
    assert np.all(np.array(levels(alpha / 2, information)) <= levels(alpha, information))


def test_two_looks_together_reject_as_often_as_alpha_says() -> None:
    low, high = boundaries(0.025, (2 / 3, 1.0))
    either = 1 - distributions.multivariate_normal(cov=[[1, math.sqrt(2 / 3)], [math.sqrt(2 / 3), 1]]).cdf([low, high])
    assert either == pytest.approx(0.025, abs=1e-5)


def test_conditional_power() -> None:
    # Half of the information, z = 2: under the trend that is seen, the final z is N(2 / sqrt(0.5), 0.5).
    z, last = np.array([2.0, 0.0]), np.array([1.96, 1.96])
    expected = distributions.norm.sf(1.96, z / 0.5**0.5, 0.5**0.5)
    assert conditional_power(z, 0.5, last) == pytest.approx(expected)
