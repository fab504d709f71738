"""The pages say what is true: links, commands, flags, make targets, and the picture of the folders."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import analyze_results
import create_pipeline_configs
import export_results
import package_results
import run_scaling_experiment
from scaling.models import load_registry
from scaling.planning.budgets import select_size
from scaling.planning.plan import expand
from scaling.planning.study import load_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = (run_scaling_experiment, analyze_results, create_pipeline_configs, package_results, export_results)


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
    with pytest.raises(SystemExit):
        analyze_results.main([analyze_results.COMPARE, "--help"])
    known = set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out))
    scripts = "run_scaling_experiment|analyze_results|export_results"
    commands = [
        line for page in PAGES for line in text_of(page).splitlines()
        if re.match(rf"(\||`|\s|python |\.venv/bin/python )*({scripts})\.py", line)
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


def test_the_plan_says_what_the_demo_is() -> None:
    """plan.txt, section 14, and scaling/studies/quick.toml."""
    section = text_of(ROOT / "plan.txt").split("14. The demo", 1)[1].split("\n15. ", 1)[0]
    cells = expand(load_study("quick"), run_scaling_experiment.BENCHMARK_CONFIG, load_registry())
    said = " ".join(section.split())
    assert f"--quick runs {len(cells)} cells" in said
    for benchmark in {cell.benchmark for cell in cells}:
        own = [cell for cell in cells if cell.benchmark == benchmark]
        steps = " and ".join(str(n) for n in sorted({cell.steps for cell in own}))
        labels = f" ({own[0].labels} intents)" if own[0].labels else ""
        assert f"{benchmark}{labels} x {steps} step" in said
    (budget, rows, select), = {
        (cell.rollout_budget, cell.test_size, select_size(cell.val_size, cell.rollout_budget)) for cell in cells
    }  # fmt: skip
    assert f"B = {budget}, V = {select}, {rows} test rows" in said


def test_the_interpreters_are_the_same_everywhere() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    lowest, above = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()  # type: ignore[union-attr]
    highest = int(above) - 1
    assert f"(3, {lowest}) <= sys.version_info[:2] <= (3, {highest})" in text_of(ROOT / "Makefile")
    for page in (ROOT / "README.md", ROOT / "Makefile", ROOT / "package_results.py"):
        assert f"Python 3.{lowest} to 3.{highest}" in text_of(page)


def test_requirements_alone_are_what_the_program_imports() -> None:
    """Everything that is imported outside of tests, benches and lint comes with requirements.txt."""
    lines = [line.split("#")[0].strip() for line in text_of(ROOT / "requirements.txt").splitlines()]
    waiting = [Requirement(line) for line in lines if line]
    installed: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if canonicalize_name(wanted.name) not in installed:
            installed.add(canonicalize_name(wanted.name))
            for line in metadata.requires(wanted.name) or []:
                needed = Requirement(line)
                extras = [{"extra": extra} for extra in ("", *wanted.extras)]
                if needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras):
                    waiting.append(needed)
    comes_from = metadata.packages_distributions()
    imported = {root for path in _program() for root in _roots_of(path)} - set(sys.stdlib_module_names)
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"].values()
    optional = {Requirement(line).name for extra in extras for line in extra}
    outside = imported - {"scaling", "benchmarks", "IPython", *optional, *(path.stem for path in ROOT.glob("*.py"))}
    assert not {name for name in outside if not {canonicalize_name(d) for d in comes_from[name]} & installed}


def _program() -> list[Path]:
    return [*(ROOT / "scaling").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *ROOT.glob("*.py")]


def _roots_of(path: Path) -> set[str]:
    """The packages that a file imports."""
    nodes = list(ast.walk(ast.parse(text_of(path))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}
