"""Rows and entries that cannot be used are refused; labels narrow a benchmark; a loader is called with its source."""

from __future__ import annotations

from typing import Any

import pytest

from scaling.data import load_benchmark
from scaling.types import Row, UsageError
from tests.support.pools import Task, pool
from tests.support.toy import config


def test_labels_keep_whole_classes_and_narrow_the_signature() -> None:
    rows = pool([0, 1, 2, 3] * 20)
    entry = config(signature=Task, loader=lambda: rows)
    narrow = load_benchmark("made-up", entry, "sample", labels=2)

    assert {row["label"] for row in narrow.train} == {"label0", "label1"}
    assert len(narrow.train) == 40
    assert narrow.signature.output_fields["label"].annotation.__args__ == ("label0", "label1")
    for labels in (1, 5):
        with pytest.raises(UsageError, match="give 2 to 4"):
            load_benchmark("made-up", entry, "sample", labels=labels)


@pytest.mark.parametrize(
    ("loaded", "complaint"),
    [
        ([{"text": "a"}], "row 0 of 'made-up' .* lacks label"),
        ([], "no rows"),
        ([{"id": 1, "text": "a", "label": "x"}, {"id": 1, "text": "b", "label": "y"}], "not unique"),
        ({"rows": []}, "returned keys"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(loaded: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_benchmark("made-up", config(signature=Task, loader=lambda: loaded), "sample")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"metric": None}, "lacks metric"),
        ({"test_seed": range(3)}, "unknown keys test_seed"),
        ({"val_seeds": range(10, 30)}, "overlap"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(change: dict[str, Any], complaint: str) -> None:
    entry = config(signature=Task, loader=lambda: pool([0, 1] * 30), **change)
    with pytest.raises(UsageError, match=complaint):
        load_benchmark("made-up", entry, "sample")


def test_a_loader_is_called_with_the_source_where_it_takes_one() -> None:
    asked = []

    def loader(source: str) -> list[Row]:
        asked.append(source)
        return pool([0, 1] * 30)

    load_benchmark("made-up", config(signature=Task, loader=loader), "somewhere")
    assert asked == ["somewhere"]
