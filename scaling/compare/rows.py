"""A comparison of results that have rows, from the paths to what is said."""

from __future__ import annotations

from collections.abc import Sequence

from scaling.compare import terminal
from scaling.compare.found import Found, found_of
from scaling.compare.grouping import LETTERS, comparable
from scaling.compare.judging import judged
from scaling.compare.matching import matched
from scaling.compare.options import Choices
from scaling.readers.formats import read
from scaling.readers.rows import BY_INPUT, UNGROUPED

GROUP_FIELD = "group"


def compare(arguments: Sequence[str], choices: Choices) -> tuple[Found, str]:
    """What was found, and its text for a terminal. Raises UsageError for what cannot be compared."""
    field = choices.group if choices.group not in (None, BY_INPUT, UNGROUPED) else GROUP_FIELD
    results = [read(argument, field or GROUP_FIELD) for argument in arguments]
    groups, alone = comparable(results, choices)
    comparisons = [matched(group, LETTERS[: len(group.results)], choices) for group in groups]
    pairs = judged(comparisons)
    found = found_of(comparisons, pairs, alone)
    return found, terminal.printed(found, comparisons, pairs)
