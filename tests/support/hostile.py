"""Long answers of the kinds that break parsers, and a limit for what reads them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

# What is repeated: numbers and their signs, brackets that never close, LaTeX, fences, headings, blanks.
PIECES = (
    "1", "1,111", "1,", "-", "$", ".", "1.", "1e", "\u0661", " ", "\n", "\t", "\\", "(", "[", "{", '{"a":', "[1,", '"',
    "'", "]", "}", ")", "//", "/*", "#", "\\boxed{", "\\text{", "1 \\text{a}", "\\frac 1 ", "```", "```\n", "####",
    "A)", "A.", "the ", "= ", "a = b;", "[[ ## ", "[[ ## answer ## ]]\n", "\x00", "\ud800", "\u2028", "not ", "x = (\n",
)  # fmt: skip
SIZES = (3_000, 12_000, 100_000)


def hostile_texts() -> st.SearchStrategy[str]:
    """One or two pieces over and over, to 3, 12 or 100 kB, with something else at the end."""
    pieces = st.lists(st.sampled_from(PIECES), min_size=1, max_size=2).map("".join)
    ends = st.sampled_from(("", "x", "1", "}", '"}'))
    return st.builds(lambda piece, size, end: piece * (size // len(piece)) + end, pieces, st.sampled_from(SIZES), ends)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Ends the block with an error where it would go on for hours: far more time than it needs."""

    def give_up(*_: Any) -> None:
        raise AssertionError(f"it has not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
