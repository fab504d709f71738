"""The calls that a sequential study has before it, for its plan and its progress board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scaling.run.estimate import Estimate, count

Range = tuple[float, float]  # low, high


@dataclass(frozen=True)
class CallsAhead:
    """Calls, low to high: of the wave that is next, of all waves if everything stays open, and those to be expected.

    expected: None where nobody said what to expect. guess: what it is expected under.
    """

    now: Range
    all_open: Range
    expected: Range | None = None
    guess: str = ""

    @property
    def text(self) -> str:
        """'calls ahead: 31k-40k now, 45k-60k if everything stays open, 38k-50k expected if ...'."""
        expected = f", {count(*self.expected)} expected if {self.guess}" if self.expected else ""
        return f"calls ahead: {count(*self.now)} now, {count(*self.all_open)} if everything stays open{expected}"


def calls_of(shares: Mapping[str, float], estimates: Mapping[str, Estimate]) -> Range:
    """The calls of cells, low to high, each counted as its share. shares: by cell_id."""
    low, high = (sum(share * estimates[cell].calls[end] for cell, share in shares.items()) for end in (0, 1))
    return low, high
