"""What a cell was estimated at, against what it used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import run_scaling_experiment as script
from scaling.planning.optimizers import OPTIMIZERS, hosted_names
from scaling.testing import GROQ, ScriptedServer, StrictServer
from tests.support import toy
from tests.support.files import lines, read
from tests.support.sweeps import write_study

STUDY = """
benchmarks = ["toy"]
pipelines = ["self_correct", "resample", "vote"]
steps = [3]
optimizers = ["none"]
models = ["openai/scripted"]
runs = 2
train_size = 5
val_size = 10
test_size = 20
data = "sample"
"""
ELSEWHERE = {"transfer", *hosted_names()}  # optimizers whose program is made elsewhere
SAMPLE = Path(__file__).parents[2] / "benchmarks" / "banking77" / "sample.jsonl"
TRUTH = {row["text"]: row["label"] for row in map(json.loads, SAMPLE.read_text().splitlines())}


@pytest.mark.parametrize("skill", [0.4, 0.9])
def test_estimates_hold_within_a_fifth_for_every_optimizer(skill: float, tmp_path: Path) -> None:
    with ScriptedServer(skill=lambda body: skill, truth=TRUTH) as server:
        flags = write_study(tmp_path, server.url, [1, 2], [o for o in OPTIMIZERS if o not in ELSEWHERE], 1)
        assert script.main([*flags, "--output-dir", str(tmp_path / "out")]) == 0
    planned = read(tmp_path / "out" / "plan.json")
    for path in (tmp_path / "out").rglob("results.json"):
        record = read(path)
        used = list(record["usage"].values())
        for what, actual in (
            ("calls", sum(part["calls"] for part in used)),
            ("tokens", sum(part["prompt_tokens"] + part["completion_tokens"] for part in used)),
            ("usd", sum(part["list_cost_usd"] for part in used)),
        ):
            low, high = planned[record["cell_id"]][what]
            told = f"{record['cell']['optimizer']} {record['cell']['steps']}: {what} {low} to {high}, was {actual}"
            assert 0.8 * low <= actual <= 1.2 * high, told
            assert high <= 2.7 * low, told


def test_controls_of_self_correction_cost_their_later_draws_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three turns, three redraws and three votes are five calls a row, in the plan and at the server."""
    monkeypatch.setitem(script.BENCHMARK_CONFIG, "toy", toy.config())
    (tmp_path / "study.toml").write_text(STUDY)
    with ScriptedServer(skill=lambda body: 0.6, truth=toy.truth()) as server:
        flags = ["--study", str(tmp_path / "study.toml"), "--api-base", server.url]
        assert script.main([*flags, "--output-dir", str(tmp_path / "out")]) == 0
    rows = 2 * (20 + 5)  # runs x (test + check)
    assert server.calls == 5 * rows
    said = capsys.readouterr().out
    assert f"in total {5 * rows} calls" in said and f"which the total counts once: {4 * rows} calls, " in said
    turns, redraws, votes = (lines_of(tmp_path, name) for name in ("3turn", "3redraw", "3vote"))
    assert [line["turn_scores"][0] for line in turns] == [line["turn_scores"][0] for line in redraws]
    won = [vote["score"] for vote, draws in zip(votes, redraws, strict=True) if sum(draws["turn_scores"]) >= 2]
    assert won and set(won) == {1.0}


def lines_of(tmp_path: Path, step: str) -> list[dict]:
    """The final answers of a pipeline's first run."""
    path = next((tmp_path / "out" / "toy" / step).rglob("run0/predictions.jsonl"))
    return [line for line in lines(path) if line["program"] == "final"]


def test_a_vote_shares_the_optimization_of_one_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(skill=lambda body: 0.6, truth=TRUTH) as server:
        flags = write_study(tmp_path, server.url, [1, 3], ["gepa"], 1)
        text = (tmp_path / "study.toml").read_text()
        (tmp_path / "study.toml").write_text('pipelines = ["chain", "vote"]' + text)
        assert script.main([*flags, "--output-dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    low, high = (number(text) for text in re.search(r"in total (\S+)-(\S+) calls", said).groups())
    assert 0.8 * low <= server.calls <= 1.2 * high
    cells = [read(path)["usage"] for path in (tmp_path / "out").rglob("results.json")]
    one_by_one = sum(phase["calls"] for usage in cells for phase in usage.values())
    assert server.calls < 0.8 * one_by_one  # what the cells would have paid for without each other


def number(text: str) -> float:
    """1.25k is 1250."""
    return float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1)


def test_reasoning_is_a_part_of_the_estimate_and_of_what_was_used(tmp_path: Path) -> None:
    with StrictServer(GROQ, skill=lambda body: 0.6, truth=TRUTH) as server:
        flags = write_study(tmp_path, server.url, [1, 2], ["none", "gepa"], 1)[:2]
        model = ["--models", "groq/openai/gpt-oss-20b", "--reasoning-effort", "low", "--api-base", server.url]
        assert script.main([*flags, *model, "--output-dir", str(tmp_path / "out")]) == 0
    planned = read(tmp_path / "out" / "plan.json")
    for path in (tmp_path / "out").rglob("results.json"):
        record = read(path)
        used = list(record["usage"].values())
        low, high = planned[record["cell_id"]]["reasoning_tokens"]
        assert 0 < low <= sum(part["reasoning_tokens"] or 0 for part in used) <= high
        low, high = planned[record["cell_id"]]["usd"]
        assert low <= sum(part["list_cost_usd"] for part in used) <= high
