"""The installed program: five commands that work from any folder, and a progress bar in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from scaling.testing import ScriptedServer

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "run-scaling-experiment", "analyze-results", "create-pipeline-configs", "package-results", "export-results",
)  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program installed from a wheel of the files that git keeps."""
    folder = tmp_path_factory.mktemp("install")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    target = ["--target", str(folder / "site"), str(folder / "source")]
    subprocess.run([*pip, *target], check=True, capture_output=True, timeout=120)
    return folder / "site"


def installed(site: Path, command: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of the installed program, run in another folder."""
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    script = [sys.executable, str(site / "bin" / command), *flags]
    return subprocess.run(script, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_the_installed_runner_plans_a_sweep_in_any_folder(site: Path, tmp_path: Path) -> None:
    ended = installed(site, "run-scaling-experiment", "--quick", "--dry-run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "study quick: " in ended.stdout
    assert not list(tmp_path.iterdir())


def test_the_other_installed_commands_work_in_any_folder(site: Path, tmp_path: Path) -> None:
    ended = installed(site, "create-pipeline-configs", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(list((tmp_path / "benchmarks").rglob("*.toml"))) == 20
    for command in ("analyze-results", "package-results"):
        ended = installed(site, command, "--results-dir", "none", cwd=tmp_path)
        assert ended.returncode == 2 and "no results" in ended.stderr, ended.stderr
    ended = installed(site, "export-results", "none", "--to", "parquet", cwd=tmp_path)
    assert ended.returncode == 2 and "no results" in ended.stderr, ended.stderr


def test_the_commands_are_those_of_the_scripts() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {name: f"{name.replace('-', '_')}:main" for name in COMMANDS}


CELL = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import run_scaling_experiment as script
from run_scaling_experiment import BENCHMARK_CONFIG, run_single_experiment
from {server} import ScriptedServer
from tests.support import toy
BENCHMARK_CONFIG["toy"] = toy.config()
with ScriptedServer(skill=lambda body: 0.6, truth=toy.truth()) as server:
    record = await run_single_experiment(
        benchmark="toy", num_steps=1, optimizer="mipro", output_dir=Path({output!r}), rollout_budget=40,
        model="openai/scripted", api_base=server.url, data="sample", train_size=10, val_size=20, test_size=20,
    )
record["status"]
"""


def test_the_first_thing_in_a_notebook_works_and_shows_a_bar(tmp_path: Path) -> None:
    code = CELL.format(root=str(ROOT), output=str(tmp_path / "cell"), server=ScriptedServer.__module__)
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = notebook.cells[0].outputs
    assert outputs[-1].data["text/plain"] == "'ok'"
    (bar,) = [
        output.data["text/html"] for output in outputs if "<progress" in output.get("data", {}).get("text/html", "")
    ]
    assert 'value="1.000"' in bar and "1 ok" in bar
    shown = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "1 cell to run on openai/scripted" in shown and "ok          toy 1step mipro" in shown
    assert "Average Metric" not in shown and "Bootstrapping" not in shown
