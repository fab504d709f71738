"""A sweep as files for others: they pass the others' own readers and schemas, and no text goes out without leave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pandas as pd
import pytest
from msgspec import structs

import export_results
from scaling.export.tidy import columns
from scaling.records.record import PredictionLine
from scaling.records.store import read_objects, read_record, write_lines, write_record
from scaling.types import EXIT_OK, EXIT_USAGE, Cell
from tests.support.damaged import made
from tests.support.files import lines, read
from tests.support.made_up import ROWS, write_cell
from tests.support.toy import rows

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "calls-or-votes" / "records"
SCHEMAS = read(ROOT / "tests" / "data" / "every_eval_ever-0.3.0.json")


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Exports a folder into `out`; gives what was printed."""

    def run(folder: Path, to: str, *flags: str) -> str:
        assert export_results.main([str(folder), "--to", to, "--out", str(tmp_path / "out"), *flags]) == EXIT_OK
        return capsys.readouterr().out

    return run


def open_licence(toy: Callable[..., Any]) -> None:
    toy(licence="MIT")


@pytest.fixture
def sweep(tmp_path: Path, toy: Callable[..., Any]) -> Path:
    """Two made-up cells of an open benchmark, and one that broke."""
    open_licence(toy)
    for steps, optimizer in ((1, "none"), (3, "gepa")):
        write_cell(tmp_path / "results", made("toy", steps, optimizer, 0), 0.5, 0.1, "classification")
    files = write_cell(tmp_path / "results", made("toy", 1, "mipro", 0), 0.5)
    record = read_record(files.record)
    write_record(files, structs.replace(record, status="error", final_score=None))
    files.predictions.unlink()
    return tmp_path / "results"


def test_the_table_opens_in_pandas_and_duckdb(sweep: Path, export: Callable[..., str], tmp_path: Path) -> None:
    said = export(sweep, "parquet")
    path = tmp_path / "out" / "predictions.parquet"
    assert said == f"wrote {path}: 240 predictions of 2 cells\n"
    table = pd.read_parquet(path)
    assert list(table) == [column.name for column in columns()]
    assert len(table) == 2 * 3 * ROWS and table["gold"].eq("a").all()
    means = duckdb.sql(f"select steps, avg(score) from '{path}' where program = 'final' group by 1 order by 1")
    assert means.fetchall() == [(1, pytest.approx(0.6)), (3, pytest.approx(0.6))]


def test_the_dictionary_and_the_description_tell_of_every_column(
    sweep: Path, export: Callable[..., str], tmp_path: Path
) -> None:
    export(sweep, "parquet")
    out = tmp_path / "out"
    dictionary = (out / "data_dictionary.md").read_text(encoding="utf-8")
    description = read(out / "croissant.json")
    (fields,) = [part["field"] for part in description["recordSet"]]
    assert [field["source"]["extract"]["column"] for field in fields] == [column.name for column in columns()]
    assert all(f"| `{column.name}` |" in dictionary and column.meaning for column in columns())
    (file,) = description["distribution"]
    assert file["sha256"] == hashlib.sha256((out / file["contentUrl"]).read_bytes()).hexdigest()
    assert description["license"].endswith("MIT.html")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its libraries
