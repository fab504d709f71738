"""A sequential study: runs in waves, looks that decide once, and nothing bought that no open question needs."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling.command import waves
from scaling.records import looks
from scaling.records.looks import read_gate, read_looks
from scaling.records.store import PLAN, read_plan, read_records
from scaling.types import EXIT_CAP, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from tests.support.chaos import only_in_chaos
from tests.support.files import read, tree
from tests.support.sequential import Planted, level, planted_study, rising
from tests.support.sweeps import outcome, run, start

# `make chaos` kills at 20 random moments.
FULL = "CHAOS" in os.environ
KILLS = 20 if FULL else 2


@pytest.fixture
def decided_early(tmp_path: Path) -> Iterator[Planted]:
    """H1 is decided at the first look, and the cells can answer nothing else."""
    with planted_study(tmp_path, rising) as study:
        yield study


@pytest.fixture
def undecided(tmp_path: Path) -> Iterator[Planted]:
    """Nothing is found, with chains of 3 steps behind the gate."""
    with planted_study(tmp_path, level, (1, 3, 5), 'design = "sequential"\ngate = true') as study:
        yield study


def decisions(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (results / "looks").iterdir()}


def test_what_is_decided_gets_no_more_cells(decided_early: Planted, tmp_path: Path) -> None:
    code, said = run(decided_early.flags, tmp_path / "out")

    assert code == EXIT_OK, said
    (decision,) = read_looks(tmp_path / "out", "waves")
    h1 = decision.look.questions[0]
    assert (h1.question, h1.outcome, h1.verdict) == ("H1", "decided", "supported")
    ran = {record.cell_id for _, record in read_records([tmp_path / "out"])}
    assert {record.cell.run for _, record in read_records([tmp_path / "out"])} == {0, 1}
    assert set(decision.scores) == ran
    assert "H1: supported at look 1" in said
    assert "calls saved" in said
    assert "4 cells, 33 % of" in said


def test_the_rule_is_in_the_plan_before_the_first_call(decided_early: Planted, tmp_path: Path) -> None:
    seen = []

    def first_call(n: int, body: dict) -> None:
        if n == 0:
            seen.append(read_plan(tmp_path / "out" / PLAN))

    decided_early.server.fault = first_call
    _, said = run(decided_early.flags, tmp_path / "out")

    (plan,) = seen[0].sequential
    assert (plan.study, plan.design.waves, plan.design.spending) == ("waves", (2, 3), "obrien-fleming")
    assert len(plan.cells) == 12
    before_the_first_cell = said.partition("\nok ")[0]
    assert "H1 to H4 are judged after 2 and 3 runs and only then" in before_the_first_cell
    assert "calls ahead: " in before_the_first_cell
    assert "if everything stays open" in before_the_first_cell
    assert "expected if no number of steps changes a score" in before_the_first_cell


@only_in_chaos
def test_calls_are_expected_by_the_pilot_of_headroom(decided_early: Planted, tmp_path: Path) -> None:
    code, said = run([*decided_early.flags, "--pilot-headroom"], tmp_path / "out")
    assert code == EXIT_OK, said
    _, said = run([*decided_early.flags, "--dry-run"], tmp_path / "out")

    assert "expected if the pilot of headroom holds" in said


def test_a_dry_run_prints_the_rule_and_writes_nothing(decided_early: Planted, tmp_path: Path) -> None:
    code, said = run([*decided_early.flags, "--dry-run"], tmp_path / "out")

    assert code == EXIT_OK
    assert "design: sequential" in said
    assert not (tmp_path / "out").exists()


def test_a_pilot_of_a_sequential_study_is_fixed(decided_early: Planted, tmp_path: Path) -> None:
    code, said = run([*decided_early.flags, "--pilot", "--dry-run"], tmp_path / "out")

    assert code == EXIT_OK
    assert "design: sequential" not in said
    assert "4 cells to run" in said


def test_what_has_ended_stays_so(decided_early: Planted, tmp_path: Path) -> None:
    run(decided_early.flags, tmp_path / "out")
    calls, before = decided_early.server.calls, decisions(tmp_path / "out")
    code, said = run(decided_early.flags, tmp_path / "out")

    assert code == EXIT_OK
    assert decided_early.server.calls == calls
    assert decisions(tmp_path / "out") == before
    assert "0 cells to run" in said
    assert "H1: supported at look 1" in said


def test_the_flag_is_not_needed_again(tmp_path: Path) -> None:
    with planted_study(tmp_path, rising, more="") as study:
        run([*study.flags, "--design", "sequential"], tmp_path / "out")
        calls = study.server.calls
        code, said = run(study.flags, tmp_path / "out")

        assert (code, study.server.calls) == (EXIT_OK, calls)
        assert "design: sequential" in said


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--design", "fixed"], "was started with --design sequential and stays so. Type --design sequential"),
        (["--gate"], "was started without --gate and stays so. Leave out --gate"),
        (["--runs", "4"], "was started with looks after 2 and 3 runs, and only they decide. Type --runs 3"),
        (["--steps", "1"], "was started with 12 cells that are judged together"),
        (["--temperature", "0.2"], "was started with 12 cells that are judged together"),
        (["--fresh"], "--fresh: looks of this study have decided"),
    ],
)
def test_the_design_stays_as_it_was_started(
    decided_early: Planted, tmp_path: Path, flags: list[str], reason: str
) -> None:
    run(decided_early.flags, tmp_path / "out")
    before = tree(tmp_path / "out")
    code, said = run([*decided_early.flags, *flags], tmp_path / "out")

    assert code == EXIT_USAGE
    assert reason in said
    assert len(said.strip().splitlines()) == 1
    assert tree(tmp_path / "out") == before


def test_a_study_that_was_started_fixed_stays_fixed(tmp_path: Path) -> None:
    with planted_study(tmp_path, level, more="") as study:
        run([*study.flags, "--runs", "1", "--steps", "1"], tmp_path / "out")
        code, said = run([*study.flags, "--design", "sequential"], tmp_path / "out")

        assert code == EXIT_USAGE
        assert "this study was started with --design fixed and stays so" in said


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--runs", "2"], "--design sequential needs 3 runs or more"),
        (["--steps", "1"], "looks judge H1, H2, H3, H4"),
        (["--design", "fixed", "--gate"], "--gate waits for a look"),
        (["--design", "adaptive"], "--design adaptive is not possible"),
    ],
)
def test_what_no_look_could_judge_is_refused(
    decided_early: Planted, tmp_path: Path, flags: list[str], reason: str
) -> None:
    code, said = run([*decided_early.flags, *flags], tmp_path / "out")

    assert code == EXIT_USAGE
    assert reason in said
    assert not (tmp_path / "out").exists()


def test_cells_without_a_key_are_not_left_out_of_a_look(decided_early: Planted, tmp_path: Path) -> None:
    models = ["--models", "toy/planted", "groq/openai/gpt-oss-20b"]
    code, said = run([*decided_early.flags, *models, "--skip-missing-keys"], tmp_path / "out")

    assert code == EXIT_USAGE
    assert "looks judge all cells together, and 12 cannot run" in said
    assert not (tmp_path / "out").exists()


@only_in_chaos
def test_the_gate_stays_closed_where_five_steps_are_not_above_one(undecided: Planted, tmp_path: Path) -> None:
    code, said = run(undecided.flags, tmp_path / "out")

    assert code == EXIT_OK, said
    gate = read_gate(tmp_path / "out", "waves")
    assert gate.z["toy/planted"] <= 1.0
    assert gate.opened == []
    steps = {record.cell.steps for _, record in read_records([tmp_path / "out"])}
    assert steps == {1, 5}
    assert [decision.gate for decision in read_looks(tmp_path / "out", "waves")] == [gate] * len(
        read_looks(tmp_path / "out", "waves")
    )
    assert "It gives up a rise from 1 to 3 steps that falls again until 5" in said


def test_the_gate_opens_where_five_steps_are_above_one(tmp_path: Path) -> None:
    with planted_study(tmp_path, rising, (1, 3, 5), 'design = "sequential"\ngate = true') as study:
        code, said = run(study.flags, tmp_path / "out")

        assert code == EXIT_OK, said
        assert read_gate(tmp_path / "out", "waves").opened == ["toy/planted"]
        runs = {record.cell.run for _, record in read_records([tmp_path / "out"]) if record.cell.steps == 3}
        assert {0, 1} <= runs
        first = read_looks(tmp_path / "out", "waves")[0].look
        assert first.questions[1].effect is not None  # H2 was judged, on chains of 3 steps


@only_in_chaos
def test_under_the_cap_no_look_is_made_and_the_study_goes_on(decided_early: Planted, tmp_path: Path) -> None:
    code, _ = run([*decided_early.flags, "--max-cost", "0.05"], tmp_path / "out")
    assert code == EXIT_CAP
    assert read_looks(tmp_path / "out", "waves") == []

    code, said = run(decided_early.flags, tmp_path / "out")
    assert code == EXIT_OK, said
    assert len(read_looks(tmp_path / "out", "waves")) == 1


@only_in_chaos
def test_a_look_waits_for_failed_cells(decided_early: Planted, tmp_path: Path) -> None:
    decided_early.server.fault = lambda n, body: ("status", 400) if n == 0 else None
    code, _ = run([*decided_early.flags, "--max-error-rate", "0"], tmp_path / "out")
    decided_early.server.fault = None
    assert code == EXIT_FAILED
    assert read_looks(tmp_path / "out", "waves") == []

    code, said = run(decided_early.flags, tmp_path / "out")
    assert code == EXIT_FAILED
    assert "the next look waits for a score of " in said
    code, said = run([*decided_early.flags, "--retry-failed"], tmp_path / "out")
    assert code == EXIT_OK, said
    assert len(read_looks(tmp_path / "out", "waves")) == 1


@only_in_chaos
def test_after_ctrl_c_the_study_goes_on(decided_early: Planted, tmp_path: Path) -> None:
    def interrupted(n: int, body: dict) -> None:
        if n == 300:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    decided_early.server.fault = interrupted
    code, _ = run(decided_early.flags, tmp_path / "out")
    decided_early.server.fault = None
    assert code == EXIT_INTERRUPTED
    assert read_looks(tmp_path / "out", "waves") == []

    run(decided_early.flags, tmp_path / "out")
    run(decided_early.flags, tmp_path / "undisturbed")
    assert decisions(tmp_path / "out") == decisions(tmp_path / "undisturbed")
    assert outcome(tmp_path / "out") == outcome(tmp_path / "undisturbed")


@only_in_chaos
def test_workers_of_dask_decide_the_same(undecided: Planted, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    run(undecided.flags, tmp_path / "undisturbed")
    code, said = run([*undecided.flags, "--engine", "dask", "--workers", "2"], tmp_path / "out")

    assert code == EXIT_OK, said
    assert decisions(tmp_path / "out") == decisions(tmp_path / "undisturbed")
    assert outcome(tmp_path / "out") == outcome(tmp_path / "undisturbed")


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=only_in_chaos)])
def test_killed_around_a_decision_it_is_made_once(
    decided_early: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run(decided_early.flags, tmp_path / "undisturbed")
    write = looks.write_once

    def killed(path: Path, decision: object) -> None:
        if when == "after":
            write(path, decision)
        raise SystemExit(137)

    monkeypatch.setattr(waves, "write_once", killed)
    with pytest.raises(SystemExit):
        run(decided_early.flags, tmp_path / "out")
    monkeypatch.undo()
    calls = decided_early.server.calls
    code, said = run(decided_early.flags, tmp_path / "out")

    assert code == EXIT_OK, said
    assert decided_early.server.calls == calls
    assert decisions(tmp_path / "out") == decisions(tmp_path / "undisturbed")


def test_a_decision_stands_when_its_scores_change(decided_early: Planted, tmp_path: Path) -> None:
    run(decided_early.flags, tmp_path / "out")
    before = decisions(tmp_path / "out")
    path = next((tmp_path / "out").rglob("predictions.jsonl"))
    path.write_text(path.read_text().replace('"score":1.0', '"score":0.0'))
    _, said = run(decided_early.flags, tmp_path / "out")

    assert decisions(tmp_path / "out") == before
    assert "cells whose scores have changed since a look judged them: 1. The look stands" in said


@only_in_chaos
def test_killed_at_random_moments_the_decisions_and_records_are_the_same(undecided: Planted, tmp_path: Path) -> None:
    code, said = run(undecided.flags, tmp_path / "undisturbed")
    assert code == EXIT_OK, said
    calls, rng = undecided.server.calls, random.Random(17)
    moments = sorted(rng.sample(range(calls), KILLS))
    for moment in moments:
        kill_at(undecided, calls + moment, tmp_path / "out")
    code, said = run(undecided.flags, tmp_path / "out")

    assert code == EXIT_OK, said
    assert decisions(tmp_path / "out") == decisions(tmp_path / "undisturbed")
    assert outcome(tmp_path / "out") == outcome(tmp_path / "undisturbed")
    assert read(tmp_path / "out" / PLAN)["sequential"] == read(tmp_path / "undisturbed" / PLAN)["sequential"]


def kill_at(study: Planted, moment: int, results: Path) -> None:
    """Start the study's command and kill it when the server has answered so many requests in all."""
    process = start(study.flags, results)

    def strike(n: int, body: dict) -> None:
        if study.server.calls >= moment:
            process.send_signal(signal.SIGKILL)

    study.server.fault = strike
    process.communicate(timeout=120)
    study.server.fault = None
