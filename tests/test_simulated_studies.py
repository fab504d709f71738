"""The fast simulations of sequential studies do what the analysis does, on the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scaling.analysis.hypotheses import SMALLEST, Grid, hypotheses_of
from scaling.analysis.looks import judge_family
from scaling.analysis.stats import Arm
from scaling.sequential import SequentialDesign
from simulations import looks
from simulations.looks import run_design
from simulations.sequential import calls_of_fixed, is_true, means_of, sds_of, truths
from simulations.studies import CELLS, Benchmarks, Rows, scores
from simulations.study_rows import StudyRow, read_studies, write_studies
from simulations.tables import PAGE, STUDIES, page_with_tables

SMALL: Benchmarks = {"a": Rows(60), "b": Rows(40, draws=3), "c": Rows(50, is_reasoning=True)}
CLASSES = {"a": "classification", "b": "classification", "c": "reasoning"}
STUDIES_OF_A_TRUTH, WAVES = 6, (2, 3)
TRUTHS = ("null", "H1 = 10", "H3 = 10", "H4 = 10", "rise and fall = 8")


def grid_at(study: int, runs: int, three: int, truth: str) -> Grid:
    """The analysis' arms of one of the simulated studies."""
    rng = np.random.default_rng(4)
    means, sds = means_of(truths()[truth], SMALL), sds_of("2", SMALL)
    arms = {}
    for name, rows in SMALL.items():
        y = scores(rng, means[name], sds[name], rows, STUDIES_OF_A_TRUTH, WAVES[-1])
        ids = np.array([f"{name}{i}" for i in range(rows.rows)])
        for cell, (optimizer, steps) in enumerate(CELLS):
            count = three if steps == 3 else runs
            if count:
                own = y[study, cell, :, :count].astype(float)
                arms[name, optimizer, steps] = Arm(name, optimizer, ids, ids, own)
    return Grid(arms, CLASSES)


def simulated(truth: str) -> dict[tuple[int, int], object]:
    means, sds = means_of(truths()[truth], SMALL), sds_of("2", SMALL)
    return looks.tests_of(np.random.default_rng(4), means, sds, SMALL, STUDIES_OF_A_TRUTH, WAVES)


@pytest.mark.parametrize("truth", TRUTHS)
def test_p_values_and_effects_are_those_of_the_analysis(truth: str) -> None:
    tests = simulated(truth)
    assert set(tests) == {(2, 2), (3, 2), (3, 3)}
    for (runs, three), at in tests.items():
        for study in range(STUDIES_OF_A_TRUTH):
            hypotheses = hypotheses_of(grid_at(study, runs, three, truth))
            for place, name in enumerate(SMALLEST):
                expected = hypotheses[name]
                assert at.p[study, place] == pytest.approx(expected.p_sup, rel=1e-3, abs=1e-9)
                assert at.exclusion_p[study, place] == pytest.approx(expected.p_con(name), rel=1e-3, abs=1e-9)
                assert at.effect[study, place] == pytest.approx(expected.estimate.effect, abs=1e-6)


@pytest.mark.parametrize("gate", [None, 1.0])
@pytest.mark.parametrize("truth", TRUTHS)
def test_designs_end_as_looks_do(truth: str, gate: float | None) -> None:
    design = SequentialDesign(WAVES, gate=gate)
    tests = simulated(truth)
    ended = run_design(tests, design)
    for study in range(STUDIES_OF_A_TRUTH):
        is_open = gate is None or tests[2, 2].gate_z[study] > gate
        three = 2 if is_open else 0
        grid = grid_at(study, 2, three, truth)
        judged = judge_family(grid, hypotheses_of(grid), design, 1)
        needs = {q.question for q in judged if q.outcome == "open"}
        runs = 3 if needs else 2
        assert (ended.runs[study], ended.runs_of_three[study]) == (runs, 3 if "H2" in needs else three)
        if needs:
            grid = grid_at(study, 3, ended.runs_of_three[study], truth)
            judged = judge_family(grid, hypotheses_of(grid), design, 2, judged)
        for place, question in enumerate(judged):
            if not question.reason or question.question == "H3":  # H1 "mixed" and H4's other scales are left out there
                assert ended.supported[study, place] == (question.verdict == "supported")
                assert ended.contradicted[study, place] == (question.verdict == "contradicted")


def test_what_is_true_of_a_truth() -> None:
    true = {name: is_true(means_of(effects, SMALL), SMALL).tolist() for name, effects in truths().items()}
    assert true["null"] == [False] * 4 and true["all = 5"] == [True] * 4
    assert true["H2 = 5"] == [True, True, False, False] and true["rise and fall = 8"] == [False, True, False, False]
    assert [true[f"{name} = 10"] for name in ("H1", "H3", "H4")] == [
        [True, False, False, False], [False, False, True, False], [False, False, False, True],
    ]  # fmt: skip


def test_calls_are_counted_as_the_plan_estimates_them() -> None:
    # k times: 1,000 rollouts, the rows of both programs and of an early one, 50 check rows twice; 20 cells of 3 runs.
    by_hand = 0
    for rows, steps in ((500, (1, 2, 3, 5)), (153, (1, 3, 5)), (500, (1, 3, 5))):
        by_hand += sum(k * (1000 + 100 + 2 * rows + (rows if k > 1 else 0)) for k in steps) * 2 * 3
    assert calls_of_fixed() == by_hand


def test_rows_of_studies_are_written_and_read_alike(tmp_path: Path) -> None:
    row = StudyRow("H1 = 5", "uneven", "fixed, 3 runs", 2000, 100.0, 1.25, (98.5, 0.0, 1.0, 2.0), (0.0, 1.0, 2.0, 3.0))
    write_studies(tmp_path / "rows.csv", [row])
    assert read_studies(tmp_path / "rows.csv") == [row]


def test_the_page_has_the_tables_of_the_last_simulation() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page_with_tables(page, read_studies(STUDIES)) == page, "type: make simulate"
