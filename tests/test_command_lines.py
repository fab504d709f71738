"""What surrounds a command: an output that nobody reads, a Python without docstrings, files that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

import analyze_results
import create_pipeline_configs
import export_results
import package_results
import run_scaling_experiment as script
from scaling.testing import ScriptedServer
from scaling.types import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from tests.support.files import read

FULL = "CHAOS" in os.environ
ROOT = Path(script.__file__).parent
COMMANDS = ["run_scaling_experiment", "analyze_results", "create_pipeline_configs", "package_results", "export_results"]
TOO_LONG = "x" * 5000


@contextmanager
def a_pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe: the end that reads, and a stream that writes to it."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield reader, stream


def one_line(said: str) -> str:
    assert said.startswith("error: ") and len(said.splitlines()) == 1 and len(said) < 500, said
    return said


@pytest.mark.parametrize("command", COMMANDS if FULL else ["create_pipeline_configs"])
def test_an_output_that_is_closed_is_no_traceback(command: str, tmp_path: Path) -> None:
    """As `| head -1`, but closed before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    plan = ["--dry-run", "--data", "sample", "--benchmarks", "banking77"]
    flags = {"create_pipeline_configs": ["--output-dir", str(tmp_path)], "run_scaling_experiment": plan}
    ended = subprocess.run(
        [sys.executable, str(ROOT / f"{command}.py"), *flags.get(command, ["--help"])],
        stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False, timeout=60,
    )  # fmt: skip
    os.close(writer)
    # Of its help, which is all that the others show here, argparse does not say that it could not be written.
    assert (ended.returncode, ended.stderr) == (EXIT_INTERRUPTED if command in flags else EXIT_OK, "")


def test_a_plan_that_nobody_reads_starts_nothing(
    command: Callable[..., list[str]], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_pipe() as (reader, stream):
        monkeypatch.setattr(sys, "stdout", stream)
        os.close(reader)
        assert script.main(command()) == EXIT_INTERRUPTED
    assert not server.requests


def test_a_sweep_whose_reader_leaves_stops_and_continues_later(
    command: Callable[..., list[str]], server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_pipe() as (reader, stream), monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        server.fault = lambda n, body: os.close(reader) if n == 0 else None
        line = command(steps="1 2", max_concurrency="1")
        assert script.main(line) == EXIT_INTERRUPTED
    statuses = sorted(read(path)["status"] for path in tmp_path.rglob("results.json"))
    assert statuses == ["interrupted", "ok"]  # the first line that could not be written was that of the first cell
    asked = len(server.requests)
    assert script.main(line) == EXIT_OK
    assert len(server.requests) > asked


@pytest.mark.parametrize("command", COMMANDS if FULL else ["create_pipeline_configs"])
def test_a_python_without_docstrings_is_refused(command: str, tmp_path: Path) -> None:
    """They hold the instructions that models are given."""
    ended = subprocess.run(
        [sys.executable, "-OO", str(ROOT / f"{command}.py")], capture_output=True, text=True, cwd=tmp_path,
        check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == EXIT_USAGE and ended.stdout == ""
    assert "python -OO" in one_line(ended.stderr)


@pytest.mark.parametrize(
    ("main", "flag"),
    [
        *((script.main, f"--{name}") for name in ("output-dir", "models-file", "data", "api-base", "study")),
        (script.main, "--benchmarks"), (analyze_results.main, "--output-dir"),
        (analyze_results.main, "--results-dir"), (create_pipeline_configs.main, "--output-dir"),
        (create_pipeline_configs.main, "--study"), (package_results.main, "--output"),
        (package_results.main, "--results-dir"),
        (lambda words: export_results.main(["none", "--to", "parquet", *words]), "--out"),
    ],
)  # fmt: skip
def test_a_path_that_is_too_long_is_one_line(
    main: Callable[[list[str]], int], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ending = {"--study": ".toml", "--models-file": ".toml", "--benchmarks": ".csv"}.get(flag, "")
    prefix = "http://" if flag == "--api-base" else ""
    assert main([flag, prefix + TOO_LONG + ending]) == EXIT_USAGE
    one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken", ["summary_results.csv", "visualizations", "report.html"])
def test_a_table_that_cannot_be_written_is_one_line(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    assert script.main(command()) == EXIT_OK
    output = tmp_path / "analysis"
    output.mkdir()
    if taken == "visualizations":
        (output / taken).write_text("a file")
    else:
        (output / taken).mkdir()
    capsys.readouterr()
    assert analyze_results.main(["--results-dir", "out", "--output-dir", str(output)]) == EXIT_USAGE
    assert taken in one_line(capsys.readouterr().err)


def test_a_config_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "banking77").write_text("a file")
    assert create_pipeline_configs.main(["--output-dir", str(tmp_path)]) == EXIT_USAGE
    assert "banking77" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("name", ["..", ".", "a\nb"])
def test_a_benchmark_whose_name_is_no_folders_name_is_refused(
    command: Callable[..., list[str]], toy: Callable[..., object], refused: Callable[[list[str]], str], name: str
) -> None:
    toy(name)
    line = [name if word == "toy" else word for word in command()]
    assert "becomes the name of a folder" in refused(line)
