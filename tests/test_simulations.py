"""The statistical procedures on data with a known truth, at a small size; `make simulate` runs them at full size."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.procedures import PROCEDURES

REPEATS = 40


@pytest.mark.parametrize("number", range(len(PROCEDURES)), ids=[procedure.__name__ for procedure in PROCEDURES])
def test_a_procedure_keeps_its_promise(number: int) -> None:
    outcomes = list(PROCEDURES[number](np.random.default_rng((1, number)), REPEATS))
    assert outcomes
    for outcome in outcomes:
        assert outcome.passed, f"{outcome.what}: {outcome.observed:.1f} not in {outcome.low:.1f} to {outcome.high:.1f}"
