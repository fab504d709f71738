"""Who may import whom: the scripts everything, the benchmarks the contract, the analysis no DSPy."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in (ROOT / "scaling").rglob("*.py")
    if path.stem != "__init__"
}
FOLDERS = sorted(path.name for path in (ROOT / "scaling").iterdir() if (path / "__init__.py").exists())
# Task apps are scripts: they put a benchmark and the library together.
TASK_APPS = sorted((ROOT / "benchmarks").rglob("*_task_app.py"))
BENCHMARK_FILES = sorted(set((ROOT / "benchmarks").rglob("*.py")) - set(TASK_APPS))
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
OF_ANALYSIS = ("scaling.analysis.", "scaling.readers.", "scaling.compare.")
ANALYSIS = sorted(name for name in LIBRARY if name.startswith(OF_ANALYSIS))


@cache
def imports(path: Path) -> frozenset[str]:
    """Full names of all modules that a file imports, at its top or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide who imports whom"
            # `from scaling import lm` imports a module, `from scaling.llm.gateway import Gateway` a name.
            packages = {"scaling", "benchmarks"} | {f"scaling.{folder}" for folder in FOLDERS}
            found |= {f"{node.module}.{n.name}" for n in node.names} if node.module in packages else {node.module}
    return frozenset(found)


def roots(names: set[str] | frozenset[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def reached(start: str) -> set[str]:
    """Everything that a module of the library imports, itself or through other modules of the library."""
    found, waiting = set(), [start]
    while waiting:
        names = imports(LIBRARY[waiting.pop()])
        waiting += sorted((names - found) & set(LIBRARY))
        found |= names
    return found


@pytest.mark.parametrize("path", BENCHMARK_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_benchmark_needs_dspy_and_the_contract_only(path: Path) -> None:
    names = imports(path)
    allowed = {"dspy", "benchmarks", "scaling"} | set(sys.stdlib_module_names)
    if path.name == "sources.py":
        # The one place that speaks to the hub, and only when it is asked to.
        allowed |= {"datasets", "huggingface_hub"}
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [node for node in top if "datasets" in ast.dump(node) or "huggingface" in ast.dump(node)]

    if path.name == "judge.py":
        allowed |= {"math_verify"}  # a process of its own, which answers.py starts

    if path.parent.name == "toolqa":
        allowed.add("duckdb")  # its tables
    if path.name == "release.py" and path.parent.name == "benchmarks":
        allowed.add("duckdb")  # Parquet files
    assert roots(names) <= allowed
    # Of the library, the contract; and the sandbox for a benchmark whose metric runs programs.
    contract = {"scaling.types"}
    if path.parent.name == "humaneval":
        contract |= {"scaling.sandbox.deno", "scaling.sandbox.programs"}
    contract |= {"scaling.arguments"} if path.name == "prepare.py" else set()  # a command
    assert {name for name in names if name.startswith("scaling")} <= contract


@pytest.mark.parametrize("path", TASK_APPS, ids=lambda path: path.stem)
def test_a_task_app_hands_its_benchmark_to_the_library_and_no_more(path: Path) -> None:
    assert imports(path) == {"sys", "benchmarks.banking77", "scaling.hosted.task_app"}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 12


def test_only_hosted_jobs_need_a_web_server() -> None:
    web = {"fastapi", "starlette", "uvicorn", "httpx", "nacl", "anyio"}
    without = {"scaling.hosted.settings", "scaling.hosted.prompts"}
    at_the_edge = {name for name in LIBRARY if name.startswith("scaling.hosted.")} - without
    at_the_edge.add("scaling.testing.synth_backend")
    # Batches are larger than the bounded connections of live calls; who asks for none does not load them.
    at_the_edge |= {f"scaling.llm.batch_{name}" for name in ("http", "apis", "round", "queue")}
    for name, path in LIBRARY.items():
        assert name in at_the_edge or not roots(imports(path)) & web, name
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        said = " ".join(ast.dump(node) for node in top)
        assert name in at_the_edge or not [edge for edge in at_the_edge if edge in said], name


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_the_library_knows_neither_scripts_nor_benchmarks(name: str) -> None:
    assert not roots(imports(LIBRARY[name])) & ({"benchmarks", "tests"} | SCRIPTS)


@pytest.mark.parametrize("name", [*ANALYSIS, "scaling.records.store", "scaling.types", "scaling.intervals"])
def test_the_analysis_needs_no_dspy(name: str) -> None:
    found = reached(name)
    assert not roots(found) & {"dspy", "litellm", "gepa", "optuna"}
    others = tuple(f"scaling.{folder}." for folder in ("run", "llm", "hosted", "distributed"))
    assert not {module for module in found if module.startswith(others)}


def test_one_module_knows_dask_and_none_imports_it_at_its_top() -> None:
    knowing = {name for name, path in LIBRARY.items() if roots(imports(path)) & {"dask", "distributed"}}
    assert knowing == {"scaling.distributed.engine"}
    for path in [*LIBRARY.values(), *(ROOT / f"{name}.py" for name in SCRIPTS)]:
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "engine" not in {name.name.split(".")[-1] for node in top for name in node.names}, path


def test_the_run_half_is_what_it_is_told_apart_from() -> None:
    # The search above finds DSPy where it is.
    assert "dspy" in roots(reached("scaling.run.runner"))
    assert "dspy" in roots(imports(LIBRARY["scaling.llm.gateway"]))
    assert {"scaling.records.store", "scaling.types", "scaling.intervals"} <= set(LIBRARY)


def test_no_module_reaches_itself() -> None:
    assert not [name for name in LIBRARY if name in reached(name)]


def folder(name: str) -> str:
    """A module's folder: 'run' for scaling.run.runner, '' for what lies in scaling itself."""
    return name.split(".")[1] if name.count(".") > 1 else ""


def test_folders_have_no_circle_and_one_of_them_chooses_where_cells_run() -> None:
    arrows = {(folder(a), folder(b)) for a, path in LIBRARY.items() for b in imports(path) & set(LIBRARY)}
    below = {"": {""}, "records": {""}, "planning": {""}, "sandbox": {""}}
    below |= {"llm": {"", "records"}, "analysis": {"", "records", "planning"}}
    below["readers"] = {"", "records", "analysis"}
    below["compare"] = {"", "records", "analysis", "readers"}
    below["run"] = {"", "records", "planning", "llm"}
    below |= {name: below["run"] | {"run"} for name in ("hosted", "distributed")}
    below |= {"export": {"", "records", "planning"}, "portable": below["run"] | {"run"}}
    below["command"] = below["hosted"] | {"hosted", "distributed", "analysis", "export", "portable"}
    assert not {(a, b) for a, b in arrows if b != a and b not in below.get(a, {b})}


@pytest.mark.parametrize(
    "name", ["scaling.planning.plan", "scaling.planning.optimizers", "scaling.pipelines", "scaling.planning.budgets"]
)
def test_the_plan_and_its_tables_need_no_dspy(name: str) -> None:
    assert not roots(reached(name)) & {"dspy", "litellm", "gepa", "optuna"}
