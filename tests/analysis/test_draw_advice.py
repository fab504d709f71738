"""Where another draw buys more than another row or run, from variances that are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import run_scaling_experiment as script
from scaling.analysis.assumed import ITEM_CORRELATION, RUN_SD, SCORE, assumed_results
from scaling.analysis.draws import Prices, Size, Variances, proposal, variances_of
from scaling.command.options import LIBRARY, Options
from scaling.command.prepare import prepare_sweep
from scaling.command.questions import _planned
from scaling.planning.study import load_study, narrow
from scaling.testing import ScriptedServer
from tests.support.small import vary_answers

KNOWN = Variances("toy", "m", 100, items=0.05, runs=0.02**2, programs=0.01, noise=0.13, noise_interval=(0.1, 0.16))
STUDY = Size(rows=150, runs=3, draws=1, cells=2)
NO_ROWS = Prices(draw=150 * 12, run=4 * 6000, row=None)


def test_draws_are_proposed_where_there_are_no_more_rows_and_runs_are_dear() -> None:
    proposed = proposal(KNOWN, STUDY, NO_ROWS)
    assert proposed is not None and 2 <= proposed.draws <= 5
    assert proposed.half_then < proposed.half_now
    assert proposed.calls == (proposed.draws - 1) * NO_ROWS.draw
    now, then = (1.96 * math.sqrt(KNOWN.of(replace(STUDY, draws=draws))) for draws in (1, proposed.draws))
    assert proposed.half_now == pytest.approx(now, rel=1e-3) and proposed.half_then == pytest.approx(then, rel=1e-3)


def test_none_are_proposed_where_rows_or_runs_buy_more() -> None:
    assert proposal(KNOWN, STUDY, replace(NO_ROWS, row=4 * 12.0)) is None
    assert proposal(replace(KNOWN, runs=0.1**2), STUDY, replace(NO_ROWS, run=6000.0)) is None
    assert proposal(replace(KNOWN, noise=0.0), STUDY, NO_ROWS) is None


def planned(runs: int, **changes: object) -> list:
    study = narrow(load_study("pipeline"), data="sample", runs=runs, benchmarks=["banking77"], **changes)
    sweep = prepare_sweep(study, Options(dry_run=True), LIBRARY, script.BENCHMARK_CONFIG)
    return list(_planned(sweep, Path("nowhere")))


def test_variances_of_drawn_results_are_those_that_they_were_drawn_with() -> None:
    """Answers to one row correlate as plan.txt assumes, so the noise of one answer is known."""
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal(200_000)
    two = [difficulty * math.sqrt(ITEM_CORRELATION) + rng.standard_normal(200_000) * math.sqrt(1 - ITEM_CORRELATION)
           for _ in range(2)]  # fmt: skip
    right = [latent < 0.5244 for latent in two]  # the normal quantile of 0.7
    expected = float(np.mean(np.var(right, axis=0, ddof=1)))
    cells = planned(4)
    found = [variances_of(assumed_results(cells, np.random.default_rng(seed)))[0] for seed in range(20)]
    assert np.mean([v.noise for v in found]) == pytest.approx(expected, rel=0.1)
    assert 0.25 * RUN_SD**2 < np.mean([v.runs for v in found]) < 4 * RUN_SD**2
    inside = [v.noise_interval[0] <= expected <= v.noise_interval[1] for v in found]
    assert sum(inside) >= 14 and SCORE == 0.7


def test_one_run_without_draws_tells_nothing() -> None:
    assert variances_of(assumed_results(planned(1), np.random.default_rng(0))) == []


def test_the_plan_proposes_draws_from_the_first_wave(
    command: Callable, server: ScriptedServer, capsys: pytest.CaptureFixture
) -> None:
    vary_answers(server)
    line = command(steps="1 3", optimizers="bootstrap", rollout_budget="80", val_size="20")
    assert script.main([*line, "--dry-run"]) == 0
    assert "draws: on toy" not in capsys.readouterr().out
    assert script.main([*line, "--runs", "2"]) == 0
    capsys.readouterr()
    assert script.main([*line, "--runs", "3", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "note: draws: on toy another answer a row buys more than another row or run." in said
    assert "draws_by_benchmark = { toy = " in said and "answers to one row have an sd of" in said
