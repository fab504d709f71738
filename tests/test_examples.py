"""The shipped study: its report is made, its page says what its records say, and its command finds them settled."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import analyze_results
import run_scaling_experiment as script
from examples.findings import OPTIMIZERS, PAGE, VOTES, optimizers_of, page, votes_of
from tests.support.files import lines

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
STUDIES = {  # folder -> how many cells are settled, and the flags beside those of the study
    "calls-or-votes": (9, ["--phase", "all"]),
    "optimizers": (8, ["--models-file", str(EXAMPLES / "models.toml")]),
}
REAL_ROWS = ROOT.parent / "shared" / "data"


def test_the_page_says_what_the_records_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def frame(records: Path) -> pd.DataFrame:
    """All prediction lines with the names of the folders above them."""
    return pd.DataFrame(
        {"steps": folder.parts[-4], "optimizer": folder.parts[-3], "run": folder.name, **line}
        for folder in sorted(path.parent for path in records.rglob("predictions.jsonl"))
        for line in lines(folder / "predictions.jsonl")
    )


def test_the_numbers_are_those_of_a_computation_by_hand() -> None:
    """Scores and differences from the prediction lines alone, with pandas."""
    rows = frame(VOTES)
    rows = rows[rows["program"] == "final"]
    means = rows.groupby("steps")["score"].mean()
    found = votes_of()
    names = {"1 call": "1step", "vote of 3": "3vote", "chain of 3": "3step"}
    for way in found.ways:
        assert way.score == pytest.approx(means[names[way.name]])
        assert way.low < way.score < way.high
    by_name = {contrast.name: contrast for contrast in found.contrasts}
    assert by_name["chain of 3 minus 1 call"].estimate.effect == pytest.approx(means["3step"] - means["1step"])
    assert by_name["vote of 3 minus 1 call"].estimate.effect == pytest.approx(means["3vote"] - means["1step"])
    assert len(rows) == 3 * found.rows * found.runs


def test_the_optimizers_numbers_are_those_of_a_computation_by_hand() -> None:
    means = frame(OPTIMIZERS).groupby(["optimizer", "steps", "program"])["score"].mean()
    found = optimizers_of()
    effects = [contrast.estimate.effect for contrast in found.contrasts]
    own = [means[o, k, "final"] - means[o, k, "baseline"] for k in ("1step", "3step") for o in ("gepa", "mipro")]
    final = means.xs("final", level="program")
    assert effects[:4] == pytest.approx(own)
    assert effects[4] == pytest.approx(final["gepa"].mean() - final["mipro"].mean())
    assert effects[5] == pytest.approx(
        final.xs("3step", level="steps").mean() - final.xs("1step", level="steps").mean()
    )
    assert found.kept == {"GEPA": 4, "MIPROv2": 0}


@pytest.mark.parametrize("study", STUDIES)
def test_the_report_is_made_from_the_records(study: str, tmp_path: Path) -> None:
    records = EXAMPLES / study / "records"
    assert analyze_results.main(["--results-dir", str(records), "--output-dir", str(tmp_path / "example")]) == 0
    report = (tmp_path / "example" / "report.html").read_text(encoding="utf-8")
    assert "local/qwen2.5-coder-0.5b" in report


@pytest.mark.skipif(not REAL_ROWS.is_dir(), reason="no real rows beside this clone")
@pytest.mark.parametrize("study", STUDIES)
def test_a_studys_own_command_finds_every_cell_settled(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells, flags = STUDIES[study]
    folder = EXAMPLES / study
    command = ["--study", str(folder / "study.toml"), *flags, "--data", str(REAL_ROWS)]
    assert script.main([*command, "--output-dir", str(folder / "records"), "--dry-run"]) == 0
    assert f"0 cells to run, {cells} settled already" in capsys.readouterr().out
