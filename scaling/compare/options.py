"""What a user decides of a comparison; each choice that the files cannot tell stands in every output."""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = ("dataset", "version", "metric")  # what must be equal
BY_ID, BY_INPUT = "id", "input"


@dataclass(frozen=True)
class Choices:
    """datasets, metric: only these, all where there is none. same: fields that are taken to be equal. match: "id",
    "input", or None for whichever fits. group: the field of rows that belong together, "input" or "none"; None for a
    field `group` where rows have it. scale: the score of a perfect answer."""

    datasets: tuple[str, ...] = ()
    metric: str | None = None
    same: tuple[str, ...] = ()
    match: str | None = None
    group: str | None = None
    scale: float = 1.0
