"""Studies, cell files and the registry: the published sizes, one format, nothing that cannot be called."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import create_pipeline_configs
import run_scaling_experiment as script
from scaling import models, types
from scaling.command import options
from scaling.models import known_model, load_registry
from scaling.planning import plan, study
from scaling.types import Cell, PlannedCell, UsageError
from tests.support.chaos import only_in_chaos

BENCHMARKS = script.BENCHMARK_CONFIG


def cells(name: str, **changes) -> list:
    return plan.expand(study.narrow(study.load_study(name), **changes), BENCHMARKS, load_registry())


def test_the_pipeline_study_is_20_cells_a_run_and_3_runs() -> None:
    assert len(cells("pipeline")) == 60
    assert len(cells("pipeline", runs=1)) == 20
    two_steps = {c.benchmark for c in cells("pipeline") if c.steps == 2}
    assert two_steps == {"banking77"}


def test_controls_and_the_published_pairing() -> None:
    assert {c.pipeline for c in cells("pipeline-controls")} == {"vote", "repeat"}
    pairing = {(c.optimizer, c.model) for c in cells("pipeline-as-published")}
    assert pairing == {
        ("gepa", "fireworks_ai/accounts/fireworks/models/llama-v3p1-8b-instruct"),
        ("mipro", "groq/openai/gpt-oss-20b"),
    }


def test_every_cell_of_the_study_has_a_file_that_is_that_cell(tmp_path: Path) -> None:
    paths = create_pipeline_configs.write_configs(study.load_study("pipeline"), tmp_path)
    assert len(paths) == 20
    from_files = [cell for path in paths for cell in cells(str(path))]
    assert len(from_files) == 60 and set(from_files) == set(cells("pipeline"))


def test_the_files_in_the_repository_are_those(tmp_path: Path) -> None:
    for path in create_pipeline_configs.write_configs(study.load_study("pipeline"), tmp_path):
        shipped = create_pipeline_configs.BENCHMARKS / path.relative_to(tmp_path)
        assert shipped.read_text() == path.read_text(), shipped


def test_registry_entries_say_where_their_numbers_are_from() -> None:
    for model in load_registry().values():
        assert not model.has_price or model.price_source, model.id
        assert (model.parameters_status == "unknown") == (model.parameters_billions is None), model.id
        assert model.parameters_billions is None or model.parameters_source, model.id
    assert tomllib.loads((study.STUDIES / "quick.toml").read_text())["data"] == "sample"


def test_phases_of_model_scaling_are_the_sizes_promised() -> None:
    for phase, count, benchmarks, rows in (("1", 2, 1, 100), ("2", 6, 2, 500), ("3", 15, 4, 1000)):
        found = cells("model-scaling", phase=phase)
        assert len(found) == count * benchmarks
        assert len({c.model for c in found}) == count and len({c.benchmark for c in found}) == benchmarks
        assert {c.test_size for c in found} == {rows}
        assert {c.optimizer for c in found} == {"none"}
    in_order = [cell for phase in "123" for cell in cells("model-scaling", phase=phase)]
    assert cells("model-scaling", phase="all") == in_order
    assert cells("model-scaling") == cells("model-scaling", phase="1")


def test_files_of_a_study_with_phases_are_the_first_ones_cells(tmp_path: Path) -> None:
    assert create_pipeline_configs.main(["--study", "model-scaling", "--output-dir", str(tmp_path)]) == 0
    (path,) = tmp_path.rglob("*.toml")
    assert cells(str(path)) == cells("model-scaling")


def test_a_flag_beats_the_phase() -> None:
    found = cells("model-scaling", phase="all", models=["local/smollm2-135m"], test_size=7)
    assert {c.model for c in found} == {"local/smollm2-135m"}
    assert {c.test_size for c in found} == {7}


@pytest.mark.parametrize(("study", "phase"), [("pipeline", "1"), ("model-scaling", "4")])
def test_a_phase_that_is_not_there_is_refused(study: str, phase: str) -> None:
    with pytest.raises(UsageError, match=f"phase.*{phase}"):
        cells(study, phase=phase)


@pytest.mark.parametrize("line", ["modles = ['a']", "test_size = 'many'"])
def test_a_phase_that_cannot_be_meant_is_refused_when_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.toml").write_text(f"models = ['gpt-4o']\n[phases.1]\n[phases.2]\n{line}\n")
    with pytest.raises(UsageError, match=r"phases\.2"):
        study.load_study(str(tmp_path / "mine.toml"))


def test_the_self_correction_studies_have_their_controls_at_the_same_calls() -> None:
    for name in ("self-correction", "self-correction-open"):
        found = cells(name)
        assert {(c.steps, c.optimizer, c.feedback) for c in found} == {(3, "none", "none")}
        assert {c.benchmark for c in found} == {"toolqa", "superglue", "mathbench", "humaneval"}
        points = {
            pipeline: sorted((c.benchmark, c.model, c.run, c.test_size) for c in found if c.pipeline == pipeline)
            for pipeline in ("self_correct", "resample", "vote")
        }
        assert points["self_correct"] == points["resample"] == points["vote"]
        assert len(found) == 3 * len(points["vote"])


@pytest.mark.parametrize(
    ("name", "phase"),
    [("model-scaling", "2"), ("model-scaling", "3"), ("self-correction", None),
     ("self-correction-open", None)],
)  # fmt: skip
def test_studies_that_fit_a_size_have_five_published_ones_over_a_decade_and_a_half(
    name: str, phase: str | None
) -> None:
    called = [known_model(model, load_registry()) for model in {c.model for c in cells(name, phase=phase)}]
    sizes = {model.parameters_billions for model in called if model.parameters_status == "published"}
    assert len(sizes) >= 5
    assert math.log10(max(sizes) / min(sizes)) >= 1.5


def test_makers_that_publish_no_sizes_are_in_the_studies_with_small_middle_and_large_models() -> None:
    names = {c.model for c in cells("model-scaling", phase="3")}
    for maker in ("openai/", "anthropic/", "gemini/"):
        prices = {known_model(name, load_registry()).output_usd_per_million for name in names if name.startswith(maker)}
        assert len(prices) == 3 and max(prices) >= 4 * min(prices)


def test_the_example_of_an_env_file_has_every_variable_that_a_shipped_study_may_need() -> None:
    example = (Path(script.__file__).parent / ".env.example").read_text()
    variables = {line.partition("=")[0] for line in example.splitlines() if line and not line.startswith("#")}
    registry, needed = load_registry(), {"SYNTH_API_KEY", "ENVIRONMENT_API_KEY"}
    for name in study.study_names():
        phases = list(study.load_study(name).phases) or [None]
        for cell in [cell for phase in phases for cell in cells(name, phase=phase)]:
            needed |= {known_model(model, registry).key_env for model in (cell.model, cell.optimizer_model)} - {None}
    assert variables == needed


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        pytest.param("--study self-correction", 288, marks=only_in_chaos),
        ("--study self-correction-quick", 6),
        ("--study model-scaling --phase 1", 2),
        ("--study model-scaling --phase 2", 12),
        ("--study model-scaling --phase 3", 60),
        # The samples are too small to tell the phases apart: the same cell is one cell.
        ("--study model-scaling --phase all", 60),
    ],
)
def test_a_dry_run_counts_the_cells(flags: str, count: int, capsys: pytest.CaptureFixture) -> None:
    assert script.main([*flags.split(), "--data", "sample", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f": {count} cells to run" in said
    assert len([line for line in said.splitlines() if line.startswith("  ")]) == count


@pytest.mark.parametrize("study", ["self-correction", "model-scaling"])
def test_rows_that_are_on_no_hub_are_refused_with_the_way_out(study: str, capsys: pytest.CaptureFixture) -> None:
    assert script.main(["--study", study, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "--data sample" in said and "--data DIR" in said


def test_phases_that_differ_only_in_rows_have_folders_of_their_own(
    toy: Callable, server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.toml").write_text(
        "benchmarks = ['toy']\nmodels = ['openai/scripted']\ntrain_size = 5\nval_size = 10\ndata = 'sample'\n"
        "[phases.1]\ntest_size = 10\n[phases.2]\ntest_size = 20\n"
    )
    flags = ["--study", str(tmp_path / "mine.toml"), "--api-base", server.url, "--output-dir", str(tmp_path / "out")]

    assert script.main([*flags, "--phase", "all"]) == 0
    asked = len(server.requests)
    assert len(list((tmp_path / "out").rglob("results.json"))) == 2
    said = capsys.readouterr().out
    assert "on 10 test rows" in said and "on 20 test rows" in said

    assert script.main([*flags, "--phase", "all"]) == 0
    assert "0 cells to run, 2 settled already" in capsys.readouterr().out
    assert len(server.requests) == asked


def test_the_self_correction_demo_runs_to_its_records(server, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--models", "openai/scripted", "--api-base", server.url, "--output-dir", str(tmp_path)]

    assert script.main(["--study", "self-correction-quick", *flags]) == 0
    assert "6 cells: 6 ok" in capsys.readouterr().out
    steps = sorted(path.parts[-5] for path in tmp_path.rglob("results.json"))
    assert steps == ["3redraw"] * 2 + ["3turn"] * 2 + ["3vote"] * 2


REGISTRY = {
    name: models.Model(id=name, route=name, reasons="on request", max_output_tokens=1024)
    for name in ("openai/a", "openai/b")
}
# A change of each field that a study can choose, with what else must be so for it to have a meaning.
CHANGES: list[dict[str, Any]] = [
    {"benchmark": "gsm8k"}, {"pipeline": "vote"}, {"steps": 4}, {"optimizer": "mipro"}, {"model": "openai/b"},
    {"optimizer_model": "openai/b"}, {"run": 7}, {"seed": 3}, {"temperature": 0.25}, {"train_size": 21},
    {"val_size": 41}, {"test_size": 77}, {"rollout_budget": 300}, {"data": 'a "folder"\\é'}, {"labels": 5},
    {"pipeline": "self_correct", "feedback": "oracle"}, {"closed_book": True}, {"pilot": True},
    {"reasoning_effort": "low"},
    {"optimizer": "synth_mipro", "synth_mode": "online"}, {"optimizer": "synth_mipro", "synth_rollouts": 9},
    {"optimizer_options": {"reflection_minibatch_size": 5, "use_merge": False}},
    {"start_from": "mine.txt"}, {"frozen_roles": ("analyzer",)}, {"draws": 3}, {"stop_when_flat": 0.25},
]  # fmt: skip
NOT_CHOSEN = {"max_output_tokens", "headroom", "wording"}  # the model's, and those of the pilot of headroom


def test_every_choice_of_a_cell_is_changed_below() -> None:
    assert {name for change in CHANGES for name in change} == {f.name for f in fields(PlannedCell)} - NOT_CHOSEN


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: list(change)[-1])
def test_a_cell_goes_into_a_file_and_back(tmp_path: Path, change: dict[str, Any]) -> None:
    plain = PlannedCell("banking77", "chain", 3, "gepa", "openai/a", "openai/a", test_size=50)
    cell = replace(plain, **change)
    (tmp_path / "cell.toml").write_text(study.toml_of({"name": "cell"} | study.choices_of(cell)), encoding="utf-8")
    (again,) = plan.expand(study.load_study(str(tmp_path / "cell.toml")), BENCHMARKS, REGISTRY)
    assert again == cell != plain


@pytest.mark.parametrize(
    "line", ["feedback = 'oracle'", "seed = 5", "temperature = 0.3", "run_list = [4]", "labels = 9"]
)
def test_generated_files_keep_what_the_study_sets(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.toml").write_text(
        f"benchmarks = ['banking77']\npipelines = ['self_correct']\nmodels = ['gpt-4o']\n{line}\n"
    )
    whole = study.load_study(str(tmp_path / "mine.toml"))
    (path,) = create_pipeline_configs.write_configs(whole, tmp_path / "out")
    assert plan.expand(study.load_study(str(path)), BENCHMARKS, load_registry()) == plan.expand(
        whole, BENCHMARKS, load_registry()
    )


def test_ids_are_those_of_records_that_are_there() -> None:
    """Ids that the program gave before a cell's fields were one list."""
    cell = Cell(
        benchmark="banking77", pipeline="chain", steps=3, optimizer="gepa", model="groq/llama-3.1-8b-instant",
        optimizer_model="groq/llama-3.3-70b-versatile", run=2, test_size=500, rollout_budget=1000,
        data_sha256="ab" * 32,
    )  # fmt: skip
    assert cell.cell_id == "50cd56452ae3fb77"
    assert replace(cell, closed_book=True, labels=4).cell_id == "c935593ae2abac88"
    assert replace(cell, reasoning_effort="low").cell_id not in ("50cd56452ae3fb77", cell.cell_id)
    hosted = replace(cell, optimizer="synth_mipro", synth_mode="online", synth_rollouts=7, data="sample")
    assert hosted.cell_id == "c1c48f942d202e25"
    assert Cell("b", "vote", 5, "none", "m", "m").cell_id == "8d531a67c4dff450"


def test_a_planned_cell_has_no_id_before_its_data_are_known() -> None:
    assert not [name for cell in cells("pipeline") for name in ("cell_id", "data_sha256") if hasattr(cell, name)]


def test_the_flags_are_the_fields() -> None:
    kinds = (types.CellAxes, types.CellSizes, types.CellSettings)
    given = [f for kind in kinds for f in fields(kind) if f.metadata.get("flags")]
    names = {f.metadata.get("axis") or f.name: f.metadata["flags"][0] for f in given}
    typed = {"--closed-book": [], "--pilot": [], "--pilot-headroom": [], "--optimizer-option": ["use_merge=false"]}
    words = [word for flag in names.values() for word in (flag, *typed.get(flag, ["1"]))]
    command = options.parse(words, "", list(BENCHMARKS))
    assert {name for name, value in command.choices.items() if value is not None} == set(names)
    assert {f.name for f in fields(options.Options)} == set(vars(command.options))
