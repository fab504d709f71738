"""Planted studies by the whole program, fixed and sequential side by side."""

from __future__ import annotations

from pathlib import Path

from tests.side_by_side import TRUTHS, sides_of
from tests.support.chaos import only_in_chaos


@only_in_chaos
def test_a_sequential_study_finds_what_the_fixed_one_does_for_fewer_calls(tmp_path: Path) -> None:
    (truth,) = (one for one in TRUTHS if one.name == "rise of 40")
    fixed, sequential = sides_of([truth], tmp_path)
    assert fixed.verdicts[0] == sequential.verdicts[0] == "supported"
    assert sequential.calls < fixed.calls and sequential.usd < fixed.usd
