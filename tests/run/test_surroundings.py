"""Sweeps where little is given: few open files, a small disk, a folder with an unusual name."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling.testing import ScriptedServer
from scaling.types import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from tests.support.chaos import only_in_chaos
from tests.support.files import read
from tests.support.sweeps import ROOT, write_study

FULL = "CHAOS" in os.environ
KILOBYTES = {"50 MB": 50_000, "next to nothing": 320}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def sweep(flags: list[str], output: Path, first: str = "true") -> tuple[int, str]:
    """The command in a shell of its own, after `first`."""
    command = [sys.executable, str(ROOT / "run_scaling_experiment.py"), *flags, "--output-dir", str(output)]
    shell = ["bash", "-c", f"{first} && exec {shlex.join(command)}"]
    ended = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=120, cwd=output.parent)
    return ended.returncode, ended.stdout + ended.stderr


def statuses(output: Path) -> set[str]:
    return {read(path)["status"] for path in output.rglob("results.json")}


@only_in_chaos
@pytest.mark.parametrize("limit", ["32", "100"] if FULL else ["100"])
def test_a_sweep_keeps_within_256_open_files(server: ScriptedServer, tmp_path: Path, limit: str) -> None:
    server.latency = 0.05  # so that calls pile up
    flags = write_study(tmp_path, server.url, [1, 2], ["gepa", "mipro"] if FULL else ["none"], 12)
    code, said = sweep([*flags, "--max-concurrency", limit], tmp_path / "out", "ulimit -n 256")
    assert code == EXIT_OK, said
    assert statuses(tmp_path / "out") == {"ok"}


def test_more_calls_at_a_time_than_files_may_be_open_is_one_clear_line(server: ScriptedServer, tmp_path: Path) -> None:
    flags = write_study(tmp_path, server.url, [1], ["none"], 2)
    code, said = sweep([*flags, "--max-concurrency", "300"], tmp_path / "out", "ulimit -n 256")
    assert code == EXIT_USAGE, said
    assert "need 366 open files, and this shell allows 256. Type --max-concurrency 96" in said
    assert "Traceback" not in said and not server.requests


def test_a_folder_with_spaces_and_letters_of_other_alphabets(server: ScriptedServer, tmp_path: Path) -> None:
    folder = tmp_path / "Über uns – 实验 'a' $HOME"
    flags = write_study(folder, server.url, [1], ["none"], 1)
    code, said = sweep(flags, folder / "ré sultats", "export LC_ALL=C PYTHONUTF8=0")
    assert code == EXIT_OK, said
    assert statuses(folder / "ré sultats") == {"ok"}
    analysis = [
        sys.executable,
        str(ROOT / "analyze_results.py"),
        "--results-dir",
        "ré sultats",
        "--output-dir",
        "ré port",
    ]
    if FULL:
        subprocess.run(analysis, check=True, cwd=folder, capture_output=True)
        assert (folder / "ré port" / "report.html").exists()


@pytest.mark.skipif(not FULL, reason="mounts a disk: make chaos")
@pytest.mark.parametrize("size", KILOBYTES)
def test_a_small_disk(server: ScriptedServer, tmp_path: Path, size: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={KILOBYTES[size]}k", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a disk")
    try:
        flags = write_study(tmp_path, server.url, [1, 2], ["gepa", "mipro"], 2)
        code, said = sweep(flags, disk / "out")
        assert "Traceback" not in said
        if size == "50 MB":
            assert code == EXIT_OK, said
            return
        assert code in (EXIT_FAILED, EXIT_INTERRUPTED), said
        assert "error: cannot write" in said or "the cache cannot be used" in said, said
        subprocess.run(["mount", "-o", "remount,size=50000k", str(disk)], check=True)
        code, said = sweep(flags, disk / "out")  # nothing that was paid for is in the way
        assert code == EXIT_OK, said
    finally:
        subprocess.run(["umount", str(disk)], check=True)
