"""The statistical procedures on data with a known truth, at a small size; `make simulate` runs them at full size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import simulations.__main__ as command
from simulations.outcome import Outcome
from simulations.procedures import PROCEDURES

REPEATS = 40


@pytest.mark.parametrize("number", range(len(PROCEDURES)), ids=[procedure.__name__ for procedure in PROCEDURES])
def test_a_procedure_keeps_its_promise(number: int) -> None:
    outcomes = list(PROCEDURES[number](np.random.default_rng((1, number)), REPEATS))
    assert outcomes
    for outcome in outcomes:
        assert outcome.passed, f"{outcome.what}: {outcome.observed:.1f} not in {outcome.low:.1f} to {outcome.high:.1f}"


def test_the_command_takes_repeats_and_seed_and_fails_when_a_procedure_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, float]] = []

    def procedure(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
        asked.append((repeats, rng.random()))
        yield Outcome("hits", 50.0, 40.0 if repeats > 5 else 60.0, 70.0)

    monkeypatch.setattr(command, "PROCEDURES", (procedure,))
    monkeypatch.setattr(command, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(command, "STUDIES", tmp_path / "sequential.csv")
    assert command.main(["--repeats", "7", "--seed", "3"]) == 0
    assert "7 repeats each, seed 3" in (tmp_path / "RESULTS.md").read_text()
    assert command.main(["--repeats", "4", "--seed", "3"]) == 1
    assert "**outside**" in (tmp_path / "RESULTS.md").read_text()
    assert command.main(["--repeats", "7", "--seed", "4"]) == 0
    assert [repeats for repeats, _ in asked] == [7, 4, 7]
    assert asked[0][1] == asked[1][1] != asked[2][1]
