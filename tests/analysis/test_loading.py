"""Damaged, partial and strange records are named with their file, and the rest is analysed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analyze_results
from scaling.analysis import loading, report
from scaling.analysis.results import Results
from scaling.types import EXIT_OK, EXIT_USAGE, Cell, UsageError
from tests.support import damaged
from tests.support.chaos import only_in_chaos
from tests.support.files import read
from tests.support.made_up import write_cell

REPLACEMENTS: list[Any] = [
    {}, {"a": 1}, [], ["a"], "a word", "", 0, -1, 0.5, 10**30, 1e308, -1e308, True, None, float("nan"),
]  # fmt: skip
MISSING = object()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-correcting cell with its control, and one that an optimizer changed."""
    results = tmp_path_factory.mktemp("few") / "results"
    for pipeline, optimizer in (("self_correct", "none"), ("resample", "none"), ("chain", "gepa")):
        write_cell(results, Cell("toy", pipeline, 2, optimizer, "made/up", "made/up", data_sha256="0"), 0.5, 0.1)
    return results


# Damage of every kind


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Path]]:
    """The analysis of a healthy study, the same with damaged cells beside it, and the file of each kind of damage."""
    folder = tmp_path_factory.mktemp("damaged")
    damaged.write_healthy(folder / "healthy")
    damaged.write_healthy(folder / "results")
    paths = damaged.write_damaged(folder / "results")
    (folder / "results" / "plan.json").write_text('{"0123456789abcdef": {"calls": "many"}}')
    (folder / "healthy-out").mkdir()
    tests = analyze_results.find([folder / "healthy"], None, False).tests
    tests.to_csv(folder / "healthy-out" / "summary_tests.csv", index=False)
    flags = ["--results-dir", str(folder / "results"), "--output-dir", str(folder / "results-out")]
    assert analyze_results.main(flags) == EXIT_OK
    return folder / "healthy-out", folder / "results-out", paths


def test_each_kind_of_damage_is_named_with_its_file(both: tuple[Path, Path, dict[str, Path]]) -> None:
    _, out, paths = both
    results = loading.load([out.parent / "results"])
    for kind in damaged.KINDS:
        named = [unit for unit in results.left_out if str(paths[kind.name]) in f"{unit.file} {unit.reason}"]
        assert kind.unit == "" or kind.unit in [unit.unit for unit in named], (kind.name, named)
        if kind.unit == "":
            assert not named, kind.name
    assert [unit.unit for unit in results.left_out if unit.file.name == "plan.json"] == ["estimates"]
    assert not [unit for unit in results.left_out if "\n" in unit.reason]
    text = (out / "summary_results.md").read_text()
    assert all(str(unit.file) in text for unit in results.left_out)


def test_the_healthy_part_keeps_its_verdicts(both: tuple[Path, Path, dict[str, Path]]) -> None:
    healthy, out = (pd.read_csv(folder / "summary_tests.csv") for folder in both[:2])
    alone = healthy[healthy["family"] == "H1-H4"]
    beside = out[out["family"] == f"H1-H4 ({damaged.MODEL})"]  # with several models a family is named by its model
    assert list(alone["effect"].notna()) == [True] * 4 and "supported" in set(alone["verdict"])
    pd.testing.assert_frame_equal(
        alone.drop(columns="family").reset_index(drop=True), beside.drop(columns="family").reset_index(drop=True),
        check_dtype=False,
    )  # fmt: skip


def test_what_can_be_used_of_a_damaged_cell_is_used(both: tuple[Path, Path, dict[str, Path]]) -> None:
    results = loading.load([both[1].parent / "results"])
    by_cell = results.cells.reset_index().set_index("cell_id")
    for kind in damaged.KINDS:
        if kind.name in ("names with marks",):
            continue
        status = by_cell.loc[kind.cell.cell_id, "status"] if kind.cell.cell_id in by_cell.index else "left out"
        assert status == ("left out" if kind.unit == "cell" else "ok"), kind.name
    rows_of = {kind.name: by_cell.loc[kind.cell.cell_id, "key"] for kind in damaged.KINDS if kind.unit == "row"}
    for name, key in rows_of.items():
        counted = {program: np.isfinite(found.scores).sum() for program, found in results.answers(key).items()}
        assert sorted(counted.values()) == [39, 40, 40], name


