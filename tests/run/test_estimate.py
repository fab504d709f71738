"""What a cell was estimated at, against what it used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import run_scaling_experiment as script
from scaling.planning.optimizers import OPTIMIZERS, is_hosted
from scaling.testing import ScriptedServer
from tests.support.files import read
from tests.support.sweeps import write_study

SAMPLE = Path(__file__).parents[2] / "benchmarks" / "banking77" / "sample.jsonl"
TRUTH = {row["text"]: row["label"] for row in map(json.loads, SAMPLE.read_text().splitlines())}


@pytest.mark.parametrize("skill", [0.4, 0.9])
def test_estimates_hold_within_a_fifth_for_every_optimizer(skill: float, tmp_path: Path) -> None:
    with ScriptedServer(skill=lambda body: skill, truth=TRUTH) as server:
        flags = write_study(tmp_path, server.url, [1, 2], [o for o in OPTIMIZERS if not is_hosted(o)], 1)
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
