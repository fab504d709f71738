"""Labels as models can give them, rows without one, and letters that can be written in two ways."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from benchmarks import sources
from benchmarks.answers import normalise_words
from scaling.data import load_benchmark, make_splits, normalise_text
from scaling.types import UsageError
from tests.support import toy


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"message": f"message {i} of {len(labels)}", "label": label} for i, label in enumerate(labels)]


@pytest.mark.parametrize("label", [None, "", "  ", float("nan")])
def test_a_row_without_a_label_is_named(label: Any) -> None:
    rows = labelled("refund", label, "billing")
    with pytest.raises(UsageError, match="'train-00001' of 'toy' has no label in 'label'"):
        load_benchmark("toy", toy.config(loader=lambda: rows), "sample")


def test_labels_can_be_given_by_a_model() -> None:
    """DSPy strips an answer, so a label with spaces around it was right for no answer."""
    rows = labelled(" refund", "refund", "caf\u00e9", "cafe\u0301 ")
    bench = load_benchmark("toy", toy.config(loader=lambda: rows), "sample")
    assert get_args(bench.signature.output_fields["label"].annotation) == ("caf\u00e9", "refund")
    assert [row["label"] for row in bench.train] == ["refund", "refund", "caf\u00e9", "caf\u00e9"]


@pytest.mark.parametrize("label", [-1, 2, None])
def test_a_label_without_a_name_is_refused(label: Any) -> None:
    """-1 is what data sets say of rows whose label is secret."""
    with pytest.raises(UsageError, match="a row has"):
        sources.named(label, ["no", "yes"])
    assert sources.named(1, ["no", "yes"]) == "yes"


def test_letters_in_two_parts_are_the_same_letters() -> None:
    whole, parts = "Une caf\u00e9 cr\u00e8me", "Une cafe\u0301 cre\u0300me"
    assert normalise_text(whole) == normalise_text(parts) == "une caf\u00e9 cr\u00e8me"
    assert normalise_words(whole) == normalise_words(parts)
    rows = [{"message": f"message {i}", "label": "refund"} for i in range(12)] + [{"message": parts, "label": "refund"}]
    test = [{"message": whole, "label": "refund"}, {"message": "another", "label": "refund"}]
    entry = toy.config(loader=lambda: {"train": rows, "test": test}, train_seeds=range(4), val_seeds=range(4, 12))
    splits = make_splits(load_benchmark("toy", entry, "sample"), 4, 8, 5, 2, 0)
    assert splits.dropped == 1
    assert parts not in [row["message"] for row in splits.train + splits.select + splits.check]
