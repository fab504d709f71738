"""SuperGLUE: labels, subtasks and rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import superglue
from benchmarks.superglue.data import SUBTASKS
from scaling.data import make_splits
from scaling.types import UsageError
from tests.support.benchmarks import REAL_ROWS, bench, real, sample, score


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("True", "true", 1),
        ("True", " TRUE.", 1),
        ("True", "False", 0),
        ("True", "yes", 0),
        ("entailment", "not_entailment", 0),
        ("not_entailment", "Not_Entailment", 1),
        ("choice1", "choice2", 0),
    ],
)
def test_labels_are_compared_without_case(gold: str, answer: str, right: int) -> None:
    assert score(superglue, {"answer": gold}, answer) == right


def test_the_superglue_sample_has_40_rows_of_each_subtask_in_even_shares() -> None:
    rows = bench("superglue").train
    assert Counter(row["subtask"] for row in rows) == dict.fromkeys(SUBTASKS, 40)
    for name in SUBTASKS:
        alone = bench(f"superglue/{name}").train
        assert {row["text"] for row in alone} == {row["text"] for row in rows if row["subtask"] == name}
        labels = Counter(row["answer"] for row in alone)
        assert set(labels) == set(alone[0]["labels"]) and max(labels.values()) - min(labels.values()) <= 4


def test_the_hub_is_asked_for_each_subtask_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: str, package: Path, hub: dict[str, Any]) -> dict[str, Any]:
        rows = [row for row in sample("superglue") if row["subtask"] == hub["name"]]
        names = ["no", "yes"] if hub["name"] == "wic" else None  # the hub's own names win
        return {"train": rows[:30], "test": rows[30:], "revision": "abc", "label_names": names}

    monkeypatch.setattr("benchmarks.superglue.data.read", read)
    loaded = bench("superglue", "hub")
    assert (len(loaded.train), len(loaded.test), loaded.revision) == (180, 60, "abc")
    assert {row["answer"] for row in bench("superglue/wic", "hub").train} == {"no", "yes"}


def test_every_subtask_is_in_words(tmp_path: Path) -> None:
    rows = {
        "cb": {"premise": "It rains.", "hypothesis": "It is dry.", "label": 1},
        "wic": {"word": "bank", "sentence1": "The bank lent.", "sentence2": "A river bank.", "label": 0},
        "wsc.fixed": {"text": "Ann met Eve as she left.", "span1_text": "Ann", "span2_text": "she", "label": 1},
        "copa": {
            "premise": "It broke.",
            "choice1": "It fell.",
            "choice2": "It shone.",
            "question": "cause",
            "label": 0,
        },
        "boolq": {"question": "is it", "passage": "It is.", "label": True},
    }
    for name, row in rows.items():
        folder = tmp_path / "superglue" / name
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text(json.dumps(row))
        (folder / "validation.jsonl").write_text(json.dumps(row))
    loaded = {row["subtask"]: row for row in bench("superglue", str(tmp_path)).test}
    assert {name: row["answer"] for name, row in loaded.items()} == {
        "cb": "contradiction", "wic": "False", "wsc.fixed": "True", "copa": "choice1", "boolq": "True",
    }  # fmt: skip
    assert loaded["copa"]["text"].splitlines()[3:] == [
        "Which choice is the likelier cause of the premise?",
        "Answer with one of: choice1, choice2.",
    ]
    assert "'she' stand for 'Ann'" in loaded["wsc.fixed"]["text"] and "'bank'" in loaded["wic"]["text"]


def test_rows_whose_label_is_secret_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "superglue" / "boolq"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(json.dumps({"question": "is it", "passage": "It is.", "label": -1}))
    with pytest.raises(UsageError, match="superglue/boolq.*-1"):
        bench("superglue/boolq", str(tmp_path))


@real
def test_passages_and_premises_are_on_one_side_of_every_split() -> None:
    boolq = bench("superglue/boolq", str(REAL_ROWS))
    assert len(boolq.test) == 3270 and len({row["group"] for row in boolq.test}) == 2939
    rte = bench("superglue/rte", str(REAL_ROWS))
    splits = make_splits(rte, 50, 2000, 50, 277, 0)
    premises = [{row["text"].splitlines()[0] for row in part} for part in (splits.train, splits.select + splits.check)]
    assert splits.dropped > 0
    assert not premises[0] & premises[1]
    assert not (premises[0] | premises[1]) & {row["text"].splitlines()[0] for row in rte.test}
    assert {row["subtask"] for row in bench("superglue", str(REAL_ROWS)).test} == {"boolq", "rte"}
