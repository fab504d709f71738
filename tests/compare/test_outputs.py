"""The forms in which a comparison is told: a terminal of 80 columns, Markdown, HTML, CSV and JSON."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import analyze_results
from tests.support.compared import compared, scored, write_csv

LEFT, RIGHT = [0, 1] * 30, [1] * 60


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    rows = {"left": scored(LEFT, cost=0.001), "right": scored(RIGHT, cost=0.002)}
    return [write_csv(tmp_path / f"{name}.csv", values) for name, values in rows.items()]


def test_the_terminal_has_80_columns_no_colour_and_all_that_was_asked(
    pair: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_results.main(["compare", *pair]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines()) <= 80 and "\x1b" not in said
    assert said.startswith("On these rows, right scores higher than left")
    for part in ("+50.0 [", "Holm's p < 0.001", "80 % power", "30 higher, 0 lower in B", "q0: 0.0 to 100.0", "$0.002"):
        assert part in said


def test_every_form_tells_the_same(tmp_path: Path, pair: list[str]) -> None:
    found = compared(tmp_path / "out", *pair)
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert set(files) == {"comparison.md", "comparison.html", "comparison.json", "comparison.csv",
                          "comparison_rows.csv", "comparison_scores.csv"}  # fmt: skip
    for form in ("md", "html"):
        text = files[f"comparison.{form}"].read_text(encoding="utf-8")
        for part in ("On these rows, right scores higher than left", "+50.0", "B - A", "30 / 0", "q0"):
            assert part in text, (form, part)
    table = pd.read_csv(files["comparison.csv"])
    assert table["effect"].tolist() == [row["effect"] for row in found["pairs"]] == [0.5]
    assert len(pd.read_csv(files["comparison_rows.csv"])) == len(found["rows"]) == 30
    page = files["comparison.html"].read_text(encoding="utf-8")
    assert "<script>" in page and "http" not in page.split("<script>")[0].replace("http-equiv", "")


def test_names_from_outside_have_no_power(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_csv(tmp_path / "a.csv", scored(LEFT, dataset="<b>|\x1b[31m", input="<script>x</script>"))
    b = write_csv(tmp_path / "b.csv", scored(RIGHT, dataset="<b>|\x1b[31m", input="<script>x</script>"))
    compared(tmp_path / "out", a, b, "--group", "none", "--match", "id")
    assert "\x1b" not in capsys.readouterr().out
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "<script>x" not in page and "<b>" not in page and "\x1b" not in page
    assert "<b>" not in (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")


def test_the_same_files_give_the_same_bytes(tmp_path: Path, pair: list[str]) -> None:
    compared(tmp_path / "one", *pair)
    compared(tmp_path / "two", *pair)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_program_has_the_name_that_it_is_given(tmp_path: Path, pair: list[str]) -> None:
    found = compared(tmp_path / "out", f"cheap={pair[0]}", f"dear={pair[1]}")
    assert (found["pairs"][0]["first"], found["pairs"][0]["second"]) == ("cheap", "dear")
    assert found["pairs"][0]["usd_second"] == pytest.approx(0.002)


def test_the_old_command_line_and_its_help_are_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["compare", "--help"]):
        with pytest.raises(SystemExit) as ended:
            analyze_results.main(arguments)
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--results-dir" in said and "compare A B" in said and "--assume-n" in said
