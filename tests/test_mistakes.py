"""The typical mistakes of somebody new: each is one line that says what to type, and exit code 2."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar

import pytest

import analyze_results
import create_pipeline_configs
import package_results
import run_scaling_experiment as script
from scaling.planning.study import load_study
from scaling.types import UsageError

ROOT = Path(script.__file__).parent
QUICK = ["--quick", "--dry-run"]


@pytest.mark.parametrize(
    ("flags", "nearest"),
    [
        (["--benchmarks", "bankng77"], "banking77"),
        (["--models", "local/smollm2-135"], "local/smollm2-135m"),
        (["--optimizers", "gepaa"], "gepa"),
        (["--study", "pipelin"], "pipeline"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    flags: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*QUICK, *flags]) == 2
    assert f"(did you mean '{nearest}'?)" in capsys.readouterr().err


def test_a_name_like_no_other_is_answered_with_the_list_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([*QUICK, "--benchmarks", "zzz"]) == 2
    assert "unknown benchmark 'zzz'; possible: banking77" in capsys.readouterr().err


def test_a_misspelt_field_of_a_study_is_answered_with_the_nearest(tmp_path: Path) -> None:
    study = tmp_path / "mine.toml"
    study.write_text("stepz = [1]\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"unknown fields stepz \(did you mean 'steps'\?\)"):
        load_study(str(study))


@pytest.mark.parametrize("folder", ["taken", "taken/below"])
def test_an_output_folder_that_is_a_file_is_refused_before_the_plan(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine", encoding="utf-8")
    target = str(tmp_path / folder)

    assert script.main([*QUICK, "--output-dir", target]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert "taken is a file. Give a folder." in printed.err

    assert analyze_results.main(["--output-dir", target]) == 2
    assert "taken is a file. Give a folder." in capsys.readouterr().err
    assert taken.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("main", [analyze_results.main, create_pipeline_configs.main, package_results.main])
@pytest.mark.parametrize("flags", [["--nonsense"], ["somewhere"]])
def test_a_flag_that_no_command_has_is_one_line(
    main: Callable[[list[str]], int], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: unrecognized arguments: {flags[0]}. Type --help for all flags.\n"


def test_a_plan_is_one_write_so_that_two_beside_each_other_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        writes: ClassVar[list[str]] = []

        def write(self, text: str) -> int:
            self.writes.append(text)
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Screen())
    assert script.main(QUICK) == 0
    (plan,) = Screen.writes
    assert plan.startswith("study quick: 6 cells to run") and plan.endswith("\n")


def test_what_the_commands_write_beside_the_program_is_not_for_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    written = re.findall(r"summary_[a-z]+\.[a-z]+|report\.html", (ROOT / "analyze_results.py").read_text())
    assert len(set(written)) >= 6
    for name in [*written, "package.tar.gz", "results.zip"]:
        assert any(fnmatch(f"/{name}", pattern) or fnmatch(name, pattern) for pattern in ignored), name


@pytest.mark.parametrize("output", ["folder", "file/package.tar.gz"])
def test_an_archive_that_cannot_be_written_is_refused_before_it_is_made(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert package_results.main(["--results-dir", str(tmp_path), "--output", str(tmp_path / output)]) == 2
    assert "error: --output" in capsys.readouterr().err
