"""What `compare` refuses, in one line that names the field, and what it counts and says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import analyze_results
from tests.support.compared import compared, scored, write_csv, write_jsonl

HALF = [0, 1] * 20


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a comparison that must be refused; its one line."""

    def run(*arguments: str) -> str:
        assert analyze_results.main(["compare", *arguments]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1 and said.startswith("error: ")
        return said

    return run


@pytest.mark.parametrize("field", ["dataset", "version", "metric"])
def test_different_terms_are_refused_with_their_field_and_the_way_out(
    refused: Callable, tmp_path: Path, field: str
) -> None:
    paths = [write_csv(tmp_path / f"{name}.csv", scored(HALF, **{field: name})) for name in ("one", "two")]
    said = refused(*paths)
    assert f"{field}: " in said and "'one'" in said and "'two'" in said and f"--same {field}" in said

    found = compared(tmp_path / "out", *paths, "--same", field)
    assert any(f"the same {field}: one, two" in note for note in found["notes"])


def test_ids_that_stand_for_other_inputs_are_refused_unless_inputs_match(refused: Callable, tmp_path: Path) -> None:
    first = [row | {"input": f"question {number}"} for number, row in enumerate(scored(HALF))]
    other = [row | {"input": f"something else {number}"} for number, row in enumerate(scored(HALF))]
    turned = [row | {"id": f"q{39 - number}", "input": f"question {number}"} for number, row in enumerate(scored(HALF))]
    a, b, c = (write_csv(tmp_path / f"{n}.csv", rows) for n, rows in (("a", first), ("b", other), ("c", turned)))

    assert "input: 40 ids stand for another input" in refused(a, b)
    assert any("40 ids stand for inputs that differ" in note
               for note in compared(tmp_path / "by_id", a, c, "--match", "id")["notes"])  # fmt: skip
    found = compared(tmp_path / "out", a, c)
    assert found["pairs"][0]["rows"] == 40 and found["pairs"][0]["effect"] == 0
    assert any("matched by what was asked" in note for note in found["notes"])


def test_rows_that_do_not_match_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_csv(tmp_path / "a.csv", scored(HALF))
    b = write_csv(tmp_path / "b.csv", scored([1] * 30))
    (pair,) = compared(tmp_path / "out", a, b)["pairs"]
    assert (pair["rows"], pair["only_in_first"], pair["only_in_second"]) == (30, 10, 0)
    assert "10 rows only in A" in capsys.readouterr().out
    assert "10 rows only in A" in (tmp_path / "out" / "comparison.md").read_text()


def test_no_shared_row_is_refused(refused: Callable, tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", scored(HALF))
    b = write_csv(tmp_path / "b.csv", [row | {"id": "x" + row["id"]} for row in scored(HALF)])
    assert "no row of one result is in another" in refused(a, b)


def test_the_same_input_under_several_ids_is_asked_about(refused: Callable, tmp_path: Path) -> None:
    rows = [row | {"input": f"question {number // 2}"} for number, row in enumerate(scored(HALF))]
    paths = [write_csv(tmp_path / f"{name}.csv", rows) for name in ("a", "b")]
    said = refused(*paths)
    assert "group: 20 of 40 rows" in said and "--group input" in said

    clustered = compared(tmp_path / "clustered", *paths, "--group", "input")
    assert clustered["pairs"][0]["clusters"] == 20
    alone = compared(tmp_path / "alone", *paths, "--group", "none")
    assert alone["pairs"][0]["clusters"] == 0


def test_two_groupings_of_one_row_are_refused(refused: Callable, tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", scored(HALF, group="one"))
    b = write_csv(tmp_path / "b.csv", scored(HALF, group="two"))
    assert "group: row 'q0' is in 'one' and in 'two'" in refused(a, b)


def test_a_field_to_group_by_is_named_by_the_user(refused: Callable, tmp_path: Path) -> None:
    rows = [row | {"passage": number // 4} for number, row in enumerate(scored(HALF))]
    paths = [write_csv(tmp_path / f"{name}.csv", rows) for name in ("a", "b")]
    assert compared(tmp_path / "out", *paths, "--group", "passage")["pairs"][0]["clusters"] == 10
    assert "no row has a field 'chapter'" in refused(*paths, "--group", "chapter")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "a", "score": "good"}], "line 2: score is 'good', which is not a number"),
        ([{"id": "", "score": 1}], "line 2: id is empty"),
        ([{"id": "a", "score": "inf"}], "line 2: score is 'inf'"),
        ([{"id": "a", "score": 1}, {"id": "a", "score": 0}], "id: 'a' comes more than once"),
        ([{"id": "a", "score": 87}], "--scale 100"),
        ([{"name": "a", "points": 1}], "is of no known format"),
    ],
)
def test_a_plain_file_that_cannot_be_used_is_refused(
    refused: Callable, tmp_path: Path, rows: list[dict[str, object]], said: str
) -> None:
    good = write_csv(tmp_path / "good.csv", [{"id": "a", "score": 1}])
    assert said in refused(good, write_csv(tmp_path / "bad.csv", rows))