@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium and chromedriver here"
)
def test_the_report_on_damaged_records_opens(
    both: tuple[Path, Path, dict[str, Path]], request: pytest.FixtureRequest
) -> None:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    request.addfinalizer(browser.quit)
    browser.get((both[1] / "report.html").as_uri())
    assert "Left out" in browser.find_element("tag name", "body").text
    assert not browser.find_elements("css selector", "td i")  # a benchmark's name is no markup
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_only_damaged_records_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = write_cell(tmp_path / "results", damaged.made("toy", 1, "gepa", 0), 0.5)
    damaged.field("cell.steps", "three")(files)
    assert analyze_results.main(["--results-dir", str(tmp_path / "results")]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(files.record) in error and "cell.steps" in error


LACKING = {
    "a score": damaged.field("status", "invalid"),
    "points of its curve": damaged.content("learning_curve.json", b'{"points": []}'),
    "scores of its curve": damaged.content("learning_curve.json", b'{"points": [{"rollouts": 3}]}'),
    "its curve": lambda files: files.curve.unlink(),
    "its predictions": lambda files: files.predictions.unlink(),
    "its calls": lambda files: files.calls.unlink(),
    "all that may be absent": damaged.only_required,
}


@pytest.mark.parametrize("damage", LACKING.values(), ids=list(LACKING))
def test_a_study_of_which_every_cell_lacks_something_is_analysed(tmp_path: Path, damage: damaged.Damage) -> None:
    for steps, optimizer in ((1, "gepa"), (2, "gepa"), (1, "none")):
        damage(write_cell(tmp_path / "results", damaged.made("toy", steps, optimizer, 0), 0.5, 0.1))
    assert analyse(tmp_path) is not None


def test_figures_are_drawn_where_every_curve_lacks_something(tmp_path: Path) -> None:
    for run, what in enumerate(name for name in LACKING if "curve" in name):
        LACKING[what](write_cell(tmp_path / "results", damaged.made("toy", 1, "gepa", run), 0.5, 0.1))
    assert analyze_results.main(["--results-dir", str(tmp_path / "results"), "--output-dir", str(tmp_path)]) == EXIT_OK
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("says", [True, False], ids=["with its number of lines", "of an earlier version"])
@pytest.mark.parametrize(
    ("kept", "named"),
    [
        (lambda i: i < 115, "at_equal_calls: 5 of 40"),
        (lambda i: i < 80, "at_equal_calls: 40 of 40"),
        (lambda i: i not in (3, 41, 83), "at_equal_calls: 1 of 40, baseline: 1 of 40, final: 1 of 40"),
    ],
    ids=["cut", "cut between programs", "a row of each"],
)
def test_rows_that_a_file_has_lost_are_named(
    tmp_path: Path, kept: Callable[[int], bool], named: str, says: bool
) -> None:
    files = write_cell(tmp_path / "results", damaged.made("toy", 1, "gepa", 0), 0.5)
    if says:
        damaged.field("prediction_lines", {"baseline": 40, "final": 40, "at_equal_calls": 40})(files)
    damaged.each_line(lambda i, line: line if kept(i) else None)(files)
    said = [unit for unit in loading.load([tmp_path / "results"]).left_out if unit.unit == "row"]
    if named.count(":") == 1 or says:  # where every program has lost a row, only the record can tell
        assert len(said) == 1
        parts = {part.strip() for part in said[0].reason.split("(")[1].strip(")").split(",")}
        assert parts == {part.strip() for part in named.split(",")}
        assert said[0].count == sum(int(part.split()[1]) for part in named.split(","))


# Any field, broken in any way

FILES = ("results.json", "predictions.jsonl", "learning_curve.json", "program.json", "calls.jsonl", "cell.json")


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield (*path, name)
        yield from fields(inner, (*path, name))


def put(value: Any, path: tuple[Any, ...], replacement: Any) -> None:
    """Replace what is at the path, or take it away."""
    for name in path[:-1]:
        value = value[name]
    if replacement is MISSING:
        del value[path[-1]]
    else:
        value[path[-1]] = replacement


def analyse(folder: Path) -> Results | None:
    """All tables and texts on a folder; None where it is one clear line."""
    try:
        findings = analyze_results.find([folder / "results"], 0.1, False)
    except UsageError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
        return None
    written = report.report_of(findings)
    for write in (report.write_markdown, report.write_latex):
        write(folder / "written", written)
    report.write_html(folder / "report.html", written, findings, {})
    return findings.results


@only_in_chaos
@settings(max_examples=25)
@given(data=st.data())
def test_any_field_broken_in_any_way_is_left_out_or_told(
    few: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(few, folder / "results")
    path = data.draw(st.sampled_from(sorted(folder.rglob(data.draw(st.sampled_from(FILES))))))
    text = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = data.draw(st.integers(0, len(text) - 1))
    value = json.loads(text[number])
    put(value, data.draw(st.sampled_from(list(fields(value)))), data.draw(st.sampled_from([*REPLACEMENTS, MISSING])))
    text[number] = json.dumps(value)
    path.write_text("\n".join(text) + "\n")
    analyse(folder)


def test_every_field_of_a_record_broken_in_every_way_beside_each_other(few: Path, tmp_path: Path) -> None:
    record = read(next(few.glob("toy/*/gepa/*/*/results.json")))
    source = next(few.glob("toy/*/gepa/*/*"))
    kinds = [(path, value) for path in fields(record) for value in [*REPLACEMENTS, MISSING]]
    for number, (path, value) in enumerate(kinds):
        folder = tmp_path / "results" / f"{number:04d}"
        folder.mkdir(parents=True)
        broken = json.loads(json.dumps(record)) | {"cell_id": f"{number:016x}"}
        broken["cell"]["run"] = number
        put(broken, path, value)
        (folder / "results.json").write_text(json.dumps(broken))
        (folder / "predictions.jsonl").symlink_to(source / "predictions.jsonl")
        (folder / "learning_curve.json").symlink_to(source / "learning_curve.json")
    results = analyse(tmp_path)
    assert results is not None
    named = {unit.file.parent.name for unit in results.left_out}
    used = {results.folders[key].name for key in results.data}
    assert len(named | used) >= len(kinds) - len(REPLACEMENTS)  # settled otherwise: status is a word that is one
    assert len(named) > 1000 and len(used) > 200


# The same cell twice, and cells that are alike


def test_an_error_in_one_folder_hides_no_result_in_another(tmp_path: Path) -> None:
    cell = damaged.made("toy", 1, "gepa", 0)
    failed = write_cell(tmp_path / "a", cell, 0.5)
    damaged.field("status", "error")(failed)
    used = write_cell(tmp_path / "b", cell, 0.5)

    results = loading.load([tmp_path / "a", tmp_path / "b"])

    assert list(results.cells["status"]) == ["ok"]
    assert list(results.folders.values()) == [used.folder]
    (copy,) = results.left_out
    assert (copy.unit, copy.file) == ("copy of a cell", failed.record)
    assert str(used.record) in copy.reason and "error" in copy.reason


def test_of_two_results_of_one_cell_the_first_is_used_and_the_difference_is_told(tmp_path: Path) -> None:
    cell = damaged.made("toy", 1, "gepa", 0)
    first, second = write_cell(tmp_path / "a", cell, 0.5), write_cell(tmp_path / "b", cell, 0.7)

    results = loading.load([tmp_path / "b", tmp_path / "a"])

    assert list(results.folders.values()) == [first.folder]
    (copy,) = results.left_out
    assert copy.file == second.record and "their final scores differ" in copy.reason


def test_a_folder_given_twice_or_inside_another_counts_once(tmp_path: Path) -> None:
    files = write_cell(tmp_path / "a", damaged.made("toy", 1, "gepa", 0), 0.5)
    results = loading.load([tmp_path / "a", files.folder, tmp_path / "a" / ".." / "a"])
    assert len(results.cells) == 1
    assert results.left_out == []


@pytest.mark.parametrize("name", ["benchmark_version", "labels"])
def test_cells_of_another_version_or_other_labels_are_not_compared(tmp_path: Path, name: str) -> None:
    damaged.write_healthy(tmp_path / "results")
    (path,) = (tmp_path / "results").glob("planted-a/5step/gepa/*/run2/results.json")
    record = read(path)
    record["cell"][name] = 7 if name == "labels" else "2"
    path.write_text(json.dumps(record))
    findings = analyze_results.find([tmp_path / "results"], None, False)
    assert any(name in sentence for sentence in findings.refused), findings.refused


def test_the_same_run_with_other_training_rows_is_not_counted_twice(tmp_path: Path) -> None:
    write_cell(tmp_path / "a", damaged.made("toy", 1, "gepa", 0), 0.5)
    other = Cell("toy", "chain", 1, "gepa", damaged.MODEL, damaged.MODEL, test_size=40, data_sha256="other rows")
    second = write_cell(tmp_path / "b", other, 0.5)

    results = loading.load([tmp_path / "a", tmp_path / "b"])

    assert sorted(results.cells["status"]) == ["left out", "ok"]
    (unit,) = results.left_out
    assert unit.file == second.record and "data_sha256" in unit.reason
