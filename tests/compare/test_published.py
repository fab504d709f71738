"""Published means without rows: what is assumed stands in every output, and nothing is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

import analyze_results
from tests.support.compared import compared, scored, write_csv

CELLS = [
    ("sums", "Baseline", 40.0, 0.10), ("sums", "GEPA", 43.0, 0.20), ("sums", "MIPRO", 70.0, 0.15),
    ("words", "Baseline", 60.0, 0.0), ("words", "GEPA", 35.0, 0.30), ("words", "MIPRO", 61.0, 0.10),
]  # fmt: skip


def rows(**more: Any) -> list[dict[str, Any]]:
    return [
        {"benchmark": name, "program": "CoT", "optimizer": optimizer, "score": score, "cost": cost} | more
        for name, optimizer, score, cost in CELLS
    ]


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_csv(tmp_path / "model-x.csv", rows())


def test_differences_are_unpaired_and_counted_against_the_baseline(tmp_path: Path, table: str) -> None:
    found = compared(tmp_path / "out", table, "--scale", "100", "--assume-n", "200")
    by_cell = {(row["benchmark"], row["optimizer_second"]): row for row in found["pairs"]}
    assert set(by_cell) == {(b, o) for b in ("sums", "words") for o in ("GEPA", "MIPRO")}
    low, high = confint_proportions_2indep(86, 200, 80, 200, method="newcomb")
    small = by_cell["sums", "GEPA"]
    assert (small["ci_low"], small["ci_high"]) == pytest.approx((low, high))
    assert [row["inside_noise"] for row in by_cell.values()] == [True, False, False, True]
    assert found["headline"].startswith("2 of 4 differences (50 %) lie inside noise")
    assert {row["model_first"] if "model_first" in row else row["model"] for row in found["pairs"]} == {"model-x"}


def test_the_assumption_is_in_every_output(tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = compared(out, table, "--scale", "100", "--assume-n", "200", "words=50")
    said = "Assumed by you: scores are means over 200 for every other benchmark, 50 for words."
    assert any(said in note for note in found["notes"])
    assert said in " ".join(capsys.readouterr().out.split())
    assert all(said in (out / f"comparison.{form}").read_text(encoding="utf-8") for form in ("md", "html"))
    assert all(row["n_assumed"] for row in found["pairs"])
    assert {row["n_first"] for row in found["pairs"]} == {200, 50}
    assert "verdict" not in found["pairs"][0] and "No rows are published" in found["notes"][0]


def test_numbers_of_rows_that_the_table_gives_need_no_assumption(tmp_path: Path) -> None:
    found = compared(tmp_path / "out", write_csv(tmp_path / "t.csv", rows(n=100)), "--scale", "100")
    assert not any(row["n_assumed"] for row in found["pairs"])
    assert not any("Assumed by you" in note for note in found["notes"])


def test_fronts_have_costs_above_0_and_a_figure(tmp_path: Path, table: str) -> None:
    out = tmp_path / "out"
    found = compared(out, table, "--scale", "100", "--assume-n", "200")
    page = (out / "comparison.md").read_text(encoding="utf-8")
    front = [line for line in page.splitlines() if line.startswith(("| sums", "| words"))]
    assert [line.split(" | ")[1] for line in front] == ["CoT model-x Baseline", "CoT model-x MIPRO",
                                                        "CoT model-x MIPRO"]  # fmt: skip
    assert any("1 of 6 cells have no cost" in note for note in found["notes"])
    assert (out / "comparison_fronts.png").stat().st_size > 5_000
    assert "data:image/png" in (out / "comparison.html").read_text(encoding="utf-8")


def test_models_of_several_tables_are_compared(tmp_path: Path, table: str) -> None:
    other = write_csv(tmp_path / "model-y.csv", rows())
    found = compared(tmp_path / "out", table, other, "--scale", "100", "--assume-n", "200", "--vary", "model")
    assert len(found["pairs"]) == 6 and all(row["inside_noise"] for row in found["pairs"])
    against = compared(tmp_path / "b", f"y={other}", table, "--scale", "100", "--assume-n", "200", "--vary", "model",
                       "--against", "y")  # fmt: skip
    assert {row["model_first"] for row in against["pairs"]} == {"y"}


def test_repeated_cells_are_counted(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", rows() + rows()[:2])
    found = compared(tmp_path / "out", table, "--scale", "100", "--assume-n", "200")
    assert any(note.startswith("2 rows repeat") for note in found["notes"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--scale", "100"], "n: the tables do not say how many rows a score of sums, words is from"),
        (["--assume-n", "200"], "--scale 100"),
        (["--scale", "100", "--assume-n", "sums=200"], "a score of words is from"),
        (["--scale", "100", "--assume-n", "200", "--against", "Nobody"], "there is no optimizer 'Nobody'"),
        (["--scale", "100", "--assume-n", "200", "--vary", "program"], "differ in program alone"),
    ],
)
def test_what_a_table_does_not_say_is_asked_for(
    table: str, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_results.main(["compare", table, *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_table_of_means_is_not_compared_with_rows(
    tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_results.main(["compare", table, write_csv(tmp_path / "a.csv", scored([0, 1] * 9))]) == 2
    assert "means without rows" in capsys.readouterr().err


def test_no_number_of_rows_is_a_usage_error(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        analyze_results.main(["compare", table, "--assume-n", "0"])
    assert ended.value.code == 2 and "no number of rows" in capsys.readouterr().err


def test_lines_without_a_score_or_benchmark_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change, said in (({"score": ""}, "has no score"), ({"benchmark": ""}, "has no benchmark")):
        table = write_csv(tmp_path / "bad.csv", [*rows(), rows()[0] | change])
        assert analyze_results.main(["compare", table, "--assume-n", "9"]) == 2
        assert said in capsys.readouterr().err
