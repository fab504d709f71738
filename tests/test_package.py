"""The archive for another laboratory: it can be run again, and names nobody's machine."""

from __future__ import annotations

import asyncio
import getpass
import json
import platform
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import analyze_results
import package_results
import run_scaling_experiment as script
from scaling.planning.plan import expand
from scaling.planning.study import load_study
from scaling.testing import ScriptedServer
from scaling.types import EXIT_OK, EXIT_USAGE, Cell
from tests.conftest import SMALL
from tests.support import toy
from tests.support.damaged import content, made
from tests.support.files import read
from tests.support.made_up import write_cell


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive of a cell that is ok and of one that broke, from rows in a folder of somebody's."""
    with pytest.MonkeyPatch.context() as patched, ScriptedServer() as server:
        return _packed(tmp_path_factory.mktemp("package"), patched, server)


def _packed(tmp_path: Path, patched: pytest.MonkeyPatch, server: ScriptedServer) -> Path:
    home = tmp_path / "home" / "mallory"
    rows = home / "rows" / "banking77"
    rows.mkdir(parents=True)
    sample = Path(script.__file__).parent / "benchmarks" / "banking77" / "sample.jsonl"
    (rows / "pool.jsonl").write_bytes(sample.read_bytes())
    patched.setenv("TOY_API_KEY", "sk-planted-secret")
    results = home / "results"
    keywords = SMALL | {"benchmark": "banking77", "data": str(home / "rows"), "api_base": server.url}
    record = asyncio.run(script.run_single_experiment(**keywords, output_dir=results / "one", labels=4))
    assert record["status"] == "ok", record["error"]

    def broken(gold: object, pred: object, trace: object = None) -> float:
        raise FileNotFoundError(2, "not here", f"{home}/secret.txt")

    patched.setitem(script.BENCHMARK_CONFIG, "toy", toy.config(metric=broken))
    keywords = SMALL | {"api_base": server.url, "output_dir": results / "two"}
    assert asyncio.run(script.run_single_experiment(**keywords))["status"] == "error"
    archive = tmp_path / "package.tar.gz"
    assert package_results.main(["--results-dir", str(results), "--output", str(archive)]) == EXIT_OK
    again = tmp_path / "again.tar.gz"
    assert package_results.main(["--results-dir", str(results), "--output", str(again)]) == EXIT_OK
    assert archive.read_bytes() == again.read_bytes()
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    return tmp_path / "unpacked" / "package"


