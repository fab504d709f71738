"""The decisions of a sequential study on disk: written once, whole, and never again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scaling.records.looks import LookDecision, decision_paths, look_path, read_looks, write_once
from scaling.records.record import SequentialPlan, SweepPlan
from scaling.records.store import PLAN, read_plan, write_plan
from scaling.sequential import Look, NeededCell, QuestionLook, sequential_design
from scaling.types import UsageError

DESIGN = sequential_design(3, gate=1.0)
QUESTION = QuestionLook("H1", "toy/a", 1, "open", "cannot tell", 2 / 3, 0.002, 0.001, effect=0.04, chance=0.3)
LOOK = Look(1, 2, (QUESTION,), (NeededCell("toy/a", "banking77", "gepa", 5),), ("0a", "0b"))


def decision(**changes: object) -> LookDecision:
    facts = {"study": "a study", "design": DESIGN, "look": LOOK, "scores": {"0a": "1" * 64}}
    return LookDecision(**facts | changes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_once(look_path(tmp_path, "a study", 1), decision())

    assert read_looks(tmp_path, "a study") == [decision()]
    assert read_looks(tmp_path, "another") == []
    assert [path.name for path in decision_paths([tmp_path, tmp_path / "looks"])] == ["a study-1.json"]


def test_a_second_decision_changes_nothing(tmp_path: Path) -> None:
    path = look_path(tmp_path, "a study", 1)
    write_once(path, decision())
    before = path.read_bytes()
    write_once(path, decision(scores={}))

    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: str, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_once(look_path(tmp_path, "a study", 1), decision())
    write_once(look_path(tmp_path, "a study", 1), decision(scores={}))

    assert read_looks(tmp_path, "a study") == [decision()]


def test_a_damaged_decision_is_not_decided_again(tmp_path: Path) -> None:
    path = look_path(tmp_path, "a study", 1)
    write_once(path, decision())
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(UsageError, match="a look is decided once"):
        read_looks(tmp_path, "a study")


def test_a_sequential_plan_stays_as_it_was_written(tmp_path: Path) -> None:
    first = SequentialPlan(study="a study", design=DESIGN, cells=["0a", "0b"])
    write_plan(tmp_path, SweepPlan(sequential=[first]))
    write_plan(tmp_path, SweepPlan(sequential=[SequentialPlan(study="a study", design=sequential_design(4), cells=[])]))

    assert read_plan(tmp_path / PLAN).sequential == [first]