def test_croissants_own_reader_takes_the_description(sweep: Path, export: Callable[..., str], tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    export(sweep, "parquet")
    dataset = mlcroissant.Dataset(str(tmp_path / "out" / "croissant.json"))
    assert not dataset.metadata.issues.errors
    first = next(iter(dataset.records("predictions")))
    assert first["predictions/benchmark"] in ("toy", b"toy")


def evaluations(out: Path) -> list[dict[str, Any]]:
    """Every evaluation that was written, valid and with valid instances that belong to it."""
    found = []
    for path in sorted(out.glob("data/*/*/*/*.json")):
        whole = read(path)
        jsonschema.validate(whole, SCHEMAS["evaluation"], jsonschema.Draft7Validator)
        detail = whole["detailed_evaluation_results"]
        samples = out / detail["file_path"]
        assert samples.name == f"{path.stem}_samples.jsonl"
        assert hashlib.sha256(samples.read_bytes()).hexdigest() == detail["checksum"]
        own = {result["evaluation_result_id"] for result in whole["evaluation_results"]}
        instances = lines(samples)
        assert len(instances) == detail["total_rows"]
        for instance in instances:
            jsonschema.validate(instance, SCHEMAS["instance"], jsonschema.Draft7Validator)
            assert instance["evaluation_id"] == whole["evaluation_id"]
            assert instance["evaluation_result_id"] in own
        found.append(whole | {"instances": instances})
    return found


def test_every_eval_ever_has_optimizer_steps_and_budget(
    sweep: Path, export: Callable[..., str], tmp_path: Path
) -> None:
    assert "2 evaluations with 120 instances" in export(sweep, "every-eval-ever")
    whole = {one["evaluation_id"]: one for one in evaluations(tmp_path / "out")}
    assert len(whole) == 2
    (optimized,) = [one for one in whole.values() if made("toy", 3, "gepa", 0).cell_id in one["evaluation_id"]]
    before, after = optimized["evaluation_results"]
    plans = [result["generation_config"]["generation_args"]["eval_plan"] for result in (before, after)]
    assert [plan["config"]["optimizer"] for plan in plans] == ["none", "gepa"]
    assert plans[1]["config"]["rollout_budget"] == str(made("toy", 3, "gepa", 0).rollout_budget)
    assert plans[1]["config"]["steps"] == "3"
    assert json.loads(plans[1]["steps"][0]) == {"role": "classifier", "instruction": "Sort it well."}
    assert after["score_details"]["score"] == pytest.approx(0.6)
    interval = after["score_details"]["uncertainty"]["confidence_interval"]
    assert interval["lower"] < 0.6 < interval["upper"]
    export(sweep, "every-eval-ever")  # the same files again


def test_an_answer_without_a_score_is_left_out_and_counted(
    sweep: Path, export: Callable[..., str], tmp_path: Path
) -> None:
    for path in sweep.glob("**/gepa/**/predictions.jsonl"):
        read_lines, _ = read_objects(path, PredictionLine)
        read_lines[0].score, read_lines[0].error, read_lines[0].prediction = None, "infrastructure", None
        write_lines(path, read_lines)
    export(sweep, "every-eval-ever")
    counts = {len(whole["instances"]): whole["evaluation_results"][0] for whole in evaluations(tmp_path / "out")}
    assert set(counts) == {ROWS, 2 * ROWS - 1}
    assert counts[2 * ROWS - 1]["score_details"]["details"]["rows_without_score"] == "1"


def test_real_records_are_exported(export: Callable[..., str], tmp_path: Path) -> None:
    export(EXAMPLE, "parquet")
    export(EXAMPLE, "every-eval-ever")
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    means = table[table["program"] == "final"].groupby("cell_id")["score"].mean()
    found = evaluations(tmp_path / "out")
    assert len(found) == len(means) >= 9
    for whole in found:
        after = next(r for r in whole["evaluation_results"] if r["evaluation_result_id"].endswith("#final"))
        assert after["score_details"]["score"] == pytest.approx(means[whole["evaluation_id"].rsplit("/", 1)[1]])


@pytest.mark.parametrize(
    ("licence", "texts", "answers", "inputs"),
    [("MIT", "answers", True, False), ("MIT", "rows", True, True), (None, "answers", False, False),
     (None, "rows", False, False), ("research only", "rows", False, False), (None, "all", True, True)],
)  # fmt: skip
def test_texts_go_out_as_far_as_their_licence_allows(
    experiment: Callable[..., Any], toy: Callable[..., Any], export: Callable[..., str], tmp_path: Path,
    licence: str | None, texts: str, answers: bool, inputs: bool,
) -> None:  # fmt: skip
    toy(licence=licence, loader=lambda: {"train": rows(), "source": "hub"})
    experiment(output_dir=tmp_path / "cell", num_steps=2, optimizer="bootstrap")
    export(tmp_path / "cell", "parquet", "--texts", texts)
    export(tmp_path / "cell", "every-eval-ever", "--texts", texts)
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert table["gold"].notna().all() == table["notes"].notna().all() == answers
    assert table["input"].notna().all() == inputs and table["gold"].notna().any() == answers
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json*"))
    assert ("case <" in written) == inputs
    assert table["prediction"].notna().any()


def test_several_draws_of_a_row_stay_apart_and_count_once(
    experiment: Callable[..., Any], export: Callable[..., str], tmp_path: Path
) -> None:
    record = experiment(output_dir=tmp_path / "cell", draws=3)
    export(tmp_path / "cell", "parquet")
    export(tmp_path / "cell", "every-eval-ever")
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet").query("program == 'final'")
    assert len(table) == 60 and sorted(table["draw"].unique()) == [0, 1, 2]
    assert table.groupby("row_id")["score"].mean().mean() == pytest.approx(record["final_score"])
    assert json.loads(table["cell"].iloc[0])["draws"] == 3
    (whole,) = evaluations(tmp_path / "out")
    assert whole["evaluation_results"][0]["score_details"]["uncertainty"]["num_samples"] == 20
    assert len(whole["instances"]) == 60


def test_samples_and_pilots_are_called_that(
    experiment: Callable[..., Any], export: Callable[..., str], tmp_path: Path
) -> None:
    experiment(output_dir=tmp_path / "cell", pilot=True)
    export(tmp_path / "cell", "parquet")
    export(tmp_path / "cell", "every-eval-ever")
    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert table["is_sample"].all() and table["is_pilot"].all()
    assert "not a result" in (tmp_path / "out" / "croissant.json").read_text()
    for whole in evaluations(tmp_path / "out"):
        for result in whole["evaluation_results"]:
            assert "sample rows: not a result; pilot: not a result" in result["score_details"]["details"]["warning"]


def test_no_folder_of_this_machine_goes_out(
    experiment: Callable[..., Any], toy: Callable[..., Any], export: Callable[..., str], tmp_path: Path
) -> None:
    home = tmp_path / "home" / "mallory"
    home.mkdir(parents=True)
    toy(loader=lambda source: {"train": rows(), "source": source}, licence="MIT")
    experiment(output_dir=tmp_path / "cell", data=str(home))
    export(tmp_path / "cell", "parquet")
    export(tmp_path / "cell", "every-eval-ever")
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"mallory" not in path.read_bytes(), path


def test_a_key_that_was_answered_does_not_go_out(
    sweep: Path, export: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sweep.rglob("predictions.jsonl"):
        path.write_text(path.read_text().replace('"prediction":"a"', '"prediction":"sk-planted-secret"'))
    monkeypatch.setenv("TOY_API_KEY", "sk-planted-secret")
    export(sweep, "parquet")
    export(sweep, "every-eval-ever")
    assert pd.read_parquet(tmp_path / "out" / "predictions.parquet")["prediction"].nunique() > 1
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"sk-planted" not in path.read_bytes(), path


def test_what_is_there_is_not_overwritten(
    sweep: Path, export: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(sweep, "parquet")
    (tmp_path / "out" / "predictions.parquet").write_bytes(b"mine")
    line = [str(sweep), "--to", "parquet", "--out", str(tmp_path / "out")]
    assert export_results.main(line) == EXIT_USAGE
    assert "is there already. Give another --out" in capsys.readouterr().err
    assert (tmp_path / "out" / "predictions.parquet").read_bytes() == b"mine"


def test_damaged_records_and_copies_are_told(
    sweep: Path, export: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell("toy", "chain", 2, "gepa", "openai/a", "openai/a")
    write_cell(tmp_path / "results", cell, 0.5).record.write_text("{")
    copy = write_cell(tmp_path / "results" / "copy", made("toy", 1, "none", 0), 0.5)
    line = [str(sweep), "--to", "parquet", "--out", str(tmp_path / "out")]
    assert export_results.main(line) == EXIT_OK
    told = capsys.readouterr().err
    assert "(it is not JSON)" in told and "its cell was there already" in told
    assert copy.record.exists()


@pytest.mark.parametrize("flags", [["--to", "parquet"], ["--to", "every-eval-ever"]])
def test_without_records_there_is_nothing_to_export(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_results.main([str(tmp_path), *flags]) == EXIT_USAGE
    assert "no results" in capsys.readouterr().err
