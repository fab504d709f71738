"""Every format, from files that the programs themselves wrote (tests/data/other_programs/make_logs.py)."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import analyze_results
from scaling.readers import formats, inspect_log
from scaling.readers.rows import Result
from tests.support.compared import OTHERS, compared, scored, write_csv, write_jsonl
from tests.support.files import lines, read

SUMS = 24
RIGHT = {"weak": 11, "strong": 20}  # of the scripted models, by their hash
TURNED = (11, 2)  # rows that the strong model gains and loses


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the other programs."""
    folder = tmp_path_factory.mktemp("others")
    with tarfile.open(OTHERS / "logs.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder


def results(path: Path | str, group_field: str = "group") -> list[Result]:
    return formats.read(str(path), group_field)


def right(result: Result) -> int:
    return sum(row.score == 1 for row in result.rows)


PAIRS = {
    "inspect .eval": ("inspect/weak.eval", "inspect/strong.eval"),
    "inspect .json and .eval": ("inspect/weak.json", "inspect/strong.eval"),
    "lm-eval folders": ("lm_eval/weak", "lm_eval/strong"),
    "promptfoo, one file": ("promptfoo/promptfoo.json",),
    "Every Eval Ever": ("every_eval_ever/weak", "every_eval_ever/strong"),
}


@pytest.mark.parametrize("paths", PAIRS.values(), ids=PAIRS)
def test_a_real_pair_has_the_counts_that_the_scripted_models_were_given(
    others: Path, tmp_path: Path, paths: tuple[str, ...]
) -> None:
    found = compared(tmp_path / "out", *(str(others / path) for path in paths))
    (pair,) = found["pairs"]
    first, second = found["programs"]
    assert (first["score"], second["score"]) == (RIGHT["weak"] / SUMS, RIGHT["strong"] / SUMS)
    assert (pair["rows"], pair["higher_in_second"], pair["lower_in_second"]) == (SUMS, *TURNED)
    assert pair["verdict"] == "on these rows: higher" and pair["usd_first"] is None


def test_rows_of_different_programs_are_matched_by_what_was_asked(others: Path, tmp_path: Path) -> None:
    paths = [str(others / path) for path in ("inspect/weak.eval", "lm_eval/strong", "promptfoo/promptfoo.json")]
    assert analyze_results.main(["compare", *paths]) == 2  # the metrics have different names
    found = compared(tmp_path / "out", *paths, "--same", "metric")
    assert len(found["pairs"]) == 6 and {pair["rows"] for pair in found["pairs"]} == {SUMS}
    assert "Rows are matched by what was asked." in found["notes"]
    assert any("Versions are not compared" in note for note in found["notes"])


def test_a_log_of_inspect_is_read_alike_with_and_without_inspect_ai(
    others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = others / "inspect" / "weak.eval"
    (plain,) = results(path)
    whole = read(others / "inspect" / "weak.json")

    class Read:
        def model_dump_json(self, include: dict[str, Any]) -> str:
            return json.dumps({name: whole[name] for name in include if name in whole})

    module = ModuleType("inspect_ai.log")
    module.read_eval_log = lambda location, resolve_attachments: Read()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "inspect_ai", ModuleType("inspect_ai"))
    monkeypatch.setitem(sys.modules, "inspect_ai.log", module)
    monkeypatch.setattr(inspect_log, "find_spec", lambda name: SimpleNamespace())
    (by_inspect,) = results(path)
    by_id = attrgetter("id")
    assert sorted(by_inspect.rows, key=by_id) == sorted(plain.rows, key=by_id)
    assert replace(by_inspect, rows=()) == replace(plain, rows=())
    assert (plain.name, plain.dataset, plain.version, plain.metric) == ("openai/weak", "sums", "1", "exact")
    first = next(row for row in plain.rows if row.id == "sum-2-3")
    assert first.input == "What is 2 plus 3?" and first.score == 0


def test_scores_letters_epochs_attachments_costs_and_groups_of_inspect(others: Path, tmp_path: Path) -> None:
    log = read(others / "inspect" / "weak.json")
    one = log["samples"][0]
    values = ["C", "I", "P", "N", True, "0.25", "odd", float("nan"), {"fluent": 1, "true": 0.5}, [1, 0]]
    log["samples"] = [
        one | {"id": number, "epoch": 1 + number % 2, "scores": {"judge": {"value": value}},
               "metadata": {"passage": number // 2}, "model_usage": {"m": {"total_cost": 0.5}}}
        for number, value in enumerate(values)
    ]  # fmt: skip
    log["samples"][0] |= {"input": [{"role": "user", "content": "attachment://x"},
                                    {"role": "user", "content": [{"type": "text", "text": "and?"}]}],
                          "attachments": {"x": "a long text"}}  # fmt: skip
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log))  # with NaN, as inspect writes it
    by_metric = {result.metric: result for result in results(path, "passage")}
    judged = by_metric["judge"].rows
    assert [row.score for row in judged] == [1, 0, 0.5, 0, 1, 0.25, None, None, None, None]
    assert [row.score for row in by_metric["judge.true"].rows][8] == 0.5 and "judge.fluent" in by_metric
    assert judged[0].input == "a long text\nand?"
    assert (judged[3].run, judged[3].group, judged[3].cost) == ("2", "1", 0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "cancelled"}, "Interim: the evaluation"),
        ({"invalidated": True}, "marked as invalid"),
        ({"eval": {"model": "mockllm/model"}}, "Simulated: "),
        ({"eval": {"config": {"limit": 10}}}, "A sample: "),
    ],
)
def test_what_a_log_of_inspect_is_beside_a_result_stands_in_every_output(
    others: Path, tmp_path: Path, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = read(others / "inspect" / "weak.json")
    log |= {name: log[name] | value if isinstance(value, dict) else value for name, value in change.items()}
    (tmp_path / "log.json").write_text(json.dumps(log))
    compared(tmp_path / "out", str(tmp_path / "log.json"), str(others / "inspect" / "strong.eval"))
    assert said in " ".join(capsys.readouterr().out.split())
    for form in ("md", "html", "json"):
        assert said in (tmp_path / "out" / f"comparison.{form}").read_text(encoding="utf-8")
    assert said in (tmp_path / "out" / "comparison.csv").read_text(encoding="utf-8")


def test_a_folder_of_logs_has_runs_and_leaves_out_what_did_not_end(others: Path, tmp_path: Path) -> None:
    log = read(others / "inspect" / "weak.json")
    for name, status in (("one", "success"), ("two", "success"), ("three", "error")):
        (tmp_path / f"{name}.json").write_text(json.dumps(log | {"status": status}))
    (result,) = results(tmp_path)
    assert len(result.rows) == 2 * SUMS and len({row.run for row in result.rows}) == 2


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut off", b"", b"no zip"])
def test_a_broken_log_of_inspect_is_one_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.eval").write_bytes(content)
    assert analyze_results.main(["compare", str(tmp_path / "a.eval"), str(tmp_path / "a.eval")]) == 2
    said = capsys.readouterr().err
    assert "is not a log of inspect_ai" in said and len(said.splitlines()) == 1


def test_lm_eval_names_metrics_with_their_filter_and_leaves_out_what_is_no_score_of_a_row(
    others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = (others / "lm_eval" / "weak").glob("samples_*.jsonl")
    (summary,) = (others / "lm_eval" / "weak").glob("results_*.json")
    rows = [
        line | {"filter": name, "metrics": ["exact_match", "bleu", "perplexity"], "bleu": [1, 2], "perplexity": 3.0}
        for name in ("strict-match", "flexible-extract")
        for line in lines(source)
    ]
    path = Path(write_jsonl(tmp_path / source.name, rows))
    better = {"sums": {"exact_match": True, "perplexity": False}}
    (tmp_path / summary.name).write_text(json.dumps(read(summary) | {"higher_is_better": better}))
    assert [result.metric for result in results(path)] == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert analyze_results.main(["compare", str(path), str(path)]) == 2
    assert "--metric exact_match,strict-match" in capsys.readouterr().err
    found = compared(tmp_path / "out", str(tmp_path), str(path), "--metric", "exact_match,flexible-extract")
    assert found["pairs"][0]["effect"] == 0


def test_lm_eval_tells_a_limit_the_dummy_model_and_a_missing_sample_file(
    others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (others / "lm_eval" / "weak").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (summary,) = tmp_path.glob("results_*.json")
    config = read(summary)["config"] | {"model": "dummy", "limit": 10.0}
    summary.write_text(json.dumps(read(summary) | {"config": config}))
    (result,) = results(summary)
    assert [note.split(":")[0] for note in result.notes] == ["Simulated", "A sample"]
    assert right(result) == RIGHT["weak"] and result.version == "1.0"

    next(tmp_path.glob("samples_*.jsonl")).unlink()
    assert analyze_results.main(["compare", str(summary), str(summary)]) == 2
    assert "--log_samples" in capsys.readouterr().err


def test_a_document_tells_rows_of_lm_eval_apart_whatever_the_prompt(others: Path, tmp_path: Path) -> None:
    (source,) = (others / "lm_eval" / "strong").glob("samples_*.jsonl")
    few_shot = [line | {"arguments": {"gen_args_0": {"arg_0": "some examples " + line["doc"]["question"]}}}
                for line in lines(source)]  # fmt: skip
    other = write_jsonl(tmp_path / source.name, few_shot)
    found = compared(tmp_path / "out", str(others / "lm_eval" / "weak"), other, "--same", "dataset")
    assert found["pairs"][0]["rows"] == SUMS


def test_errors_named_scores_and_costs_of_promptfoo(others: Path, tmp_path: Path) -> None:
    output = read(others / "promptfoo" / "promptfoo.json")
    for number, answer in enumerate(output["results"]["results"]):
        answer |= {"namedScores": {"short": 0.5}, "failureReason": 2 if number == 0 else answer["failureReason"]}
        answer["response"]["cost"] = 0.25
        answer["vars"]["passage"] = number // 4
    path = tmp_path / "output.json"
    path.write_text(json.dumps(output))
    by_name = {(result.name, result.metric): result for result in results(path, "passage")}
    assert set(by_name) == {(name, metric) for name in ("weak", "strong") for metric in ("score", "short")}
    rows = [row for result in by_name.values() for row in result.rows]
    assert sum(row.score is None for row in rows) == 2  # the error, by both metrics
    assert {row.cost for row in rows} == {0.25} and None not in {row.group for row in rows}

    summary = tmp_path / "older.json"
    summary.write_text(json.dumps(output["results"] | {"version": 2}))
    assert [(r.name, r.metric, r.rows) for r in results(summary)] == [(r.name, r.metric, r.rows) for r in results(path)]


def test_the_aggregate_of_every_eval_ever_names_dataset_and_metric(others: Path, tmp_path: Path) -> None:
    folder = others / "every_eval_ever" / "weak"
    (with_aggregate,) = results(folder)
    assert with_aggregate.dataset == "sums" and with_aggregate.name == "openai/weak"
    (instances,) = folder.rglob("*.jsonl")
    (tmp_path / "alone.jsonl").write_bytes(instances.read_bytes())
    (alone,) = results(tmp_path / "alone.jsonl")
    assert right(alone) == right(with_aggregate) == RIGHT["weak"]


def test_an_aggregate_alone_errors_and_unknown_levels_of_every_eval_ever(
    others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (instances,) = (others / "every_eval_ever" / "weak").rglob("*.jsonl")
    (aggregate,) = (others / "every_eval_ever" / "weak").rglob("*.json")
    whole = read(aggregate)
    whole["evaluation_results"][0]["metric_config"]["has_unknown_level"] = True
    whole.pop("detailed_evaluation_results", None)
    (tmp_path / "e.json").write_text(json.dumps(whole))
    assert analyze_results.main(["compare", str(tmp_path / "e.json"), str(tmp_path / "e.json")]) == 2
    assert "means without rows" in capsys.readouterr().err

    rows = lines(instances)
    rows[0]["error"] = "timeout"
    rows[1]["evaluation"]["score"] = -1
    write_jsonl(tmp_path / "e_samples.jsonl", rows)
    (result,) = results(tmp_path / "e.json")
    assert [row.score is None for row in result.rows].count(True) == 2

    whole["evaluation_results"][0]["metric_config"]["lower_is_better"] = True
    (tmp_path / "e.json").write_text(json.dumps(whole))
    assert analyze_results.main(["compare", str(tmp_path / "e.json"), str(tmp_path / "e.json")]) == 2
    assert "holds no scored row" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sweep_folder() -> Iterator[Path]:
    """The records that ship with this program."""
    yield Path(__file__).parents[2] / "examples" / "calls-or-votes" / "records"


def test_our_own_folders_have_a_result_a_series_with_the_runs_of_the_sweep(sweep_folder: Path, tmp_path: Path) -> None:
    found = results(sweep_folder)
    assert len(found) > 1 and all(result.dataset == found[0].dataset for result in found)
    arguments = [str(path) for path in sorted(sweep_folder.rglob("run0"))[:1]]
    assert len(results(arguments[0])) == 1
    pairs = compared(tmp_path / "out", str(sweep_folder))["pairs"]
    assert len(pairs) == len(found) * (len(found) - 1) // 2
    assert all(pair["rows"] and pair["effect"] is not None for pair in pairs)


def test_a_plain_jsonl_may_have_truths_and_nulls(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "score": True}, {"id": 2, "score": None, "cost": 0.5}])
    (result,) = results(path)
    assert [(row.id, row.score, row.cost) for row in result.rows] == [("1", 1.0, None), ("2", None, 0.5)]


def test_rows_may_be_in_any_encoding_mark_and_order(tmp_path: Path) -> None:
    first = Path(write_csv(tmp_path / "a.csv", scored([0, 1] * 10)))
    second = Path(write_csv(tmp_path / "b.csv", reversed(scored([0, 1] * 10))))
    first.write_bytes(b"\xef\xbb\xbf" + first.read_bytes())
    assert compared(tmp_path / "out", str(first), str(second))["pairs"][0]["effect"] == 0


def test_logs_of_other_solvers_are_other_programs_and_no_runs(others: Path, tmp_path: Path) -> None:
    log = read(others / "inspect" / "weak.json")
    for name in ("plain", "thoughtful"):
        steps = [{"solver": name, "params": {}}, *log["plan"]["steps"]]
        (tmp_path / f"{name}.json").write_text(json.dumps(log | {"plan": log["plan"] | {"steps": steps}}))
    found = compared(tmp_path / "out", str(tmp_path))
    assert len(found["pairs"]) == 1 and found["pairs"][0]["runs"] == 1
    assert {program["name"].split("/")[-1] for program in found["programs"]} == {"plain.json)", "thoughtful.json)"}


def test_answers_that_this_program_exported_as_failures_keep_their_score(others: Path, tmp_path: Path) -> None:
    """As scaling.export writes them: 'parse' scores 0, and a text stands for rows that may not be shown."""
    (instances,) = (others / "every_eval_ever" / "weak").rglob("*.jsonl")
    rows = lines(instances)
    rows[0] |= {"error": "parse"}
    hidden = [row | {"input": row["input"] | {"raw": "(the text of this row is not exported)"}} for row in rows]
    (result,) = results(write_jsonl(tmp_path / "samples.jsonl", hidden))
    assert result.rows[0].score == 0 and {row.input for row in result.rows} == {None}
