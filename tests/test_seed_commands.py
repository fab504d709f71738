"""Every command that docs/earlier-studies.md gives for one of the seed documents' commands, run as it is written."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from tests.support.chaos import only_in_chaos
from tests.support.files import tree

ROOT = Path(script.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "earlier-studies.md").read_text(encoding="utf-8")


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the rows of the table whose head starts so, without code marks."""
    table = PAGE.split(f"| {heading} ", 1)[1].split("\n\n", 1)[0]
    lines = table.splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines]


COMMANDS = rows_of("in the earlier study")
RUNS = list(dict.fromkeys(row[1] for row in COMMANDS if row[1].startswith("python run_scaling_experiment.py")))
ANALYSES = list(dict.fromkeys(row[1] for row in COMMANDS if row[1].startswith("python analyze_results.py")))
COSTS = rows_of("the study's sum")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with the CSV of the seed's first command."""
    monkeypatch.chdir(tmp_path)
    # A CSV becomes an entry, which other tests should not see.
    monkeypatch.setattr(script, "BENCHMARK_CONFIG", dict(script.BENCHMARK_CONFIG))
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "math_sample_20.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *((f"What is {n} plus {n}?", 2 * n) for n in range(60))])
    return tmp_path


def without_spending(command: str) -> list[str]:
    """The command's flags, with --dry-run and with the samples where it would need a folder or the hub."""
    flags = shlex.split(command, comments=True)[2:]
    if "--data" in flags:
        flags[flags.index("--data") + 1] = "sample"
    elif not any(flag.endswith(".csv") for flag in flags) and "--quick" not in flags:
        flags += ["--data", "sample"]
    return flags if {"--dry-run", "--estimate-cost"} & set(flags) else [*flags, "--dry-run"]


def test_the_table_holds_the_commands_of_all_four_documents() -> None:
    said = " ".join(row[0] for row in COMMANDS)
    for word in (
        "run_scaling_experiment.py", "run_single_experiment", "analyze_results.py", "run_synth_mipro_banking77.py",
        "run_dspy_mipro_banking77.py", "run_comparison.py", "src.main run", "run_scaling_simple.py",
        "estimate_scaling_costs.py", "analyze_results_simple.py", "analyze_scaling_simple.py", "run_scaling_study.py",
    ):  # fmt: skip
        assert word in said, word
    assert len(RUNS) >= 10 and ANALYSES
    known = ("make ", "python ", "the same")
    assert not [row[1] for row in COMMANDS if not row[1].startswith(known)]


LONG = "--study self-correction "  # 288 cells to estimate


@pytest.mark.parametrize(
    "command", [pytest.param(run, marks=only_in_chaos) if LONG in f"{run} " else run for run in RUNS]
)
def test_a_run_is_planned_as_written(command: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    before = tree(folder)
    assert script.main(without_spending(command)) == 0
    said = capsys.readouterr().out
    assert re.search(r" cells? to run on ", said) and "in total " in said
    assert tree(folder) == before


@pytest.mark.parametrize("command", ANALYSES)
def test_an_analysis_reads_what_a_run_wrote(
    command: str, folder: Path, experiment: Callable, capsys: pytest.CaptureFixture
) -> None:
    flags = shlex.split(command, comments=True)[2:]
    into = Path(flags[flags.index("--results-dir") + 1]) if "--results-dir" in flags else Path("results")
    for steps in (1, 3):
        experiment(num_steps=steps, output_dir=folder / into / f"cell{steps}")
    assert analyze_results.main([*flags, "--output-dir", str(folder)]) == 0
    assert (folder / "summary_results.md").exists() and (folder / "report.html").exists()
    assert "wrote" in capsys.readouterr().out


@pytest.mark.parametrize("row", COSTS, ids=[row[0] for row in COSTS])
def test_the_estimates_that_are_quoted_are_those_of_the_program(row: list[str], capsys: pytest.CaptureFixture) -> None:
    _, flags, cells, calls, dollars = row
    assert script.main([*flags.split(), "--data", "sample", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f" {cells} cells to run" in said
    found = re.search(r"^in total (\S+) calls, \S+ tokens, (\S+);", said, re.MULTILINE)
    assert found.groups() == (calls, dollars)


def test_the_one_liner_is_the_one_that_is_run_elsewhere() -> None:
    assert README.count("asyncio.run(run_single_experiment(benchmark='banking77'") == 1


def test_what_the_seed_sums_divide_to_is_said_rightly() -> None:
    per_row = {"$0.02": 0.02 / 200, "$1.77": 1.77 / 4_000, "$30.54": 30.54 / 24_000, "$247.68": 247.68 / 8_400}
    quoted = dict(re.findall(r"(\$[\d.]+) / [\d,]+ = \$([\d.]+)", PAGE))
    assert quoted.keys() == per_row.keys(), json.dumps(quoted)
    for total, value in per_row.items():
        assert float(quoted[total]) == pytest.approx(value, rel=0.02)
