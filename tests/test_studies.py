"""The two other studies as a whole, on the scripted server with skill planted by model and turn."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.models import find_model, known_model, load_registry
from scaling.planning.study import load_study
from scaling.records.codec import as_plain
from scaling.records.store import read_records
from scaling.sandbox import deno
from scaling.testing import ScriptedServer
from tests.support.scholar import golds_of, scholar

CHAOS = bool(os.environ.get("CHAOS"))
REAL_ROWS = Path(__file__).parent.parent.parent / "shared" / "data"
# A model of the study as it stands in the registry, at the scripted server's address.
ENTRY = """
[models."{id}"]
route = "openai/{name}"
api_base = "{url}"
sends_seed = true
aliases = {aliases}
input_usd_per_million = {input}
output_usd_per_million = {output}
price_date = "today"
price_source = "made up"
{size}
"""
FIRST, AMPLITUDE, ALPHA = 0.3, 0.05, 0.4
RUNS = 3 if CHAOS else 1
# A program in the sandbox takes seconds of a core.
BENCHMARKS = ["toolqa", "superglue", "mathbench", *(["humaneval"] if CHAOS else [])]


REGISTRY = load_registry(None)


def chance(model: str, turn: int) -> float:
    """Right at first with FIRST; the first review adds AMPLITUDE size^ALPHA, the next one half of that again.

    The closed models, whose sizes nobody publishes, do as if they had 10 billion parameters.
    """
    size = known_model(model.replace("--", "/"), REGISTRY).parameters_billions or 10.0
    return FIRST + AMPLITUDE * size**ALPHA * (0.0, 1.0, 1.5)[turn]


@contextmanager
def planted(study: str, folder: Path, source: str) -> Iterator[list[str]]:
    """Flags that send a study's models to a server with planted skill."""
    golds = []
    for name in BENCHMARKS:
        if source == "sample" or (Path(source) / name).is_dir():
            rows = script.BENCHMARK_CONFIG[name]["loader"](source=source)
            golds += golds_of(name, [row for part in ("train", "test") for row in rows.get(part) or []])
    with ScriptedServer(answer=scholar(golds, chance)) as server:
        entries = []
        for model in (find_model(name, REGISTRY) for name in load_study(study).models):
            sized = f'parameters_billions = {model.parameters_billions}\nparameters_source = "as listed"\n'
            sized += f'parameters_status = "{model.parameters_status}"' if model.parameters_billions else ""
            entries.append(
                ENTRY.format(
                    id=model.id,
                    name=model.id.replace("/", "--"),
                    url=server.url,
                    aliases=list(model.aliases),
                    input=model.input_usd_per_million,
                    output=model.output_usd_per_million,
                    size=sized if model.parameters_billions else "",
                )  # fmt: skip
            )
        (folder / "models.toml").write_text("\n".join(entries))
        yield ["--study", study, "--data", source, "--models-file", str(folder / "models.toml")]


@pytest.mark.skipif(CHAOS and not deno.available(), reason="no Deno with Pyodide here: python -m scaling.sandbox")
def test_the_whole_self_correction_study_runs(tmp_path: Path) -> None:
    results = tmp_path / "results"
    sizes = [] if CHAOS else ["--test-size", "4", "--runs", "1", "--benchmarks", *BENCHMARKS]
    with planted("self-correction", tmp_path, "sample") as flags:
        assert script.main([*flags, *sizes, "--output-dir", str(results)]) == 0
    every = [as_plain(record) for _, record in read_records([results])]
    records = [record for record in every if record["cell"]["pipeline"] == "self_correct"]
    assert len(every) == 3 * len(records) and {record["status"] for record in every} == {"ok"}
    assert len(records) == 8 * len(BENCHMARKS) * RUNS
    assert {record["cell"]["benchmark"] for record in records} == set(BENCHMARKS)
    assert all(len(record["turns"]["scores"]) == 3 for record in records)
    assert all(record["error_rates"]["parse"] == 0 for record in records)
    answers = sum(record["n"] for record in records)
    for turn, planted_gain in enumerate((0.0, 1.0, 1.5)):
        right = sum(record["turns"]["scores"][turn] * record["n"] for record in records) / answers
        expected = sum(chance(r["cell"]["model"], turn) * r["n"] for r in records) / answers
        assert abs(right - expected) < 4 * (0.25 / answers) ** 0.5, (turn, planted_gain, right, expected)
    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(tmp_path)]) == 0
    page = (tmp_path / "summary_results.md").read_text()
    assert "## Self-correction" in page


@pytest.mark.skipif(not CHAOS or not REAL_ROWS.is_dir(), reason="minutes, on real rows: make chaos")
def test_the_open_weights_study_finds_the_planted_exponent_on_real_rows(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with planted("self-correction-open", tmp_path, str(REAL_ROWS)) as flags:
        narrowed = ["--benchmarks", "superglue", "--runs", "1", "--output-dir", str(results)]
        assert script.main([*flags, *narrowed]) == 0
    options = ["--results-dir", str(results), "--output-dir", str(tmp_path), "--value-per-correct", "0.001"]
    assert analyze_results.main(options) == 0
    page = (tmp_path / "summary_results.md").read_text()
    assert page.count("| corrects |") >= 2 and "not run |" not in page.split("## Self-correction")[1].split("## ")[0]
    with (tmp_path / "summary_fits.csv").open() as lines:
        laws = [row for row in csv.DictReader(lines) if row["family"] == "A size^alpha"]
    assert laws
    for law in laws:
        assert float(law["ci_low"]) <= ALPHA <= float(law["ci_high"]), law
