"""Studies, cell files and the registry: the published sizes, one format, nothing that cannot be called."""

from __future__ import annotations

import tomllib
from pathlib import Path

import create_pipeline_configs
import run_scaling_experiment as script
from scaling import plan
from scaling.models import load_registry

BENCHMARKS = list(script.BENCHMARK_CONFIG)


def cells(name: str, **changes) -> list:
    return plan.expand(plan.narrow(plan.load_study(name), **changes), BENCHMARKS, load_registry())


def test_the_pipeline_study_is_20_cells_a_run_and_3_runs() -> None:
    assert len(cells("pipeline")) == 60
    assert len(cells("pipeline", runs=1)) == 20
    two_steps = {c.benchmark for c in cells("pipeline") if c.steps == 2}
    assert two_steps == {"banking77"}


def test_controls_and_the_published_pairing() -> None:
    assert {c.pipeline for c in cells("pipeline-controls")} == {"vote", "repeat"}
    pairing = {(c.optimizer, c.model) for c in cells("pipeline-as-published")}
    assert pairing == {("gepa", "groq/llama-3.1-8b-instant"), ("mipro", "groq/gpt-oss-20b")}


def test_every_cell_of_the_study_has_a_file_that_is_that_cell(tmp_path: Path) -> None:
    paths = create_pipeline_configs.write_configs(plan.load_study("pipeline"), tmp_path)
    assert len(paths) == 20
    from_files = [cell for path in paths for cell in cells(str(path))]
    assert sorted(c.cell_id for c in from_files) == sorted(c.cell_id for c in cells("pipeline"))


def test_the_files_in_the_repository_are_those(tmp_path: Path) -> None:
    for path in create_pipeline_configs.write_configs(plan.load_study("pipeline"), tmp_path):
        shipped = create_pipeline_configs.ROOMS / path.relative_to(tmp_path)
        assert shipped.read_text() == path.read_text(), shipped


def test_models_of_the_studies_can_be_called() -> None:
    registry = load_registry()
    for name in plan.study_names():
        for cell in cells(name):
            for model in (registry[cell.model], registry[cell.optimizer_model]):
                assert model.status == "current" and model.has_price


def test_registry_entries_say_where_their_numbers_are_from() -> None:
    for model in load_registry().values():
        assert not model.has_price or (model.price_date and model.price_source), model.id
        assert (model.parameters_status == "unknown") == (model.parameters_billions is None), model.id
        assert model.parameters_billions is None or model.parameters_source, model.id
    assert tomllib.loads((plan.STUDIES / "quick.toml").read_text())["data"] == "sample"
