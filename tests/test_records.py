"""A cell's files: their types are the documented schema, earlier ones go on, and what is written can be read."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.llm.meter import Meter
from scaling.records.codec import as_plain, decode, decode_lines, encode
from scaling.records.record import HostedJob, PredictionLine, Record, json_schema
from scaling.records.store import write_aggregate
from scaling.run.record import add_usage
from scaling.testing import ScriptedServer
from scaling.types import EXIT_OK, Cell
from tests.support import damaged
from tests.support.files import lines, read
from tests.support.made_up import record_of, write_cell

ROOT = Path(__file__).parent.parent
OLD = Path(__file__).parent / "data" / "records_of_c31f031.tar.xz"


# Records that were written before


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two studies and their results, written by the program of commit c31f031."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(OLD) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_records_of_an_earlier_version_are_analysed_whole(old: Path, tmp_path: Path) -> None:
    findings = analyze_results.find([old / "results"], None, False)

    assert findings.results.left_out == []
    assert set(findings.results.cells["status"]) == {"ok"}
    assert len(findings.results.cells) == 18
    for path in (old / "results").rglob("results.json"):
        assert keeps(as_plain(decode(path.read_bytes(), Record)), read(path))
        predictions = path.with_name("predictions.jsonl")
        again = [json.loads(encode(line)) for line in read_lines_of(path.parent)]
        assert len(again) == len(lines(predictions))
        assert all(keeps(*pair) for pair in zip(again, lines(predictions), strict=True))


def keeps(now: Any, then: Any) -> bool:
    """Whether everything that was written before is still there."""
    if isinstance(then, dict):
        return all(name in now and keeps(now[name], value) for name, value in then.items())
    return bool(now == then)


def test_a_sweep_of_an_earlier_version_goes_on_without_a_call(
    old: Path, toy: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results = shutil.copytree(old / "results", tmp_path / "results")
    (lost,) = results.glob("toy/2step/gepa/*/run1/results.json")
    before = read(lost)
    lost.unlink()  # this cell runs again, from the cache
    with ScriptedServer() as server:
        models = (old / "models.toml").read_text().replace("URL", server.url)
        (tmp_path / "models.toml").write_text(models)
        for study in ("chain", "turns"):
            flags = ["--study", str(old / f"{study}.toml"), "--models-file", str(tmp_path / "models.toml")]
            assert script.main([*flags, "--output-dir", str(results)]) == EXIT_OK, capsys.readouterr()
        assert server.calls == 0
    after = read(lost)
    assert after["final_score"] == before["final_score"] and after["proposals"] == before["proposals"]
    assert after["usage"]["optimize"]["billed_cost_usd"] == 0


def read_lines_of(folder: Path) -> list[PredictionLine]:
    good, bad = decode_lines((folder / "predictions.jsonl").read_bytes(), PredictionLine)
    assert not bad
    return good


# The schema


def test_the_documented_schema_is_that_of_the_types() -> None:
    """When this fails: python -m scaling.records.record > docs/record.schema.json"""
    assert read(ROOT / "docs" / "record.schema.json") == json.loads(json.dumps(json_schema()))


def test_what_is_written_fits_the_documented_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = read(ROOT / "docs" / "record.schema.json")
    for pipeline in ("self_correct", "chain"):
        folder = write_cell(tmp_path, Cell("toy", pipeline, 2, "gepa", "made/up", "made/up"), 0.5, 0.1).folder
        jsonschema.validate(read(folder / "results.json"), schema)
        for name, kind in (("predictions.jsonl", "PredictionLine"), ("calls.jsonl", "CallRecord")):
            for line in lines(folder / name)[:5]:
                jsonschema.validate(line, schema | {"$ref": f"#/$defs/{kind}"})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(read(folder / "results.json") | {"final_score": 2}, schema)


def test_a_hosted_job_can_say_anything_and_the_record_is_read_again() -> None:
    meter = Meter("0123456789abcdef")
    meter.hosted = HostedJob(mode="online", job_id=["j"], best_score=1e300, note=float("nan"))
    record = record_of(Cell("toy", "chain", 1, "synth_mipro", "m", "m"), np.ones(4), np.ones(4))
    add_usage(record, meter, 1.0)
    hosted = decode(encode(record), Record).hosted
    assert hosted is not None
    assert (hosted.mode, hosted.job_id, hosted.best_score, hosted.note) == ("online", None, None, None)


def test_what_a_model_writes_can_always_be_written_and_read() -> None:
    for text in ("\ud83d", "a\u2028b", "\x00", "é" * 3):
        line = PredictionLine(program="final", id="1", prediction=text, notes={"turn_1": text}, gold=object())
        (again,), bad = decode_lines(encode(line) + b"\n", PredictionLine)
        assert not bad
        assert again.prediction == text.replace("\ud83d", "?")


@pytest.mark.parametrize("score", [1.5, -0.1, float("nan"), None, "high"])
def test_a_metric_that_gives_no_score_ends_the_cell_with_one_line(
    experiment: Callable, toy: Callable, score: Any
) -> None:
    toy(metric=lambda gold, pred, trace=None: score)
    record = experiment(optimizer="gepa")
    assert record["status"] == "error"
    assert "a score is a number from 0 to 1" in record["error"]["message"]
    assert "\n" not in record["error"]["message"]


def test_what_could_not_be_read_again_is_an_error_of_its_cell(experiment: Callable, toy: Callable) -> None:
    toy(failure_kind=lambda gold, prediction: 7, task_class=["any"])
    record = experiment()
    assert experiment() == record  # it is settled, and read again
    assert record["status"] == "error"
    assert "failure_kind" in record["error"]["message"]


def test_the_aggregate_names_records_that_cannot_be_used(tmp_path: Path) -> None:
    good, bad = (write_cell(tmp_path, damaged.made("toy", 1, "gepa", run), 0.5) for run in range(2))
    damaged.field("usage", "much")(bad)
    write_aggregate(tmp_path)
    whole = read(tmp_path / "aggregate_results.json")
    place = str(good.folder.relative_to(tmp_path))
    assert whole["records"] == [{"path": place} | read(good.record)] and whole["cells"] == 1
    (reason,) = whole["left_out"]
    assert reason.startswith(str(bad.record.relative_to(tmp_path))) and "usage" in reason
