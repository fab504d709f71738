"""Scores by subtask, level, domain and difficulty: one mechanism, from the row to the table and the figure."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import analyze_results
from scaling.analysis.breakdowns import tables
from scaling.analysis.figures import pictures_of
from scaling.analysis.findings import Findings
from scaling.intervals import mean_interval
from scaling.records.record import PredictionLine
from scaling.records.store import read_objects, write_lines
from scaling.types import BREAKDOWNS
from tests.support import damaged
from tests.support.files import lines
from tests.support.made_up import write_cell


def with_categories(results: Path, say: Callable[[int], dict[str, str] | None], **cell: Any) -> None:
    """A cell of 40 rows whose rows say of themselves what `say` gives for their number."""
    files = write_cell(results, replace(damaged.made("toy", 1, "none", 0), **cell), 0.5)
    own, _ = read_objects(files.predictions, PredictionLine)
    for line in own:
        line.categories = say(int(str(line.id)[3:]))
    write_lines(files.predictions, own)


def found(results: Path) -> Findings:
    return analyze_results.find([results], None, False)


@pytest.mark.parametrize("name", BREAKDOWNS)
def test_what_a_row_says_of_itself_goes_into_its_prediction(
    experiment: Callable, toy: Callable, tmp_path: Path, name: str
) -> None:
    from tests.support.toy import rows

    toy(loader=lambda: [row | {name: f"part {i % 2}", "other": 1} for i, row in enumerate(rows())])
    experiment()
    said = {line["id"]: line["categories"] for line in lines(tmp_path / "cell/predictions.jsonl")}
    assert said and all(own == {name: f"part {int(id[1:]) % 2}"} for id, own in said.items())


def test_rows_that_say_nothing_have_no_breakdown(experiment: Callable, tmp_path: Path) -> None:
    experiment(output_dir=tmp_path / "results")
    assert {line["categories"] for line in lines(tmp_path / "results/predictions.jsonl")} == {None}
    findings = found(tmp_path / "results")
    assert findings.breakdowns.empty and tables(findings) == []
    assert not [picture for picture in pictures_of(findings) if picture.name.startswith("scores_by")]


def test_a_score_and_its_interval_are_those_of_the_rows_of_that_value(tmp_path: Path) -> None:
    with_categories(tmp_path, lambda i: {"domain": "coffee" if i < 15 else "flight"})
    findings = found(tmp_path)
    (path,) = tmp_path.rglob("predictions.jsonl")
    final = [line for line in lines(path) if line["program"] == "final"]
    for _, part in findings.breakdowns.iterrows():
        own = [line["score"] for line in final if line["categories"]["domain"] == part["value"]]
        assert part["n"] == part["independent"] == len(own)
        assert part["final_score"] == pytest.approx(sum(own) / len(own))
        assert (part["final_low"], part["final_high"]) == pytest.approx(mean_interval(own))
    assert set(findings.breakdowns["value"]) == {"coffee", "flight"}
    assert set(findings.breakdowns["level"]) == {"this program on these rows"}


def test_few_rows_are_counted_and_not_scored(tmp_path: Path) -> None:
    with_categories(tmp_path, lambda i: {"level": "rare" if i < 9 else "frequent"})
    findings = found(tmp_path)
    by_value = findings.breakdowns.set_index("value")
    assert by_value.loc["rare", "n"] == 9 and by_value["final_score"].isna().to_dict() == {
        "rare": True,
        "frequent": False,
    }
    (table,) = tables(findings)
    assert table.title == "Scores by level" and "Exploratory" in table.note
    assert "10 independent rows" in table.note
    (row,) = table.rows
    assert row[table.columns.index("rare")] == "too few (n 9)"
    assert row[table.columns.index("frequent")].endswith("n 31")
    (picture,) = [picture for picture in pictures_of(findings) if picture.name == "scores_by_level"]
    assert "exploratory" in picture.caption and "10 independent rows" in picture.caption
    (ax,) = picture.draw().axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["toy, frequent"]


def test_groups_are_what_is_counted(tmp_path: Path) -> None:
    with_categories(tmp_path, lambda i: {"subtask": "one"})
    (path,) = tmp_path.rglob("predictions.jsonl")
    own, _ = read_objects(path, PredictionLine)
    for line in own:
        line.group = f"passage {int(str(line.id)[3:]) // 5}"
    write_lines(path, own)
    (part,) = found(tmp_path).breakdowns.to_dict("records")
    assert (part["n"], part["independent"]) == (40, 8) and part["final_score"] != part["final_score"]


def test_each_property_has_a_table_a_figure_and_rows_in_the_csv(tmp_path: Path) -> None:
    with_categories(tmp_path / "results", lambda i: {name: f"{name} {i % 2}" for name in BREAKDOWNS})
    with_categories(tmp_path / "results", lambda i: {"level": "other"}, benchmark="second")
    flags = ["--results-dir", str(tmp_path / "results"), "--output-dir", str(tmp_path / "report")]
    assert analyze_results.main(flags) == 0
    with (tmp_path / "report/summary_breakdowns.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["field"] for row in rows} == set(BREAKDOWNS)
    assert {(row["benchmark"], row["value"]) for row in rows if row["field"] == "level"} == {
        ("toy", "level 0"), ("toy", "level 1"), ("second", "other"),
    }  # fmt: skip
    page = (tmp_path / "report/summary_results.md").read_text()
    for name in BREAKDOWNS:
        assert f"## Scores by {name}" in page
        assert (tmp_path / f"report/visualizations/scores_by_{name}.png").stat().st_size > 1000


def test_several_runs_speak_of_the_optimizer(tmp_path: Path) -> None:
    for run in (0, 1):
        with_categories(tmp_path, lambda i: {"difficulty": "easy"}, run=run, data_sha256=f"{run}")
    (part,) = found(tmp_path).breakdowns.to_dict("records")
    assert (part["runs"], part["level"]) == (2, "this optimizer")


def test_scores_of_single_runs_are_exported(tmp_path: Path) -> None:
    for run, level in ((0, 0.4), (1, 0.6)):
        write_cell(tmp_path / "results", replace(damaged.made("toy", 1, "gepa", run), data_sha256=f"{run}"), level, 0.1)
    flags = ["--results-dir", str(tmp_path / "results"), "--output-dir", str(tmp_path / "report")]
    assert analyze_results.main(flags) == 0
    with (tmp_path / "report/summary_runs.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert {run: (row["baseline_score"], row["final_score"]) for run, row in rows.items()} == {
        "0": ("0.4", "0.5"), "1": ("0.6", "0.7"),
    }  # fmt: skip
    low, high = mean_interval([1.0] * 20 + [0.0] * 20)
    assert (float(rows["0"]["final_low"]), float(rows["0"]["final_high"])) == pytest.approx((low, high))
    assert all(row["improvement_low"] and row["optimizer"] == "gepa" and row["status"] == "ok" for row in rows.values())
