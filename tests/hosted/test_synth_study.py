"""A study with a hosted arm: its table, its files, and what it does without a key."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

import analyze_results
import run_scaling_experiment as script
from scaling.analysis import mipro_table
from scaling.intervals import newcombe_paired
from scaling.types import Cell
from tests.support.files import lines, read
from tests.support.formats import ends, points
from tests.support.made_up import record_of


@pytest.fixture
def study(command: Callable, tmp_path: Path) -> list[str]:
    (tmp_path / "mine.toml").write_text("compares_mipro = true\n")
    return command(study="mine.toml", optimizers="none synth_mipro mipro_instruct mipro")


def test_without_a_key_the_hosted_arm_is_skipped_and_runs_once_there_is_one(
    study: list[str], backend: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = os.environ["SYNTH_API_KEY"]
    monkeypatch.delenv("SYNTH_API_KEY")
    monkeypatch.delenv("SYNTH_BACKEND_URL", raising=False)
    assert script.main(study) == 0
    said = capsys.readouterr().out
    assert "skipped 1 cell of synth_mipro: SYNTH_API_KEY is not set" in said
    assert "3 ok, 1 skipped" in said and "skipped (SYNTH_API_KEY is not set" in said
    assert script.main(study) == 0 and "1 skipped" in capsys.readouterr().out

    monkeypatch.setenv("SYNTH_API_KEY", key)
    fake = backend()
    assert script.main(study) == 0
    assert "4 ok" in capsys.readouterr().out and len(fake.jobs) == 1


def table_in(page: str, title: str) -> list[list[str]]:
    body = re.search(rf'<h2 id="t\d+">{title}</h2>.*?<tbody>(.*?)</tbody>', page, re.S).group(1)
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [[unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.S)] for row in rows]


NAMES = {
    "synth_mipro": "Synth MIPRO, offline",
    "mipro_instruct": "MIPROv2, instructions",
    "mipro": "MIPROv2, with demos",
}


def test_the_table_is_the_records_and_the_files_say_the_same(
    study: list[str], backend: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    backend()
    assert script.main(study) == 0
    said = capsys.readouterr().out
    assert "note: 12 val rows can tell a score or a difference to ±26 points" in said
    by_name = {read(path)["cell"]["optimizer"]: path.parent for path in tmp_path.rglob("results.json")}
    answers = {
        name: {
            program: np.array(
                [line["score"] for line in lines(home / "predictions.jsonl") if line["program"] == program]
            )
            for program in ("baseline", "final")
        }
        for name, home in by_name.items()
    }

    def row(name: str) -> list[str]:
        record, base, final = read(by_name[name] / "results.json"), *answers[name].values()
        own = record["hosted"]["best_score"] if name == "synth_mipro" else record["val_final_score"]
        wilson, its = (proportion_confint(s * n, n, method="wilson") for s, n in ((final.mean(), 20), (own, 5)))
        gap = own - final.mean()
        around = (
            gap - np.hypot(own - its[0], wilson[1] - final.mean()),
            gap + np.hypot(its[1] - own, final.mean() - wilson[0]),
        )
        used = record["usage"]["optimize"]
        return [
            "toy", "1step", "openai/scripted", NAMES[name], points(final.mean()), ends(wilson),
            points(final.mean() - base.mean(), True), ends(newcombe_paired(base, final), True),
            points(own), points(gap, True), ends(around, True), str(record["rollouts_used"]), str(used["calls"]),
            f"{used['prompt_tokens'] + used['completion_tokens']:,}", "—",
            f"{record['optimize_seconds']:.1f}", "20 x 1",
        ]  # fmt: skip

    plain = answers["none"]["baseline"]
    before = ["toy", "1step", "openai/scripted", "before optimization", points(plain.mean()),
              ends(proportion_confint(plain.sum(), 20, method="wilson")), *["—"] * 10, "20 x 1"]  # fmt: skip
    expected = [before, *(row(name) for name in NAMES)]
    assert [cells[1:-1] for cells in (line.split(" | ") for line in said.splitlines() if line.startswith("| toy"))] == [
        cells[1:-1] for cells in expected
    ]
    assert analyze_results.main(["--results-dir", "out"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert table_in(page, "MIPRO side by side") == expected
    pairs = {cells[0]: cells[2:4] for cells in table_in(page, r"MIPRO implementations \(exploratory\)")}
    first, second = answers["mipro_instruct"]["final"], answers["synth_mipro"]["final"]
    assert pairs["toy 1 chain synth_mipro offline - mipro_instruct"] == [
        points(second.mean() - first.mean(), True), ends(newcombe_paired(first, second), True),
    ]  # fmt: skip
    assert len(pairs) == 3

    (synth,), (dspy,) = (list((tmp_path / "out").glob(f"toy_{name}_mipro_*.json")) for name in ("synth", "dspy"))
    assert all(re.fullmatch(r"toy_\w+_mipro_\d{8}_\d{6}", path.stem) for path in (synth, dspy))
    assert read(synth)["records"] == [read(by_name["synth_mipro"] / "results.json")]
    assert len(read(dspy)["records"]) == 2
    assert script.main(study) == 0  # nothing new: nothing is written again
    assert len(list((tmp_path / "out").glob("toy_*.json"))) == 2


def test_exports_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    cells = [Cell("toy", "chain", 1, "synth_mipro", "m", "m", run=run) for run in range(3)]
    records = [record_of(cell, np.ones(4), np.ones(4)) for cell in cells]
    written = [mipro_table.write_exports(tmp_path, [record]) for record in records]
    assert len({path for paths in written for path in paths}) == 3
    assert sorted(read(path)["records"][0]["cell"]["run"] for path in tmp_path.glob("*.json")) == [0, 1, 2]
