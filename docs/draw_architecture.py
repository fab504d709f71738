"""Draw docs/architecture.svg from the code's own imports: a box for each folder, above all that it imports.

`make architecture` runs it; tests/test_docs.py holds the picture against the code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
TESTING = ROOT / "scaling" / "testing"
COMMANDS = "the commands"
WIDTH, BOX_WIDTH, BOX_HEIGHT, FLOOR_HEIGHT, MARGIN = 1240, 280, 84, 140, 20
# What a box says below its name; a folder that is not here is drawn without words.
WORDS = {
    COMMANDS: "run_scaling_experiment, analyze_results, create_pipeline_configs, package_results, export_results",
    "benchmarks": "one package each: data, signature, metric, sample rows",
    "scaling": "what all others share: types, data, models, pipelines, intervals",
    "scaling/command": "flags, checks before the first call, the printed plan, the choice of engine",
    "scaling/records": "the files of a results folder: types, paths, reading, writing",
    "scaling/planning": "from a study to a list of cells, without DSPy",
    "scaling/sandbox": "programs that models wrote, run where they reach nothing",
    "scaling/llm": "the gateway of all LLM calls: cache, limits, meter, local server",
    "scaling/run": "one cell and one sweep: pipelines, optimizers, scoring, records",
    "scaling/analysis": "records to statistics, tables, figures and the report",
    "scaling/export": "records to the formats of other programs, and to trackers",
    "scaling/portable": "a cell's program as plain data that runs without DSPy",
    "scaling/readers": "results of this and other programs as one type of rows",
    "scaling/compare": "whose answers to the same rows are better",
    "scaling/hosted": "the hosted optimizer, its client and its task app",
    "scaling/distributed": "cells on other processes and machines, with Dask",
}


def folder_of(path: Path) -> str:
    """The box of a file: its folder, the library's two levels deep; scripts that users start are the commands."""
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1 or path.parent.name.startswith("pipeline_"):
        return COMMANDS
    return "/".join(parts[:-1][:2]) if parts[0] == "scaling" else parts[0]


def source_files() -> list[Path]:
    """The code that is drawn: the commands, the benchmarks and the library, without what only tests use."""
    nested = [path for top in ("benchmarks", "scaling") for path in (ROOT / top).rglob("*.py")]
    return sorted(path for path in [*ROOT.glob("*.py"), *nested] if TESTING not in path.parents)


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    """The project's file that a dotted name leads to; None for other packages."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:length])
        for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def arrows() -> dict[str, set[str]]:
    """Folder -> the folders that its files import."""
    found: dict[str, set[str]] = {}
    for path in source_files():
        own = folder_of(path)
        targets = (file_of(module) for module in imported_modules(path))
        found.setdefault(own, set()).update(folder_of(target) for target in targets if target)
        found[own].discard(own)
    return found


def floors(graph: dict[str, set[str]]) -> list[list[str]]:
    """The boxes floor by floor from the ground, each as high as those that import it allow.

    Boxes with long arrows stand outside, where the arrows pass nobody. Raises CycleError for a circle.
    """
    above = {folder: {other for other, targets in graph.items() if folder in targets} for folder in graph}
    depth: dict[str, int] = {}
    for folder in TopologicalSorter(above).static_order():
        depth[folder] = 1 + max((depth[other] for other in above[folder]), default=-1)
    lowest = max(depth.values())
    drop = {folder: min((depth[t] for t in graph[folder]), default=lowest) - depth[folder] for folder in graph}
    storeys = []
    for number in range(lowest, -1, -1):
        storey = sorted(sorted((f for f in depth if depth[f] == number), reverse=True), key=lambda f: -drop[f])
        storeys.append([*storey[0::2], *reversed(storey[1::2])])
    return storeys


def needed(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no longer way through other boxes implies."""

    def reaches(start: str, goal: str) -> bool:
        return goal in graph[start] or any(reaches(middle, goal) for middle in graph[start])

    return sorted(
        (source, target)
        for source, targets in graph.items()
        for target in targets
        if not any(reaches(middle, target) for middle in targets - {target})
    )


def svg() -> str:
    """The picture as text."""
    graph = arrows()
    storeys = floors(graph)
    height = 2 * MARGIN + FLOOR_HEIGHT * (len(storeys) - 1) + BOX_HEIGHT
    places = {}
    for number, storey in enumerate(storeys):
        y = height - MARGIN - FLOOR_HEIGHT * number - BOX_HEIGHT
        below_the_top = number == len(storeys) - 2
        places |= {folder: (_centre(i, len(storey), wide=below_the_top), y) for i, folder in enumerate(storey)}
    lines = [_arrow(places[source], places[target]) for source, target in needed(graph)]
    boxes = [_box(folder, *place) for folder, place in sorted(places.items())]
    head = '<marker id="head" orient="auto" markerWidth="8" markerHeight="8" refX="7" refY="4">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
            f'<defs>{head}<path d="M0,0 L8,4 L0,8 z" fill="#567"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _centre(column: int, boxes: int, wide: bool) -> float:
    """Where a box of a floor stands: close together, or over the whole width, so that arrows pass outside others."""
    gap = WIDTH / boxes if wide else BOX_WIDTH + 30
    return WIDTH / 2 + gap * (column - (boxes - 1) / 2)


def _arrow(source: tuple[float, float], target: tuple[float, float]) -> str:
    """From a box's lower edge to another's upper edge. It falls straight until it is one floor above its target."""
    (x1, y1), (x2, y2) = source, target
    shift = max(-1.0, min(1.0, (x2 - x1) / BOX_WIDTH)) * 0.4 * BOX_WIDTH
    last_floor = y2 - (FLOOR_HEIGHT - BOX_HEIGHT)
    falls = last_floor > y1 + BOX_HEIGHT
    outwards = 0.4 * BOX_WIDTH * ((x1 > WIDTH / 2) - (x1 < WIDTH / 2))
    start = x1 + (outwards if falls else shift)
    points = [(start, y1 + BOX_HEIGHT), *([(start, last_floor)] if falls else []), (x2 - shift, y2)]
    path = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="#567" stroke-width="1.5" marker-end="url(#head)"/>'


def _box(folder: str, x: float, y: float) -> str:
    left = x - BOX_WIDTH / 2
    style = 'rx="6" fill="#eef3f8" stroke="#567"'
    words = wrap(WORDS.get(folder, ""), 44)
    return "\n".join(
        [
            f'<rect x="{left:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" {style}/>',
            _text(x, y + 24, folder, 'font-size="16" font-weight="bold"'),
            *(_text(x, y + 44 + 16 * number, line, 'font-size="12" fill="#345"') for number, line in enumerate(words)),
        ]
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" {style}>{text}</text>'


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
