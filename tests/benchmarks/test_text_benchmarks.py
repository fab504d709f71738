"""Benchmarks with text answers: what all of them hold to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

import run_scaling_experiment as script
from scaling.llm import gateway
from scaling.testing import ScriptedServer
from scaling.types import UsageError
from tests.support.benchmarks import TEXT_BENCHMARKS, bench, sample
from tests.support.chaos import only_in_chaos


@pytest.mark.parametrize("name", TEXT_BENCHMARKS)
def test_samples_have_80_rows_that_differ(name: str) -> None:
    rows = sample(name)
    assert len(rows) >= 80
    assert len({json.dumps({k: v for k, v in row.items() if k != "idx"}) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", TEXT_BENCHMARKS)
def test_every_gold_answer_of_the_samples_is_right_and_the_feedback_says_so(name: str) -> None:
    entry = script.BENCHMARK_CONFIG[name]
    for row in bench(name).train:
        gold = dspy.Example(**row)
        assert entry["metric"](gold, dspy.Prediction(answer=row["answer"])) == 1.0, row
        assert entry["feedback"](gold, dspy.Prediction(answer=row["answer"])).startswith("Right")
        assert entry["metric"](gold, dspy.Prediction(answer="zebra")) == 0.0
        said = entry["feedback"](gold, dspy.Prediction(answer="zebra"))
        assert said.startswith("Wrong") and "zebra" in said and row["answer"] in said
        assert entry["metric"](gold, dspy.Prediction(answer=None)) == 0.0


@pytest.mark.parametrize("name", TEXT_BENCHMARKS)
def test_a_cell_runs(experiment: Callable[..., dict[str, Any]], tmp_path: Path, name: str) -> None:
    gold = {row["answer"] for row in bench(name).train}
    record = experiment(benchmark=name)
    assert record["status"] == "ok" and record["n"] == 20 and 0 <= record["final_score"] <= 1
    lines = (tmp_path / "cell" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["gold"] for line in lines} <= gold


PROSE = "I would rather not say. "


@pytest.mark.parametrize(
    ("name", "answer", "kind"),
    [
        ("gsm8k", "no idea", "no_number"),
        ("gsm8k", PROSE * 5000, "no_number"),  # 100 KB
        ("math", PROSE * 5000, "long_answer"),
        ("mathbench", PROSE, "no_option"),
        ("superglue", PROSE * 5000, "no_label"),
        pytest.param("humaneval", PROSE * 5000, "missing", marks=only_in_chaos),
        pytest.param("humaneval", "```python\ndef another():\n    return 1\n```", "missing", marks=only_in_chaos),
    ],
)
def test_an_answer_that_is_no_answer_scores_0_with_its_kind(
    experiment: Callable[..., dict[str, Any]],
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    answer: str,
    kind: str,
) -> None:
    if name == "humaneval":  # no such answer gets as far as the sandbox
        monkeypatch.delitem(script.BENCHMARK_CONFIG[name], "needs")
    field = "code" if name == "humaneval" else "answer"
    server.answer = lambda body: f"[[ ## {field} ## ]]\n{answer}\n\n[[ ## completed ## ]]"
    record = experiment(benchmark=name, train_size=3, val_size=6, test_size=6)
    assert record["status"] == "ok" and record["final_score"] == 0.0
    assert record["error_rates"] == {"infrastructure": 0, "parse": 0}
    lines = [json.loads(line) for line in (tmp_path / "cell" / "predictions.jsonl").read_text().splitlines()]
    told = [line["failure_kind"] for line in lines if line["program"] == "final"]
    # Open questions of mathbench have no options: there the answer is merely wrong.
    assert set(told) == ({kind, None} if name == "mathbench" else {kind})
    assert record["failure_kinds"]["final"] == {kind: told.count(kind)}


def test_an_answer_that_is_not_utf_8_is_lost_to_the_infrastructure(
    experiment: Callable[..., dict[str, Any]], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, no_backoff: None
) -> None:
    monkeypatch.setattr(gateway, "MAX_ATTEMPTS", 2)
    server.fault = lambda number, body: ("raw", b'{"choices": [{"message": {"content": "\xff\xfe 12"}}]}')
    record = experiment(benchmark="gsm8k")
    assert record["status"] in ("error", "invalid") and record["final_score"] is None
    assert record["error"]["message"]


@pytest.mark.parametrize("name", ["gsm8k", "math", "superglue", "superglue/cb"])
def test_the_hub_is_asked_for_and_its_absence_told(name: str) -> None:
    with pytest.raises(UsageError, match="cannot read '.*' from the Hugging Face hub.*--data sample") as told:
        bench(name, "hub")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", [*TEXT_BENCHMARKS, "superglue/rte"])
def test_a_folder_without_its_rows_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder.*--data sample"):
        bench(name, str(tmp_path))