def test_nothing_in_it_names_a_machine_a_user_or_a_key(package: Path) -> None:
    names = [
        "mallory",
        "sk-planted-secret",
        str(package.parent),
        str(Path(script.__file__).parent),
        str(Path.home()) + "/",
    ]
    names += [platform.node()] if len(platform.node()) > 4 else []
    names += [f"/home/{getpass.getuser()}", f"/Users/{getpass.getuser()}"]
    for path in (p for p in package.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for name in names:
            assert name.encode() not in content, f"{name} in {path.relative_to(package)}"
    assert not list(package.rglob("responses.sqlite*")) and not list(package.rglob("sweep.log"))


def test_it_holds_what_another_laboratory_needs(package: Path) -> None:
    for name in ("plan.txt", "requirements.lock", "data_digests.json", "report.html", "summary_results.csv",
                 "HOW_TO.md",
                 "run_scaling_experiment.py", "scaling/models.toml", "results/one/predictions.jsonl"):  # fmt: skip
        assert (package / name).exists(), name
    assert "dspy==" in (package / "requirements.lock").read_text()
    record = read(package / "results" / "one" / "results.json")
    assert read(package / "data_digests.json")[record["cell_id"]]["sha256"] == record["data"]["sha256"]
    assert record["data"]["source"] == "folder"
    broken = read(package / "results" / "two" / "results.json")
    assert broken["final_score"] is None and "not here" in broken["error"]["message"]


def test_its_configs_give_the_same_cells(package: Path, server: ScriptedServer, tmp_path: Path) -> None:
    record = read(package / "results" / "one" / "results.json")
    config = package / "configs" / f"{record['cell_id']}.toml"
    flags = ["--config", str(config), "--data", "sample", "--api-base", server.url, "--output-dir", str(tmp_path / "x")]
    assert script.main(flags) == EXIT_OK
    again = [read(path) for path in (tmp_path / "x").rglob("results.json")]
    assert [one["cell_id"] for one in again] == [record["cell_id"]]
    assert again[0]["final_score"] == record["final_score"]


def test_a_key_in_the_records_is_refused(
    experiment: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    experiment(output_dir=tmp_path / "results")
    lines = tmp_path / "results" / "predictions.jsonl"
    first = json.loads(lines.read_text().splitlines()[0]) | {"prediction": "sk-planted-secret"}
    lines.write_text(json.dumps(first) + "\n")
    monkeypatch.setenv("TOY_API_KEY", "sk-planted-secret")
    target = tmp_path / "p.tar.gz"
    assert package_results.main(["--results-dir", str(tmp_path / "results"), "--output", str(target)]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "TOY_API_KEY" in error and "sk-planted" not in error and not target.exists()


CHANGES = [
    {"benchmark": "other"}, {"pipeline": "vote"}, {"steps": 3}, {"optimizer": "gepa"}, {"model": "openai/b"},
    {"optimizer_model": "openai/b"}, {"run": 4}, {"seed": 9}, {"temperature": 0.3}, {"train_size": 20},
    {"val_size": 60},
    {"test_size": 30}, {"rollout_budget": 400}, {"labels": 5},
    {"pipeline": "self_correct", "feedback": "oracle"},
    {"closed_book": True}, {"pilot": True}, {"reasoning_effort": "low"},
    {"optimizer": "synth_mipro", "synth_mode": "online"},
    {"optimizer": "synth_mipro", "synth_rollouts": 7},
    {"optimizer_options": {"num_candidates": 5, "minibatch_size": 2}},
    {"start_from": "mine.txt"}, {"frozen_roles": ("analyzer",)}, {"draws": 3}, {"stop_when_flat": 0.5},
]  # fmt: skip
# What the data, the model's entry and --pilot-headroom say of a cell, and no study.
NOT_CHOSEN = {
    "headroom", "wording",
    "select_size", "max_output_tokens", "data_sha256", "benchmark_version", "data", "start_sha256", "start_cell",
}  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(changes))
def test_each_choice_of_a_cell_goes_through_its_record_into_its_config_and_back(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    cell = replace(Cell("toy", "chain", 2, "mipro", "openai/a", "openai/a", test_size=40), **changes)
    write_cell(tmp_path, cell, 0.5)
    ((_, text),) = package_results.configs(tmp_path)
    (tmp_path / "cell.toml").write_text(text)
    study = load_study(str(tmp_path / "cell.toml"))
    (again,) = expand(study, {"toy": toy.config(), "other": toy.config()}, {}, "http://127.0.0.1:1/v1")
    for name in set(Cell.__dataclass_fields__) - NOT_CHOSEN:
        assert getattr(again, name) == getattr(cell, name), name


def test_every_choice_of_a_cell_is_tried() -> None:
    assert {name for changes in CHANGES for name in changes} | NOT_CHOSEN == set(Cell.__dataclass_fields__)


def test_damaged_files_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number, damage in enumerate([content("results.json", b"{"), content("learning_curve.json", b"\xff")]):
        damage(write_cell(tmp_path / "results", made("toy", 1, "gepa", number), 0.5))
    assert package_results.stage_results(tmp_path / "results", tmp_path / "stage") == 1
    told = capsys.readouterr().err.splitlines()
    assert [Path(line.split()[2]).name for line in told] == ["results.json", "learning_curve.json"]
    assert len(list((tmp_path / "stage").rglob("predictions.jsonl"))) == 2


def test_links_out_of_the_folder_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results, secret = tmp_path / "results", tmp_path / "secret.txt"
    write_cell(results, made("toy", 1, "gepa", 0), 0.5)
    secret.write_text("of somebody else")
    write_cell(tmp_path / "elsewhere", made("toy", 1, "gepa", 1), 0.5)
    (results / "linked.txt").symlink_to(secret)
    (results / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (results / "results.json").symlink_to(next((tmp_path / "elsewhere").rglob("results.json")))
    (results / "gone").symlink_to(tmp_path / "gone")
    assert package_results.stage_results(results, tmp_path / "stage") == 1
    told = capsys.readouterr().err.splitlines()
    assert [Path(line.split()[2]).name for line in told] == ["elsewhere", "gone", "linked.txt", "results.json"]
    assert all("link out of the folder" in line for line in told)
    assert not [path for path in (tmp_path / "stage").rglob("*") if path.name in ("linked.txt", "elsewhere", "gone")]


def test_files_that_are_no_text_end_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_cell(tmp_path / "results", made("toy", 1, "gepa", 0), 0.5)
    (tmp_path / "results" / "photo.jpg").write_bytes(bytes(range(256)))
    flags = ["--results-dir", str(tmp_path / "results"), "--output", str(tmp_path / "p.tar.gz")]
    assert package_results.main(flags) == EXIT_OK
    assert "photo.jpg is damaged" in capsys.readouterr().err


def test_a_study_without_any_score_is_packed_and_analysed(
    experiment: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    server.fault = lambda n, body: ("status", 401)
    assert experiment(output_dir=tmp_path / "results")["status"] == "error"
    flags = ["--results-dir", str(tmp_path / "results")]
    for more in ([], ["--per-dollar", "--value-per-correct", "1"]):
        assert analyze_results.main([*flags, "--output-dir", str(tmp_path / "out"), *more]) == EXIT_OK
    assert "No cell has a score yet." in (tmp_path / "out" / "summary_results.md").read_text()
    assert package_results.main([*flags, "--output", str(tmp_path / "p.tar.gz")]) == EXIT_OK


def test_without_results_there_is_nothing_to_pack(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert package_results.main(["--results-dir", str(tmp_path)]) == EXIT_USAGE
    assert "no results" in capsys.readouterr().err


def test_where_a_given_program_lay_is_not_packed() -> None:
    value = {"cell": {"start_from": "/home/me/mine.txt"}, "start": {"file": "mine.txt"}}
    assert package_results.without_paths(value) == {"cell": {"start_from": "mine.txt"}, "start": {"file": "mine.txt"}}
