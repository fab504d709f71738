"""Every study has a pilot: one run, few rows, cheap and quick by its own estimate, and marked as one everywhere."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.analysis import figure_style
from scaling.planning.study import PILOT, load_study, phases_of, pilot_of, study_names
from scaling.records.store import read_records
from scaling.types import UsageError
from tests.support.chaos import only_in_chaos

REAL_ROWS = Path(__file__).parent.parent.parent / "shared" / "data"
DOLLARS, MINUTES = 0.50, 10.0
UNITS = {"s": 1 / 60, "min": 1.0, "h": 60.0}
MARK = "pilot"


def highest_of(said: str) -> tuple[float, float]:
    """The high ends of a plan's dollars and minutes; no minutes for embedded models, whose time is told later."""
    if "the time is told when the model has started" in said:
        return float(re.search(r"^in total .* tokens, \$([\d.]+)", said, re.MULTILINE)[1]), 0.0
    found = re.search(r"^in total .* tokens, (.*); (?:\S+-)?(\d+) (s|min|h) with", said, re.MULTILINE)
    assert found, said
    dollars = float(found[1].rpartition("$")[2])
    return dollars, float(found[2]) * UNITS[found[3]]


LONG = ("self-correction", "self-correction-open")


def pilots() -> list[Any]:
    """Each study, and each phase of one that has phases; self-correction has the most models."""
    studies = {name: load_study(name) for name in study_names()}
    found = [(name, phase) for name, study in studies.items() for phase in [*study.phases] or [None]]
    return [pytest.param(*one, marks=only_in_chaos) if one[0] in LONG else one for one in found]


@pytest.mark.parametrize(("name", "phase"), pilots())
@pytest.mark.parametrize("source", ["sample", "real"])
def test_a_pilot_costs_little_and_ends_soon(
    name: str, phase: str | None, source: str, capsys: pytest.CaptureFixture
) -> None:
    study = load_study(name)
    here = all((REAL_ROWS / benchmark).is_dir() for benchmark in study.benchmarks or ["?"])
    if source == "real" and (study.data == "sample" or not here):
        pytest.skip("no real rows of its benchmarks beside this clone, or the study is about the samples")
    data = ["--data", "sample" if source == "sample" else str(REAL_ROWS)]
    assert script.main(["--study", name, *(["--phase", phase] if phase else []), "--pilot", "--dry-run", *data]) == 0
    said = capsys.readouterr().out
    dollars, minutes = highest_of(said)
    assert dollars < DOLLARS and minutes < MINUTES, said
    assert "note: this is a pilot: one run on few rows" in said


@pytest.mark.parametrize("name", study_names())
def test_a_pilot_has_one_run_and_is_otherwise_the_study(name: str) -> None:
    study = load_study(name)
    for whole, part in zip(phases_of(study), phases_of(pilot_of(study)), strict=True):
        assert part.pilot and part.runs == 1 and not whole.pilot
        assert part.pipelines == whole.pipelines and part.optimizers == whole.optimizers
        assert set(part.models) <= set(whole.models)


def test_a_pilot_is_marked_wherever_its_results_appear(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    footers: list[str] = []
    footer = figure_style.footer
    monkeypatch.setattr(figure_style, "footer", lambda figure, text: footers.append(text) or footer(figure, text))
    assert script.main([*command(), "--pilot"]) == 0
    said = capsys.readouterr().out
    assert "note: this is a pilot" in said and "(pilot)" in said
    ((_, record),) = read_records([tmp_path / "out"])
    assert record.cell.pilot
    assert analyze_results.main(["--results-dir", "out", "--output-dir", "report"]) == 0
    for name in ("report.html", "summary_results.md"):
        assert "Pilot: some or all cells of toy are trials" in (tmp_path / "report" / name).read_text()
    captions = re.findall(r"\\caption{(.*?)}", (tmp_path / "report" / "summary_results.tex").read_text())
    assert captions and all(MARK in caption for caption in captions)
    with (tmp_path / "report" / "summary_results.csv").open() as lines:
        assert [row["pilot"] for row in csv.DictReader(lines)] == ["True"]
    assert footers and all("Pilot: some or all cells of toy are trials" in text for text in footers)


def test_a_pilot_is_no_cell_of_its_study(command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sizes = ["--train-size", "10", "--val-size", "5", "--test-size", "20"]
    assert script.main([*command(), "--pilot", *sizes]) == 0
    assert "1 cell to run" in capsys.readouterr().out
    assert script.main([*command(), *sizes]) == 0
    assert "1 cell to run" in capsys.readouterr().out
    assert sorted(record.cell.pilot for _, record in read_records([tmp_path / "out"])) == [False, True]
    assert analyze_results.main(["--results-dir", "out", "--output-dir", "report"]) == 0


def test_a_study_says_what_its_pilot_sets_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    axes = 'benchmarks = ["toy", "other"]\n[pilot_axes]\nbenchmarks = ["toy"]\ntest_size = 7\n'
    file.write_text('models = ["m"]\n' + axes)
    pilot = pilot_of(load_study(str(file)))
    assert pilot.benchmarks == ["toy"] and pilot.test_size == 7 and pilot.train_size == PILOT["train_size"]
    file.write_text('models = ["m"]\n[pilot_axes]\nbenchmark = ["toy"]\n')
    with pytest.raises(UsageError, match=r"did you mean 'benchmarks'"):
        load_study(str(file))
