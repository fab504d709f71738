"""Options of optimizers, seeds and sizes: each reaches what it is for, makes another cell, and is refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import analyze_results
import run_scaling_experiment as script
from scaling.models import load_registry
from scaling.planning.budgets import FULL_PASS_AFTER, gepa_limit, plan_bootstrap, plan_mipro
from scaling.planning.optimizer_options import MiproOptions
from scaling.planning.optimizers import OPTIMIZERS, own_options
from scaling.planning.plan import expand
from scaling.planning.study import load_study
from scaling.run import dspy_optimizers
from scaling.testing import ScriptedServer
from scaling.types import Cell, UsageError
from tests.support import damaged
from tests.support.files import read
from tests.support.made_up import write_cell

# One value of each option that is not its default.
OTHER: dict[str, dict[str, Any]] = {
    "gepa": {
        "reflection_minibatch_size": 2, "candidate_selection_strategy": "current_best", "component_selector": "all",
        "use_merge": False,
    },
    "mipro": {"num_candidates": 3, "minibatch_size": 2, "max_bootstrapped_demos": 1, "max_labeled_demos": 2},
    "mipro_instruct": {"num_candidates": 3, "minibatch_size": 2},
    "bootstrap": {"num_candidate_programs": 1, "max_bootstrapped_demos": 1, "max_labeled_demos": 2},
}  # fmt: skip
EACH = [(optimizer, name) for optimizer, options in OTHER.items() for name in options]
CELL = Cell("banking77", "chain", 3, "gepa", "m", "m", rollout_budget=1000)


def test_every_option_is_tried_below() -> None:
    declared = {name: {f.name for f in fields(spec.options)} for name, spec in OPTIMIZERS.items()}
    assert {name: own for name, own in declared.items() if own} == {name: set(own) for name, own in OTHER.items()}


@pytest.mark.parametrize(("optimizer", "option"), EACH)
def test_an_option_reaches_its_optimizer_within_the_budget(
    experiment: Callable, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, optimizer: str, option: str
) -> None:
    given_to: dict[str, Any] = {}
    maker = {"gepa": "gepa", "bootstrap": "bootstrap_random_search"}.get(optimizer, "mipro_v2")
    kind = getattr(dspy_optimizers, maker)()

    class Watched(kind):
        def __init__(self, **keywords: Any):
            given_to.update(keywords)
            super().__init__(**keywords)

        def compile(self, *rows: Any, **keywords: Any) -> Any:
            given_to.update(keywords)
            return super().compile(*rows, **keywords)

    monkeypatch.setattr(dspy_optimizers, maker, lambda: Watched)
    value = OTHER[optimizer][option]
    record = experiment(optimizer=optimizer, optimizer_options={option: value}, rollout_budget=60)

    assert record["status"] == "ok", record["error"]
    assert given_to[option] == value
    assert record["cell"]["optimizer_options"] == {option: value}
    assert 0 < record["rollouts_used"] <= 60


def test_a_change_is_another_cell_and_a_default_is_none(
    command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    gepa = command(optimizers="gepa")
    changed = [*gepa, "--optimizer-option", "use_merge=false", "reflection_minibatch_size=2"]
    assert script.main(gepa) == 0
    assert script.main([*gepa, "--optimizer-option", "reflection_minibatch_size=3"]) == 0
    assert "0 cells to run, 1 settled already" in capsys.readouterr().out
    assert script.main([*changed, "--optimizer-option", "use_merge=true"]) == 0
    assert "1 cell to run" in capsys.readouterr().out
    records = [read(path) for path in (tmp_path / "out").rglob("results.json")]
    assert sorted(record["cell"]["optimizer_options"].get("reflection_minibatch_size", 3) for record in records) == [
        2,
        3,
    ]


def test_only_what_differs_from_the_default_is_hashed() -> None:
    options = own_options("gepa", {"use_merge": True, "reflection_minibatch_size": 5, "num_candidates": 9})
    assert options == {"reflection_minibatch_size": 5}
    assert replace(CELL, optimizer_options={}).cell_id == CELL.cell_id
    assert replace(CELL, optimizer_options=options).cell_id != CELL.cell_id
    assert hash(replace(CELL, optimizer_options=options)) == hash(CELL)


def test_a_study_gives_each_optimizer_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "benchmarks = ['banking77']\noptimizers = ['none', 'gepa', 'mipro', 'bootstrap']\nmodels = ['gpt-4o']\n"
        "[optimizer_options]\nmax_bootstrapped_demos = 8\ncomponent_selector = 'all'\n"
    )
    cells = expand(load_study(str(tmp_path / "mine.toml")), script.BENCHMARK_CONFIG, load_registry())
    assert {cell.optimizer: cell.optimizer_options for cell in cells} == {
        "none": {}, "gepa": {"component_selector": "all"}, "mipro": {"max_bootstrapped_demos": 8},
        "bootstrap": {"max_bootstrapped_demos": 8},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "option", "said"),
    [
        ("gepa", "minibatch=3", "unknown optimizer option 'minibatch'; possible: candidate_selection_strategy, "),
        ("gepa", "num_candidates=5", "unknown optimizer option 'num_candidates'"),
        ("mipro", "num_candidate=5", "(did you mean 'num_candidates'?)"),
        ("none", "use_merge=true", "none for these optimizers"),
        ("gepa", "reflection_minibatch_size=0", "of gepa: 0 is not possible: give 1 or more"),
        ("gepa", "reflection_minibatch_size=many", "give a whole number"),
        ("gepa", "use_merge=1", "give true or false"),
        ("gepa", "component_selector=some", "possible: 'round_robin' or 'all'"),
        ("gepa", "reflection_minibatch_size=40", "leaves no reflection in a budget of 40 rollouts"),
        ("mipro", "num_candidates=90", "MIPROv2 with 90 candidates has no trial in a budget of 40"),
        ("mipro", "minibatch_size=6", "is more than the 5 rows that candidates are selected on"),
        ("bootstrap", "num_candidate_programs=9", "give fewer, or --rollout-budget 70"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_call(
    command: Callable, refused: Callable, optimizer: str, option: str, said: str
) -> None:
    assert said.lower() in refused([*command(optimizers=optimizer), "--optimizer-option", option]).lower()


@pytest.mark.parametrize("text", ["use_merge", "=3", "use_merge="])
def test_an_option_is_a_name_and_a_value(command: Callable, text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        script.main([*command(), "--optimizer-option", text])
    assert "is not NAME=VALUE" in capsys.readouterr().err


@given(
    select=st.integers(1, 60), more=st.integers(0, 2000), train=st.integers(1, 200), minibatch=st.integers(0, 60),
    candidates=st.none() | st.integers(3, 100), labeled=st.integers(0, 4),
)  # fmt: skip
def test_no_choice_takes_mipro_above_its_budget(
    select: int, more: int, train: int, minibatch: int, candidates: int | None, labeled: int
) -> None:
    budget = 4 * select + more
    options = MiproOptions(num_candidates=candidates, minibatch_size=minibatch, max_labeled_demos=labeled)
    try:
        trials, made, rows = plan_mipro(budget, select, train, options)
    except UsageError:
        return
    assert made == (candidates or made) and 1 <= rows <= train
    bootstrapped = (made - (2 if labeled else 1)) * rows
    trial = minibatch or select
    full = trials // FULL_PASS_AFTER + 1 if minibatch else 0
    assert select + trials * trial + full * select + bootstrapped <= budget


@given(st.integers(1, 60), st.integers(0, 2000), st.integers(1, 200), st.integers(0, 100))
def test_no_choice_takes_bootstrap_above_its_budget(select: int, more: int, train: int, asked: int) -> None:
    budget = 4 * select + more
    try:
        passes, candidates, rows = plan_bootstrap(budget, select, train, asked)
    except UsageError:
        return
    assert candidates == asked
    assert passes * select + (1 + candidates) * rows <= budget


def test_a_minibatch_of_gepa_takes_its_share_of_the_limit() -> None:
    assert gepa_limit(200, 20, 3) - gepa_limit(200, 20, 10) == 14


def test_seed_and_temperature_are_flags_of_the_cell(
    command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for flags in ([], ["--seed", "3"], ["--temperature", "0.2"], ["--seed", "0", "--temperature", "0.7"]):
        assert script.main([*command(), *flags]) == 0
    cells = [read(path)["cell"] for path in (tmp_path / "out").rglob("results.json")]
    assert sorted((cell["seed"], cell["temperature"]) for cell in cells) == [(0, 0.2), (0, 0.7), (3, 0.7)]
    assert {body["temperature"] for body in server.requests} == {0.2, 0.7}


def test_the_analysis_keeps_cells_of_other_options_apart(tmp_path: Path) -> None:
    plain = damaged.made("toy", 1, "gepa", 0)
    for cell, level in ((plain, 0.4), (replace(plain, optimizer_options={"reflection_minibatch_size": 5}), 0.6)):
        write_cell(tmp_path / "results", cell, level)
    found = analyze_results.find([tmp_path / "results"], None, False)
    assert sorted(found.summary["final_score"]) == [0.4, 0.6]
    assert len(set(found.summary["line"])) == 2
    pairs = found.tests[found.tests["family"].str.startswith("optimizers at equal budgets")]
    assert [text for text in pairs["comparison"] if "reflection_minibatch_size=5" in text]


def test_sizes_are_the_benchmarks_unless_something_nearer_sets_them(
    toy: Callable, command: Callable, server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    toy(train_seeds=range(6), val_seeds=range(6, 18), test_seeds=range(15))
    bare = command(train_size=None, val_size=None, test_size=None)
    assert script.main([*bare, "--dry-run"]) == 0
    assert "rows: toy 6 train, 12 val, 15 test" in capsys.readouterr().out
    assert script.main([*bare, "--val-size", "20", "--dry-run"]) == 0
    assert "rows: toy 6 train, 20 val, 15 test" in capsys.readouterr().out
    (tmp_path / "mine.toml").write_text("test_size = 9\n")
    assert script.main([*bare, "--study", str(tmp_path / "mine.toml"), "--dry-run"]) == 0
    assert "rows: toy 6 train, 12 val, 9 test" in capsys.readouterr().out


def test_seeds_beyond_the_data_are_said_before_anything_is_spent(
    toy: Callable, command: Callable, server: ScriptedServer, capsys: pytest.CaptureFixture
) -> None:
    toy(train_seeds=range(50), val_seeds=range(50, 150), test_seeds=range(100))
    assert script.main([*command(train_size=None, val_size=None, test_size=None), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "toy has fewer rows than asked for: 26 train, 53 val, 40 test (asked: 50, 100, 100)" in said


@pytest.mark.parametrize("seeds", [[], 50])
def test_seeds_that_are_no_row_numbers_are_refused(
    toy: Callable, command: Callable, refused: Callable, seeds: Any
) -> None:
    toy(train_seeds=seeds)
    assert "train_seeds holds no row numbers" in refused(command())
