"""The pages say what is true: links, commands, flags, make targets, and the picture of the folders."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import analyze_results
import create_pipeline_configs
import package_results
import run_scaling_experiment

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = (run_scaling_experiment, analyze_results, create_pipeline_configs, package_results)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page))
    local = [link for link in links if not link.startswith("http")]
    assert not [link for link in local if not (page.parent / link).exists()]


def test_the_readme_leads_to_every_page_and_is_short() -> None:
    readme = text_of(ROOT / "README.md")
    assert not [page.name for page in PAGES[1:] if f"{page.name})" not in readme]
    assert len(readme.splitlines()) <= 170


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([\w.]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"(?:`|^)make ([\w.]+)", text_of(page), re.MULTILINE)}
    assert named and named <= targets


def test_flags_that_are_named_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for script in SCRIPTS:
        with pytest.raises(SystemExit):
            script.main(["--help"])
    known = set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out))
    commands = [
        line for page in PAGES for line in text_of(page).splitlines()
        if re.match(r"(\||`|\s|python |\.venv/bin/python )*(run_scaling_experiment|analyze_results)\.py", line)
    ]  # fmt: skip
    named = {flag for line in commands for flag in re.findall(r"--[a-z][\w-]+", line.split("#")[0])}
    assert named and named <= known


def test_the_picture_of_the_folders_is_that_of_the_code() -> None:
    """Type: make architecture."""
    drawing = _drawing()
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.svg()


def test_folders_have_no_circle_and_the_analysis_stands_apart() -> None:
    graph = _drawing().arrows()
    assert _drawing().floors(graph)  # raises CycleError
    assert graph["scaling/analysis"] <= {"scaling", "scaling/planning", "scaling/records"}
    assert len(graph) >= 7


def test_the_example_of_the_scripted_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = text_of(ROOT / "docs" / "extending.md")
    example = re.search(r"<!-- example: scripted server -->\n```python\n(.*?)```", page, re.DOTALL)
    assert example
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(example[1], found)
    assert found["record"]["status"] == "ok" and found["server"].requests


def _drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