def test_what_is_no_file_one_file_and_no_csv(refused: Callable, tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", scored(HALF))
    assert "there is no file or folder" in refused(a, str(tmp_path / "missing.csv"))
    assert "needs two results" in refused(a)
    (tmp_path / "ragged.csv").write_text("id,score\na,1,2\n")
    assert "line 2 has 3 values" in refused(a, str(tmp_path / "ragged.csv"))
    (tmp_path / "latin.csv").write_bytes("id,score\nä,1\n".encode("latin-1"))
    assert "not CSV in UTF-8" in refused(a, str(tmp_path / "latin.csv"))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a", "score": 1}\n{"id": ')
    assert "line 2 cannot be read" in refused(a, str(broken))
    empty = write_jsonl(tmp_path / "empty.jsonl", scored([None] * 40))
    assert compared(tmp_path / "out", a, empty)["pairs"][0]["verdict"] == "not compared"


def test_scores_of_another_scale_are_divided_and_it_is_said(tmp_path: Path) -> None:
    paths = [write_csv(tmp_path / f"{n}.csv", scored([v * 100 for v in s])) for n, s in (("a", HALF), ("b", [1] * 40))]
    found = compared(tmp_path / "out", *paths, "--scale", "100")
    assert found["pairs"][0]["effect"] == 0.5
    assert any("a perfect answer scores 100" in note for note in found["notes"])


def test_more_than_two_percent_without_a_score_is_not_compared(tmp_path: Path) -> None:
    lost = [row | ({"score": ""} if number < 2 else {}) for number, row in enumerate(scored(HALF))]
    a, b = write_csv(tmp_path / "a.csv", scored(HALF)), write_csv(tmp_path / "b.csv", lost)
    found = compared(tmp_path / "out", a, b)
    assert found["pairs"][0]["verdict"] == "not compared" and found["pairs"][0]["effect"] is None
    assert "2 of 40 rows" in found["refused"][0] and json.dumps(found)


def test_a_result_without_a_partner_is_named(tmp_path: Path) -> None:
    a = write_csv(tmp_path / "a.csv", scored(HALF, dataset="sums"))
    b = write_csv(tmp_path / "b.csv", scored(HALF, dataset="sums"))
    c = write_csv(tmp_path / "c.csv", scored(HALF, dataset="words"))
    found = compared(tmp_path / "out", a, b, c)
    assert len(found["pairs"]) == 1 and found["refused"] == ["c: no other result is of dataset words"]


def test_a_dataset_is_chosen(refused: Callable, tmp_path: Path) -> None:
    both = [row | {"dataset": name} for name in ("sums", "words") for row in scored(HALF)]
    a, b = write_csv(tmp_path / "a.csv", both), write_csv(tmp_path / "b.csv", both)
    assert len(compared(tmp_path / "all", a, b)["pairs"]) == 2
    assert len(compared(tmp_path / "one", a, b, "--dataset", "words")["pairs"]) == 1
    assert "has no songs; it has sums, words" in refused(a, b, "--dataset", "songs")
    silent = write_csv(tmp_path / "silent.csv", scored(HALF))
    assert "does not say its own" in refused(a, silent)
