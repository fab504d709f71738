"""A sequential study that was run, and what the analysis says of it between its looks and after them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.records.looks import look_path
from scaling.sequential import INTERIM
from tests.support.sequential import planted_study, rising


def verdicts(results: Path, output: Path) -> pd.DataFrame:
    options = ["--results-dir", str(results), "--output-dir", str(output), "--format", "svg"]
    assert analyze_results.main(options) == 0
    tests = pd.read_csv(output / "summary_tests.csv", keep_default_na=False)
    return tests[tests["asks"].str.match("H[1-4]")].set_index("asks")


def test_the_report_of_a_run_follows_its_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    with planted_study(tmp_path, rising, steps=(1, 5)) as study:
        assert script.main([*study.flags, "--output-dir", str(results)]) == 0
    capsys.readouterr()

    after = verdicts(results, tmp_path / "after")

    assert after.loc["H1", "verdict"] == "supported" and "decided at look 1, after 2 runs" in after.loc["H1", "reason"]
    report = (tmp_path / "after" / "summary_results.md").read_text()
    assert "It saved about" in report and INTERIM not in report.casefold()
    assert "It saved about" in capsys.readouterr().out

    look_path(results, "waves", 1).unlink()  # as it is before the look is made

    before = verdicts(results, tmp_path / "before")

    assert before.loc["H1", "verdict"] == "cannot tell" and INTERIM in before.loc["H1", "reason"]
    assert INTERIM.capitalize() in (tmp_path / "before" / "summary_results.md").read_text()
