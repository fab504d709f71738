"""Looks of a sequential study: what they decide, and what the analysis says between and after them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import analyze_results
from scaling.analysis.loading import load
from scaling.analysis.looks import gate_z, judge_look
from scaling.analysis.sequential_holm import family_at_look
from scaling.records.looks import read_looks
from scaling.sequential import INTERIM, NeededCell, SequentialDesign, sequential_design
from scaling.types import UsageError
from tests.support.looked_at import MODEL, STUDY, Planted, all_cells, look, start, write_runs

RISE = Planted(a_step=0.05)  # 5 steps 20 points above 1 step, in a straight line
NOTHING = Planted()


def analysis_of(results: Path, output: Path) -> tuple[pd.DataFrame, str]:
    """(the tests by question, the report as text)."""
    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(output), "--format", "svg"]) == 0
    tests = pd.read_csv(output / "summary_tests.csv", keep_default_na=False)
    return tests[tests["asks"].str.match("H[1-4]")].set_index("asks"), (output / "summary_results.md").read_text()


# The rule


def test_each_look_says_what_is_decided_and_what_runs_next(tmp_path: Path) -> None:
    design = start(tmp_path)
    write_runs(tmp_path, all_cells(range(2)), RISE)

    first = look(tmp_path, design)

    by_name = {question.question: question for question in first.questions}
    h1, h3 = by_name["H1"], by_name["H3"]
    assert (h1.outcome, h1.verdict) == ("decided", "supported") and h1.p <= h1.boundary < 0.05 / 4
    assert h1.effect == pytest.approx(0.2, abs=0.06)
    assert h3.outcome != "decided" and h3.boundary > h1.boundary  # H1 has passed its part of alpha on
    assert (first.number, first.runs, len(first.cells)) == (1, 2, 36)
    still_open = [question.question for question in first.questions if question.outcome == "open"]
    assert bool(first.needed) == bool(still_open)
    assert read_looks(tmp_path, STUDY)[0].look == first


def test_what_only_a_decided_or_futile_question_uses_is_not_needed(tmp_path: Path) -> None:
    design = start(tmp_path)
    write_runs(tmp_path, all_cells(range(2)), RISE)
    first = look(tmp_path, design)
    outcomes = {question.question: question.outcome for question in first.questions}
    steps = {cell.steps for cell in first.needed}
    assert (3 in steps) == (outcomes["H2"] == "open")
    assert (5 in steps) == any(outcome == "open" for outcome in outcomes.values())
    assert all(isinstance(cell, NeededCell) and cell.model == MODEL for cell in first.needed)


def test_a_decision_is_made_once(tmp_path: Path) -> None:
    design = start(tmp_path)
    write_runs(tmp_path, all_cells(range(2)), RISE)
    first = look(tmp_path, design)
    write_runs(tmp_path, all_cells([2]), Planted(a_step=-0.1, level=0.9))  # the third run says the opposite
    second = look(tmp_path, design)
    assert second.questions[0] == first.questions[0] and second.questions[0].look == 1
    assert second.ends_study and second.runs == 3
    with pytest.raises(ValueError, match="all have been made"):
        judge_look(load([tmp_path]), design, [first, second])


def test_a_gate_is_the_z_of_five_steps_minus_one(tmp_path: Path) -> None:
    write_runs(tmp_path / "rise", [c for c in all_cells(range(2)) if c.steps != 3], RISE)
    write_runs(tmp_path / "nothing", [c for c in all_cells(range(2)) if c.steps != 3], NOTHING)
    assert gate_z(load([tmp_path / "rise"]))[MODEL] > 5
    assert abs(gate_z(load([tmp_path / "nothing"]))[MODEL]) < 3
    without = judge_look(load([tmp_path / "rise"]), sequential_design(3, gate=1.0))
    h2 = without.questions[1]
    assert (h2.question, h2.outcome) == ("H2", "futile") and "1, 3 and 5 steps" in h2.reason
    assert {cell.steps for cell in without.needed} <= {1, 5}


@given(
    p=st.lists(st.floats(1e-6, 0.5), min_size=4, max_size=4),
    already=st.lists(st.booleans(), min_size=4, max_size=4),
    number=st.integers(1, 3),
)
def test_holm_at_a_look_is_sequentially_rejective(p: list[float], already: list[bool], number: int) -> None:
    design = SequentialDesign((2, 3, 4))
    found = family_at_look(np.array(p), np.array(already), design, number)
    assert (found.rejected >= np.array(already)).all()
    alone = {sharing: float(family_at_look(np.full(sharing, 1e-9), np.zeros(sharing, bool), design, number).level.min())
             for sharing in range(1, 5)}  # fmt: skip
    rejected = list(already)
    for place in sorted((i for i in range(4) if not already[i]), key=lambda i: p[i]):
        if p[place] <= alone[4 - sum(rejected)]:
            rejected[place] = True
    assert found.rejected.tolist() == rejected
    many = family_at_look(np.array([p, p]), np.array([already, already]), design, number)
    assert many.rejected.tolist() == [rejected, rejected]


def test_a_single_look_is_holms_procedure() -> None:
    p = np.array([0.004, 0.0064, 0.013, 0.02])  # one-sided
    found = family_at_look(p, np.zeros(4, bool), SequentialDesign((3,)), 1)
    assert found.rejected.tolist() == [True, True, False, False]
    assert found.level[:2] == pytest.approx([0.025 / 4, 0.025 / 3])


def test_two_runs_are_too_few_to_look_between() -> None:
    with pytest.raises(UsageError, match="--runs 3"):
        sequential_design(2)


# What the analysis says


def test_before_the_first_look_nothing_is_decided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path / "results")
    write_runs(tmp_path / "results", all_cells(range(2)), RISE)

    tests, report = analysis_of(tmp_path / "results", tmp_path)

    assert set(tests["verdict"]) == {"cannot tell"}
    assert all(INTERIM in reason for reason in tests["reason"])
    assert float(tests.loc["H1", "p"]) < 1e-6  # it is shown, and decides nothing
    assert tests.loc["H1", "p_holm"] == ""
    assert report.count(INTERIM) + report.count(INTERIM.capitalize()) > 3
    assert INTERIM.capitalize() in capsys.readouterr().out
    assert INTERIM in (tmp_path / "summary_results.tex").read_text()
    assert INTERIM in (tmp_path / "report.html").read_text()


def test_what_a_look_decided_stands_while_the_others_are_interim(tmp_path: Path) -> None:
    design = start(tmp_path / "results", runs=4)
    write_runs(tmp_path / "results", all_cells(range(2)), RISE)
    first = look(tmp_path / "results", design)
    write_runs(tmp_path / "results", all_cells([2]), RISE)

    tests, _ = analysis_of(tmp_path / "results", tmp_path)

    assert first.needed
    assert tests.loc["H1", "verdict"] == "supported" and "decided at look 1, after 2 runs" in tests.loc["H1", "reason"]
    others = [q.question for q in first.questions if q.outcome != "decided"]
    assert others and all(INTERIM in tests.loc[name, "reason"] for name in others)


def test_after_the_last_look_the_report_says_what_was_saved(tmp_path: Path) -> None:
    results = tmp_path / "results"
    design = start(results)
    write_runs(results, all_cells(range(2)), NOTHING)
    first = look(results, design)
    keys = {(cell.benchmark, cell.optimizer, cell.steps) for cell in first.needed}
    third = [c for c in all_cells([2]) if (c.benchmark, c.optimizer, c.steps) in keys]
    write_runs(results, third, NOTHING)
    if third:
        look(results, design)

    tests, report = analysis_of(results, tmp_path)

    assert INTERIM not in report.casefold()
    spared = 18 - len(third)
    assert spared and f"saved about {600 * spared:,} calls (${0.4 * spared:,.2f}) in {spared} cells" in report
    assert f"{100 * spared / 54:.0f} % of the fixed design's" in report
    assert f"would pay for {3 * spared / 54:.1f} more runs" in report
    cells = load([results]).cells
    assert (cells["status"] == "not needed").sum() == spared
    assert all("given up at look" in reason or "last look" in reason
               for reason in tests.loc[tests["verdict"] == "cannot tell", "reason"])  # fmt: skip


def test_a_fixed_study_is_judged_as_before(tmp_path: Path) -> None:
    write_runs(tmp_path / "results", all_cells(range(3)), RISE)
    tests, report = analysis_of(tmp_path / "results", tmp_path)
    assert tests.loc["H1", "verdict"] == "supported" and float(tests.loc["H1", "p_holm"]) < 0.05
    assert INTERIM not in report.casefold() and "sequential" not in report


def test_titles_of_figures_say_that_they_are_interim() -> None:
    import matplotlib.pyplot as plt

    from scaling.analysis.figure_style import marked, theme

    theme()
    figure, ax = plt.subplots()
    ax.set_title("banking77")
    assert marked(figure, INTERIM).axes[0].get_title(loc="left") == f"banking77\n({INTERIM})"
    plt.close(figure)
