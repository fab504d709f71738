"""The shipped study: its report is made, its page says what its records say, and its command finds them settled."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import analyze_results
import run_scaling_experiment as script
from examples.findings import PAGE, RECORDS, findings_of, page
from tests.support.files import lines

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "examples" / "calls-or-votes" / "study.toml"
REAL_ROWS = ROOT.parent / "shared" / "data"


def test_the_page_says_what_the_records_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page({"votes": findings_of()})


def test_the_numbers_are_those_of_a_computation_by_hand() -> None:
    """Scores and differences from the prediction lines alone, with pandas."""
    rows = [
        {"way": folder.parts[-4], "run": folder.name, "id": line["id"], "score": line["score"]}
        for folder in sorted(path.parent for path in RECORDS.rglob("predictions.jsonl"))
        for line in lines(folder / "predictions.jsonl")
        if line["program"] == "final"
    ]
    frame = pd.DataFrame(rows)
    means = frame.groupby("way")["score"].mean()
    found = findings_of()
    names = {"1 call": "1step", "vote of 3": "3vote", "chain of 3": "3step"}
    for way in found.ways:
        assert way.score == pytest.approx(means[names[way.name]])
        assert way.low < way.score < way.high
    by_name = {contrast.name: contrast for contrast in found.contrasts}
    assert by_name["chain of 3 minus 1 call"].estimate.effect == pytest.approx(means["3step"] - means["1step"])
    assert by_name["vote of 3 minus 1 call"].estimate.effect == pytest.approx(means["3vote"] - means["1step"])
    assert len(frame) == 3 * found.rows * found.runs


def test_the_report_is_made_from_the_records(tmp_path: Path) -> None:
    assert analyze_results.main(["--results-dir", str(RECORDS), "--output-dir", str(tmp_path / "example")]) == 0
    report = (tmp_path / "example" / "report.html").read_text(encoding="utf-8")
    assert "local/qwen2.5-coder-0.5b" in report and "3vote" in report.replace("vote 3", "3vote")


@pytest.mark.skipif(not REAL_ROWS.is_dir(), reason="no real rows beside this clone")
def test_the_studys_own_command_finds_every_cell_settled(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--study", str(STUDY), "--phase", "all", "--data", str(REAL_ROWS), "--output-dir", str(RECORDS)]
    assert script.main([*command, "--dry-run"]) == 0
    assert "0 cells to run, 9 settled already" in capsys.readouterr().out
